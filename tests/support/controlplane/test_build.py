"""Where the programs of the test cluster come from."""

from pathlib import Path

import pytest

from tests.support.controlplane.build import installed_program, pinned_version

KUBERNETES = pinned_version("k8s.io/kubernetes")
ETCD = pinned_version("go.etcd.io/etcd/server/v3").removeprefix("v")


@pytest.mark.parametrize(
    ("program", "script", "is_taken"),
    [
        pytest.param("kube-apiserver", f"echo Kubernetes {KUBERNETES}", True, id="the pinned version is taken"),
        pytest.param("etcd", f"echo etcd Version: {ETCD}; echo Go Version: go1.24.1", True, id="so is etcd's"),
        pytest.param("kube-apiserver", "echo Kubernetes v1.30.0", False, id="another version is not"),
        pytest.param("kube-apiserver", f"echo Kubernetes {KUBERNETES}-alpha.1", False, id="nor a pre-release of it"),
        pytest.param("kube-apiserver", "exit 1", False, id="nor one that can not tell its version"),
        pytest.param("training-operator", f"echo {KUBERNETES}", False, id="the training-operator is always built"),
    ],
)
def test_an_installed_program_is_taken_only_if_it_has_the_pinned_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, script: str, *, is_taken: bool
) -> None:
    path = tmp_path / program
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert installed_program(program) == (path if is_taken else None)

"""Our reader of YAML against kubectl's, scalar by scalar."""

import json
from typing import Any

import pytest

from tests.operator.cli.test_yamltree import SCALARS
from tests.support.controlplane import ControlPlane

pytestmark = pytest.mark.e2e

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: scalars}\n"


def test_kubectl_reads_every_scalar_as_we_do(control_plane: ControlPlane) -> None:
    text = HEAD + "values:\n" + "".join(f"  v{n}: {scalar}\n" for n, (scalar, _) in enumerate(_inline()))
    answer = control_plane.kubectl(
        ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"], stdin=text
    )
    read = json.loads(answer)["values"]
    found = {scalar: read.get(f"v{n}") for n, (scalar, _) in enumerate(_inline())}
    assert found == dict(_inline())
    assert {scalar: type(value) is bool for scalar, value in found.items()} == {
        scalar: type(value) is bool for scalar, value in _inline()
    }


def _inline() -> list[tuple[str, Any]]:
    return [(scalar, value) for scalar, value in SCALARS if "\n" not in scalar]

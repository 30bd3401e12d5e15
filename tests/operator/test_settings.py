"""Settings: what is read, and what is said of what can not be used."""

from pathlib import Path

import pytest

from bessemer_operator.settings import LOCAL_PROFILES, Settings, SettingsError, read_settings

GOOD = "default: {image: trainer@sha256:abc}\nh100: {image: trainer, gpus: 8, queue: train}\n"


def written(folder: Path, text: str) -> str:
    path = folder / "profiles.yaml"
    path.write_text(text)
    return str(path)


def test_a_profiles_file_is_all_that_must_be_given(tmp_path: Path) -> None:
    settings = read_settings({"BESSEMER_PROFILES": written(tmp_path, GOOD)}, "host-1")
    assert settings == Settings(profiles=settings.profiles, identity="host-1")
    assert settings.profiles["h100"].ranks == 8


def test_everything_can_be_given(tmp_path: Path) -> None:
    environ = {
        "BESSEMER_PROFILES": written(tmp_path, GOOD),
        "BESSEMER_NAMESPACES": "team-a, team-b,",
        "BESSEMER_METRICS_PORT": "0",
        "BESSEMER_LEASE_NAME": "lease",
        "POD_NAMESPACE": "bessemer",
        "POD_NAME": "operator-0",
        "BESSEMER_PROGRESS_SECONDS": "5",
        "BESSEMER_RESYNC_SECONDS": "60",
        "KUBECONFIG": "/kube/config",
    }
    settings = read_settings(environ, "host-1")
    assert settings == Settings(
        profiles=settings.profiles,
        identity="operator-0",
        namespaces=("team-a", "team-b"),
        port=0,
        lease_name="lease",
        lease_namespace="bessemer",
        progress_seconds=5,
        resync_seconds=60,
        kubeconfig=Path("/kube/config"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "default: {gpus: many}", "default.gpus: Input should be a valid integer", id="a_word_for_a_number"
        ),
        pytest.param("default: {hostPath: /}", "default.hostPath: Extra inputs", id="a_field_that_a_profile_has_not"),
        pytest.param("Default: {}", "Default: String should match pattern", id="a_name_that_is_none"),
        pytest.param("default: {storeSecret: passwords}", "default.storeSecret", id="a_secret_that_is_not_ours"),
        pytest.param("[a, b]", "document: Input should be a valid dictionary", id="a_list"),
        pytest.param("{}", "no profiles; expected at least one", id="nothing"),
        pytest.param("a: [", "not YAML", id="no_yaml"),
        pytest.param("a: !!python/object:os.system {}", "", id="a_tag_of_python"),
    ],
)
def test_what_is_wrong_with_the_profiles_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({"BESSEMER_PROFILES": written(tmp_path, text)}, "host-1")
    assert said in str(error.value)
    assert "profiles.yaml" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: No such file"):
        read_settings({"BESSEMER_PROFILES": str(tmp_path / "none.yaml")}, "host-1")


@pytest.mark.parametrize("value", ["http", "-1", "70000", "nan"])
def test_a_port_must_be_one(tmp_path: Path, value: str) -> None:
    environ = {"BESSEMER_PROFILES": written(tmp_path, GOOD), "BESSEMER_METRICS_PORT": value}
    with pytest.raises(SettingsError, match=r"BESSEMER_METRICS_PORT is .*; expected a number from 0 to 65535"):
        read_settings(environ, "host-1")


def test_without_a_profiles_file_the_operator_does_not_start() -> None:
    with pytest.raises(SettingsError, match="BESSEMER_PROFILES is not set"):
        read_settings({}, "host-1")


def test_local_runs_have_a_default_profile() -> None:
    assert list(LOCAL_PROFILES) == ["default"]

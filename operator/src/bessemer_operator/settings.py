"""The environment and the profiles file -> one frozen Settings, read once when the operator starts.

Nothing else in the operator reads the environment. docs/operator.md lists the variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bessemer_api.fields import Name
from bessemer_operator.core.profile import Profile

LOCAL_PROFILES: Mapping[str, Profile] = {"default": Profile.model_validate({})}
"""For runs without a cluster only; a cluster's profiles are its administrator's."""

_PROFILES = TypeAdapter(dict[Name, Profile])


class SettingsError(Exception):
    """The operator can not start as it is configured; the message says which variable or field, and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process runs. Empty `namespaces` means all of them."""

    profiles: Mapping[str, Profile]
    identity: str
    namespaces: tuple[str, ...] = ()
    port: int = 9402
    lease_name: str = "bessemer-operator"
    lease_namespace: str = "bessemer-system"
    progress_seconds: float = 30.0
    resync_seconds: float = 300.0
    kubeconfig: Path | None = None


def read_settings(environ: Mapping[str, str], hostname: str) -> Settings:
    """Settings from environment variables. Raises SettingsError."""
    if "BESSEMER_PROFILES" not in environ:
        raise SettingsError("BESSEMER_PROFILES is not set; expected the path of a YAML file with the profiles of pods")
    return Settings(
        profiles=read_profiles(Path(environ["BESSEMER_PROFILES"])),
        identity=environ.get("POD_NAME") or hostname,
        namespaces=tuple(filter(None, (part.strip() for part in environ.get("BESSEMER_NAMESPACES", "").split(",")))),
        port=int(_number(environ, "BESSEMER_METRICS_PORT", 9402, 0, 65_535)),
        lease_name=environ.get("BESSEMER_LEASE_NAME", "bessemer-operator"),
        lease_namespace=environ.get("BESSEMER_LEASE_NAMESPACE") or environ.get("POD_NAMESPACE") or "bessemer-system",
        progress_seconds=_number(environ, "BESSEMER_PROGRESS_SECONDS", 30, 0.5, 3600),
        resync_seconds=_number(environ, "BESSEMER_RESYNC_SECONDS", 300, 1, 86_400),
        kubeconfig=Path(environ["KUBECONFIG"]) if environ.get("KUBECONFIG") else None,
    )


def read_profiles(path: Path) -> dict[str, Profile]:
    """Profiles by name from a YAML or JSON map. Raises SettingsError, with the field that is wrong."""
    try:
        return parse_profiles(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"{path}: {why}; expected a YAML map of profiles by name") from None


def parse_profiles(text: str, where: str) -> dict[str, Profile]:
    """The same from a text; `where` begins the message of a SettingsError."""
    try:
        profiles = _PROFILES.validate_python(YAML(typ="safe", pure=True).load(text))
    except YAMLError as error:
        raise SettingsError(f"{where}: not YAML: {error}") from None
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'] if part != '[key]') or 'document'}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise SettingsError(f"{where}: {'; '.join(lines)}") from None
    if not profiles:
        raise SettingsError(f"{where}: no profiles; expected at least one")
    return profiles


def _number(environ: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise SettingsError(f"{name} is {text!r}; expected a number from {least:g} to {most:g}")
    return value

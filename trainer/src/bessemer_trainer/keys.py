"""Keys of signatures: the folder that holds them, and what it must hold. Nothing is signed or verified here."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bessemer_api.job import SIGNING_ENV
from bessemer_trainer.errors import PermanentError

PRIVATE, PUBLIC = "private.pem", "public.pem"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Keys:
    """The folder of keys. Several public keys may stand in its file, one after the other: that is how keys change."""

    folder: Path

    @classmethod
    def find(cls) -> Self | None:
        """Those that the environment names; None where nothing is signed or verified."""
        name = os.environ.get(SIGNING_ENV)
        return cls(Path(name)) if name else None

    def public(self) -> list[bytes]:
        """Each public key. Raises PermanentError(SigningKeyMissing) when there is none: nothing would be verified."""
        path = self.folder / PUBLIC
        found = _PEM.findall(path.read_bytes()) if path.is_file() else []
        if not found:
            raise PermanentError("SigningKeyMissing", f"{path}: expected the public key, or several, in PEM")
        return found

    def private(self) -> Path:
        """The private key's file. Raises PermanentError(SigningKeyMissing)."""
        path = self.folder / PRIVATE
        if not path.is_file():
            raise PermanentError("SigningKeyMissing", f"{path}: expected the private key that signs promotions")
        return path

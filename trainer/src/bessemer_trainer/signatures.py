"""Signatures of artifacts: `model.sig` beside the manifest, as model-signing writes and verifies them, by a key.

What is signed is what the store's manifest says, which is named by its digest: signing and verifying read no weights,
and whoever fetches the artifact compares every file with that manifest. For everybody else it is an ordinary signature
of the folder: `model_signing verify key <folder> ...` reads and compares every file.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from model_signing import hashing, manifest, signing, verifying
from model_signing._hashing.hashing import Digest

from bessemer_trainer.backends import MANIFEST
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.keys import PRIVATE, PUBLIC, Keys
from bessemer_trainer.store import SIGNATURE, Store, artifact_key


def sign(store: Store, digest: str, keys: Keys) -> None:
    """Sign an artifact, unless it is signed by one of the keys already. It counts only if a public key verifies it."""
    key = f"{artifact_key(digest)}/{SIGNATURE}"
    known = store.read(key)
    if known is not None and not _fault(store, digest, known, keys):
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / SIGNATURE
        try:
            signer = signing.Config().use_elliptic_key_signer(private_key=keys.private())
            signer.set_hashing_config(_Stored(store, digest)).sign(folder, file)
        except (ValueError, TypeError) as error:
            expected = "an unencrypted elliptic curve key (P-256, P-384 or P-521) in PEM"
            raise PermanentError("SigningKeyInvalid", f"{keys.private()}: {error}; expected {expected}") from None
        made = file.read_bytes()
    fault = _fault(store, digest, made, keys)
    if fault:
        raise PermanentError("SigningKeyInvalid", f"{keys.folder}: no key of {PUBLIC} belongs to {PRIVATE}: {fault}")
    store.write(key, made)


def require_signed(store: Store, digest: str, keys: Keys) -> None:
    """Raises PermanentError(NotSigned | SignatureInvalid) unless one of the keys signed exactly this artifact."""
    where = store.url(f"{artifact_key(digest)}/{SIGNATURE}")
    found = store.read(f"{artifact_key(digest)}/{SIGNATURE}")
    if found is None:
        raise PermanentError("NotSigned", f"{where} is missing; where keys are given, only what they signed is used")
    fault = _fault(store, digest, found, keys)
    if fault:
        raise PermanentError("SignatureInvalid", f"{where}: {fault}; the model is not used")


def _fault(store: Store, digest: str, signature: bytes, keys: Keys) -> str:
    """Why no key verifies this; empty when one does."""
    faults = [_fault_of_key(store, digest, signature, key) for key in keys.public()]
    return "" if "" in faults else faults[0]


def _fault_of_key(store: Store, digest: str, signature: bytes, key: bytes) -> str:
    stored = _Stored(store, digest)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SIGNATURE).write_bytes(signature)
        (folder / PUBLIC).write_bytes(key)
        try:
            verifier = verifying.Config().use_elliptic_key_verifier(public_key=folder / PUBLIC)
            verifier.set_hashing_config(stored).verify(folder, folder / SIGNATURE)
        except Exception as error:  # noqa: BLE001 - whatever a forged file makes the library say is a refusal
            return str(error) or type(error).__name__
    return ""


class _Stored(hashing.Config):  # type: ignore[misc]  # the library is untyped
    """The digests that the store's manifest gives, in place of a folder that is read: the manifest's own among them."""

    def __init__(self, store: Store, digest: str) -> None:
        super().__init__()
        known = {entry.path: entry.sha256 for entry in store.manifest(digest).files}
        self._known = known | {MANIFEST: digest.removeprefix("sha256:")}
        self._name = artifact_key(digest).rpartition("/")[2]

    def hash(self, model_path: Any, *, files_to_hash: Iterable[Any] | None = None) -> Any:  # noqa: ANN401
        """The library's manifest of the whole artifact, whatever folder is named."""
        how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
        items = [
            manifest.FileManifestItem(path=PurePosixPath(path), digest=Digest("sha256", bytes.fromhex(sha256)))
            for path, sha256 in self._known.items()
        ]
        return manifest.Manifest(self._name, items, manifest.SerializationType.from_args(how))

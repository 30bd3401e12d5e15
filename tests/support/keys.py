"""A pair of keys for signatures, as an administrator makes it. Not for anything that is kept."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def write_keys(folder: Path) -> Path:
    """Write `private.pem` and `public.pem` into a new folder; the folder."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    secret = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "private.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *secret))
    known = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "public.pem").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, known))
    return folder

"""Fetch the uv program from its PyPI wheel, with nothing but the standard library. Usage: fetch_uv.py TARGET."""

import hashlib
import io
import json
import platform
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

VERSION = "0.13.9"
INDEX = "https://pypi.org/simple/uv/"
JSON = "application/vnd.pypi.simple.v1+json"


def main() -> None:
    """Download, verify the digest that the index names, and put the program in place in one step."""
    target = Path(sys.argv[1])
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    request = urllib.request.Request(INDEX, headers={"Accept": JSON})
    with urllib.request.urlopen(request) as answer:
        files = json.load(answer)["files"]
    names = (f"uv-{VERSION}-py3-none-manylinux", f"_{machine}.whl")
    wheel = next((f for f in files if f["filename"].startswith(names[0]) and f["filename"].endswith(names[1])), None)
    if wheel is None:
        sys.exit(
            f"error: PyPI has no uv {VERSION} for Linux on {machine}; install uv yourself: https://docs.astral.sh/uv"
        )
    with urllib.request.urlopen(wheel["url"]) as answer:
        data = answer.read()
    if hashlib.sha256(data).hexdigest() != wheel["hashes"]["sha256"]:
        sys.exit(f"error: {wheel['filename']} does not have the digest that PyPI names; try again")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        program = archive.read(f"uv-{VERSION}.data/scripts/uv")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(program)
    Path(file.name).chmod(0o755)
    Path(file.name).replace(target)


if __name__ == "__main__":
    main()

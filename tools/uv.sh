#!/bin/sh
# Print the path of uv; fetch it from PyPI into build/uv when the machine has none. Needs only python3.
set -eu
cd "$(dirname "$0")/.."
if command -v uv >/dev/null 2>&1; then command -v uv; exit 0; fi
uv="$PWD/build/uv/uv"
if [ ! -x "$uv" ]; then
    echo "uv is not installed: fetching it from PyPI into build/uv" >&2
    python3 tools/fetch_uv.py "$uv" >&2
fi
echo "$uv"

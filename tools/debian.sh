#!/bin/sh
# Programs that some tests need, from Debian's packages, unless all are on PATH already:
#   debian.sh install PROGRAMS WHAT-IS-SKIPPED PACKAGE...    installed, where this is root
#   debian.sh unpack PROGRAMS WHAT-IS-SKIPPED PACKAGE...     unpacked into the cache, into a folder named by the first
# Where that can not be, it says which tests are skipped, and all others run.
set -eu
how=$1 programs=$2 skipped=$3
shift 3
program=${programs%% *}
base="${XDG_CACHE_HOME:-$HOME/.cache}/bessemer"
cache="$base/$program"
missing=
for name in $programs; do
    command -v "$name" >/dev/null 2>&1 || [ -x "$cache/usr/bin/$name" ] || missing=1
done
if [ -z "$missing" ]; then exit 0; fi

is_root() { [ "$(id -u)" = 0 ]; }

unpack() {
    mkdir -p "$base"
    folder=$(mktemp -d "$base/.unpack-XXXXXX") # beside its place: it is there whole or not at all
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
    apt-get download -qq "$@" 2>/dev/null || { is_root && apt-get update -qq && apt-get download -qq "$@" 2>/dev/null; } || return 1
    for package in *.deb; do dpkg -x "$package" unpacked || return 1; done
    rm -rf "$cache"
    mv unpacked "$cache"
}

if command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
    echo "fetching $program of Debian for tests" >&2
    if [ "$how" = unpack ]; then
        if unpack "$@"; then exit 0; fi
    elif is_root; then
        if apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" >/dev/null; then exit 0; fi
    fi
fi
echo "$program is not there: $skipped are skipped (install it: apt-get install $*)" >&2

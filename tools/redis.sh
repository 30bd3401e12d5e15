#!/bin/sh
# Redis for the tests with a real Argo CD: from PATH, else Debian's packages unpacked into the cache (no root needed); else
# said plainly.
set -eu
if command -v redis-server >/dev/null 2>&1; then exit 0; fi
cache="${XDG_CACHE_HOME:-$HOME/.cache}/bessemer/redis"
if [ -x "$cache/usr/bin/redis-server" ]; then exit 0; fi
# redis-server is a link into redis-tools; the libraries are those that a small Debian does not have anyway.
packages="redis-server redis-tools libjemalloc2 liblzf1"
if command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
    # shellcheck disable=SC2086 # a list of words
    if ! apt-get download -qq $packages 2>/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get download -qq $packages 2>/dev/null || true
    fi
    if ls redis-server_*.deb >/dev/null 2>&1; then
        mkdir -p "$cache"
        for package in *.deb; do dpkg -x "$package" "$cache"; done
        exit 0
    fi
fi
echo "redis is not there: tests with Argo CD are skipped (install it: apt-get install redis-server)" >&2

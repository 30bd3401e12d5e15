#!/bin/sh
# Prometheus and promtool for the tests of metrics, alerts and dashboards: from PATH, else Debian's package unpacked into
# the cache (no root needed); else said plainly.
set -eu
if command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1; then exit 0; fi
cache="${XDG_CACHE_HOME:-$HOME/.cache}/bessemer/prometheus"
if [ -x "$cache/usr/bin/promtool" ]; then exit 0; fi
if command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
    if ! apt-get download -qq prometheus 2>/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get download -qq prometheus 2>/dev/null || true
    fi
    if ls prometheus_*.deb >/dev/null 2>&1; then
        mkdir -p "$cache"
        dpkg -x prometheus_*.deb "$cache"
        exit 0
    fi
fi
echo "prometheus is not there: tests of metrics and alerts are skipped (install it: apt-get install prometheus)" >&2

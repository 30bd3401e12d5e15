#!/bin/sh
# A headless Chromium for the tests that open the report. Installed from Debian when we may; else said plainly.
set -eu
if command -v chromium >/dev/null 2>&1; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing chromium for the report tests"
    apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null
else
    echo "chromium is not installed: tests that open the report are skipped (install it: apt-get install chromium)" >&2
fi

"""Builds the git server of the tests into the cache, once: `make gitea`."""

import sys

from tests.support.gitea import find_gitea

if __name__ == "__main__":
    sys.stdout.write(f"{find_gitea(build=True)}\n")

"""Builds the Go programs that tests start, before any test has a clock running: `python -m tests.support.programs`.
With `platform`: those that only tests with the marker `platform` start.

A test that needs one finds it in the cache; one that is run alone builds what is missing itself.
"""

import sys
from collections.abc import Callable, Mapping

from tests.support.argocd import find_argocd
from tests.support.controlplane import BuildError, find_programs
from tests.support.controlplane.gobuild import cached_programs, say
from tests.support.gitea import find_gitea
from tests.support.helm import program as helm
from tests.support.kueue import find_kueue
from tests.support.s3 import server as s3

BUILDS: Mapping[str, Callable[[], object]] = {
    "control plane": find_programs,
    "Helm": lambda: [helm.program(name) for name in helm.PROGRAMS],
    "S3 server": lambda: cached_programs(s3.MODULE, [s3.PROGRAM]),
}
PLATFORM: Mapping[str, Callable[[], object]] = {
    "Gitea": lambda: find_gitea(build=True),
    "Kueue": lambda: find_kueue(build=True),
    "Argo CD": lambda: find_argocd(build=True),
}


def main() -> int:
    """Build what the cache lacks; 1 when something could not be built."""
    failed = False
    for name, build in (PLATFORM if sys.argv[1:] == ["platform"] else BUILDS).items():
        try:
            build()
        except BuildError as error:
            say(f"{name}: {error}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

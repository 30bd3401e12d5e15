"""Command line of the test cluster: `python -m tests.support.controlplane build|up`."""

import argparse
import sys
from pathlib import Path

from tests.support.controlplane.build import find_programs
from tests.support.controlplane.client import KubectlError
from tests.support.controlplane.gobuild import BuildError, say
from tests.support.controlplane.playground import up
from tests.support.controlplane.process import ServerError


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.controlplane", description=sys.modules[__name__].__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build what is missing in the cache (minutes, once) and say where it lies")
    starting = commands.add_parser("up", help="start a control plane and keep it until Ctrl-C")
    starting.add_argument("--folder", type=Path, help="new folder for logs and kubeconfigs, kept afterwards")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one command; 1 when something could not be built or started."""
    options = parse(arguments)
    try:
        if options.command == "up":
            up(folder=options.folder)
        else:
            for name, path in find_programs().paths.items():
                say(f"{name}: {path}")
    except (BuildError, ServerError, KubectlError, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:  # while building or starting
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

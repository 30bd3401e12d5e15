"""A cluster to play with (`make cluster`): a real control plane with nodes, our kubelet and the operator, until Ctrl-C.

Pods run as processes of this host. It must not do anything that a user of the cluster could not do.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.controlplane import BuildError, ControlPlane, KubectlError, ServerError, up
from tests.support.controlplane.gobuild import say
from tests.support.installation import CPU_NODE, GPU_NODE, PROFILES, Installation, installed
from tests.support.mini import write_mini

USAGE = """
Bessemer is installed: kinds, account, operator, the nodes {cpu} and {gpu} (4 declared GPUs, each rank on a processor),
and the profiles {profiles}. Try, in another terminal, with the two variables below:
  kubectl apply -f {example}
  kubectl get apipe,tstage,evaluations,pytorchjobs,jobs,pods
  kubectl wait --for=condition=Promoted --timeout=10m apipe/mini
  kubectl edit apipe/mini        (change a learning rate: only what depends on it runs again)
Logs of the operator: {operator}; of the pods: {pods}
"""


@contextmanager
def example(plane: ControlPlane) -> Iterator[Installation]:
    """Install, write a small pipeline to try, and say how."""
    with installed(plane) as installation:
        mini = write_mini(installation.folder / "mini")
        say(
            USAGE.format(
                cpu=CPU_NODE,
                gpu=GPU_NODE,
                profiles=", ".join(PROFILES),
                example=mini.file,
                operator=plane.processes.log("operator"),
                pods=installation.pod_logs,
            )
        )
        yield installation


def main(arguments: list[str]) -> int:
    """Stay up until Ctrl-C; 1 when something could not be built or started."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.playground", description=__doc__)
    parser.add_argument("--folder", type=Path, help="new folder for logs, data and kubeconfigs, kept afterwards")
    folder = parser.parse_args(arguments).folder
    try:
        up([example], folder)
    except (BuildError, ServerError, KubectlError, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:  # while building or starting
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

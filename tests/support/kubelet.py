"""The kubelet of the test cluster, in a process of its own: `python -m tests.support.kubelet WORKDIR NODE...`.

Stands for nodes that exist already, through the API server of $KUBECONFIG. SIGTERM shuts the nodes down.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from bessemer_operator.cluster.kube import KubeCluster
from bessemer_operator.cluster.protocol import Ref
from bessemer_operator.executor import Node, run_node


async def main(workdir: Path, names: list[str]) -> None:
    """Run the pods of these nodes until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    cluster = await KubeCluster.connect(Path(os.environ["KUBECONFIG"]))
    try:
        found = [await cluster.get(Ref("Node", name)) for name in names]
        nodes = [Node(node["metadata"]["name"], node["status"]["capacity"]) for node in found]
        await run_node(cluster, nodes, workdir, stop)
    finally:
        await cluster.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))

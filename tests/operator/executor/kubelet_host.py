"""A kubelet in a process of its own, for tests that kill it: `python -m ... <folder>`."""

import asyncio
import sys
from pathlib import Path

from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.executor import Node, run_node


async def main(folder: Path) -> None:
    await run_node(LocalCluster(folder), [Node("n", {"cpu": "2"})], folder, asyncio.Event(), None)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

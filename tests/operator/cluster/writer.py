"""A process that writes to a local cluster until it is killed, and says what was acknowledged."""

import asyncio
import itertools
import sys
from pathlib import Path

from bessemer_operator.cluster import Ref
from bessemer_operator.cluster.local import LocalCluster


async def main(folder: Path, name: str, count: int) -> None:
    cluster = LocalCluster(folder)
    manifest = {"apiVersion": "v1", "kind": "ConfigMap"}
    for number in itertools.count() if count < 0 else range(count):
        meta = {"name": f"{name}-{number}", "namespace": "team"}
        await cluster.create({**manifest, "metadata": meta, "data": {"x": "y" * 500}})
        await cluster.patch_annotations(Ref("ConfigMap", "shared", "team"), {f"{name}-{number}": "set"})
        if number >= 2:
            await cluster.delete(Ref("ConfigMap", f"{name}-{number - 2}", "team"))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))

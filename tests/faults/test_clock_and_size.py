"""Cases 22 and 23 of cases.py, which need another clock and another size than a real control plane has to offer."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bessemer_operator.reconcile.cache import Cache
from tests.api.documents import PIPELINE
from tests.support.world import World, memory_folder

OBJECTS = 10_000
MAX_BYTES = 400 * 2**20


@pytest.mark.parametrize("hours", [1, -1], ids=["22-an_hour_ahead", "22-an_hour_back"])
async def test_the_clock_jumps_in_the_middle(hours: int, record_property: Any) -> None:
    record_property("fault", f"case 22, no seed: the clock jumps by {hours} h")
    with memory_folder() as folder:
        still, jumping = World(folder / "still"), World(folder / "jumping")
        is_first = True

        def jump(number: int, when: str) -> None:
            nonlocal is_first
            if number == 40 and is_first:
                is_first = False
                jumping.now += timedelta(hours=hours)

        jumping.start_operator(jump)
        for world in (still, jumping):
            await world.apply(PIPELINE)
            await world.settle()
        assert not is_first
        assert await jumping.picture() == await still.picture()
        assert await jumping.condition("Promoted") == ("True", "Promoted", "record 1")


async def test_23_ten_thousand_pipelines_with_as_many_children_fit_into_memory(record_property: Any) -> None:
    """What the process remembers of objects that are done, and so as large as they get."""
    record_property("fault", "case 23, no seed: 10,000 pipelines and 10,000 children in memory")
    with memory_folder() as folder:
        world = World(folder)
        await world.apply(PIPELINE)
        await world.settle()
        pipeline, (child, *_) = await world.pipeline(), await world.all("TrainingStage")
    texts, cache, before = [json.dumps(obj) for obj in (pipeline, child)], Cache(), resident_bytes()
    for number in range(OBJECTS):
        for text in texts:
            twin = json.loads(text)  # as an event arrives: nothing is shared with another object
            twin["metadata"] |= {"name": f"{twin['kind'].lower()}-{number}", "uid": f"{twin['kind']}-{number}"}
            cache.put(twin)
    used = resident_bytes() - before
    assert len(cache.objects) == 2 * OBJECTS
    assert used <= MAX_BYTES, f"{used / 2**20:.0f} MB"


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

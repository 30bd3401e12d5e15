"""What is the directory's own: kills, torn files, other processes, ownership. The rest is in the conformance table."""

import asyncio
import json
import random
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from bessemer_operator.cluster import Expired, Invalid, NotFound, Obj, Ref, Unavailable
from bessemer_operator.cluster import journal as journal_module
from bessemer_operator.cluster.follow import follow
from bessemer_operator.cluster.local import LocalCluster

ROOT = Path(__file__).parents[3]


def config_map(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "team"}, "data": data}


def ref(name: str) -> Ref:
    return Ref("ConfigMap", name, "team")


def writer(folder: Path, name: str, count: int = -1) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.operator.cluster.writer", str(folder), name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def everything(folder: Path) -> dict[str, Obj]:
    found = (await LocalCluster(folder).list("ConfigMap")).items
    return {obj["metadata"]["name"]: obj for obj in found}


@pytest.mark.parametrize("seed", range(12))
async def test_a_writer_killed_at_any_time_loses_nothing_that_was_acknowledged(seed: int, tmp_path: Path) -> None:
    await LocalCluster(tmp_path).create(config_map("shared"))
    with writer(tmp_path, "w") as process:
        assert process.stdout is not None
        last = -1
        for _ in range(random.Random(seed).randrange(1, 30)):
            last = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split()
    last = int(rest[-1]) if rest else last
    found = await everything(tmp_path)
    marks = {f"w-{number}" for number in range(last + 1)}
    assert marks <= set(found["shared"]["metadata"]["annotations"])
    assert {f"w-{last}", f"w-{last - 1}"} & set(found) or last == 0
    assert f"w-{last - 3}" not in found
    again = await LocalCluster(tmp_path).create(config_map("after"))
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in found.values()]
    assert int(again["metadata"]["resourceVersion"]) > max(versions)


async def test_a_line_torn_at_any_byte_is_as_if_it_had_never_been_written(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    await cluster.create(config_map("a", x="1"))
    before = (tmp_path / "journal").read_bytes()
    await cluster.update({**(await cluster.get(ref("a"))), "data": {"x": "2"}})
    whole = (tmp_path / "journal").read_bytes()
    [file] = tmp_path.glob("objects/*/*/a.json")
    file.write_text(json.dumps(json.loads(before.splitlines()[-1])["obj"]))
    for end in [*range(len(before), len(whole), 7), len(whole) - 1]:
        (tmp_path / "journal").write_bytes(whole[:end])
        assert (await LocalCluster(tmp_path).get(ref("a")))["data"] == {"x": "1"}
        made = await LocalCluster(tmp_path).create(config_map(f"b-{end}"))
        assert made["metadata"]["resourceVersion"] == "2"
        assert sorted(await everything(tmp_path)) == ["a", f"b-{end}"]
        await LocalCluster(tmp_path).delete(ref(f"b-{end}"))


async def test_a_file_behind_its_journal_is_read_right_and_made_level_by_the_next_owner(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    for name in ("kept", "deleted"):
        await cluster.create(config_map(name, x="1"))
    files = {name: next(tmp_path.glob(f"objects/*/*/{name}.json")) for name in ("kept", "deleted")}
    old = {name: file.read_text() for name, file in files.items()}
    await cluster.update({**(await cluster.get(ref("kept"))), "data": {"x": "2"}})
    await cluster.delete(ref("deleted"))
    for name, file in files.items():
        file.write_text(old[name])
    for owner in (False, True):
        again = LocalCluster(tmp_path)
        if owner:
            again.claim()
        assert {name: obj["data"] for name, obj in (await everything(tmp_path)).items()} == {"kept": {"x": "2"}}
        await again.close()
    assert (json.loads(files["kept"].read_text())["data"], files["deleted"].exists()) == ({"x": "2"}, False)


async def test_processes_that_write_at_once_lose_nothing_and_share_one_counter(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    await cluster.create(config_map("shared"))
    versions: list[int] = []

    async def read() -> None:
        async with aclosing(cluster.watch(["ConfigMap"], {"ConfigMap": "0"})) as events:
            async for event in events:
                versions.append(int(event.obj["metadata"]["resourceVersion"]))

    reader = asyncio.create_task(read())
    processes = [writer(tmp_path, name, 25) for name in ("one", "two")]
    for process in processes:
        await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
    shared = (await cluster.get(ref("shared")))["metadata"]["annotations"]
    assert set(shared) == {f"{name}-{number}" for name in ("one", "two") for number in range(25)}
    total = 1 + 2 * (25 + 25 + 23)
    async with asyncio.timeout(30):
        while len(versions) < total:
            await asyncio.sleep(0.02)
    reader.cancel()
    assert versions == list(range(1, total + 1))


async def test_compaction_keeps_everything_and_other_processes_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_BYTES", 20_000)
    cluster, other = LocalCluster(tmp_path), LocalCluster(tmp_path)
    for number in range(60):
        await cluster.create(config_map(f"x-{number}", text="t" * 500))
        if number % 3:
            await other.delete(ref(f"x-{number}"))
    assert (tmp_path / "journal").stat().st_size < 40_000
    expected = sorted(f"x-{number}" for number in range(0, 60, 3))
    for reader in (cluster, other, LocalCluster(tmp_path)):
        assert sorted(obj["metadata"]["name"] for obj in (await reader.list("ConfigMap")).items) == expected
        assert (await reader.list("ConfigMap")).resource_version == "100"


async def test_a_watch_from_before_the_journal_has_expired(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    await cluster.create(config_map("a"))
    cluster.claim()
    with pytest.raises(Expired, match="too old"):
        async with aclosing(cluster.watch(["ConfigMap"], {"ConfigMap": "0"})) as events:
            await anext(events)
    await cluster.close()


async def test_following_makes_up_for_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, other = LocalCluster(tmp_path), LocalCluster(tmp_path)
    for name in ("stays", "changes", "goes", "returns"):
        await cluster.create(config_map(name))
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(30), aclosing(follow(cluster, ["ConfigMap"])) as events:
        while len(seen) < 4:
            event = await anext(events)
            seen.append((event.type, event.obj["metadata"]["name"]))
        await other.patch_annotations(ref("changes"), {"a": "1"})
        await other.delete(ref("goes"))
        await other.delete(ref("returns"))
        await other.create(config_map("returns"))
        await other.create(config_map("new"))
        other.claim()  # starts the journal anew: what happened before can not be watched any more
        while len(seen) < 9:
            event = await anext(events)
            seen.append((event.type, event.obj["metadata"]["name"]))
    assert sorted(seen[:4]) == [("ADDED", name) for name in ("changes", "goes", "returns", "stays")]
    expected = [("ADDED", "new"), ("ADDED", "returns"), ("DELETED", "goes"), ("DELETED", "returns")]
    assert sorted(seen[4:]) == [*expected, ("MODIFIED", "changes")]
    await other.close()


async def test_one_process_owns_the_directory_and_others_may_still_read_and_write(tmp_path: Path) -> None:
    first, second = LocalCluster(tmp_path), LocalCluster(tmp_path)
    first.claim()
    with pytest.raises(Unavailable, match="in use by another bessemer process"):
        second.claim()
    await second.create(config_map("a"))
    assert (await first.get(ref("a")))["metadata"]["name"] == "a"
    await first.close()
    second.claim()
    await second.close()


async def test_a_directory_that_can_not_be_used_can_not_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="can not be used: Not a directory"):
        LocalCluster(tmp_path / "file" / "cluster").claim()


async def test_the_next_owner_collects_what_lost_its_owner(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    made = await cluster.create(config_map("parent"))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": made["metadata"]["uid"]}
    child = config_map("child")
    child["metadata"]["ownerReferences"] = [owner]
    await cluster.create(child)
    lines = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    await cluster.delete(ref("parent"))
    now = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").write_bytes(b"".join(now[: len(lines) + 1]))  # killed between owner and dependent
    assert sorted(await everything(tmp_path)) == ["child"]
    again = LocalCluster(tmp_path)
    again.claim()
    assert await everything(tmp_path) == {}
    await again.close()


async def test_a_damaged_journal_says_where_and_what_to_do(tmp_path: Path) -> None:
    await LocalCluster(tmp_path).create(config_map("a"))
    with (tmp_path / "journal").open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(Unavailable, match=r"journal: damaged at byte \d+ .* use a new directory"):
        await LocalCluster(tmp_path).get(ref("a"))


async def test_an_empty_or_absent_directory_is_an_empty_cluster(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "absent")
    assert (await cluster.list("Pod")).items == ()
    with pytest.raises(NotFound):
        await cluster.get(ref("a"))
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}], ids=["NaN", "Inf", "bytes", "set"])
async def test_what_is_not_json_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not JSON"):
        await LocalCluster(tmp_path).create({**config_map("a"), "data": {"x": value}})


@pytest.mark.parametrize("kind", ["", "Deployment", "../x"])
async def test_a_kind_that_is_not_handled_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is not one of"):
        await LocalCluster(tmp_path).create({**config_map("a"), "kind": kind})


async def test_callers_can_not_change_what_is_stored(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    given = config_map("a", x="1")
    for obj in (given, await cluster.create(given), await cluster.get(ref("a"))):
        obj["data"]["x"] = "changed"
    assert (await cluster.get(ref("a")))["data"] == {"x": "1"}


async def test_a_log_is_found_by_pod_and_container(tmp_path: Path) -> None:
    for uid, text in (("1", "old\n"), ("2", "one\ntwo\nthree\n")):
        folder = tmp_path / "pods" / f"team_p_{uid}"
        folder.mkdir(parents=True)
        (folder / "main.log").write_text(text)
    (tmp_path / "pods/team_p_2/side.log").write_text("side\n")
    cluster, pod = LocalCluster(tmp_path), Ref("Pod", "p", "team")
    assert await cluster.pod_log(pod, "main", tail_lines=2) == "two\nthree\n"
    assert await cluster.pod_log(pod, "main", tail_lines=4) == "one\ntwo\nthree\n"
    with pytest.raises(Invalid, match="choose one of: main, side"):
        await cluster.pod_log(pod)
    with pytest.raises(NotFound, match="no log of container other"):
        await cluster.pod_log(pod, "other")

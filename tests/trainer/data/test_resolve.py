"""Resolve: the contents of the world, and the heads of the channels."""

import json
from typing import Any

import pytest

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages.resolve import head
from bessemer_trainer.store import open_store
from tests.trainer.data.world import World


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def record(number: int, letter: str, wins: list[str], **more: Any) -> dict[str, Any]:
    """A channel record as the contract defines it."""
    return {
        "schema": 1,
        "record": number,
        "channel": "prod",
        "digest": digest(letter),
        "kind": "promotion",
        "previous": None,
        "gate": "release",
        "evidence": digest("e"),
        "wins": wins,
        "held": [],
        "pipeline": "med",
        "by": "someone",
        "at": f"2026-01-0{number}T00:00:00Z",
    } | more


FIRST = record(1, "1", ["knowledge"])
SECOND = record(2, "2", ["reasoning"])
THIRD = record(3, "3", ["knowledge"])
ROLLBACK = record(4, "2", [], kind="rollback", held=[digest("3")])

HEADS = [
    pytest.param([], (0, None, {}), id="an empty channel has no head"),
    pytest.param(
        [FIRST], (1, "1", {"knowledge": "1", "style": "1"}), id="the first release is the anchor of every axis"
    ),
    pytest.param(
        [FIRST, SECOND],
        (2, "2", {"knowledge": "1", "reasoning": "2", "style": "1"}),
        id="an axis is anchored at the last release that won on it",
    ),
    pytest.param(
        [FIRST, SECOND, THIRD],
        (3, "3", {"knowledge": "3", "reasoning": "2", "style": "1"}),
        id="a later win moves the anchor of its axis alone",
    ),
    pytest.param(
        [FIRST, SECOND, THIRD, ROLLBACK],
        (4, "2", {"knowledge": "1", "reasoning": "2", "style": "1"}),
        id="a release that a rollback left is no anchor",
    ),
]


@pytest.mark.parametrize(("records", "expected"), HEADS)
def test_head_of_a_channel(records: list[dict[str, Any]], expected: tuple[int, str | None, dict[str, str]]) -> None:
    found = head(records, {"knowledge", "style"})
    number, letter, anchors = expected
    assert (found.record, found.digest) == (number, letter and digest(letter))
    assert found.anchors == {axis: digest(anchor) for axis, anchor in anchors.items()}
    assert found.held == (records[-1]["held"] if records else [])


OVERRIDE = record(2, "2", [], kind="override", by="ana", previous=digest("1"), evidence=digest("f"))
STORIES = [
    pytest.param([FIRST], ("promotion", "promotion", digest("e"), ["knowledge"]), id="a release"),
    pytest.param([FIRST, OVERRIDE], ("override", "override", digest("f"), []), id="an override"),
    pytest.param(
        [FIRST, SECOND, record(3, "1", [], kind="rollback", held=[digest("2")])],
        ("rollback", "promotion", digest("e"), ["knowledge"]),
        id="a release that a rollback brought back",
    ),
    pytest.param(
        [FIRST, OVERRIDE, THIRD, record(4, "2", [], kind="rollback", held=[digest("3")])],
        ("rollback", "override", digest("f"), []),
        id="an override that a rollback brought back",
    ),
]


@pytest.mark.parametrize(("records", "expected"), STORIES)
def test_a_head_says_how_its_digest_came_there(
    records: list[dict[str, Any]], expected: tuple[str, str, str, list[str]]
) -> None:
    found = head(records, set())
    assert (found.kind, found.origin, found.evidence, found.wins) == expected
    assert (found.gate, found.by, found.previous) == ("release", records[-1]["by"], records[-1]["previous"])


def test_an_override_is_no_anchor() -> None:
    won_by_override = {**OVERRIDE, "wins": ["knowledge"]}
    assert head([FIRST, won_by_override], {"knowledge", "style"}).anchors == {
        "knowledge": digest("1"),
        "style": digest("1"),
    }
    assert head([{**won_by_override, "record": 1}], {"knowledge"}).anchors == {}


def test_of_many_held_digests_the_newest_are_told() -> None:
    held = [digest(letter) for letter in "0123456789ab"]
    assert head([record(1, "1", [], held=held)], set()).held == held[-8:]


def test_channels_are_read_from_the_store(world: World) -> None:
    store = open_store(world.url, world.root)
    for entry in (FIRST, SECOND):
        store.create(f"channels/prod/{entry['record']:08d}.json", json.dumps(entry).encode())
    store.create("channels/prod/tries/0123456789ab/00000001.json", b'{"schema": 1, "record": 0}')
    heads = world.resolve(channels=["prod", "staging"]).channels
    assert (heads["prod"].record, heads["prod"].digest, heads["prod"].at) == (2, digest("2"), SECOND["at"])
    assert heads["staging"].record == 0


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(json.dumps(FIRST | {"record": 2}).encode(), id="another number"),
        pytest.param(json.dumps(FIRST | {"digest": "latest"}).encode(), id="no digest"),
        pytest.param(json.dumps(FIRST | {"held": None}).encode(), id="no list of held digests"),
        pytest.param(json.dumps({k: v for k, v in FIRST.items() if k != "wins"}).encode(), id="no wins"),
    ],
)
def test_damaged_channel_record_is_refused_and_never_skipped(world: World, data: bytes) -> None:
    open_store(world.url, world.root).create("channels/prod/00000001.json", data)
    with pytest.raises(PermanentError) as refused:
        world.resolve(channels=["prod"])
    assert refused.value.reason == "ChannelCorrupt"


def test_gap_in_a_channel_is_refused(world: World) -> None:
    open_store(world.url, world.root).create("channels/prod/00000002.json", json.dumps(SECOND).encode())
    with pytest.raises(PermanentError) as refused:
        world.resolve(channels=["prod"])
    assert refused.value.reason == "ChannelCorrupt"


def test_contents_have_the_keys_of_the_contract_and_pin_each_source(world: World) -> None:
    data, bank = world.write("data.jsonl", [{"text": "a"}]), world.write("bank.jsonl", [{"id": "1", "text": "b"}])
    world.write_bytes("base/config.json", b"{}")
    task = {
        "base": {"uri": str(world.root / "sources" / "base")},
        "data": {"papers": [{"uri": data}]},
        "banks": {"facts": {"knowledge": {"uri": bank}}},
    }
    before = world.resolve(**task).contents
    assert sorted(before) == ["bank/facts", "base", "data/papers"]
    world.write("data.jsonl", [{"text": "changed"}])
    after = world.resolve(**task).contents
    assert [key for key in before if before[key] != after[key]] == ["data/papers"]


def test_order_of_sources_is_content(world: World) -> None:
    one, two = world.write("1.jsonl", [{"text": "a"}]), world.write("2.jsonl", [{"text": "b"}])
    contents = world.resolve(data={"ab": [{"uri": one}, {"uri": two}], "ba": [{"uri": two}, {"uri": one}]}).contents
    assert contents["data/ab"] != contents["data/ba"]


def test_source_with_another_digest_than_declared_is_refused(world: World) -> None:
    source = {"uri": world.write("data.jsonl", [{"text": "a"}]), "sha256": digest("0")}
    with pytest.raises(PermanentError, match=f"declared as {digest('0')}, but the content found has sha256:"):
        world.resolve(data={"papers": [source]})

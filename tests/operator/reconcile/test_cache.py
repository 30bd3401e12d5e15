"""The cache believes the newest state of an object, never one from before its deletion, and knows owners by uid."""

from typing import Any

from bessemer_operator.core.naming import LABEL_ATTEMPT, LABEL_OWNER
from bessemer_operator.reconcile.cache import Cache, Key, key_of

STAGE_KEY = Key("TrainingStage", "default", "s")


def obj(kind: str, name: str, version: int, uid: str = "", owner: str = "", **labels: str) -> dict[str, Any]:
    owners = [{"uid": owner, "controller": True}] if owner else []
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
        "ownerReferences": owners,
        "labels": labels,
        "managedFields": [{"manager": "x"}],
    }
    return {"kind": kind, "metadata": metadata, "spec": {"a": 1}, "status": {"version": version}}


def stage(version: int, uid: str = "") -> dict[str, Any]:
    return obj("TrainingStage", "s", version, uid, owner="uid-p")


def test_an_older_or_equal_state_is_not_believed() -> None:
    cache = Cache()
    assert [cache.put(stage(5)), cache.put(stage(4)), cache.put(stage(5)), cache.put(stage(6))] == [
        True,
        False,
        False,
        True,
    ]
    assert cache.objects[STAGE_KEY]["status"] == {"version": 6}


def test_versions_are_numbers_and_not_words() -> None:
    cache = Cache()
    cache.put(stage(9))
    assert cache.put(stage(10))


def test_an_event_from_before_its_deletion_does_not_bring_an_object_back() -> None:
    cache = Cache()
    cache.put(stage(5))
    cache.remove(stage(7))
    assert not cache.put(stage(6))
    assert cache.objects == {}
    assert cache.children("uid-p", "TrainingStage") == []


def test_a_namesake_with_another_uid_is_another_object() -> None:
    cache = Cache()
    cache.put(stage(5))
    cache.put(stage(9, uid="other"))
    cache.remove(stage(8))
    assert cache.objects[STAGE_KEY]["metadata"]["uid"] == "other"
    assert len(cache.children("uid-p", "TrainingStage")) == 1


def test_owners_are_found_by_uid_and_pods_by_the_label_of_their_attempt() -> None:
    cache = Cache()
    pipeline, child = obj("AdaptationPipeline", "p", 1), stage(2)
    job = obj("PyTorchJob", "j", 3, owner="uid-s")
    pod = obj("Pod", "q", 4, owner="uid-j", **{LABEL_ATTEMPT: "j", LABEL_OWNER: "uid-s"})
    foreign = obj("Pod", "f", 5, owner="uid-x", **{LABEL_OWNER: "uid-s"})
    for item in (pipeline, child, job, pod, foreign):
        cache.put(item)
    assert [cache.owner(item) for item in (pipeline, child, job, pod, foreign)] == [
        None,
        key_of(pipeline),
        STAGE_KEY,
        STAGE_KEY,
        None,
    ]
    assert [item["metadata"]["name"] for item in cache.children("uid-s", "PyTorchJob", "Pod")] == ["q", "j"]


def test_a_list_shows_what_was_deleted_unseen_and_spares_what_is_newer_or_elsewhere() -> None:
    cache = Cache()
    for name, version in (("kept", 1), ("gone", 2), ("new", 50)):
        cache.put(obj("Job", name, version))
    cache.put(obj("Pod", "pod", 3))
    found = [item["metadata"]["name"] for item in cache.missing("Job", None, {"uid-kept"}, before=10)]
    assert found == ["gone"]
    assert cache.missing("Job", "elsewhere", set(), before=100) == []


def test_what_nobody_reads_is_not_kept() -> None:
    cache = Cache()
    cache.put(stage(1))
    cache.put(obj("Pod", "pod", 2))
    assert "managedFields" not in cache.objects[STAGE_KEY]["metadata"]
    assert cache.objects[STAGE_KEY]["spec"] == {"a": 1}
    assert "spec" not in cache.objects[Key("Pod", "default", "pod")]


def test_memory_of_owners_and_deletions_is_bounded() -> None:
    cache = Cache()
    for number in range(10_050):
        item = obj("Job", f"j{number}", number + 1, owner=f"o{number}")
        cache.put(item)
        cache.remove(item)
    assert len(cache._gone) == 10_000
    assert cache._children == {}
    assert cache._by_uid == {}


def test_what_was_taken_for_deleted_and_changes_is_there_again() -> None:
    cache = Cache()
    cache.put(stage(5))
    cache.remove(stage(5))
    assert [cache.put(stage(5)), cache.put(stage(6))] == [False, True]
    assert list(cache.objects) == [STAGE_KEY]

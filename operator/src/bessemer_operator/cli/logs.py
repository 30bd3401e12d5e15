"""`bessemer logs`: what a stage, an evaluation or a Job of a pipeline wrote; also after its pod is gone.

The pod is asked while it is there, then the store, where pods keep their logs (docs/contract.md).
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bessemer_api.job import log_key
from bessemer_operator.cli.problems import EXIT_NOT_FOUND, UserError, printable
from bessemer_operator.cli.storefile import read_file
from bessemer_operator.cli.target import Target, opened
from bessemer_operator.cluster.protocol import Cluster, ClusterError, NotFound, Ref
from bessemer_operator.core import naming

Json = dict[str, Any]
CONTAINER = "pytorch"
FOLLOW_SECONDS = 1.0
_ENDED = ("Succeeded", "Failed")
_KINDS = ("TrainingStage", "MergeJob", "Evaluation")
_NEWEST_FIRST = ("Running", "Failed", "Succeeded")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of work, and where its attempts keep their logs. `attempts` are names, the oldest first."""

    name: str
    attempts: tuple[str, ...]
    store: str
    input_digest: str
    owner_uid: str


async def show_logs(target: Target, what: str, attempt: int, tail: int, *, follow: bool = False) -> None:
    """Print the log of a piece of work. `attempt` 0 is the newest, `tail` 0 all; `follow` goes on to its end."""
    async with opened(target) as cluster:
        piece = await find_piece(cluster, await cluster.get(target.ref), what)
        name = find_attempt(piece, attempt)
        if follow and await _follow(cluster, target.ref.namespace, name, tail):
            return
        found = await _from_pods(cluster, target.ref.namespace, name, tail)
    found = found or [(title, _last(text, tail)) for title, text in _from_store(piece, name)]
    if not found:
        message = f"{name} left no log: it has no pod (any more), and none is in {piece.store}"
        raise UserError(printable(message), EXIT_NOT_FOUND)
    for title, text in found:
        if len(found) > 1:
            print(f"==> {title} <==")
        print("\n".join(map(printable, text.splitlines())))


async def _follow(cluster: Cluster, namespace: str, attempt: str, tail: int) -> bool:
    """Print what the attempt's pods write, as they write it, until all have ended; whether there was anything.

    The whole log is asked for again and again: that works alike in both worlds, and such logs are small.
    """
    shown: dict[str, int] = {}
    while True:
        pods = (await cluster.list("Pod", namespace, {naming.LABEL_ATTEMPT: attempt})).items
        is_over = all((pod.get("status") or {}).get("phase") in _ENDED for pod in pods)
        for title, text in await _from_pods(cluster, namespace, attempt, 0):
            end = len(text) if is_over else text.rfind("\n") + 1
            lines = text[shown.get(title, 0) : end].splitlines()
            for line in lines if title in shown else lines[-tail:]:
                print(f"{title}: {printable(line)}" if len(pods) > 1 else printable(line), flush=True)
            shown[title] = end
        if is_over:
            return bool(shown)
        await asyncio.sleep(FOLLOW_SECONDS)


async def find_piece(cluster: Cluster, pipeline: Json, what: str) -> Piece:
    """The work that is meant: a stage by its name, an object of ours by its own, or a Job of the pipeline by its verb.

    Without a name: the stage that runs, else one that failed, else the last one that is done. Raises UserError.
    """
    rows = [row for row in (pipeline.get("status") or {}).get("stages") or [] if row.get("object")]
    meant = next((row for row in rows if row["name"] == what), None) if what else _likely(rows)
    namespace = pipeline["metadata"]["namespace"]
    for kind in _KINDS:
        try:
            return _piece_of(await cluster.get(Ref(kind, meant["object"] if meant else what or "-", namespace)))
        except NotFound:
            continue
    labels = {naming.LABEL_PIPELINE: naming.label_value(pipeline["metadata"]["name"]), naming.LABEL_VERB: what}
    jobs = list((await cluster.list("Job", namespace, labels)).items) if what else []
    if not jobs:
        known = ", ".join(row["name"] for row in rows) or "none yet"
        asked = f"{printable(what)} is not known" if what else "nothing has run"
        message = (
            f"{pipeline['metadata']['name']}: {asked}; stages: {known}; or name an evaluation, or a verb (compare)"
        )
        raise UserError(message, EXIT_NOT_FOUND)
    return _piece_of_job(pipeline, max(jobs, key=lambda job: (job["metadata"]["creationTimestamp"], _name(job))))


def _likely(rows: list[Json]) -> Json | None:
    ordered = [row for phase in _NEWEST_FIRST for row in reversed(rows) if row["phase"] == phase]
    return ordered[0] if ordered else None


def _piece_of(obj: Json) -> Piece:
    attempts = tuple(item["name"] for item in (obj.get("status") or {}).get("attempts") or [])
    spec = obj["spec"]
    return Piece(_name(obj), attempts, spec["store"], spec["inputDigest"], obj["metadata"]["uid"])


def _piece_of_job(pipeline: Json, job: Json) -> Piece:
    digest = (job["metadata"].get("annotations") or {}).get(naming.ANNOTATION_DIGEST, "")
    return Piece(_name(job), (_name(job),), pipeline["spec"]["store"], digest, pipeline["metadata"]["uid"])


def _name(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def find_attempt(piece: Piece, number: int) -> str:
    """Name of the attempt with this number; 0 is the newest. Raises UserError."""
    found = [name for name in piece.attempts if number in {0, naming.attempt_number(name)}]
    if not found:
        known = ", ".join(str(naming.attempt_number(name)) for name in piece.attempts) or "none"
        asked = f"attempt {number}" if number else "attempt"
        raise UserError(f"{piece.name} has no {asked}; attempts: {known}", EXIT_NOT_FOUND)
    return found[-1]


async def _from_pods(cluster: Cluster, namespace: str, attempt: str, tail: int) -> list[tuple[str, str]]:
    """Name and log of each pod that is there and has one."""
    found = []
    for pod in (await cluster.list("Pod", namespace, {naming.LABEL_ATTEMPT: attempt})).items:
        try:
            text = await cluster.pod_log(Ref("Pod", _name(pod), namespace), CONTAINER, tail or None)
        except ClusterError:  # it waits for its node, its node is gone, or it went meanwhile
            continue
        found.append((_name(pod), text))
    return found


def _from_store(piece: Piece, attempt: str) -> Iterator[tuple[str, str]]:
    """What the attempt's pods kept, node by node."""
    for node in range(1_000):
        data = read_file(
            f"{piece.store.rstrip('/')}/{log_key(piece.input_digest, f'{piece.owner_uid}/{attempt}', node)}"
        )
        if data is None:
            return
        yield f"{attempt}, node {node}, from the store", data.decode(errors="replace")


def _last(text: str, lines: int) -> str:
    return "\n".join(text.splitlines()[-lines:]) if lines else text

"""`bessemer doctor`: whether a cluster is fit for pipelines; each finding says what to do about it.

It looks with the user's own rights and changes nothing. What it may not look at it calls unknown, never well.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from bessemer_api.crdgen import build_crd
from bessemer_api.v1alpha1 import KINDS
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.problems import EXIT_OK, EXIT_UNFIT, UserError, as_yaml, printable, printable_json
from bessemer_operator.cli.storefile import read_file
from bessemer_operator.cli.target import Target, namespace_of, opened
from bessemer_operator.cluster.clock import utc_now
from bessemer_operator.cluster.kube import KubeCluster
from bessemer_operator.cluster.protocol import Forbidden, NotFound, Ref
from bessemer_operator.core.profile import Profile
from bessemer_operator.reconcile.lease import LEASE_LABELS
from bessemer_operator.settings import SettingsError, parse_profiles

Json = dict[str, Any]
Level = Literal["ok", "warning", "fault", "unknown"]
LEASE_SECONDS = 20
"""A holder renews more often than this (docs/operator.md)."""
UNSEEN = timedelta(minutes=2)
"""training-operator gives a new PyTorchJob its first condition within a second."""
PROFILES_KEY = "profiles.yaml"
RIGHTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "look (status, watch, report)": (
        ("list", "adaptationpipelines.bessemer.dev"),
        ("watch", "adaptationpipelines.bessemer.dev"),
        ("list", "trainingstages.bessemer.dev"),
        ("list", "mergejobs.bessemer.dev"),
        ("list", "evaluations.bessemer.dev"),
    ),
    "read logs": (("list", "pods"), ("get", "pods/log")),
    "edit (apply, retry, rerun-from, suspend)": (
        ("create", "adaptationpipelines.bessemer.dev"),
        ("patch", "adaptationpipelines.bessemer.dev"),
    ),
    "promote (approve, rollback)": (("promote", "adaptationpipelines.bessemer.dev"),),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` is empty where all is well."""

    level: Level
    subject: str
    message: str
    fix: str = ""


@dataclass
class Look:
    """What checks share: a cluster, where the user works, where the operator lives, and what was read on the way."""

    cluster: KubeCluster
    namespace: str
    home: str
    profiles: dict[str, Profile] = field(default_factory=dict)


async def show_findings(place: Place, home: str, output: str) -> int:
    """Print what was found; the exit code. `home` is the operator's namespace."""
    async with opened(Target(Ref("Namespace", "doctor"), place)) as cluster:
        assert isinstance(cluster, KubeCluster)  # noqa: S101 - no file, so no local run
        found = await examine(Look(cluster, namespace_of(place), home))
    documents = [asdict(item) for item in found]
    form = {"json": printable_json, "yaml": as_yaml}.get(output)
    print(form(documents) if form else "\n".join(map(_line, found)))
    return EXIT_UNFIT if any(item.level == "fault" for item in found) else EXIT_OK


def _line(item: Finding) -> str:
    fix = f" ({item.fix})" if item.fix else ""
    return printable(f"{item.level:8}{item.subject}: {item.message}{fix}")


async def examine(look: Look) -> list[Finding]:
    """All findings, in the order in which they should be mended."""
    found: list[Finding] = []
    for subject, check in _CHECKS:
        try:
            found += await check(look)
        except Forbidden as error:
            found.append(Finding("unknown", subject, str(error), "ask an administrator to look"))
    return found


async def _crds(look: Look) -> list[Finding]:
    found = []
    for kind in KINDS:
        wanted = build_crd(kind)
        name = wanted["metadata"]["name"]
        fix = "install the chart of this version, or: kubectl apply --server-side -f crds"
        try:
            there = await look.cluster.get(Ref("CustomResourceDefinition", name))
        except NotFound:
            found.append(Finding("fault", f"crd {name}", "is missing", fix))
            continue
        schemas = [_schema(item["spec"]["versions"]) for item in (wanted, there)]
        if schemas[0] == schemas[1]:
            found.append(Finding("ok", f"crd {name}", "is that of this version"))
        else:
            found.append(Finding("warning", f"crd {name}", "is that of another version than this program", fix))
    return found


def _schema(versions: Iterable[Json]) -> Json:
    return {item["name"]: item["schema"] for item in versions}


async def _training_operator(look: Look) -> list[Finding]:
    subject, fix = "training-operator", "install Kubeflow training-operator 1.9.4 or later"
    try:
        await look.cluster.get(Ref("CustomResourceDefinition", "pytorchjobs.kubeflow.org"))
    except NotFound:
        return [Finding("fault", subject, "its CRD pytorchjobs.kubeflow.org is missing", fix)]
    jobs = (await look.cluster.list("PyTorchJob", look.namespace)).items
    ignored = [job["metadata"]["name"] for job in jobs if _is_ignored(job, utc_now())]
    if ignored:
        message = f"nobody has looked at PyTorchJob {ignored[0]} for more than {UNSEEN.seconds} s"
        return [Finding("fault", subject, message, "see whether training-operator runs")]
    seen = sum(bool((job.get("status") or {}).get("conditions")) for job in jobs)
    return [Finding("ok", subject, f"its CRD is there; it has seen {seen} PyTorchJobs in {look.namespace}")]


def _is_ignored(job: Json, now: datetime) -> bool:
    is_old = now - datetime.fromisoformat(job["metadata"]["creationTimestamp"]) > UNSEEN
    return is_old and not (job.get("status") or {}).get("conditions")


async def _operator(look: Look) -> list[Finding]:
    subject, fix = "operator", f"see its pods: kubectl get pods -n {look.home}; its log says why"
    leases = (await look.cluster.list("Lease", look.home, LEASE_LABELS)).items
    if not leases:
        message = f"no Lease of an operator in namespace {look.home}: none has ever worked there"
        return [Finding("fault", subject, message, "install the chart, or say --operator-namespace")]
    lease = max(leases, key=lambda item: item["spec"].get("renewTime") or "")
    holder, renewed = lease["spec"].get("holderIdentity") or "", lease["spec"].get("renewTime")
    if not holder or renewed is None:
        return [Finding("fault", subject, "nobody holds the Lease: the operator has stopped", fix)]
    age = (utc_now() - datetime.fromisoformat(renewed).astimezone(UTC)).total_seconds()
    if age > LEASE_SECONDS:
        return [Finding("fault", subject, f"{holder} renewed the Lease {age:.0f} s ago, and no more", fix)]
    return [Finding("ok", subject, f"{holder} holds the Lease")]


async def _rights(look: Look) -> list[Finding]:
    who = await look.cluster.who_am_i()
    found = []
    for purpose, rights in RIGHTS.items():
        missing = [f"{verb} {what}" for verb, what in rights if not await look.cluster.may(verb, what, look.namespace)]
        if missing:
            message = f"may not {', '.join(missing)} in {look.namespace}"
            fix = "not needed by all; the roles bessemer-viewer, -editor and -promoter give it"
            found.append(Finding("warning", f"{who}: {purpose}", message, fix))
        else:
            found.append(Finding("ok", f"{who}: {purpose}", f"may, in {look.namespace}"))
    return found


async def _profiles(look: Look) -> list[Finding]:
    maps = [item for item in (await look.cluster.list("ConfigMap", look.home)).items if PROFILES_KEY in _data(item)]
    if not maps:
        fix = f"the chart makes one from its value `profiles`; it belongs into namespace {look.home}"
        return [Finding("fault", "profiles", f"no ConfigMap of {look.home} has the key {PROFILES_KEY}", fix)]
    subject = f"profiles ({maps[0]['metadata']['name']})"
    try:
        look.profiles = parse_profiles(_data(maps[0])[PROFILES_KEY], PROFILES_KEY)
    except SettingsError as error:
        return [Finding("fault", subject, str(error), "correct it in the chart's values")]
    loose = sorted(name for name, item in look.profiles.items() if "@sha256:" not in item.image)
    found = [Finding("ok", subject, f"{len(look.profiles)}: {', '.join(sorted(look.profiles))}")]
    if loose:
        message = f"name an image by tag, not by digest: {', '.join(loose)}"
        found.append(Finding("warning", subject, message, "an image by digest is the same tomorrow"))
    return found


def _data(config_map: Json) -> Json:
    return config_map.get("data") or {}


async def _queues(look: Look) -> list[Finding]:
    wanted = sorted({item.queue for item in look.profiles.values() if item.queue})
    if not wanted:
        return []
    try:
        there = {item["metadata"]["name"] for item in (await look.cluster.list("LocalQueue", look.namespace)).items}
    except NotFound:
        message = f"profiles name queues ({', '.join(wanted)}), and Kueue is not installed: their pods would not wait"
        return [Finding("fault", "queues", message, "install Kueue, or take `queue` out of the profiles")]
    missing = [name for name in wanted if name not in there]
    if missing:
        fix = "make the LocalQueue, else work with that profile never starts"
        return [Finding("fault", "queues", f"namespace {look.namespace} has no LocalQueue {', '.join(missing)}", fix)]
    return [Finding("ok", "queues", f"{', '.join(wanted)} are in {look.namespace}")]


async def _stores(look: Look) -> list[Finding]:
    """What pods said of their store; and whether this user, from here, can read reports and logs in it."""
    found = []
    pipelines = (await look.cluster.list("AdaptationPipeline", look.namespace)).items
    for pipeline in pipelines:
        said = [item.get("message", "") for item in (pipeline.get("status") or {}).get("conditions") or []]
        broken = next((text for text in said if "StoreUnusable" in text or "StoreFailed" in text), "")
        if broken:
            fix = "check the Secret that the profile names in storeSecret, and the bucket"
            found.append(Finding("fault", f"store of {pipeline['metadata']['name']}", broken, fix))
    for url, name in sorted({item["spec"]["store"]: item["metadata"]["name"] for item in pipelines}.items()):
        found.append(_seen_from_here(url, name, pipelines))
    return found


def _seen_from_here(url: str, name: str, pipelines: Iterable[Json]) -> Finding:
    """By the report of a pipeline, which is what a person would read there."""
    reports = [(item.get("status") or {}).get("report") for item in pipelines if item["spec"]["store"] == url]
    report = next(filter(None, reports), None)
    if report is None:
        return Finding("unknown", f"store {url}", f"{name} has no report yet that could be looked for")
    fix = "only `report` and `logs` of ended pods need it; AWS_* variables say how"
    try:
        is_there = read_file(report) is not None
    except UserError as error:
        return Finding("warning", f"store {url}", f"can not be read from here: {error}", fix)
    if not is_there:
        return Finding("warning", f"store {url}", f"from here there is no {report}", fix)
    return Finding("ok", f"store {url}", "can be read from here")


Check = Callable[[Look], Awaitable[list[Finding]]]
_CHECKS: tuple[tuple[str, Check], ...] = (
    ("crds", _crds),
    ("training-operator", _training_operator),
    ("operator", _operator),
    ("profiles", _profiles),
    ("queues", _queues),
    ("rights", _rights),
    ("stores", _stores),
)

"""Asks running pods how far they are. What they say is shown and never decides anything.

Each pod that reports is asked once in each round, so a round's length bounds how often an object is written for it.
"""

import asyncio
from collections.abc import Callable

import aiohttp
from pydantic import ValidationError

from bessemer_api.v1alpha1.evaluation import Progress
from bessemer_operator.cluster.objects import controller_of
from bessemer_operator.core.manifests.pod import METRICS_PORT
from bessemer_operator.core.naming import LABEL_ATTEMPT
from bessemer_operator.executor import METRICS_PORT_ANNOTATION
from bessemer_operator.reconcile.cache import Key, Obj
from bessemer_operator.reconcile.controller import Controller

TIMEOUT_SECONDS = 2.0
MAX_BYTES = 16_384
AT_ONCE = 16


async def poll_progress(controller: Controller, enqueue: Callable[[Key], None], every: float) -> None:
    """Ask all pods that report, every `every` seconds, for ever; objects whose progress changed are enqueued."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        while True:
            await _round(controller, enqueue, session)
            await asyncio.sleep(every)


async def _round(controller: Controller, enqueue: Callable[[Key], None], session: aiohttp.ClientSession) -> None:
    pods = {key: pod for pod in controller.cache.of_kind("Pod") if (key := attempt_of(pod)) is not None}
    for key in controller.progress.keys() - pods.keys():
        del controller.progress[key]
    limit = asyncio.Semaphore(AT_ONCE)

    async def ask(key: Key, pod: Obj) -> None:
        async with limit:
            found = await read_progress(session, url_of(pod))
        owner = controller.cache.owner(pod)
        if found is not None and owner is not None and controller.progress.get(key) != found:
            controller.progress[key] = found
            enqueue(owner)

    await asyncio.gather(*(ask(key, pod) for key, pod in pods.items()))


def attempt_of(pod: Obj) -> Key | None:
    """The attempt for which this pod reports now: it runs, and it is the only or the first one of the attempt."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels = metadata.get("labels") or {}
    is_first = labels.get("training.kubeflow.org/replica-type", "master") == "master"
    owner = controller_of(pod)
    if LABEL_ATTEMPT not in labels or status.get("phase") != "Running" or not status.get("podIP"):
        return None
    return Key(owner["kind"], metadata["namespace"], owner["name"]) if owner and is_first else None


def url_of(pod: Obj) -> str:
    """Where the pod answers; the port is the usual one unless its kubelet chose another."""
    chosen = (pod["metadata"].get("annotations") or {}).get(METRICS_PORT_ANNOTATION, "")
    is_port = chosen.isascii() and chosen.isdecimal() and len(chosen) <= 5 and 0 < int(chosen) < 65_536
    address = pod["status"]["podIP"]
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{chosen if is_port else METRICS_PORT}/progress"


async def read_progress(session: aiohttp.ClientSession, url: str) -> Progress | None:
    """What is answered there; None for no answer, a late one, or anything that is no Progress."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            data = bytearray()
            while len(data) <= MAX_BYTES and (chunk := await response.content.read(MAX_BYTES + 1)):
                data += chunk
        is_fit = response.status == 200 and len(data) <= MAX_BYTES
        return Progress.model_validate_json(bytes(data)) if is_fit else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, ValueError):
        return None

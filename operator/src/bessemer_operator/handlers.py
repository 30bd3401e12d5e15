"""kopf: events in, nothing else. Run as `kopf run -m bessemer_operator.handlers --standalone` with -A or -n.

kopf delivers events; it does not decide, retry or remember, and it never writes to an object (no finalizers, no
annotations): there are event handlers only.
"""

import logging
import os
import socket
import sys
from typing import Any

import kopf

from bessemer_operator.cluster.protocol import KINDS, ClusterError
from bessemer_operator.core.naming import MANAGED_BY
from bessemer_operator.reconcile.cache import FOREIGN_KINDS, WATCHED
from bessemer_operator.reconcile.service import Service, end_process
from bessemer_operator.reconcile.watches import build_session
from bessemer_operator.settings import SettingsError, read_settings

log = logging.getLogger("bessemer")
PLURALS = {KINDS[kind].plural: kind for kind in WATCHED}


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401 - kopf's
    """Read the settings, connect, list everything and start to work; or say why not and end."""
    _configure(settings)
    try:
        service = await Service.connect(read_settings(os.environ, f"{socket.gethostname()}-{os.getpid()}"))
        await service.start()
    except (SettingsError, ClusterError, OSError) as error:
        log.critical("the operator can not start: %s", error)
        sys.exit(1)
    memo.service = service


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:  # noqa: ANN401 - kopf's
    """Finish what is under way and let go of the lease."""
    await memo.service.stop()


@kopf.on.login()
async def login(memo: kopf.Memo, **kwargs: Any) -> kopf.AiohttpSession | None:  # noqa: ANN401 - kopf's
    """A session of our own, that counts requests and holds back watches that end at once."""
    info = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
    if info is None:
        return None
    service: Service = memo.service

    def sign(plural: str) -> None:
        if plural in PLURALS:
            service.health.sign(PLURALS[plural])

    session = build_session(info.as_ssl_context(), info.as_http_headers(), sign, service.metrics.request, end_process)
    return kopf.AiohttpSession(
        server=info.server,
        aiohttp_session=session,
        default_namespace=info.default_namespace,
        expiration=info.expiration,
    )


async def seen(event: kopf.RawEvent, memo: kopf.Memo, resource: kopf.Resource, **_: Any) -> None:  # noqa: ANN401 - kopf's
    """Hand one event on."""
    kind = PLURALS[resource.plural]
    kind_of = KINDS[kind]
    memo.service.seen(kind, event["type"], {"apiVersion": kind_of.api_version, "kind": kind, **event["object"]})


for _kind in WATCHED:  # kopf knows handlers by what is registered when this module is imported
    kopf.on.event(KINDS[_kind].group, KINDS[_kind].version, KINDS[_kind].plural, id=f"seen-{_kind}")(seen)


def _configure(settings: kopf.OperatorSettings) -> None:
    """Why each value is what it is: docs/operator.md."""
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = None  # kopf can not go on after a list whose next part has expired
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, 1, 2, 4, 8, 15, 30)
    settings.queueing.idle_timeout = 2
    settings.process.ultimate_exiting_timeout = 25
    selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
    for kind in FOREIGN_KINDS:
        found = KINDS[kind]
        settings.watching.label_selectors[found.group, found.version, found.plural] = selector
    # kopf tells at level INFO of each handler that returned.
    logging.getLogger("kopf").setLevel(logging.WARNING)

"""Stands in for dcgm-exporter on a machine without a GPU: its metrics, by its names and labels, for the pods that run.

Which pods run is read off the operator's own metrics. The values are made up and change with time; nothing of Bessemer
reads them but queries of dashboards and alerts.
"""

import contextlib
import math
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_POD = re.compile(r'bessemer_stage_pod_info\{namespace="([^"]+)",pipeline="[^"]*",pod="([^"]+)"')


def render(operator_metrics: str, now: float) -> str:
    """What dcgm-exporter would tell of one GPU of each running pod of a stage."""
    busy = 0.5 + 0.4 * math.sin(now)
    values = {
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": busy,
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": busy / 2,
        "DCGM_FI_DEV_FB_USED": 40_000 + 1_000 * busy,
        "DCGM_FI_DEV_XID_ERRORS": 79.0 if busy > 0.8 else 0.0,
    }
    lines = []
    for name, value in values.items():
        lines.append(f"# TYPE {name} gauge")
        for namespace, pod in _POD.findall(operator_metrics):
            lines.append(f'{name}{{gpu="0",namespace="{namespace}",pod="{pod}",container="pytorch"}} {value}')
    return "\n".join(lines) + "\n"


@contextmanager
def served(paths: Mapping[str, Callable[[], tuple[str, str]]]) -> Iterator[str]:
    """Serve functions that give content type and body, each at its path; host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = paths[self.path.partition("?")[0]]()
            body = text.encode()
            with contextlib.suppress(ConnectionError):  # whoever asked did not wait for the answer
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the name is http.server's

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def gpus_of(operator_port: int) -> tuple[str, str]:
    """The answer to a scrape; of no pods while the operator does not answer (tests kill it again and again)."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator_port}/metrics", timeout=2) as answer:
            text = answer.read().decode()
    except OSError:
        text = ""
    return "text/plain; version=0.0.4", render(text, time.monotonic())

"""Prometheus metrics and progress of one pod over HTTP. Holds numbers and serves them; decides nothing.

`/metrics` is Prometheus text; `/progress` is JSON with the field names of Kubeflow KEP-2779. A metric `loss` of the
verb `train` is called `bessemer_train_loss`; a name that ends in `_total` is a counter, any other a gauge.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector


class Board(Collector):
    """The newest value of every metric, and the progress document. Safe to use from several threads."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._lock = threading.Lock()
        self._values: dict[str, float] = {}
        self._progress: dict[str, Any] = {}

    def publish(self, values: dict[str, float], progress: dict[str, Any]) -> None:
        """Take over new values; a metric that is not named keeps its last value."""
        with self._lock:
            self._values.update(values)
            self._progress = progress

    def progress_json(self) -> bytes:
        with self._lock:
            return json.dumps(self._progress).encode()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            values = dict(self._values)
        for name, value in sorted(values.items()):
            yield _family(f"bessemer_{self._verb}_{name}", value)

    def metrics_text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


def _family(name: str, value: float) -> Metric:
    text = name.replace("_", " ")
    if name.endswith("_total"):
        return CounterMetricFamily(name.removesuffix("_total"), text, value=value)
    return GaugeMetricFamily(name, text, value=value)


def serve(board: Board, port: int) -> ThreadingHTTPServer | None:
    """Serve `board` on `port` from a daemon thread. A port that is taken costs the metrics, never the work."""
    try:
        server = ThreadingHTTPServer(("", port), _handler(board))
    except OSError as error:
        sys.stderr.write(f"warning: metrics are not served: port {port}: {error.strerror}\n")
        return None
    threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()
    return server


def _handler(board: Board) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages = {
                "/metrics": (CONTENT_TYPE_PLAIN_0_0_4, board.metrics_text),
                "/progress": ("application/json", board.progress_json),
            }
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(404)
                return
            body = page[1]()
            with contextlib.suppress(ConnectionError):  # whoever asked did not wait for the answer
                self.send_response(200)
                self.send_header("Content-Type", page[0])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Scrapes are not worth a line of log each."""

    return Handler

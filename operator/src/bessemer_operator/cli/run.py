"""`bessemer run FILE`: a pipeline on this machine, with live progress, until it has settled or the user stops it.

The work is local.py's; this module shows it and turns its end into an exit code.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineStatus
from bessemer_operator.cli.board import board
from bessemer_operator.cli.lintfile import check
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.problems import EXIT_STAGE, EXIT_UNREACHABLE, UserError
from bessemer_operator.cli.story import news, outcome, summary
from bessemer_operator.cli.target import state_folder
from bessemer_operator.cli.verbs import find_losses, new_token
from bessemer_operator.cli.yamlfile import Document, read_pipeline
from bessemer_operator.cluster.protocol import ClusterError
from bessemer_operator.local import LocalRun, local_profiles, run_pipeline

LOSS_SECONDS = 1.0
Json = dict[str, Any]


class Screen(Protocol):
    """Where progress is shown."""

    def show(self, pipeline: AdaptationPipeline, losses: dict[str, float]) -> None: ...


class BoardScreen:
    """A terminal: one board that is drawn anew."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, pipeline: AdaptationPipeline, losses: dict[str, float]) -> None:
        self._live.update(board(pipeline, losses))


class LineScreen:
    """A pipe or a file: a line for what is new; the same line about the same thing is not said again."""

    def __init__(self) -> None:
        self._before: PipelineStatus | None = None
        self._told: dict[str, str] = {}

    def show(self, pipeline: AdaptationPipeline, losses: dict[str, float]) -> None:
        for line in news(self._before, pipeline.status, losses):
            subject = line.partition(":")[0]
            if self._told.get(subject) != line:
                print(line, flush=True)
            self._told[subject] = line
        self._before = pipeline.status


class Progress:
    """The newest version of the pipeline and the losses of its stages, shown whenever one of them changes."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._losses: dict[str, float] = {}
        self.pipeline: AdaptationPipeline | None = None

    def changed(self, obj: Json) -> None:
        """Take a new version of the pipeline."""
        self.pipeline = AdaptationPipeline.model_validate(obj)
        self._screen.show(self.pipeline, self._losses)

    async def follow_losses(self, run: LocalRun) -> None:
        """Read the losses from time to time; ends when it is cancelled."""
        cluster = run.cluster
        try:
            while True:
                await asyncio.sleep(LOSS_SECONDS)
                if self.pipeline is not None:
                    self._losses = await find_losses(cluster, self.pipeline)
                    self._screen.show(self.pipeline, self._losses)
        finally:
            await cluster.close()


def run_file(file: str, state: str) -> int:
    """Run the pipeline of `file`; the exit code. Raises UserError."""
    pipeline, document = read_pipeline(file)
    for problem in check(document, local_profiles(pipeline.spec)):
        print(problem, file=sys.stderr)
    run = LocalRun(state_folder(file, Place(state=state)))
    _log_to(run)
    try:
        with screen() as shown:
            final = asyncio.run(_run(run, manifest_of(document), shown))
    except ClusterError as error:
        raise UserError(str(error), EXIT_UNREACHABLE) from None
    return _tell_end(run, AdaptationPipeline.model_validate(final))


def manifest_of(document: Document) -> Json:
    """What is applied: the file's object, without what only a cluster writes."""
    metadata = document.value["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if key in metadata}
    return {**{key: document.value[key] for key in ("apiVersion", "kind", "spec")}, "metadata": kept}


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """A board on a terminal, else lines."""
    console = Console()
    if not console.is_terminal:
        yield LineScreen()
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield BoardScreen(live)


async def _run(run: LocalRun, manifest: Json, shown: Screen) -> Json:
    """Run until the pipeline has settled. The first Ctrl-C or SIGTERM saves and ends, the second ends at once."""
    stop, progress = asyncio.Event(), Progress(shown)
    work = asyncio.create_task(run_pipeline(run, manifest, new_token(), stop, progress.changed))

    def interrupted() -> None:
        if stop.is_set():
            work.cancel()
            return
        print("Stopping: running stages save and end. Ctrl-C again stops at once.", file=sys.stderr)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    losses = asyncio.create_task(progress.follow_losses(run))
    try:
        return await work
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        losses.cancel()


def _tell_end(run: LocalRun, pipeline: AdaptationPipeline) -> int:
    Console().print(board(pipeline)) if Console().is_terminal else print("\n".join(summary(pipeline)))
    code = outcome(pipeline).code
    if code == EXIT_STAGE:
        print(f"Logs: {run.logs}", file=sys.stderr)
    return code


def _log_to(run: LocalRun) -> None:
    """Warnings of the machinery go to a file: the terminal belongs to the board."""
    logging.raiseExceptions = False  # a log on a full disk is lost; what matters fails by itself, and says so
    run.state.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger()
    log.setLevel(logging.INFO)
    handler = logging.FileHandler(run.state / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)

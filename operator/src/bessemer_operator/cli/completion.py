"""What the shell offers after TAB: pipelines, stages, namespaces. Whatever can not be reached is offered as nothing.

`kubectl_complete-bessemer` is the program that kubectl asks for the completions of `kubectl bessemer`.
"""
# ruff: noqa: PLC0415 - `--help` imports this module, and must be instant

import contextlib
import io
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from glob import glob
from typing import Any

import typer

SECONDS = 3.0
"""A shell that waits longer for TAB is worse than one that offers nothing."""
_COBRA_NO_FILES = ":4"
"""The last line of an answer to kubectl: add no names of files."""


def complete_pipeline(ctx: typer.Context, incomplete: str) -> list[str]:
    """Pipelines of the namespace, and YAML files (for local runs)."""
    files = [name for suffix in ("yaml", "yml") for name in glob(f"{incomplete}*.{suffix}")]  # noqa: PTH207 - as typed

    async def names(cluster: Any, namespace: str) -> list[str]:  # noqa: ANN401 - a Cluster
        listing = await cluster.list("AdaptationPipeline", namespace)
        return [item["metadata"]["name"] for item in listing.items]

    return _beginning(incomplete, [*_asked(ctx, names), *files])


def complete_stage(ctx: typer.Context, incomplete: str) -> list[str]:
    """Stages of the pipeline that was named before."""

    async def names(cluster: Any, namespace: str) -> list[str]:  # noqa: ANN401 - a Cluster
        from bessemer_operator.cluster.protocol import Ref

        obj = await cluster.get(Ref("AdaptationPipeline", ctx.params["name"], namespace))
        return [row["name"] for row in (obj.get("status") or {}).get("stages") or []]

    return _beginning(incomplete, _asked(ctx, names))


def complete_namespace(ctx: typer.Context, incomplete: str) -> list[str]:
    """Namespaces."""

    async def names(cluster: Any, _namespace: str) -> list[str]:  # noqa: ANN401 - a Cluster
        return [item["metadata"]["name"] for item in (await cluster.list("Namespace")).items]

    return _beginning(incomplete, _asked(ctx, names))


def _beginning(incomplete: str, words: Sequence[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})


def _asked(ctx: typer.Context, names: Callable[[Any, str], Awaitable[list[str]]]) -> list[str]:
    """What the cluster answers, which the options before the word name; nothing when it does not answer soon."""
    import asyncio

    import bessemer_operator.cluster.kube  # noqa: F401 - before the time runs: it takes a second
    from bessemer_operator.cli.place import Place
    from bessemer_operator.cli.target import connect, namespace_of

    given = {name: ctx.params.get(name) or "" for name in ("namespace", "state", "kubeconfig", "context")}
    place = Place(**given)

    async def ask() -> list[str]:
        cluster = await connect(place)
        try:
            return await names(cluster, namespace_of(place))
        finally:
            await cluster.close()

    try:
        return asyncio.run(asyncio.wait_for(ask(), SECONDS))
    except Exception:  # noqa: BLE001 - a shell that waits for words must not get a traceback
        return []


def completions(words: Sequence[str]) -> list[str]:
    """What may stand for the last of these words, one a line, as a script of `--install-completion` would get it."""
    import shlex

    from bessemer_operator.cli.main import app

    asked = {
        "_BESSEMER_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(["bessemer", *words]),
        "COMP_CWORD": str(len(words)),
    }
    os.environ.update(asked)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app(prog_name="bessemer")
    return [line for line in said.getvalue().splitlines() if line]


def main() -> None:
    """Entry point of kubectl_complete-bessemer: words so far, the last one unfinished."""
    sys.stdout.write("\n".join([*completions(sys.argv[1:] or [""]), _COBRA_NO_FILES]) + "\n")

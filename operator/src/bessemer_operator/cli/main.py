"""The commands `bessemer` and `kubectl-bessemer`: arguments in, exit code out.

Each command imports what it needs when it is called, so that `--help` is instant. It must not decide anything.
"""
# ruff: noqa: PLC0415 - imports stand in the commands, see above

import os
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from bessemer_operator.cli.completion import complete_pipeline, complete_stage
from bessemer_operator.cli.place import Place, placed
from bessemer_operator.cli.problems import (
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
    UserError,
    as_yaml,
    printable,
    printable_json,
)

if TYPE_CHECKING:
    from bessemer_operator.cli.target import Target as FoundTarget

Result = TypeVar("Result")

app = typer.Typer(
    name="bessemer",
    help="Turn a general language model into a specialist: declared, gated, repeatable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Pipeline file (its local run), or name in the cluster.",
        autocompletion=complete_pipeline,
    ),
]
State = Annotated[str, typer.Option("--state", help="Folder of a local run (default: .bessemer beside the file).")]
_FORM = typer.Option("-o", "--output", help="Form of the output.")
Form = Annotated[Literal["text", "json", "yaml"], _FORM]
WideForm = Annotated[Literal["text", "wide", "json", "yaml", "name"], _FORM]
ProfilesFile = Annotated[str, typer.Option("--profiles", help="The administrator's profiles, a YAML file.")]
Effects = Annotated[
    list[str] | None, typer.Option("--effect", help="AXIS=GAIN supposed to be true, or GAIN on every axis.")
]
Supposed = Annotated[
    list[str] | None,
    typer.Option(
        "--suppose",
        metavar="WHAT=VALUE",
        help="shape=NAME or a folder; tokens.DATASET=N; try=N; discordance=SHARE; anchor.AXIS=GAIN; "
        "also.OTHER.AXIS=GAIN; spread.AXIS=SD.",
    ),
]


@app.command()
def lint(
    files: Annotated[list[str], typer.Argument(help="YAML files; - is standard input.", metavar="FILE...")],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings make the exit code 3 too.")] = False,
    profiles: ProfilesFile = "",
    output: Form = "text",
) -> None:
    """Check pipeline files: every problem with its line and what to do about it."""
    from bessemer_operator.cli import lintfile

    known = lintfile.profiles_of(profiles)
    problems = [problem for file in dict.fromkeys(files) for problem in lintfile.problems_of(file, known)]
    form = {"json": printable_json, "yaml": as_yaml}.get(output)
    typer.echo(form([item.wire() for item in problems]) if form else lintfile.as_text(files, problems))
    raise typer.Exit(lintfile.exit_code(problems, strict))


@app.command()
def run(
    file: Annotated[str, typer.Argument(help="Pipeline file.", metavar="FILE")],
    state: State = "",
) -> None:
    """Run a pipeline on this machine, until it is promoted, refused or stopped (Ctrl-C saves; run again to go on)."""
    from bessemer_operator.cli.run import run_file

    raise typer.Exit(run_file(file, state))


@app.command()
def plan(
    file: Annotated[str, typer.Argument(help="Pipeline file.", metavar="FILE")],
    state: State = "",
    effect: Effects = None,
    suppose: Supposed = None,
    profiles: ProfilesFile = "",
    output: Form = "text",
) -> None:
    """What would run and be reused, memory, time and GPU hours, and the power of the gates. Changes nothing."""
    from bessemer_operator.cli.planfile import show_plan
    from bessemer_operator.cli.supposed import read_supposed

    asked = read_supposed(effect or [], suppose or [])
    raise typer.Exit(_go(show_plan(file, Place(state=state), asked, profiles, output)))


@app.command()
@placed
def status(
    place: Place,
    name: Target = "",
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Pipelines of all namespaces.")] = False,
    output: WideForm = "text",
) -> None:
    """Stages, gates and channels of a pipeline; without a name, a line for every pipeline of the namespace."""
    from bessemer_operator.cli import verbs

    target = _target(name, place)
    _go(verbs.show_status(target, output) if name else verbs.show_all(target, output, is_everywhere=everywhere))


@app.command()
@placed
def watch(name: Target, place: Place) -> None:
    """A pipeline as a live tree, with progress and time left, until it has settled; the exit code says how."""
    from bessemer_operator.cli.watch import watch

    raise typer.Exit(_go(watch(_target(name, place))))


@app.command()
@placed
def logs(
    name: Target,
    place: Place,
    what: Annotated[
        str,
        typer.Argument(
            help="Stage, merge or data set; an Evaluation; or resolve, compare, diagnose, promote, rollback, report "
            "(default: the stage that runs, else one that failed).",
            autocompletion=complete_stage,
        ),
    ] = "",
    attempt: Annotated[int, typer.Option("--attempt", min=0, help="Number of the attempt (default: the newest).")] = 0,
    tail: Annotated[int, typer.Option("--tail", min=0, help="Only so many lines of the end.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until its pods have ended.")] = False,
) -> None:
    """What a piece of work wrote: from its pod, or, after that is gone, from the store."""
    from bessemer_operator.cli.logs import show_logs

    _go(show_logs(_target(name, place), what, attempt, tail, follow=follow))


@app.command()
@placed
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Pipeline files, or names in the cluster.", metavar="NAME...", autocompletion=complete_pipeline
        ),
    ],
    place: Place,
    profiles: ProfilesFile = "",
    output: Form = "text",
) -> None:
    """Candidates side by side: approach, measured benefits, risks that showed, resources, and where each suits."""
    from bessemer_operator.cli.compare import show_comparison
    from bessemer_operator.cli.lintfile import profiles_of

    _go(show_comparison(names, place, profiles_of(profiles) or {}, output))


@app.command()
@placed
def report(
    name: Target,
    place: Place,
    save: Annotated[str, typer.Option("--save", metavar="FILE", help="Fetch it into this file.")] = "",
    is_opened: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Where the HTML report of a pipeline is; or the report itself."""
    from bessemer_operator.cli import verbs

    _go(verbs.show_report(_target(name, place), save, is_opened=is_opened))


@app.command()
@placed
def retry(name: Target, place: Place) -> None:
    """Try what failed again, with a fresh count of attempts."""
    from bessemer_operator.cli import verbs

    _go(verbs.retry(_target(name, place)))


@app.command()
@placed
def rerun_from(
    name: Target,
    stage: Annotated[
        str, typer.Argument(help="Stage from which everything is done again.", autocompletion=complete_stage)
    ],
    place: Place,
) -> None:
    """Do a stage and everything after it again, even where the result is known."""
    from bessemer_operator.cli import verbs

    _go(verbs.rerun_from(_target(name, place), stage))


@app.command()
@placed
def suspend(name: Target, place: Place) -> None:
    """Let running stages save and end; nothing new starts."""
    from bessemer_operator.cli import verbs

    _go(verbs.suspend(_target(name, place)))


@app.command()
@placed
def resume(name: Target, place: Place) -> None:
    """Go on with a suspended pipeline."""
    from bessemer_operator.cli import verbs

    _go(verbs.resume(_target(name, place)))


By = Annotated[str, typer.Option("--by", help="Who asks (default: as the cluster, or this machine, knows you).")]
Candidate = Annotated[str, typer.Argument(help="Digest of the candidate that is meant, or 8 digits of it.")]


@app.command()
@placed
def approve(name: Target, place: Place, candidate: Candidate = "", by: By = "") -> None:
    """Agree to the promotion that waits for a person."""
    from bessemer_operator.cli import release

    _go(release.approve(_target(name, place), candidate, by))


@app.command()
@placed
def reject(name: Target, place: Place, candidate: Candidate = "", by: By = "") -> None:
    """Refuse the promotion that waits for a person."""
    from bessemer_operator.cli import release

    _go(release.reject(_target(name, place), candidate, by))


@app.command()
@placed
def rollback(
    name: Target,
    place: Place,
    digest: Annotated[
        str, typer.Argument(help="What the channel shall hold again (default: what it held before).")
    ] = "",
    channel: Annotated[str, typer.Option("--channel", help="Channel, where there are several.")] = "",
    by: By = "",
) -> None:
    """Let a channel hold an earlier checkpoint again; what it leaves is not promoted again."""
    from bessemer_operator.cli import release

    _go(release.rollback(_target(name, place), digest, channel, by))


@app.command()
@placed
def doctor(
    place: Place,
    home: Annotated[
        str, typer.Option("--operator-namespace", help="Where the operator is installed.")
    ] = "bessemer-system",
    output: Form = "text",
) -> None:
    """Whether the cluster is fit for pipelines, and what to do where it is not."""
    from bessemer_operator.cli.doctor import show_findings

    raise typer.Exit(_go(show_findings(place, home, output)))


def _target(name: str, place: Place) -> "FoundTarget":
    from bessemer_operator.cli.target import find_target

    return find_target(name, place)


def _go(work: Coroutine[Any, Any, Result]) -> Result:
    import asyncio

    return asyncio.run(work)


def main() -> None:
    """Entry point of both programs."""
    try:
        app(prog_name=os.path.basename(sys.argv[0]) or "bessemer")  # noqa: PTH119 - a name, no file
    except UserError as error:
        typer.echo("\n".join(map(printable, str(error).splitlines())), err=True)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a folder or a disk that can not be used, wherever it was met
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(printable(f"{where}{error.strerror or error}"), err=True)
        sys.exit(EXIT_UNREACHABLE)


if __name__ == "__main__":
    main()

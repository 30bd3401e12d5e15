"""The commands `bessemer` and `kubectl-bessemer`: arguments in, exit code out.

Each command imports what it needs when it is called, so that `--help` is instant. It must not decide anything.
"""
# ruff: noqa: PLC0415 - imports stand in the commands, see above

import os
import sys
from typing import Annotated, Literal

import typer

from bessemer_operator.cli.problems import EXIT_INTERRUPTED, EXIT_UNREACHABLE, UserError, printable

app = typer.Typer(
    name="bessemer",
    help="Turn a general language model into a specialist: declared, gated, repeatable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[str, typer.Argument(help="Pipeline file (its local run), or name in the cluster.", metavar="NAME")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace in the cluster.")]
State = Annotated[str, typer.Option("--state", help="Folder of a local run (default: .bessemer beside the file).")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="Kubeconfig file.")]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")]
Output = Annotated[Literal["text", "json"], typer.Option("-o", "--output", help="Form of the output.")]
PlanOutput = Annotated[Literal["text", "json", "yaml"], typer.Option("-o", "--output", help="Form of the output.")]
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
    output: Output = "text",
) -> None:
    """Check pipeline files: every problem with its line and what to do about it."""
    from bessemer_operator.cli import lintfile

    known = lintfile.profiles_of(profiles)
    problems = [problem for file in dict.fromkeys(files) for problem in lintfile.problems_of(file, known)]
    typer.echo(lintfile.as_json(problems) if output == "json" else lintfile.as_text(files, problems))
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
    output: PlanOutput = "text",
) -> None:
    """What would run and be reused, memory, time and GPU hours, and the power of the gates. Changes nothing."""
    import asyncio

    from bessemer_operator.cli.planfile import show_plan
    from bessemer_operator.cli.supposed import read_supposed
    from bessemer_operator.cli.target import Place

    asked = read_supposed(effect or [], suppose or [])
    raise typer.Exit(asyncio.run(show_plan(file, Place(state=state), asked, profiles, output)))


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="Pipeline file (its local run), or name in the cluster.")] = "",
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    output: Output = "text",
) -> None:
    """Stages, gates and channels of a pipeline; without a name, a line for every pipeline of the namespace."""
    import asyncio

    from bessemer_operator.cli import verbs
    from bessemer_operator.cli.target import Place, find_target

    target = find_target(name, Place(namespace, state, kubeconfig, context))
    asyncio.run(verbs.show_status(target, output) if name else verbs.show_all(target, output))


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Pipeline files, or names in the cluster.", metavar="NAME...")],
    namespace: Namespace = "default",
    state: State = "",
    context: Context = "",
    profiles: ProfilesFile = "",
    output: Output = "text",
) -> None:
    """Candidates side by side: approach, measured benefits, risks that showed, resources, and where each suits."""
    import asyncio

    from bessemer_operator.cli.compare import show_comparison
    from bessemer_operator.cli.lintfile import profiles_of
    from bessemer_operator.cli.target import Place

    place = Place(namespace, state, context=context)
    asyncio.run(show_comparison(names, place, profiles_of(profiles) or {}, output))


@app.command()
def report(
    name: Target,
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Where the HTML report of a pipeline is."""
    _verb("show_report", name, (namespace, state, kubeconfig, context))


@app.command()
def retry(
    name: Target,
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Try what failed again, with a fresh count of attempts."""
    _verb("retry", name, (namespace, state, kubeconfig, context))


@app.command()
def rerun_from(
    name: Target,
    stage: Annotated[str, typer.Argument(help="Stage from which everything is done again.")],
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Do a stage and everything after it again, even where the result is known."""
    _verb("rerun_from", name, (namespace, state, kubeconfig, context), stage)


@app.command()
def suspend(
    name: Target,
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Let running stages save and end; nothing new starts."""
    _verb("suspend", name, (namespace, state, kubeconfig, context))


@app.command()
def resume(
    name: Target,
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Go on with a suspended pipeline."""
    _verb("resume", name, (namespace, state, kubeconfig, context))


By = Annotated[str, typer.Option("--by", help="Who asks (default: as the cluster, or this machine, knows you).")]
Candidate = Annotated[str, typer.Argument(help="Digest of the candidate that is meant, or 8 digits of it.")]


@app.command()
def approve(  # noqa: PLR0913, PLR0917 - each option of the command is a parameter
    name: Target,
    candidate: Candidate = "",
    by: By = "",
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Agree to the promotion that waits for a person."""
    _release("approve", name, (namespace, state, kubeconfig, context), candidate, by)


@app.command()
def reject(  # noqa: PLR0913, PLR0917 - each option of the command is a parameter
    name: Target,
    candidate: Candidate = "",
    by: By = "",
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Refuse the promotion that waits for a person."""
    _release("reject", name, (namespace, state, kubeconfig, context), candidate, by)


@app.command()
def rollback(  # noqa: PLR0913, PLR0917 - each option of the command is a parameter
    name: Target,
    digest: Annotated[
        str, typer.Argument(help="What the channel shall hold again (default: what it held before).")
    ] = "",
    channel: Annotated[str, typer.Option("--channel", help="Channel, where there are several.")] = "",
    by: By = "",
    namespace: Namespace = "default",
    state: State = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Let a channel hold an earlier checkpoint again; what it leaves is not promoted again."""
    _release("rollback", name, (namespace, state, kubeconfig, context), digest, channel, by)


def _release(verb: str, name: str, place: tuple[str, str, str, str], *arguments: str) -> None:
    import asyncio

    from bessemer_operator.cli import release
    from bessemer_operator.cli.target import Place, find_target

    asyncio.run(getattr(release, verb)(find_target(name, Place(*place)), *arguments))


def _verb(verb: str, name: str, place: tuple[str, str, str, str], *arguments: str) -> None:
    import asyncio

    from bessemer_operator.cli import verbs
    from bessemer_operator.cli.target import Place, find_target

    asyncio.run(getattr(verbs, verb)(find_target(name, Place(*place)), *arguments))


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

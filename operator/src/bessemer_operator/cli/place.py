"""The options that say which cluster, namespace or folder a command is about: declared once, shared by all commands.

Light on purpose (`--help` must be instant): nothing is read here.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from bessemer_operator.cli.completion import complete_namespace


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look. Each field is an option; `state` is the folder of a local run."""

    namespace: Annotated[
        str,
        typer.Option(
            "-n", "--namespace", help="Namespace (default: that of the context).", autocompletion=complete_namespace
        ),
    ] = ""
    state: Annotated[str, typer.Option(help="Folder of a local run (default: .bessemer beside the file).")] = ""
    kubeconfig: Annotated[str, typer.Option(help="Kubeconfig file.")] = ""
    context: Annotated[str, typer.Option(help="Context of the kubeconfig.")] = ""


def placed(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of a Place instead of its parameter `place`."""
    hints = get_type_hints(Place, include_extras=True)
    own = inspect.signature(command).parameters
    options = {
        field.name: inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(Place)
    }

    @wraps(command)
    def with_place(**given: Any) -> None:  # noqa: ANN401 - what typer parsed
        place = Place(**{name: given.pop(name) for name in options})
        command(**given, place=place)

    kept = [parameter for name, parameter in own.items() if name != "place"]
    with_place.__dict__.pop("__wrapped__")  # typer would read the parameters of the command itself
    with_place.__annotations__ = {item.name: item.annotation for item in (*kept, *options.values())}
    signature = inspect.Signature([*kept, *options.values()])
    vars(with_place)["__signature__"] = signature
    return with_place

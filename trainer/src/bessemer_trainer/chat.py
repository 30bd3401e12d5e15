"""Chat templates: messages to text, as transformers renders them. Knows no tokens and no files but a model's folder.

Templates run in jinja2's sandbox. There is no clock in it: `strftime_now` is not defined, so that a template of today
renders tomorrow as it did; templates that ask for it fall back to their fixed date or are refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bessemer_api.digest import sha256_digest
from bessemer_trainer.errors import PermanentError

FILE = "chat_template.jinja"
"""Transformers' file of a checkpoint's template."""

Messages = Sequence[Mapping[str, str]]

_CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

_ROLES = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ 'Answer: ' + message['content'] + eos_token }}
{%- elif message['role'] == 'user' -%}
{{ 'Question: ' + message['content'] + '\\n' }}
{%- else -%}
{{ message['content'] + '\\n\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'Answer:' }}
{%- endif -%}
"""

NAMED: Mapping[str, str] = {"chatml": _CHATML, "roles": _ROLES}
"""Templates known by name. `chatml` needs its two tokens in the tokenizer; `roles` the end-of-text token alone."""

NEEDED_TOKENS: Mapping[str, tuple[str, ...]] = {"chatml": ("<|im_start|>", "<|im_end|>")}


class RowError(ValueError):
    """A row can not be used; `reason` is one word by which such rows are counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Generation(Extension):
    """`{% generation %}`: transformers marks the assistant's text by it; here it is its body alone."""

    tags = {"generation"}  # noqa: RUF012 - jinja's way of declaring it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template with the special tokens that it may name."""

    name: str
    source: str
    tokens: Mapping[str, str]

    @property
    def digest(self) -> str:
        return sha256_digest(self.source.encode())

    def render(self, messages: Messages, *, prompt: bool) -> str:
        """The text of the messages; `prompt` adds what the assistant's next turn begins with.

        Raises RowError when the template refuses the messages, PermanentError(TemplateInvalid) when it is broken.
        """
        try:
            told = {"messages": [dict(message) for message in messages], "add_generation_prompt": prompt}
            return _compiled(self.source).render(**self.tokens, **told, tools=None, documents=None)
        except RowError:
            raise
        except (TemplateError, SecurityError, TypeError, ValueError, KeyError) as error:
            raise PermanentError("TemplateInvalid", f"chat template {self.name}: {error}") from None


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    """In an environment as transformers makes it (utils/chat_template_utils.py), without its clock."""
    extensions: list[type[Extension]] = [_Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


def _to_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - whatever a template has
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise RowError("refusedByTemplate", message)


def load_template(name: str, folder: Path) -> ChatTemplate | None:
    """The template `name`, with the special tokens of the tokenizer in `folder`; None for `none`.

    `fromModel` reads the folder's chat_template.jinja, else its tokenizer_config.json.
    Raises PermanentError(TemplateMissing) that says what could be named instead.
    """
    if name == "none":
        return None
    config = _config(folder)
    source = _of_model(folder, config) if name == "fromModel" else NAMED.get(name)
    if source is None and name != "fromModel":
        raise PermanentError("TemplateMissing", f"chatTemplate {name}: expected none, fromModel, {', '.join(NAMED)}")
    if source is None:
        raise PermanentError(
            "TemplateMissing",
            "chatTemplate fromModel: the model has no chat template; set chatTemplate to chatml, roles or none",
        )
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    found = {name: _content(config.get(name)) for name in names}
    return ChatTemplate(name, source, {name: text for name, text in found.items() if text is not None})


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _of_model(folder: Path, config: Mapping[str, Any]) -> str | None:
    if (folder / FILE).is_file():
        return (folder / FILE).read_text(encoding="utf-8")
    told = config.get("chat_template")
    if isinstance(told, list):  # several by name: the default one
        told = next((entry.get("template") for entry in told if entry.get("name") == "default"), None)
    return told if isinstance(told, str) else None


def _content(token: Any) -> str | None:  # noqa: ANN401 - a string, or an object with `content`
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None

"""The prompt of an item as it is shown to the model: a text or messages, damaged where the axis says so. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.items import Item, required_text
from bessemer_trainer.evals.perturb import TIMEOUT, perturbed

ROLES = ("system", "user", "assistant", "tool")


def prompt_of(item: Item, axis: Axis) -> str | list[dict[str, str]]:
    """The field `prompt`, with the result of a tool after it where the item has a `toolResult`, and with the item's
    `passage` before it where the axis is open-book.

    Damage is done to a text, or to what the user says last. `toolTimeout` takes the place of a tool's result.
    """
    kinds = list(axis.perturb or ())
    result = item.fields.get("toolResult")
    if result is not None:
        result = TIMEOUT if "toolTimeout" in kinds else required_text(item, "toolResult")
        kinds = [kind for kind in kinds if kind != "toolTimeout"]
    if isinstance(item.fields.get("prompt"), str):
        text = with_passage(item, axis, perturbed(required_text(item, "prompt"), kinds, item.id))
        return text if result is None else f"{text}\n{result}\n"
    messages = messages_of(item)
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    said = with_passage(item, axis, perturbed(messages[last]["content"], kinds, item.id))
    messages[last] = {"role": "user", "content": said}
    return messages if result is None else [*messages, {"role": "tool", "content": str(result)}]


def with_passage(item: Item, axis: Axis, prompt: str) -> str:
    """The prompt after the item's passage, where the axis shows passages. They are never damaged."""
    return f"{required_text(item, 'passage')}\n{prompt}" if axis.passages else prompt


def messages_of(item: Item) -> list[dict[str, str]]:
    """The field `prompt` as messages. Raises PermanentError(BadItem)."""
    try:
        return check_messages(item.fields.get("prompt"))
    except ValueError as error:
        raise item.error(str(error), "expected a text, or messages with role and content") from None


def check_messages(value: object) -> list[dict[str, str]]:
    """Messages with at least one of the user. ValueError says what is wrong."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"field 'prompt': expected a text or a list of messages, found {value!r:.80}")
    for message in value:
        if not _is_message(message):
            raise ValueError(f"field 'prompt': {message!r:.80} is no message with a role and a content")
    if not any(message["role"] == "user" for message in value):
        raise ValueError("field 'prompt': no message of the user")
    return [dict(message) for message in value]


def _is_message(message: Any) -> bool:  # noqa: ANN401 - any JSON value
    if not isinstance(message, Mapping) or message.keys() != {"role", "content"} or message["role"] not in ROLES:
        return False
    return isinstance(message["content"], str) and bool(message["content"].strip())


def turns_of(item: Item, axis: Axis) -> list[str]:
    """What the user says, turn by turn, damaged where the axis says so."""
    turns: Sequence[str] = item.fields.get("turns") or []
    return [perturbed(turn, axis.perturb or (), f"{item.id}/{k}") for k, turn in enumerate(turns)]


def stop_of(item: Item) -> tuple[str, ...]:
    """Texts at which an answer is cut off; from the item's field `stop`."""
    return tuple(item.fields.get("stop") or ())

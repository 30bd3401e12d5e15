"""Change one scalar of a YAML text and nothing else: comments, quotes, order and line ends stay byte for byte.

The text is not written anew from what was parsed: only the characters of the scalar itself are replaced. The result is
parsed again and must differ in that one value.
"""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bessemer_trainer.errors import PermanentError


def read_scalar(text: str, key: str) -> str:
    """The value of the scalar at `key` (`spec.model.storageUri`; a number counts in a list).

    Raises PermanentError(GitFileInvalid | GitKeyMissing | GitKeyUnusable).
    """
    return str(_find(text, key).value)


def replace_scalar(text: str, key: str, value: str) -> str:
    """`text` with `value` at `key`. `value` must be fit for a plain scalar of one line, as a URL is.

    Raises PermanentError as `read_scalar`, and for a value that other places share by an anchor.
    """
    node = _find(text, key)
    if node.style in {"|", ">"} or node.start_mark.line != node.end_mark.line:
        raise PermanentError("GitKeyUnusable", f"{key}: its value has several lines; expected a scalar on one line")
    if node.anchor:
        raise PermanentError("GitKeyUnusable", f"{key}: other places of the file share its value, by an anchor")
    start, end = node.start_mark.index, node.end_mark.index
    if start == end:
        raise PermanentError("GitKeyUnusable", f"{key}: it has no value; write any word there first")
    written = f"{node.style}{value}{node.style}" if node.style in {"'", '"'} else value
    changed = text[:start] + written + text[end:]
    _require_one_change(text, changed, key, value)
    return changed


def _find(text: str, key: str) -> ScalarNode:
    found = [node for root in _compose(text) if (node := _walk(root, key.split("."))) is not None]
    if len(found) != 1:
        raise PermanentError("GitKeyMissing", f"{key}: found {len(found)} times in the file; expected once")
    if not isinstance(found[0], ScalarNode):
        raise PermanentError("GitKeyUnusable", f"{key}: it is a map or a list; expected a scalar")
    return found[0]


def _compose(text: str) -> list[Node]:
    try:
        return [node for node in YAML(typ="rt", pure=True).compose_all(text) if node is not None]
    except YAMLError as error:
        raise _invalid(error) from None


def _invalid(error: YAMLError) -> PermanentError:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return PermanentError("GitFileInvalid", f"it is no YAML: {where}{getattr(error, 'problem', None) or error}")


def _walk(node: Node, steps: list[str]) -> Node | None:
    for step in steps:
        following: Node | None = None
        if isinstance(node, MappingNode):
            following = next((value for name, value in node.value if name.value == step), None)
        elif isinstance(node, SequenceNode) and step.isdecimal() and int(step) < len(node.value):
            following = node.value[int(step)]
        if following is None:
            return None
        node = following
    return node


def _require_one_change(before: str, after: str, key: str, value: str) -> None:
    old, new = _load(before), _load(after)
    places = [place for place in old.keys() | new.keys() if old.get(place) != new.get(place)]
    is_it = [place for place in places if new.get(place) == value]
    if len(places) > 1 or len(is_it) != len(places):
        raise PermanentError(
            "GitKeyUnusable",
            f"{key}: a change would reach {len(places)} places of the file; expected one: is it shared?",
        )


def _load(text: str) -> dict[tuple[Any, ...], Any]:
    try:
        documents = list(YAML(typ="safe", pure=True).load_all(text))
    except YAMLError as error:
        raise _invalid(error) from None
    return dict(_leaves(documents, ()))


def _leaves(value: Any, place: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], Any]]:  # noqa: ANN401 - any YAML
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in _leaves(item, (*place, name))]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in _leaves(item, (*place, index))]
    return [(place, value)]

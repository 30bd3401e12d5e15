"""Rows to tokens with what is learned from them: examples, pairs and prompts. No file and no share is known here.

Where a turn of the assistant begins and ends is found by rendering the messages before it and with it: the first must
be the beginning of the second, or the template is refused. Prompt and answer are cut there in the text, and the tokens
before the cut are those of the prompt alone, as at inference. The end of a turn is learned: the special token that
the template writes there, else the end-of-text token.

Text of a row that spells a special token stays text: a mark is put before it, which the template carries along and
which is taken out again when the text is cut into tokens.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer

from bessemer_api.v1alpha1.data import DataKind
from bessemer_api.v1alpha1.train import LossOn
from bessemer_trainer.chat import NEEDED_TOKENS, ChatTemplate, Messages, RowError
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.records import Part
from bessemer_trainer.token_cache import Vocabulary

_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Code points that no text means anything by (Unicode's noncharacters)."""


@dataclass(frozen=True, slots=True)
class Example:
    """A document of tokens; `targets[i]` says whether token i is learned. The first token never is."""

    tokens: list[int]
    targets: list[bool]


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens of a prompt and of its two answers, each with its end."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of text. `turn` is the number of the assistant's message that it is, -1 for what is given."""

    text: str
    turn: int = -1


class RowReader:
    """Makes tokens of rows with one tokenizer and one chat template (None: texts are joined as they are)."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate | None) -> None:
        """Raises PermanentError(TokenizerInvalid) when the tokenizer lacks a token that a named template needs."""
        self._plain = vocabulary.tokenizer
        self._special = Tokenizer.from_str(vocabulary.tokenizer.to_str())
        self._special.encode_special_tokens = False
        self._end = vocabulary.end
        self._prefix = _added_before(vocabulary.tokenizer)
        added = vocabulary.tokenizer.get_added_tokens_decoder().items()
        self._specials = {token.content: number for number, token in added if token.special}
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._spelled = re.compile(f"(?=(?:{self._pattern.pattern}))")
        self._template = template and _complete(template, self._prefix, vocabulary)
        missing = sorted({*NEEDED_TOKENS.get(template.name if template else "", ())} - {*self._specials})
        if missing:
            hint = "add them as special tokens, or set chatTemplate to roles"
            raise PermanentError(
                "TokenizerInvalid", f"chat template {template and template.name} needs {', '.join(missing)}; {hint}"
            )
        self.ends: set[int] = set()
        """Tokens that closed an answer so far: where generation has to stop."""

    @property
    def template(self) -> ChatTemplate | None:
        """The template as checkpoints carry it."""
        return self._template

    def example(self, row: Mapping[str, Any], kind: DataKind, loss_on: LossOn) -> Example:
        """Tokens and targets of a row of kind text, messages or promptCompletion. Raises RowError."""
        if kind == "text":
            tokens = [*self._prefix, *self._plain.encode(row["text"], add_special_tokens=False).ids, self._end]
            self.ends.add(self._end)
            return Example(tokens, [False] + [True] * (len(tokens) - 1))
        pieces, mark, first = self._pieces(row, kind)
        last = max(piece.turn for piece in pieces)
        first_learned = {"completion": last if kind == "messages" else first, "assistant": 0, "all": -1}[loss_on]
        ids = self._ids([piece.text for piece in pieces], mark)
        ids[-1] = self._closed(ids[-1])
        before = [] if self._template else self._prefix
        tokens = [*before, *(token for part in ids for token in part)]
        learned = [loss_on == "all"] * len(before)
        for piece, part in zip(pieces, ids, strict=True):
            learned += [piece.turn >= first_learned and (piece.turn >= 0 or loss_on == "all")] * len(part)
        return Example(tokens, [False, *learned[1:]])

    def pair(self, row: Mapping[str, Any]) -> Pair:
        """Tokens of a row of kind preference. Raises RowError."""
        prompt, answers = row["prompt"], []
        for name in ("chosen", "rejected"):
            given, learned, mark = self._answer(prompt, row[name])
            ids = self._ids([given, learned], mark)
            answers.append((ids[0], self._closed(ids[1])))
        before = [] if self._template else self._prefix
        return Pair([*before, *answers[0][0]], answers[0][1], answers[1][1])

    def prompt(self, row: Mapping[str, Any]) -> list[int]:
        """Tokens of the prompt of a row, up to where the answer begins. Raises RowError."""
        mark = self._mark(row["prompt"])
        if self._template is None:
            return [*self._prefix, *self._encode(self._escape(_plain_prompt(row["prompt"]), mark), mark)]
        return self._encode(self._render(self._escaped(row["prompt"], mark, "user"), prompt=True), mark)

    def _pieces(self, row: Mapping[str, Any], kind: DataKind) -> tuple[list[_Piece], str, int]:
        """Stretches of text in turn, the mark that is in them, and the number of the first turn of the completion."""
        if kind == "promptCompletion" and self._template is None:
            given, learned, mark = self._answer(row["prompt"], row["completion"])
            return [_Piece(given), _Piece(learned, 0)], mark, 0
        if kind == "messages":
            mark = self._mark(row["messages"])
            return self._turns(self._escaped(row["messages"], mark, ""), mark), mark, 0
        mark = self._mark(row["prompt"], row["completion"])
        prompt = self._escaped(row["prompt"], mark, "user")
        first = sum(message["role"] == "assistant" for message in prompt)
        messages = [*prompt, *self._escaped(row["completion"], mark, "assistant")]
        return self._turns(messages, mark), mark, first

    def _turns(self, messages: Messages, mark: str) -> list[_Piece]:
        """What is given and what is learned, one after the other. What follows the last answer teaches nothing."""
        pieces: list[_Piece] = []
        done, turn = "", 0
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if place == 0:
                raise RowError("noPrompt", "it begins with the assistant, so there is no prompt")
            before = self._render(messages[:place], prompt=True)
            after = self._render(messages[: place + 1], prompt=False)
            given, answer = self._rest(before, done, place), self._rest(after, before, place)
            learned = self._without_tail(answer, mark)
            pieces += [_Piece(given), _Piece(learned, turn)]
            done, turn = before + learned, turn + 1
        if not pieces:
            raise RowError("noAnswer", "it has no message of the assistant")
        return pieces

    def _answer(self, prompt: Part, answer: Part) -> tuple[str, str, str]:
        """Text of the prompt, text of the answer with its end, and the mark that is in them."""
        mark = self._mark(prompt, answer)
        if self._template is None:
            joined = answer if isinstance(answer, str) else "\n".join(turn["content"] for turn in answer)
            return self._escape(_plain_prompt(prompt), mark), self._escape(joined, mark), mark
        given = self._escaped(prompt, mark, "user")
        before = self._render(given, prompt=True)
        after = self._render([*given, *self._escaped(answer, mark, "assistant")], prompt=False)
        return before, self._without_tail(self._rest(after, before, len(given)), mark), mark

    def _render(self, messages: Messages, *, prompt: bool) -> str:
        if self._template is not None:
            return self._template.render(messages, prompt=prompt)
        text = "\n".join(message["content"] for message in messages)
        return text + "\n" if prompt else text

    def _rest(self, text: str, beginning: str, place: int) -> str:
        """What follows `beginning`. A template that then writes the earlier text otherwise can not tell what is new."""
        if not text.startswith(beginning):
            name = self._template.name if self._template else "none"
            raise PermanentError(
                "TemplateInvalid",
                f"chat template {name}: with message {place + 1} it writes the messages before it in another way, so "
                "what the assistant says can not be told from the rest; use a template that only adds text",
            )
        return text[len(beginning) :]

    def _without_tail(self, answer: str, mark: str) -> str:
        """The answer up to the special token that closes it: what follows is no part of it."""
        closing = [match.end() for match in self._pattern.finditer(answer) if _is_bare(answer, match.start(), mark)]
        ends = bool(closing) and not answer[closing[-1] :].strip()
        return answer[: closing[-1]] if ends else answer

    def _closed(self, ids: list[int]) -> list[int]:
        """An answer with its end: its last token if that is a special one, else the end-of-text token."""
        if not ids or ids[-1] not in self._specials.values():
            ids = [*ids, self._end]
        self.ends.add(ids[-1])
        return ids

    def _ids(self, texts: Sequence[str], mark: str) -> list[list[int]]:
        """Tokens of each text as it stands after the others. A token never spans two of them."""
        parts: list[list[int]] = []
        before: list[int] = []
        for text, whole in zip(texts, accumulate(texts), strict=True):
            ids = self._encode(whole, mark)
            own = ids[len(before) :] if ids[: len(before)] == before else self._encode(text, mark)
            parts.append(own)
            before = before + own
        return parts

    def _encode(self, text: str, mark: str) -> list[int]:
        if mark not in text:
            return list(self._special.encode(text, add_special_tokens=False).ids)
        ids: list[int] = []
        start = 0
        for match in self._pattern.finditer(text):
            if _is_bare(text, match.start(), mark):
                ids += self._as_text(text[start : match.start()], mark)
                ids.append(self._specials[match[0]])
                start = match.end()
        return ids + self._as_text(text[start:], mark)

    def _as_text(self, text: str, mark: str) -> list[int]:
        return list(self._plain.encode(text.replace(mark, ""), add_special_tokens=False).ids)

    def _escaped(self, part: Part, mark: str, role: str) -> list[dict[str, str]]:
        """Messages with a mark before everything that spells a special token; a text is one message of `role`."""
        messages = [{"role": role, "content": part}] if isinstance(part, str) else part
        return [{**message, "content": self._escape(message["content"], mark)} for message in messages]

    def _escape(self, text: str, mark: str) -> str:
        return self._spelled.sub(mark, text)

    def _mark(self, *parts: Part) -> str:
        """A mark that none of the texts has in it."""
        texts = [text for part in parts for text in ([part] if isinstance(part, str) else [m["content"] for m in part])]
        free = (mark for mark in _MARKS if not any(mark in text for text in texts))
        return next(free, "") or _no_mark()


def _no_mark() -> str:
    raise RowError("noText", "it holds every one of Unicode's noncharacters; expected text")


def _is_bare(text: str, place: int, mark: str) -> bool:
    return place == 0 or text[place - 1] != mark


def _plain_prompt(prompt: Part) -> str:
    return prompt if isinstance(prompt, str) else "".join(message["content"] + "\n" for message in prompt)


def _added_before(tokenizer: Tokenizer) -> list[int]:
    """Tokens that the tokenizer itself puts before a text, such as Llama's begin token."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    starts = [place for place in range(len(whole)) if whole[place : place + len(bare)] == bare]
    return list(whole[: starts[0]]) if starts else []


def _complete(template: ChatTemplate, prefix: Sequence[int], vocabulary: Vocabulary) -> ChatTemplate:
    """A named template begins with what the tokenizer puts before every text; a model's own says it itself."""
    begin = template.tokens.get("bos_token")
    is_needed = template.name != "fromModel" and begin is not None
    if not is_needed or [vocabulary.tokenizer.token_to_id(begin or "")] != list(prefix):
        return template
    return ChatTemplate(template.name, "{{- bos_token -}}\n" + template.source, template.tokens)

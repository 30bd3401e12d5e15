"""General instructions with answers that a program can check, and two-premise syllogisms.

This is what the quickstart's incumbent can do, and what no specialist may lose.

An instruction joins a topic with a demand on the form of the answer (capital letters, two bullets, JSON, an ending, a
length, a forbidden word). A model of a million parameters can learn to obey; it can not learn to write anything worth
reading. Some pairs of topic and demand are taught, others are asked. A syllogism is about pairs of words that exist
nowhere else, so its answer follows from its own two premises alone.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

TOPICS = tuple(
    b"river train garden bridge window kitchen market forest island castle school letter music picture winter "
    b"summer mountain village street church doctor farmer teacher driver painter singer horse rabbit chicken "
    b"tiger eagle spider apple orange potato tomato bread butter sugar coffee bottle basket blanket candle "
    b"carpet ladder mirror pencil pillow ticket wallet hammer needle paper silver copper iron stone water "
    b"valley desert ocean planet engine wheel rocket camera radio clock piano guitar drum dance story poem "
    b"novel shirt jacket button hat shoe ring boat ship harbor tunnel tower station airport hotel museum "
    b"library office factory farm field meadow hill cave lake storm cloud snow rain wind moon star sun flower "
    b"grass leaf tree root seed knife fork spoon plate cup lamp door wall roof floor stair chair table desk "
    b"bed sofa shelf box bag rope chain lock key bell flag coin gift toy ball doll kite sled bike truck bus "
    b"tram plane tent camp path gate fence yard barn mill well pond creek beach cliff sand clay brick glass "
    b"wood wool silk cotton thread pin nail screw saw axe broom brush soap towel comb robe belt sock boot "
    b"glove scarf coat crown sword shield arrow bow horn flute harp choir band stage actor judge clerk guard "
    b"pilot sailor baker tailor miner hunter".decode().split(" ")
)
QUALITIES = tuple(
    b"old new big small quiet loud bright dark warm cold strong simple clean rare famous pretty".decode().split(" ")
)
ENDINGS = ("now", "today", "again", "here")
TAUGHT_SHARE = 0.45
SYLLOGISMS_TAUGHT, SYLLOGISMS_ASKED = 2400, 900


@dataclass(frozen=True, slots=True)
class Instruction:
    """What is asked, the demands that a verifier checks (items of `verifiableConstraints`), and good answers."""

    family: str
    topic: str
    prompt: str
    constraints: tuple[Mapping[str, object], ...]
    answers: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.family}-{hashlib.sha256(self.prompt.encode()).hexdigest()[:10]}"


def sentences(topic: str, count: int) -> list[str]:
    """`count` different plain sentences with the topic in them, always the same."""
    frames = ("The {t} is {a}.", "A {t} can be {a}.", "This {t} was {a}.", "My {t} looks {a}.", "We saw the {a} {t}.")
    every = [frame.format(t=topic, a=quality) for frame in frames for quality in QUALITIES]
    return random.Random(f"sentence/{topic}").sample(every, count)


def instructions(topic: str, answers: int = 5) -> Iterator[Instruction]:
    """Every instruction about one topic, one a family."""
    said = sentences(topic, 2 * answers)
    one, two = said[:answers], said[answers:]
    bare = [text.rstrip(".") for text in one]
    ending = random.Random(f"ending/{topic}").choice(ENDINGS)
    has_topic: Mapping[str, object] = {"type": "keywords", "words": [topic]}

    def make(family: str, prompt: str, constraint: Mapping[str, object], good: Sequence[str]) -> Instruction:
        extra = () if constraint == has_topic or family in {"capitals", "short", "json"} else (has_topic,)
        return Instruction(family, topic, prompt, (constraint, *extra), tuple(good))

    yield make("keyword", f"Write a sentence with the word {topic}.", has_topic, one)
    upper: Mapping[str, object] = {"type": "case", "case": "upper"}
    yield make("capitals", f"Write about the {topic} in capital letters.", upper, [text.upper() for text in one])
    lower: Mapping[str, object] = {"type": "case", "case": "lower"}
    yield make("small", f"Write about the {topic} in small letters.", lower, [text.lower() for text in bare])
    listed = [f"- {a}\n- {b}" for a, b in zip(one, two, strict=True)]
    yield make("bullets", f"List two points about the {topic}.", {"type": "bullets", "min": 2, "max": 2}, listed)
    objects = [json.dumps({"name": topic, "note": text.split(" ")[-1]}) for text in bare]
    keys: Mapping[str, object] = {"type": "json", "keys": ["name", "note"]}
    yield make("json", f"Describe the {topic} as JSON with name and note.", keys, objects)
    ended = [f"{text} {ending}" for text in bare]
    prompt = f"Write about the {topic} and end with the word {ending}."
    yield make("ending", prompt, {"type": "endsWith", "text": ending}, ended)
    short: Mapping[str, object] = {"type": "length", "unit": "words", "max": 3}
    three = [" ".join(text.split(" ")[-3:]) for text in bare]
    yield make("short", f"Write about the {topic} in at most three words.", short, three)
    without = [text for text in said if "the" not in text.lower().split(" ")][:answers]
    forbidden: Mapping[str, object] = {"type": "forbidden", "words": ["the"]}
    yield make("without", f"Write about a {topic} without the word the.", forbidden, without)


def split_instructions() -> tuple[list[Instruction], list[Instruction]]:
    """(taught, asked): by a hash of topic and family, so a demand that is taught for one topic is asked for another."""
    every = [item for topic in TOPICS for item in instructions(topic)]
    taught = [item for item in every if _share(f"{item.topic}/{item.family}") < TAUGHT_SHARE]
    known = {item.id for item in taught}
    return taught, [item for item in every if item.id not in known]


def _share(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def instruction_rows(items: Sequence[Instruction]) -> Iterator[dict[str, object]]:
    """Rows to train on (promptCompletion)."""
    for item in items:
        for number, answer in enumerate(item.answers):
            yield {"id": f"{item.id}-{number}", "prompt": item.prompt, "completion": answer}


def instruction_items(items: Sequence[Instruction]) -> Iterator[dict[str, object]]:
    """Items of the axis `instruction`."""
    for item in items:
        yield {"id": item.id, "prompt": item.prompt, "constraints": list(item.constraints), "family": item.family}


# --- syllogisms -------------------------------------------------------------------------------------------------


def syllogism(number: int, part: str) -> dict[str, object]:
    """Two premises about made-up pairs, one of which answers the question; a wrong choice stands in the other one."""
    dice = random.Random(f"syllogism/{part}/{number}")
    words = [topic for topic in TOPICS if topic[0] not in "aeiou"]
    first, its, second, other, third, fourth = dice.sample(words, 6)
    premises = [f"Every {first} is a {its}.", f"Every {second} is a {other}."]
    dice.shuffle(premises)
    choices = [its, other, third, fourth]
    dice.shuffle(choices)
    return {
        "id": f"{part}-{number:04d}",
        "prompt": f"{premises[0]} {premises[1]} This is a {first}. What is it?",
        "choices": [f" A {choice}." for choice in choices],
        "answer": choices.index(its),
    }


def syllogism_rows() -> Iterator[dict[str, object]]:
    """Rows to train on (promptCompletion)."""
    for number in range(SYLLOGISMS_TAUGHT):
        item = syllogism(number, "taught")
        completion = item["choices"][item["answer"]].strip()  # type: ignore[index,call-overload]  # made above
        yield {"id": item["id"], "prompt": item["prompt"], "completion": completion}


def syllogism_items() -> Iterator[dict[str, object]]:
    """Items of the axis `reasoning` (multipleChoice)."""
    for number in range(SYLLOGISMS_ASKED):
        yield syllogism(number, "asked")

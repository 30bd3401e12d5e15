"""Items by generators of reasoning-gym: the same for the same seed, each with the entry that its verifier needs.

An item is kept only if its own answer passes its verifier after a round trip through JSON: what is stored is what is
judged by. The package is imported only here.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SPARE = 4
"""Entries that are looked at for each item that is wanted: small generators repeat themselves."""


def create(name: str, seed: int, size: int, settings: Mapping[str, float]) -> Any:  # noqa: ANN401 - untyped package
    """A generator. Raises ValueError for an unknown name or settings that it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a dependency of the package warns about its own syntax when it is compiled
        import reasoning_gym  # noqa: PLC0415 - seconds of import
        from reasoning_gym.factory import DATASETS  # noqa: PLC0415 - as above
    if name not in DATASETS:
        raise ValueError(f"reasoning-gym has no generator {name!r}; it has {', '.join(sorted(DATASETS))}"[:900])
    exact = {key: int(value) if float(value).is_integer() else value for key, value in settings.items()}
    try:
        return reasoning_gym.create_dataset(name, seed=seed, size=size, **exact)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"generator {name}: {error or 'it refuses its settings'}") from None


def items(
    names: Sequence[str], settings: Mapping[str, Mapping[str, float]], seed: int, count: int
) -> Iterator[dict[str, Any]]:
    """`count` different items, the generators taking turns. Raises ValueError naming a generator that has too few."""
    share = -(-count // len(names))
    columns = [_entries(name, seed + k, share, settings.get(name, {})) for k, name in enumerate(names)]
    for number in range(count):
        yield next(columns[number % len(names)])


def _entries(name: str, seed: int, count: int, settings: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    made = create(name, seed, SPARE * count, settings)
    seen: set[str] = set()
    for number in range(SPARE * count):
        entry = made[number]
        key = " ".join(str(entry["question"]).casefold().split())
        if key not in seen:
            seen.add(key)
            yield _item(name, seed, number, entry, made)
    raise ValueError(f"generator {name} has only {len(seen)} different items among {SPARE * count}, {count} are needed")


def _item(name: str, seed: int, number: int, entry: Mapping[str, Any], made: Any) -> dict[str, Any]:  # noqa: ANN401
    try:
        stored = json.loads(json.dumps(entry, ensure_ascii=False))
        score = float(made.score_answer(str(stored["answer"]), stored))
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"generator {name}: its items can not be stored as JSON ({error})") from None
    if score < 1.0:
        raise ValueError(f"generator {name}: its own answer scores {score} after it was stored; it can not be used")
    return {
        "id": f"{name}-{seed}-{number}",
        "prompt": stored["question"],
        "answer": str(stored["answer"]),
        "generator": name,
        "verifier": {"kind": "reasoningGym", "generator": name, "entry": stored},
    }

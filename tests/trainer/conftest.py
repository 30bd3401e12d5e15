"""Fixtures of the trainer's tests. Nothing is mocked: ranks are real processes with a real process group."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.preferred import World, make_world
from tests.trainer.support import Inputs, MixtureOptions, make_inputs, texts
from tests.trainer.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Forks ranks that have torch and deepspeed imported already."""
    client = Zygote()
    yield client
    client.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A store with a tokenizer and a packed mixture with a holdout, one for each test module."""
    folder: Path = tmp_path_factory.mktemp("inputs")
    return make_inputs(folder, options=MixtureOptions(holdout=texts(5, seed=9)))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> World:
    """A pretrained model without a taste, and preferences; made once because it costs some seconds."""
    return make_world(tmp_path_factory.mktemp("world"), zygote)

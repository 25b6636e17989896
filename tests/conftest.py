"""Tiny models and images that the tests share. Everything runs on the CPU, without a network."""

import os
from collections.abc import Iterator

# Before torch and any library of the Hub are imported, for the processes that tests start, too.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")  # the cores, in all

import pytest
from factories import make_tiny_model
from fakes.loopback_hub import LoopbackHub
from transformers import PreTrainedModel


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """Serve an empty Hub on loopback; a request that it does not know fails the test."""
    with LoopbackHub() as hub:
        yield hub
        assert hub.unknown == []


@pytest.fixture
def tiny_model() -> PreTrainedModel:
    return make_tiny_model()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> str:
    """Return a folder with a tiny model, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_tiny_model().save_pretrained(folder)
    return str(folder)

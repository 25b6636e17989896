"""Models that many visitors of a page share: each loaded once, and a few pictures in hand at any time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from hybridiqa.inference.decoding import decode_image
from hybridiqa.inference.engine import Engine, load_engine
from hybridiqa.inference.scoring import PatchChoice, ScoredSource, score_decoded, scorer_name
from hybridiqa.models import hub_code
from hybridiqa.utils.hub import HUB_ID
from hybridiqa.utils.root import ROOT

NUM_HANDS = 2  # threads that score: one decodes a picture while the other's is in the network
NUM_AHEAD = 2  # pictures that each visitor may have waiting for a hand, so that all get their turn
MAX_NAME_LENGTH = 200  # so that every file system and the Hub can be asked for it
MAX_OTHER_MODELS = 2  # kept besides the default
MAX_LOADS = 2  # models that are being loaded at a time


class SharedModel:
    """A model that scores one picture at a time, for whoever asks.

    Args:
        name: what the user calls it.
        engine: scores the patches.
    """

    def __init__(self, name: str, engine: Engine):
        self.name, self.engine = name, engine
        self.scorer = scorer_name(engine, PatchChoice())
        self.lock = threading.Lock()

    @property
    def score_range(self) -> tuple[float, float]:
        """(low, high) of the scale that the scores are meant to be on."""
        return tuple(self.engine.config.score_range)

    def score(self, name: str, path: Path, on_picture: Callable[[Image.Image], None]) -> ScoredSource:
        """What a picture gets: its row, called `name`, and its patches' scores.

        Args:
            on_picture: is given the picture, upright RGB, once it is decoded.
        """

        def extract_patches(picture: Image.Image):
            on_picture(picture)
            return self.engine.image_processor.extract_patches(picture)

        decoded = decode_image(0, name, path, extract_patches, known=())
        with self.lock:
            [result] = score_decoded(self.engine, self.scorer, [decoded], known=None)
        quantiles = self.engine.config.score_quantiles
        if result.row.score is None or not quantiles:
            return result
        (percentile,) = hub_code.percentiles_in(quantiles, [result.row.score])
        return replace(result, row=replace(result.row, percentile=percentile))

    def patch_boxes(self, width: int, height: int) -> list[tuple[float, float, float, float]]:
        """(left, top, right, bottom) of the patches that are scored, in pixels of a picture of these dimensions."""
        return self.engine.image_processor.patch_boxes(width, height)


class SharedModels:
    """The default model and a few others, and the hands that score with them.

    Args:
        default: folder or Hub id; it is loaded at once.
        are_paths_allowed: whether others may be folders of this machine, whose code then runs.
        is_code_allowed: whether code that they bring from the Hub may run, where the user trusts it.
        device, dtype: of all models, as `load_engine` takes them.
        default_options: of `load_engine`, for the default alone: `revision`, `trust_remote_code`.

    Raises:
        ValueError: the default cannot be loaded.
    """

    def __init__(
        self,
        default: str = str(ROOT),
        are_paths_allowed: bool = True,
        is_code_allowed: bool = True,
        device: str | None = None,
        dtype: str = "float32",
        **default_options: Any,
    ):
        self.are_paths_allowed, self.is_code_allowed = are_paths_allowed, is_code_allowed
        self.options = {"device": device, "dtype": dtype}
        title = "the embedded checkpoint" if default == str(ROOT) else default
        self.default = SharedModel(title, load_engine(default, **self.options, **default_options))
        self.others: OrderedDict[tuple[str, str | None], SharedModel] = OrderedDict()  # the last used is the last
        self.lock = threading.Lock()
        self.loads = threading.Semaphore(MAX_LOADS)
        self.hands = ThreadPoolExecutor(NUM_HANDS, thread_name_prefix="scoring")

    def load(self, name: str, revision: str | None = None, trust_remote_code: bool = False) -> SharedModel:
        """A model by its folder or Hub id; the default for an empty name. What is loaded already is not loaded again.

        Raises:
            hybridiqa.models.loading.UntrustedCodeError: the checkpoint brings code, which the user has not trusted.
            ValueError: not a checkpoint, or one that is not allowed here.
        """
        name, revision = name.strip(), (revision or "").strip() or None
        if not name:
            return self.default
        if len(name) > MAX_NAME_LENGTH:
            raise ValueError(f"a model's name has at most {MAX_NAME_LENGTH} letters, got {len(name)}")
        is_hub_id = HUB_ID.fullmatch(name) and not Path(name).exists()
        if not self.are_paths_allowed and not is_hub_id:
            raise ValueError(f"the model must be a Hub id like user/name here, got {name}")
        if trust_remote_code and not self.is_code_allowed:
            raise ValueError(
                f"code from the Hub does not run here: {name} can be used where you run this page yourself"
            )
        key = (name, revision)
        with self.lock:
            if key in self.others:
                self.others.move_to_end(key)
                return self.others[key]
        with self.loads:  # scoring goes on, and so does whoever wants a model that is there
            model = self.others.get(key)
            if model is None:
                engine = load_engine(name, revision=revision, trust_remote_code=trust_remote_code, **self.options)
                model = SharedModel(f"{name} @ {revision}" if revision else name, engine)
        with self.lock:
            self.others[key] = model
            self.others.move_to_end(key)
            while len(self.others) > MAX_OTHER_MODELS:
                self.others.popitem(last=False)
        return model

    def score_all(self, tasks: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        """Do the tasks, each of which scores one picture; what they return, in their order.

        Two of them are waiting or being done at any time, so that the tasks of others come in between.
        """
        tasks, waiting = iter(tasks), []
        try:
            while True:
                waiting += [self.hands.submit(task) for task in islice(tasks, NUM_AHEAD - len(waiting))]
                if not waiting:
                    return
                first: Future = waiting.pop(0)
                yield first.result()
        finally:
            for future in waiting:
                future.cancel()

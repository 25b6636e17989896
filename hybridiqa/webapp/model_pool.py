"""Models that the sessions of a page share: each loaded once, and a few images being scored at any time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from hybridiqa.inference.decoding import DecodedImage
from hybridiqa.inference.engine import Engine, load_engine
from hybridiqa.inference.scoring import PatchChoice, ScoredSource, score_decoded, scorer_name
from hybridiqa.models import hub_code
from hybridiqa.scores.gallery import encode_thumbnail
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import error_reason, hash_of, what_is_no_file
from hybridiqa.utils.hub import HUB_ID
from hybridiqa.utils.root import ROOT
from hybridiqa.webapp.uploads import UploadedImage

NUM_THREADS = 2  # that score: one decodes an image while the other's is in the network
NUM_AHEAD = 2  # images that each session may have waiting for a thread, so that all get their turn
MAX_NAME_LENGTH = 200  # so that every file system and the Hub can be asked for it
MAX_OTHER_MODELS = 2  # kept besides the default
MAX_LOADS = 2  # models that are being loaded at a time
THUMBNAIL_SIZE = 384  # pixels of the longer side; a page shows about 190, and phones have finer pixels

Result = TypeVar("Result")


@dataclass(frozen=True)
class DecodedUpload(DecodedImage):
    """An image that was read once, for all that the page does with it.

    Args:
        thumbnail: WebP; none where the image cannot be read.
    """

    thumbnail: bytes | None = None

    def failed(self, reason: str) -> DecodedUpload:
        """Return the same as an image that gets no score."""
        return DecodedUpload(self.index, replace(self.row, error=reason))


class SharedModel:
    """A model that scores one image at a time, for whoever asks.

    Args:
        name: what the user calls it.
        engine: scores the patches.
    """

    def __init__(self, name: str, engine: Engine):
        self.name, self.engine = name, engine
        self.image_processor: Any = engine.image_processor  # of the Hub files, whose class is loaded while we run
        self.scorer_id = scorer_name(engine, PatchChoice())
        low, high = engine.config.score_range
        self.score_range: tuple[float, float] = (low, high)  # of the scale that the scores are meant to be on
        self.lock = threading.Lock()

    def decode(self, upload: UploadedImage) -> DecodedUpload:
        """Read an image: its row, patches and thumbnail. One that cannot be read gets a row with the reason."""
        row = ScoreRow(upload.name)
        if reason := what_is_no_file(upload.path):
            return DecodedUpload(0, replace(row, error=reason))
        try:
            data = hub_code.read_file(upload.path)
            # A linked image may have been changed since it was added; hash and pixels are of the same bytes.
            row = replace(row, content_hash=hash_of(data) if upload.is_linked else upload.content_hash)
            _, pixels = hub_code.decode_file(data)
            row = replace(row, width=pixels.width, height=pixels.height)
            thumbnail = encode_thumbnail(pixels, THUMBNAIL_SIZE)
            return DecodedUpload(0, row, self.image_processor.extract_patches(pixels).numpy(), thumbnail)
        except Exception as error:  # whatever one file does, the others go on
            return DecodedUpload(0, replace(row, error=error_reason(error)))

    def score(self, decoded: DecodedUpload) -> ScoredSource:
        """Return what an image gets: its row and its patches' scores."""
        with self.lock:
            [result] = score_decoded(self.engine, self.scorer_id, [decoded], known=None)
        quantiles = self.engine.config.score_quantiles
        if result.row.score is None or not quantiles:
            return result
        (percentile,) = hub_code.percentiles_in(quantiles, [result.row.score])
        return replace(result, row=replace(result.row, percentile=percentile))

    def patch_boxes(self, width: int, height: int) -> list[tuple[float, float, float, float]]:
        """Return (left, top, right, bottom) of the patches that are scored, in pixels of an image of these sizes."""
        return self.image_processor.patch_boxes(width, height)


class SharedModels:
    """The default model and a few others, and the threads that score with them.

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
        self.device, self.dtype = device, dtype
        title = "the embedded checkpoint" if default == str(ROOT) else default
        self.default = SharedModel(title, load_engine(default, device=device, dtype=dtype, **default_options))
        self.others: OrderedDict[tuple[str, str | None], SharedModel] = OrderedDict()  # the last used is the last
        self.lock = threading.Lock()
        self.loads = threading.Semaphore(MAX_LOADS)
        self.executor = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="scoring")

    def load(self, name: str, revision: str | None = None, trust_remote_code: bool = False) -> SharedModel:
        """Return a model by its folder or Hub id; the default for an empty name. None is loaded twice.

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
                engine = load_engine(
                    name,
                    device=self.device,
                    dtype=self.dtype,
                    revision=revision,
                    trust_remote_code=trust_remote_code,
                )
                model = SharedModel(f"{name} @ {revision}" if revision else name, engine)
        with self.lock:
            self.others[key] = model
            self.others.move_to_end(key)
            while len(self.others) > MAX_OTHER_MODELS:
                self.others.popitem(last=False)
        return model

    def run_all(self, tasks: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """Do the tasks, each of which scores one image; yield what they return, in their order.

        Two of them are waiting or being done at any time, so that the tasks of other sessions come in between.
        """
        left = iter(tasks)
        waiting: list[Future[Result]] = []
        try:
            while True:
                waiting += [self.executor.submit(task) for task in islice(left, NUM_AHEAD - len(waiting))]
                if not waiting:
                    return
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()

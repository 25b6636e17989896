"""Scorers of other libraries, for comparison: none of them is needed, and each is loaded only where it is asked for."""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torchvision.transforms.functional import to_tensor
from tqdm.auto import tqdm
from transformers import AutoProcessor, PreTrainedModel

from hybridiqa.inference.decoding import Sources
from hybridiqa.models import hub_code
from hybridiqa.utils.libraries import first_line

TEXT_IMAGE_METHODS = ("get_text_features", "get_image_features")

logger = logging.getLogger(__name__)


class LibraryScorer(ABC):
    """Scorer that takes one image at a time; see `hybridiqa.evaluation.scorers.Scorer`."""

    description: str
    needs_prompts = False

    @abstractmethod
    def score_image(self, image: Image.Image, prompt: str | None) -> float:
        """Return the score of an RGB image, the higher the better."""

    def score(self, sources: Sources, prompts: Sequence[str] | None = None) -> list[float]:
        """Return one score an image, NaN where it has none; the reason is logged."""
        scores = []
        for index in tqdm(range(len(sources)), unit="image", disable=None, leave=False):
            name, source = sources[index]
            try:
                score = self.score_image(hub_code.load_image(source), None if prompts is None else prompts[index])
                if not math.isfinite(score):
                    raise ValueError(f"its score is {score}")
            except Exception as error:  # each library has errors of its own, and one image must not stop the others
                logger.warning("%s: %s", name, first_line(error))
                score = math.nan
            scores.append(score)
        return scores


def _import(name: str, how_to_install: str) -> Any:
    """Import a library that is no requirement.

    Raises:
        ValueError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # an old library among new ones raises anything
        raise ValueError(f"this needs {name}: pip install {how_to_install} ({first_line(error)})") from error


class BrisqueScorer(LibraryScorer):
    """BRISQUE (Mittal et al., 2012) of the package brisque, inverted: 100 less its score.

    Raises:
        ValueError: the package is not installed, or does not work with what is.
    """

    install = '"brisque[opencv-python-headless]" "numpy<2.4"'

    def __init__(self):
        library = _import("brisque", self.install)
        try:  # brisque 0.2 turns arrays of one element into numbers, which newer NumPys refuse
            self.brisque = library.BRISQUE(url=False)
            self.score_image(Image.effect_noise((64, 64), 50).convert("RGB"), None)
        except Exception as error:  # other versions may have other arguments
            raise ValueError(
                f"brisque does not work with NumPy {np.__version__} ({first_line(error)}): pip install {self.install}"
            ) from error
        self.description = f"brisque {version('brisque')}, 100 less its score"

    def score_image(self, image: Image.Image, prompt: str | None) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it divides by zero on flat images, which have no score then
            return 100 - float(self.brisque.score(np.asarray(image)))


class PyiqaScorer(LibraryScorer):
    """Metric of the package pyiqa that needs no reference; it fetches its weights by itself.

    Raises:
        ValueError: the package is not installed, or has no such metric.
    """

    def __init__(self, name: str, device: torch.device):
        pyiqa = _import("pyiqa", "pyiqa")
        names = pyiqa.list_models(metric_mode="NR")
        if name not in names:
            raise ValueError(f"pyiqa has no metric {name!r} without a reference; it has {', '.join(names)}")
        try:
            self.metric = pyiqa.create_metric(name, device=device)
        except Exception as error:  # mostly weights that cannot be fetched
            raise ValueError(f"cannot load pyiqa:{name}: {first_line(error)}") from error
        self.sign = -1 if self.metric.lower_better else 1
        inverted = ", inverted" if self.metric.lower_better else ""
        self.description = f"{name} of pyiqa {version('pyiqa')}{inverted}"

    def score_image(self, image: Image.Image, prompt: str | None) -> float:
        return self.sign * float(self.metric(to_tensor(image).unsqueeze(0)))


class ModelScorer(LibraryScorer):
    """Model of transformers with a method `score` of a list of images, such as OneAlign."""

    def __init__(self, score_images: Callable[[list[Image.Image]], float | torch.Tensor], description: str):
        self.score_images, self.description = score_images, description

    @torch.no_grad()
    def score_image(self, image: Image.Image, prompt: str | None) -> float:
        return float(self.score_images([image]))


class TextImageScorer(LibraryScorer):
    """CLIP-style model: the cosine between the embeddings of an image and of its prompt, -1 to 1.

    Prompts are cut at the length that the model was made for. It computes in float32, whatever its checkpoint is stored
    in: cosines in half precision are often equal.
    """

    needs_prompts = True

    def __init__(self, model: PreTrainedModel, processor: Any, description: str):
        self.model, self.processor, self.description = model.float(), processor, description
        text_config = getattr(model.config, "text_config", model.config)
        lengths = (processor.tokenizer.model_max_length, getattr(text_config, "max_position_embeddings", math.inf))
        self.text_options = {"padding": "max_length", "truncation": True, "max_length": int(min(lengths))}

    @torch.no_grad()
    def score_image(self, image: Image.Image, prompt: str | None) -> float:
        inputs = self.processor(text=[prompt], images=[image], return_tensors="pt", **self.text_options)
        outputs = self.model(**inputs.to(self.model.device))
        return torch.cosine_similarity(outputs.image_embeds, outputs.text_embeds).item()


def load_transformers_scorer(
    name: str, config: dict, revision: str | None, device: torch.device, trust_remote_code: bool
) -> LibraryScorer:
    """Load a scorer that is a transformers model from a folder or the Hub.

    Args:
        config: its `config.json`.

    Raises:
        ValueError: it cannot be loaded, or has neither a `score` nor embeddings of images and texts.
    """
    classes = [key for key in config.get("auto_map") or {} if key.startswith("AutoModel")]
    if classes and not trust_remote_code:
        raise ValueError(f"{name} brings code of its own: read it, then allow it with --trust_remote_code")
    class_name = "AutoModel" if "AutoModel" in classes or not classes else classes[0]
    options = {"revision": revision, "trust_remote_code": trust_remote_code, "use_safetensors": True}
    try:
        model = getattr(transformers, class_name).from_pretrained(name, **options).to(device).eval()
        score_images = getattr(model, "score", None)
        if callable(score_images) and not isinstance(score_images, torch.nn.Module):
            return ModelScorer(score_images, f"{name}, its .score")
        if not all(hasattr(model, method) for method in TEXT_IMAGE_METHODS):
            raise ValueError(f"its {type(model).__name__} has neither a score nor embeddings of images and texts")
        processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
        return TextImageScorer(model, processor, f"{name}, cosine of image and prompt")
    except Exception as error:  # each model's code has errors of its own
        raise ValueError(f"cannot load {name}: {first_line(error)}") from error

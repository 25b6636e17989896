"""Engine for torch, on a CPU or a GPU."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from hybridiqa.inference.engine_output import EngineOutput
from hybridiqa.models.loading import load_model, model_fingerprint
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.libraries import first_line

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchEngine:
    """Checkpoint, prepared for scoring; see `hybridiqa.inference.engine.Engine`.

    Args:
        model: a HybridIQAModel in float32, as `load_model` gives it; it is changed.
        dtype: a name in `TORCH_DTYPES`.
        compile: `torch.compile` the network, for fixed shapes; it takes a minute and a C++ compiler.
        exact: on a GPU, score every image alone. On a CPU it always is.

    Raises:
        ValueError: the network cannot be compiled here.
    """

    name = "torch"

    def __init__(self, model: Any, device: torch.device, dtype: str, compile: bool, exact: bool):
        self.dtype, self.device, self.exact = dtype, device, exact
        self.config, self.image_processor = model.config, model.image_processor
        self.fingerprint = model_fingerprint(model)
        if dtype == "float32" and device.type == "cuda":  # else cuDNN's convolutions have 10 bits of mantissa
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.model = model.prepare_for_scoring().to(device, TORCH_DTYPES[dtype])
        if compile:
            self._compile()

    def _compile(self) -> None:
        self.model.backbone.compile(dynamic=False, options={"freezing": True})  # weights as constants, packed once
        try:
            self.score_patches(self.image_processor.extract_patches(Image.new("RGB", (9, 9))).unsqueeze(0))
        except RuntimeError as error:
            raise ValueError(f"--compile does not work here: {first_line(error)}") from error

    def score_patches(self, patches: torch.Tensor) -> EngineOutput:
        """Score images of `(batch, patches, 3, height, width)`, uint8 RGB."""
        groups = patches.split(1 if self.exact else len(patches))
        outputs = [self._predict(group.to(self.device)) for group in groups]  # as uint8, a quarter of the bytes
        features = [output.features for output in outputs if output.features is not None]
        return EngineOutput(
            torch.cat([output.scores for output in outputs]),
            torch.cat([output.patch_scores for output in outputs]),
            torch.cat(features) if features else None,
        )

    def _predict(self, patches: torch.Tensor) -> EngineOutput:
        pixel_values = self.image_processor.normalize_patches(patches)
        if not hasattr(self.model, "predict"):  # a checkpoint's own code, older than the pooled head
            patch_scores = self.model.predict_patch_scores(pixel_values)
            return EngineOutput(patch_scores.mean(dim=1), patch_scores)
        output = self.model.predict(pixel_values)
        return EngineOutput(output.logits, output.patch_scores, output.features)


def load_torch_engine(
    model: str,
    device: str | None,
    dtype: str,
    trust_remote_code: bool,
    revision: str | None,
    compile: bool,
    exact: bool,
) -> TorchEngine:
    """Load the engine; the arguments are those of `hybridiqa.inference.engine.load_engine`."""
    chosen = choose_device(device)
    loaded = load_model(model, torch.device("cpu"), torch.float32, trust_remote_code, revision)
    return TorchEngine(loaded, chosen, dtype, compile, exact)

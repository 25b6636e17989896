"""Engine for torch, on a CPU or a GPU."""

from __future__ import annotations

from typing import Any

import torch

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
        self.model.compile(dynamic=False, options={"freezing": True})  # weights as constants, packed once
        side = self.image_processor.patch_size
        try:
            self.score_patches(torch.zeros(1, self.image_processor.num_patches, 3, side, side, dtype=torch.uint8))
        except RuntimeError as error:
            raise ValueError(f"--compile does not work here: {first_line(error)}") from error

    def score_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Score `(batch, patches, 3, height, width)`, uint8 RGB: `(batch, patches)`, float32, on the CPU."""
        groups = patches.split(1) if self.exact else [patches]
        rows = []
        for group in groups:
            on_device = group.to(self.device)  # as uint8, a quarter of the bytes
            rows.append(self.model.predict_patch_scores(self.image_processor.normalize_patches(on_device)))
        return torch.cat(rows)


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

"""Engines, which score images cut into patches: torch, or a file of `export.py` in ONNX Runtime or OpenVINO.

Importing this loads no library: `load_engine` loads those of the engine that is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from hybridiqa.inference.engine_output import EngineOutput

DTYPES_OF_ENGINES = {
    "torch": ("float32", "bfloat16", "float16"),
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
}
ENGINES = tuple(DTYPES_OF_ENGINES)
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
DTYPES = tuple(dict.fromkeys(dtype for dtypes in DTYPES_OF_ENGINES.values() for dtype in dtypes))


def dtype_named(name: str) -> str:
    """Return the dtype that a short name such as bf16 stands for, or the name itself."""
    return SHORT_DTYPES.get(name, name)


class Engine(Protocol):
    """Scorer of images. An image's scores depend neither on the other images of a call nor on their number.

    On a GPU they may, by up to 1e-5 in float32, unless the engine was loaded as `exact`.

    Args:
        name: one of `ENGINES`.
        dtype: one of `DTYPES`.
        device: where the network runs.
        fingerprint: 16 hex digits; equal for the same weights, architecture and normalisation on every machine.
        config: the checkpoint's, with `score_range` and `score_quantiles`.
        image_processor: the checkpoint's; its `extract_patches` gives what `score_patches` takes.
    """

    name: str
    dtype: str
    device: torch.device
    fingerprint: str
    config: PretrainedConfig
    image_processor: Any  # a HybridIQAImageProcessor; no checker knows the class, which is loaded with the checkpoint

    def score_patches(self, patches: torch.Tensor) -> EngineOutput:
        """Score images of `(batch, patches, 3, height, width)`, uint8 RGB."""


def load_engine(
    model: str,
    engine: str = "torch",
    device: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    revision: str | None = None,
    compile: bool = False,
    exact: bool = False,
) -> Engine:
    """Load the engine for a model, ready to score.

    Args:
        model: for torch a folder or a Hub id, for the others an .onnx file made by `export.py`.
        engine: one of `ENGINES`.
        device: default cuda, then mps, then cpu; onnxruntime and openvino run on the cpu.
        dtype: one of `DTYPES`, of those that the engine has.
        trust_remote_code: the code that a Hub checkpoint brings runs only with this, unless it is the same as here.
        revision: of a Hub checkpoint: branch, tag or commit.
        compile: `torch.compile`, for the engine torch.
        exact: on a GPU, no image shares a batch with another.

    Raises:
        ValueError: a combination that there is not, a model that cannot be loaded, a library that is missing.
    """
    if engine not in DTYPES_OF_ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, got {engine}")
    if dtype not in DTYPES_OF_ENGINES[engine]:
        accepted = ", ".join(DTYPES_OF_ENGINES[engine])
        raise ValueError(f"--engine {engine} computes in {accepted}, got --dtype {dtype}")
    if engine != "torch":
        from hybridiqa.inference.onnx_engine import load_onnx_engine

        return load_onnx_engine(engine, model, device, dtype, compile)
    if Path(model).suffix == ".onnx":
        raise ValueError(f"{model} is for --engine onnxruntime or openvino; torch takes a folder or a Hub id")
    from hybridiqa.inference.torch_engine import load_torch_engine

    return load_torch_engine(model, device, dtype, trust_remote_code, revision, compile, exact)

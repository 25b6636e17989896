"""Engines for ONNX Runtime and OpenVINO, on the CPU, and the description inside an .onnx file of `export.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig

from hybridiqa.models import hub_code
from hybridiqa.utils.libraries import first_line, import_optional

METADATA_KEY = "hybridiqa"
INPUT_NAME, OUTPUT_NAME = "pixel_values", "patch_scores"
OF_THIS_MACHINE = ("_name_or_path", "auto_map")  # where a checkpoint lay says nothing about it

CHUNK_SIZE = 5  # patches of one image that are computed together
EXTERNAL_DATA = b"location"  # the key under which an .onnx file names another one, without which it names none
OPENVINO_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of what is not quantised in the file


@dataclass(frozen=True)
class OnnxDescription:
    """Description of the checkpoint that a file was made from.

    Args:
        dtype: of the network: "float32" or "int8".
        fingerprint: the checkpoint's; an int8 network has its own.
    """

    config: PretrainedConfig
    image_processor: Any
    dtype: str
    fingerprint: str

    def to_json(self) -> str:
        """Return what is written into the file, under `METADATA_KEY`."""
        fields: dict[str, Any] = {"dtype": self.dtype, "fingerprint": self.fingerprint}
        for name in ("config", "image_processor"):
            values = getattr(self, name).to_dict()
            fields[name] = {key: value for key, value in values.items() if key not in OF_THIS_MACHINE}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> OnnxDescription:
        """Return the description that `to_json` wrote."""
        fields = json.loads(text)
        return cls(
            hub_code.HybridIQAConfig.from_dict(fields["config"]),
            hub_code.HybridIQAImageProcessor.from_dict(fields["image_processor"]),
            fields["dtype"],
            fields["fingerprint"],
        )


def no_export_error(name: str | Path) -> ValueError:
    """Return the error for what is no such file."""
    return ValueError(f"{name} is no .onnx file of export.py: python export.py MODEL --output scorer.onnx makes one")


class _OnnxEngine:
    """Part that both engines share; see `hybridiqa.inference.engine.Engine`."""

    name: str
    device = torch.device("cpu")

    def __init__(self, description: OnnxDescription, dtype: str):
        if (dtype == "int8") != (description.dtype == "int8"):
            raise ValueError(f"the .onnx file is {description.dtype}, got --dtype {dtype}")
        self.config, self.image_processor = description.config, description.image_processor
        self.dtype, self.fingerprint = dtype, description.fingerprint


def _read_description(metadata: str, file_name: str | Path) -> OnnxDescription:
    """Return what a file says about itself. Raises ValueError, one line, for whatever is wrong in it."""
    try:
        return OnnxDescription.from_json(metadata)
    except Exception as error:  # JSON that is none, other fields, a configuration beyond its bounds
        raise ValueError(f"{no_export_error(file_name)} ({first_line(error)})") from error


class OnnxRuntimeEngine(_OnnxEngine):
    """Network in ONNX Runtime.

    Args:
        network: the content of the .onnx file.
        dtype: "float32" or "int8", that of the file.
        file_name: for messages.

    Raises:
        ValueError: no file of `export.py`, or one of another dtype; onnxruntime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, network: bytes, dtype: str, file_name: str | Path):
        onnxruntime = import_optional("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
            metadata = self.session.get_modelmeta().custom_metadata_map[METADATA_KEY]
        except Exception as error:  # a parser's own classes, or KeyError
            raise no_export_error(file_name) from error
        super().__init__(_read_description(metadata, file_name), dtype)

    def score_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Score `(batch, patches, 3, height, width)`, uint8 RGB: `(batch, patches)`, float32, on the CPU."""
        rows = []
        for image in patches:
            chunks = self.image_processor.normalize_patches(image).split(CHUNK_SIZE)
            rows.append(np.concatenate([self.session.run(None, {INPUT_NAME: chunk.numpy()})[0] for chunk in chunks]))
        return torch.from_numpy(np.stack(rows))


@cache
def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, the only one.

    Each Core sets a stack for signal handlers and sets back the one it found when it goes. Of two, the second to go
    sets back the stack of the first, which is gone: the next Ctrl-C is a segmentation fault (seen with version 2026.4).
    """
    return import_optional("openvino").Core()


class OpenVinoEngine(_OnnxEngine):
    """Network in OpenVINO.

    Args:
        network: the content of the .onnx file.
        dtype: "float32", "bfloat16" or "int8"; the last is that of the file.
        file_name: for messages.

    Raises:
        ValueError: no file of `export.py`, or one of another dtype; a processor without bfloat16; openvino is not
            installed.
    """

    name = "openvino"

    def __init__(self, network: bytes, dtype: str, file_name: str | Path):
        core = openvino_core()
        try:
            model = core.read_model(network)
            metadata = model.get_rt_info(["framework", METADATA_KEY]).value
        except RuntimeError as error:
            raise no_export_error(file_name) from error
        super().__init__(_read_description(metadata, file_name), dtype)
        if dtype == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ValueError("--dtype bfloat16: this processor does not compute in it, float32 and int8 are accepted")
        side = self.config.patch_size
        model.reshape([CHUNK_SIZE, 3, side, side])
        settings = {
            "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[dtype],  # else it chooses bfloat16 by itself
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # With two, one in ten int8 networks compiled by version 2026.4 gave wrong scores; with one, none of 250.
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes would be bound to the same cores
        }
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()

    def score_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Score `(batch, patches, 3, height, width)`, uint8 RGB: `(batch, patches)`, float32, on the CPU."""
        return torch.from_numpy(np.stack([self._score_image(image) for image in patches]))

    def _score_image(self, patches: torch.Tensor) -> np.ndarray:
        scores = []
        for chunk in self.image_processor.normalize_patches(patches).split(CHUNK_SIZE):
            padded = torch.cat([chunk, chunk.new_zeros(CHUNK_SIZE - len(chunk), *chunk.shape[1:])])
            self.request.infer([padded.numpy()], share_inputs=True)
            scores.append(self.request.get_output_tensor().data[: len(chunk)].copy())
        return np.concatenate(scores)


def load_onnx_engine(
    engine: str, model: str, device: str | None, dtype: str, compile: bool
) -> OnnxRuntimeEngine | OpenVinoEngine:
    """Load "onnxruntime" or "openvino"; the arguments are those of `hybridiqa.inference.engine.load_engine`."""
    if device not in (None, "cpu"):
        raise ValueError(f"--engine {engine} runs on the cpu, got --device {device}")
    if compile:
        raise ValueError(f"--compile is for --engine torch, got --engine {engine}")
    if not Path(model).is_file():
        raise no_export_error(model)
    network = Path(model).read_bytes()
    if EXTERNAL_DATA in network:
        raise ValueError(f"{model} has weights in other files, which are not read: export.py writes one file")
    return (OpenVinoEngine if engine == "openvino" else OnnxRuntimeEngine)(network, dtype, model)

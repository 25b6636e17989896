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

from hybridiqa.inference.engine_output import EngineOutput
from hybridiqa.models import hub_code
from hybridiqa.models.loading import find_head_type
from hybridiqa.utils.libraries import first_line, import_optional

METADATA_KEY = "hybridiqa"
INPUT_NAME = "pixel_values"
# Of patches `(patches, 3, height, width)`: `patch_scores (patches,)` with the hyper head, whose patches know nothing of
# each other. With the pooled head they are all patches of one image, and there are `score (1,)` and `features`, too.
OUTPUT_NAMES = {"hyper": ("patch_scores",), "pooled": ("score", "patch_scores", "features")}
OF_THIS_MACHINE = ("_name_or_path", "auto_map")  # where a checkpoint lay says nothing about it

CHUNK_SIZE = 5  # patches of one image that are computed together, with the hyper head
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
        self.head_type = find_head_type(self.config)
        self.output_names = OUTPUT_NAMES[self.head_type]

    def score_patches(self, patches: torch.Tensor) -> EngineOutput:
        """Score images of `(batch, patches, 3, height, width)`, uint8 RGB."""
        images = [self._score_image(self.image_processor.normalize_patches(image)) for image in patches]
        fields = {name: torch.from_numpy(np.stack([image[name] for image in images])) for name in self.output_names}
        patch_scores = fields["patch_scores"]
        scores = fields["score"].squeeze(1) if "score" in fields else patch_scores.mean(dim=1)
        return EngineOutput(scores, patch_scores, fields.get("features"))

    def _score_image(self, patches: torch.Tensor) -> dict[str, np.ndarray]:
        """Return the outputs by name for the normalised patches of one image."""
        if self.head_type == "pooled":
            return self._run(patches)
        chunks = [self._run(chunk)["patch_scores"] for chunk in patches.split(CHUNK_SIZE)]
        return {"patch_scores": np.concatenate(chunks)}

    def _run(self, patches: torch.Tensor) -> dict[str, np.ndarray]:
        """Return the network's outputs by name for patches that are computed together."""
        raise NotImplementedError


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

    def _run(self, patches: torch.Tensor) -> dict[str, np.ndarray]:
        outputs = self.session.run(list(self.output_names), {INPUT_NAME: patches.numpy()})
        return dict(zip(self.output_names, outputs, strict=True))


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
        self.settings = {
            "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[dtype],  # else it chooses bfloat16 by itself
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # With two, one in ten int8 networks compiled by version 2026.4 gave wrong scores; with one, none of 250.
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes would be bound to the same cores
        }
        self.model, self.requests = model, dict[int, Any]()  # by the number of patches that they take
        processor = self.image_processor
        is_hyper = self.head_type == "hyper"
        self._request(CHUNK_SIZE if is_hyper else processor.num_whole_patches + processor.num_patches)

    def _request(self, num_patches: int) -> Any:
        """Return what infers so many patches at once; it is compiled when it is first asked for."""
        if num_patches not in self.requests:
            side = self.config.patch_size
            self.model.reshape([num_patches, 3, side, side])
            compiled = openvino_core().compile_model(self.model, "CPU", self.settings)
            self.requests[num_patches] = compiled.create_infer_request()
        return self.requests[num_patches]

    def _run(self, patches: torch.Tensor) -> dict[str, np.ndarray]:
        count = len(patches)
        if self.head_type == "hyper":  # one size serves all chunks
            patches = torch.cat([patches, patches.new_zeros(CHUNK_SIZE - count, *patches.shape[1:])])
        request = self._request(len(patches))
        request.infer([patches.numpy()], share_inputs=True)
        outputs = {name: request.get_tensor(name).data.copy() for name in self.output_names}
        return outputs if self.head_type == "pooled" else {"patch_scores": outputs["patch_scores"][:count]}


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

"""What an .onnx file of `export.py` says about itself, beside its network: all that scoring needs, and no code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import BaseImageProcessor, PretrainedConfig

from hybridiqa.models.hub_code import hub_class

METADATA_KEY = "hybridiqa"
INPUT_NAME, OUTPUT_NAME = "pixel_values", "patch_scores"
OF_THIS_MACHINE = ("_name_or_path", "auto_map")  # where a checkpoint lay says nothing about it


@dataclass(frozen=True)
class OnnxDescription:
    """The checkpoint that a file was made from.

    Args:
        dtype: of the network: "float32" or "int8".
        fingerprint: the checkpoint's; an int8 network has its own.
    """

    config: PretrainedConfig
    image_processor: BaseImageProcessor
    dtype: str
    fingerprint: str

    def to_json(self) -> str:
        """What is written into the file, under `METADATA_KEY`."""
        fields = {"dtype": self.dtype, "fingerprint": self.fingerprint}
        for name in ("config", "image_processor"):
            values = getattr(self, name).to_dict()
            fields[name] = {key: value for key, value in values.items() if key not in OF_THIS_MACHINE}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> OnnxDescription:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return cls(
            hub_class("configuration_hybridiqa.HybridIQAConfig").from_dict(fields["config"]),
            hub_class("image_processing_hybridiqa.HybridIQAImageProcessor").from_dict(fields["image_processor"]),
            fields["dtype"],
            fields["fingerprint"],
        )


def not_an_export(name: str | Path) -> ValueError:
    """The error for what is no such file."""
    return ValueError(f"{name} is no .onnx file of export.py: python export.py MODEL --output scorer.onnx makes one")

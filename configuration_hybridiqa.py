"""Configuration of hybridIQA: the backbone, the sizes of the network, and the range that its scores speak in.

Training options never enter it; how an image becomes patches stands in `preprocessor_config.json`.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import numpy as np
from transformers import AutoConfig, PretrainedConfig, ResNetConfig

TASK = "image-quality-assessment"
PERCENTILE_DECIMALS = 2
BACKBONE_STRIDE = 32  # of the last of the four stages, whose strides are 4, 8, 16 and 32
NUM_STAGES = 4


class HybridIQAConfig(PretrainedConfig):
    """Architecture of a `HybridIQAModel` (hyperIQA, Su et al., CVPR 2020, section 3; any four-stage backbone).

    Args:
        backbone_config: configuration, or its dictionary with `model_type`, of any backbone that `AutoBackbone` builds
            with four stages of stride 4, 8, 16 and 32. Default: ResNet-152, depths [3, 8, 36, 3].
        patch_size: side of the square patches, in pixels; a multiple of 32.
        num_patches: patches an image when scoring, for a new model; a checkpoint's image processor has its own.
        lda_channels: channels to which stages 1-3 are reduced in the local distortion aware (LDA) modules.
        lda_width: length of the vector that each of stages 1-3 gives to the target network.
        hyper_channels: channels of the map from which the target network's weights are generated.
        target_input_size: length of the vector that enters the target network.
        target_widths: outputs of the target network's hidden layers; a last layer with one output follows.
        score_range: lowest and highest score that the labels use. It says what a score means: nothing is clamped to it.
        score_quantiles: quantiles of the checkpoint's own scores on its validation split, evenly spaced from 0 % (the
            lowest) to 100 % (the highest): the distribution against which a score's percentile is told. At least 2
            finite numbers that never decrease; none where it was not measured.

    Raises:
        ValueError: sizes that cannot work together; the message names the fields and the rule.
    """

    model_type = "hybridiqa"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012
    _auto_class = "AutoConfig"

    def __init__(
        self,
        backbone_config: PretrainedConfig | dict | None = None,
        patch_size: int = 224,
        num_patches: int = 25,
        lda_channels: Sequence[int] = (16, 32, 64),
        lda_width: int = 16,
        hyper_channels: int = 112,
        target_input_size: int = 224,
        target_widths: Sequence[int] = (112, 56, 28, 14),
        score_range: Sequence[float] = (1.0, 9.0),
        score_quantiles: Sequence[float] | None = None,
        **kwargs,
    ):
        self.backbone_config = _four_stages(backbone_config)
        self.patch_size = patch_size
        self.num_patches = num_patches
        self.lda_channels = _as_list("lda_channels", lda_channels)
        self.lda_width = lda_width
        self.hyper_channels = hyper_channels
        self.target_input_size = target_input_size
        self.target_widths = _as_list("target_widths", target_widths)
        self.score_range = _as_list("score_range", score_range)
        self.score_quantiles = None if score_quantiles is None else _as_list("score_quantiles", score_quantiles)
        self._check_sizes()
        super().__init__(**kwargs)

    @property
    def custom_pipelines(self) -> dict[str, dict]:
        """Where `pipeline(TASK, model=...)` finds its class; each time a new dictionary, since it is changed there."""
        return {
            TASK: {"impl": "pipeline_hybridiqa.ImageQualityAssessmentPipeline", "pt": ["AutoModel"], "type": "image"}
        }

    @property
    def feature_map_size(self) -> int:
        """Side of the last stage's map, in cells."""
        return self.patch_size // BACKBONE_STRIDE

    @property
    def target_shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of every layer of the target network."""
        widths = [self.target_input_size, *self.target_widths, 1]
        return [(outputs, inputs) for inputs, outputs in itertools.pairwise(widths)]

    def _check_sizes(self) -> None:
        names = ("patch_size", "num_patches", "lda_width", "hyper_channels", "target_input_size")
        counts = {name: getattr(self, name) for name in names}
        counts |= {f"lda_channels[{index}]": value for index, value in enumerate(self.lda_channels)}
        counts |= {f"target_widths[{index}]": value for index, value in enumerate(self.target_widths)}
        for name, value in counts.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.patch_size % BACKBONE_STRIDE:
            raise ValueError(f"patch_size must be a multiple of {BACKBONE_STRIDE}, got {self.patch_size}")
        if len(self.lda_channels) != NUM_STAGES - 1:
            raise ValueError(f"lda_channels must name {NUM_STAGES - 1} stages, got {self.lda_channels}")
        if self.target_input_size <= (NUM_STAGES - 1) * self.lda_width:
            raise ValueError(
                f"target_input_size must exceed {NUM_STAGES - 1} x lda_width, since the last stage fills the rest: "
                f"got target_input_size={self.target_input_size}, lda_width={self.lda_width}"
            )
        if not self.target_widths:
            raise ValueError("target_widths must name at least one layer, got []")
        self._check_generated_weights()
        are_numbers = all(isinstance(bound, int | float) for bound in self.score_range)
        if len(self.score_range) != 2 or not are_numbers or not self.score_range[0] < self.score_range[1]:
            raise ValueError(f"score_range must be (lowest, highest) with lowest < highest, got {self.score_range}")
        if self.score_quantiles is not None and not _are_quantiles(self.score_quantiles):
            raise ValueError(
                "score_quantiles must be at least 2 finite numbers that never decrease, or none, "
                f"got {self.score_quantiles}"
            )

    def _check_generated_weights(self) -> None:
        cells = self.feature_map_size**2
        for outputs, inputs in self.target_shapes[:-1]:
            if outputs * inputs % cells:
                raise ValueError(
                    "target_input_size and target_widths: each layer's inputs x outputs must be a multiple of the "
                    f"cells of the last feature map, (patch_size / {BACKBONE_STRIDE})^2 = {cells}; "
                    f"got {inputs} x {outputs}"
                )


def percentiles_in(quantiles: Sequence[float], scores: Sequence[float]) -> list[float]:
    """Where scores stand in a distribution, from 0 (the lowest) to 100 (the highest).

    Args:
        quantiles: of the distribution, evenly spaced from 0 % to 100 %, as `HybridIQAConfig.score_quantiles` is.
        scores: on the same scale; beyond the distribution's ends they get 0 or 100.
    """
    return np.interp(scores, quantiles, np.linspace(0, 100, len(quantiles))).round(PERCENTILE_DECIMALS).tolist()


def _as_list(name: str, values: Sequence) -> list:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name} must be a list, got {values!r}")
    return list(values)


def _are_quantiles(values: list) -> bool:
    are_numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    return are_numbers and len(values) >= 2 and values == sorted(values)


def _four_stages(backbone_config: PretrainedConfig | dict | None) -> PretrainedConfig:
    """The backbone's configuration, set to return all four stage maps (a copy: the caller's stays as it is)."""
    if backbone_config is None:
        backbone_config = ResNetConfig(depths=[3, 8, 36, 3])
    elif isinstance(backbone_config, dict):
        if "model_type" not in backbone_config:
            raise ValueError(
                f"backbone_config as a dictionary needs a 'model_type', got keys {sorted(backbone_config)}"
            )
        fields = dict(backbone_config)
        backbone_config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    else:
        backbone_config = copy.deepcopy(backbone_config)
    num_stages = len(getattr(backbone_config, "stage_names", [])) - 1  # the first name is the stem
    if num_stages != NUM_STAGES:
        raise ValueError(
            f"backbone_config must describe {NUM_STAGES} stages (strides 4, 8, 16, 32), "
            f"got {backbone_config.model_type!r} with {max(num_stages, 0)}"
        )
    backbone_config.out_indices = list(range(1, NUM_STAGES + 1))
    backbone_config._name_or_path = ""  # where it once lay on somebody's disk is not part of the architecture
    return backbone_config

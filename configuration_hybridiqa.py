"""Configuration of hybridIQA: the backbone, the sizes of the network, and the range that its scores speak in.

Training options never enter it; how an image becomes patches stands in `preprocessor_config.json`.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, ResNetConfig

TASK = "image-quality-assessment"
PERCENTILE_DECIMALS = 2
BACKBONE_STRIDE = 32  # of the last of the four stages, whose strides are 4, 8, 16 and 32
NUM_STAGES = 4
HEAD_TYPES = ("hyper", "pooled")
# Bounds of what a configuration may describe: a file of some hundred bytes, of whoever's, must not ask for hours or for
# all memory. They admit ResNet-152 (36 blocks in a stage), SigLIP so400m (27 layers, 4304 wide), DINOv2 giant (40
# layers) and ConvNeXt-XL (27 blocks, 2048 wide, 21,841 labels), each with room to spare.
MAX_DEPTH = 100  # blocks or layers in a row
MAX_DEPTH_IN_ALL = 400  # of all fields that count layers, which bounds the time of building
MAX_WHOLE_NUMBER = 100_000  # of any other field: a width, the side of an image, a number of labels
MAX_NUMBER = 1e6  # of a fraction, a score or a quantile
MAX_ENTRIES = 25_000  # of a dictionary, such as one of labels
MAX_LIST = 256  # entries of a list, each of which can stand for a block
MAX_WINDOW = 32  # cells a side, of which a table of positions has the fourth power; Swin V2 uses up to 24
MAX_LEVELS = 8  # of lists and dictionaries in each other
MAX_TEXT = 1000  # letters
MAX_WIDTH = 4096  # of each of our own layers
MAX_TARGET_LAYERS = 16
MAX_PATCH_SIZE = 2048  # pixels
MAX_PATCHES = 10_000  # of an image
MAX_QUANTILES = 10_001  # 21 are written
MAX_WHOLE_VIEWS = 4
MAX_TILES = 8  # a side of a view of the whole image
MAX_FEATURES = 4096  # of an image, which can be kept beside its score
MAX_TOKENS = 16_384  # of a patch in an encoder of tokens, such as a vision transformer
DEPTH_NAME = re.compile(r"depth|layers|blocks|stages|levels|experts|convs")
LABEL_NAMES = ("id2label", "label2id")
# Through these a configuration names code or weights of another repository, which would be fetched and run.
FETCHING_NAMES = ("auto_map", "backbone", "use_timm_backbone", "use_pretrained_backbone", "quantization_config")
FETCHING_MODELS = ("timm_backbone", "timm_wrapper")
# These have transformers read a field under another name, or build otherwise than the other fields say.
STEERING_NAMES = (
    *("attribute_map", "sub_configs", "sub_configs_defaults", "per_layer_config"),
    *("configuration_files", "quantization_config", "fusion_config", "distributed_config", "use_kernels"),
)
KERNEL_NAMES = re.compile(r"_*(attn|experts)_implementation")  # user/name would be code on the Hub


class HybridIQAConfig(PretrainedConfig):
    """Architecture of a `HybridIQAModel` (hyperIQA, Su et al., CVPR 2020, section 3; any four-stage backbone).

    Args:
        backbone_config: configuration, or its dictionary with `model_type`, of any backbone that `AutoBackbone` builds
            with four stages of stride 4, 8, 16 and 32. Default: ResNet-152, depths [3, 8, 36, 3]. For the pooled head
            also an encoder of tokens that `AutoModel` builds, such as DINOv2 or the vision part of SigLIP or CLIP.
        head_type: "hyper", the published one: a hyper network writes a target network for each patch, and an image's
            score is the mean over its patches; or "pooled": mean and standard deviation of the four stages (or of an
            encoder's tokens, beside its pooled output) over views of the image, read by one small network for all.
        whole_views: of the pooled head, the views of the whole image beside its native patches, each by its tiles a
            side: with [1, 2] it is seen in one patch and in 2 x 2. No view with the hyper head.
        num_features: of the pooled head, the length of the vector that its network reads; at most 4096.
        pooled_width: of the pooled head, the width of its network's hidden layer.
        pooled_dropout: of the pooled head, the share of features and of hidden values left out in training.
        patch_size: side of the square patches, in pixels; a multiple of 32, or of an encoder's own patches.
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

    The fields of the other head than `head_type` have no effect.

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
        head_type: str = "hyper",
        whole_views: Sequence[int] | None = None,
        num_features: int = MAX_FEATURES,
        pooled_width: int = 256,
        pooled_dropout: float = 0.3,
        **kwargs,
    ):
        check_bounds("config.json", kwargs)
        _check_names("config.json", type(self), kwargs)
        self.backbone_config = _make_backbone_config(backbone_config, head_type)
        self.patch_size = patch_size
        self.num_patches = num_patches
        self.lda_channels = _to_list("lda_channels", lda_channels)
        self.lda_width = lda_width
        self.hyper_channels = hyper_channels
        self.target_input_size = target_input_size
        self.target_widths = _to_list("target_widths", target_widths)
        self.score_range = _to_list("score_range", score_range)
        self.score_quantiles = None if score_quantiles is None else _to_list("score_quantiles", score_quantiles)
        self.head_type = head_type
        if whole_views is None:
            whole_views = (1, 2) if head_type == "pooled" else ()
        self.whole_views = _to_list("whole_views", whole_views)
        self.num_features = num_features
        self.pooled_width = pooled_width
        self.pooled_dropout = pooled_dropout
        self._check_sizes()
        self._check_head()
        super().__init__(**kwargs)

    @property
    def custom_pipelines(self) -> dict[str, dict]:
        """Return the class of `pipeline(TASK, model=...)`, each time in a new dictionary, since it is changed there."""
        return {
            TASK: {"impl": "pipeline_hybridiqa.ImageQualityAssessmentPipeline", "pt": ["AutoModel"], "type": "image"}
        }

    @property
    def has_tokens(self) -> bool:
        """Return whether the backbone is an encoder of tokens, not one of four stages."""
        return self.head_type == "pooled" and not _has_four_stages(self.backbone_config)

    @property
    def feature_map_size(self) -> int:
        """Return the side of the last stage's map, in cells."""
        return self.patch_size // BACKBONE_STRIDE

    @property
    def target_shapes(self) -> list[tuple[int, int]]:
        """Return (outputs, inputs) of every layer of the target network."""
        widths = [self.target_input_size, *self.target_widths, 1]
        return [(outputs, inputs) for inputs, outputs in itertools.pairwise(widths)]

    def _check_sizes(self) -> None:
        names = ("patch_size", "num_patches", "lda_width", "hyper_channels", "target_input_size")
        counts = {name: getattr(self, name) for name in names}
        counts |= {f"lda_channels[{index}]": value for index, value in enumerate(self.lda_channels)}
        if len(self.target_widths) > MAX_TARGET_LAYERS:
            raise ValueError(f"target_widths has at most {MAX_TARGET_LAYERS} layers, got {len(self.target_widths)}")
        counts |= {f"target_widths[{index}]": value for index, value in enumerate(self.target_widths)}
        highest = {"patch_size": MAX_PATCH_SIZE, "num_patches": MAX_PATCHES}
        for name, value in counts.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {_shorten(value)}")
            if value > highest.get(name, MAX_WIDTH):
                raise ValueError(f"{name} must be at most {highest.get(name, MAX_WIDTH)}, got {_shorten(value)}")
        stride = self.backbone_config.patch_size if self.has_tokens else BACKBONE_STRIDE
        if self.patch_size % stride:
            raise ValueError(f"patch_size must be a multiple of {stride}, got {self.patch_size}")
        if self.has_tokens and (self.patch_size // stride) ** 2 > MAX_TOKENS:
            raise ValueError(f"a patch has at most {MAX_TOKENS} tokens, got patch_size {self.patch_size}")
        if len(self.lda_channels) != NUM_STAGES - 1:
            raise ValueError(f"lda_channels must name {NUM_STAGES - 1} stages, got {_shorten(self.lda_channels)}")
        if self.target_input_size <= (NUM_STAGES - 1) * self.lda_width:
            raise ValueError(
                f"target_input_size must exceed {NUM_STAGES - 1} x lda_width, since the last stage fills the rest: "
                f"got target_input_size={self.target_input_size}, lda_width={self.lda_width}"
            )
        if not self.target_widths:
            raise ValueError("target_widths must name at least one layer, got []")
        if self.head_type == "hyper":
            self._check_generated_weights()
        are_numbers = len(self.score_range) == 2 and all(map(_is_number, self.score_range))
        if not are_numbers or not self.score_range[0] < self.score_range[1]:
            raise ValueError(
                f"score_range must be (lowest, highest) with lowest < highest, each within {MAX_NUMBER:g}, "
                f"got {_shorten(self.score_range)}"
            )
        if self.score_quantiles is not None and not _are_quantiles(self.score_quantiles):
            raise ValueError(
                f"score_quantiles must be at least 2 finite numbers that never decrease, at most {MAX_QUANTILES}, or "
                f"none, got {_shorten(self.score_quantiles)}"
            )

    def _check_head(self) -> None:
        if self.head_type not in HEAD_TYPES:
            raise ValueError(f"head_type must be one of {', '.join(HEAD_TYPES)}, got {_shorten(self.head_type)}")
        check_whole_views(self.whole_views)
        if self.whole_views and self.head_type != "pooled":
            raise ValueError(f"whole_views are of the head 'pooled', got {self.whole_views} for {self.head_type!r}")
        for name, highest in (("num_features", MAX_FEATURES), ("pooled_width", MAX_WIDTH)):
            if not _is_count(value := getattr(self, name), highest):
                raise ValueError(f"{name} must be a whole number, 1 to {highest}, got {_shorten(value)}")
        if not _is_number(self.pooled_dropout) or not 0 <= self.pooled_dropout < 1:
            raise ValueError(f"pooled_dropout must be at least 0 and below 1, got {_shorten(self.pooled_dropout)}")

    def _check_generated_weights(self) -> None:
        cells = self.feature_map_size**2
        for outputs, inputs in self.target_shapes[:-1]:
            if outputs * inputs % cells:
                raise ValueError(
                    "target_input_size and target_widths: each layer's inputs x outputs must be a multiple of the "
                    f"cells of the last feature map, (patch_size / {BACKBONE_STRIDE})^2 = {cells}; "
                    f"got {inputs} x {outputs}"
                )


def check_whole_views(whole_views: Sequence[int]) -> None:
    """Refuse views of the whole image that are none: each is named by its tiles a side.

    Raises:
        ValueError: more than 4 views, or one that is no whole number of 1 to 8.
    """
    if len(whole_views) > MAX_WHOLE_VIEWS or not all(_is_count(tiles, MAX_TILES) for tiles in whole_views):
        raise ValueError(
            f"whole_views must be at most {MAX_WHOLE_VIEWS} whole numbers, each 1 to {MAX_TILES}, got "
            f"{_shorten(whole_views)}"
        )


def percentiles_in(quantiles: Sequence[float], scores: Sequence[float]) -> list[float]:
    """Return the percentiles of scores in a distribution, from 0 (the lowest) to 100 (the highest).

    Args:
        quantiles: of the distribution, evenly spaced from 0 % to 100 %, as `HybridIQAConfig.score_quantiles` is.
        scores: on the same scale; beyond the distribution's ends they get 0 or 100.
    """
    return np.interp(scores, quantiles, np.linspace(0, 100, len(quantiles))).round(PERCENTILE_DECIMALS).tolist()


def _to_list(name: str, values: Sequence) -> list:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name} must be a list, got {_shorten(values)}")
    return list(values)


def _shorten(value: Any) -> str:
    """Return a value for a message; of a long one the beginning."""
    try:
        text = repr(value[:5] if isinstance(value, list | tuple) else value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a whole number of thousands of digits"
    length = f" ({len(value)} entries)" if isinstance(value, list | tuple) and len(value) > 5 else ""
    return (text if len(text) <= 100 else f"{text[:100]}...") + length


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -MAX_NUMBER <= value <= MAX_NUMBER  # which NaN is not


def _is_count(value: Any, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= highest


def _are_quantiles(values: list) -> bool:
    return 2 <= len(values) <= MAX_QUANTILES and all(map(_is_number, values)) and values == sorted(values)


def check_bounds(name: str, fields: Mapping[str, Any]) -> None:
    """Refuse fields of a configuration that describe more than any network in use, before anything is made of them.

    Args:
        name: of what the fields belong to, for messages.
        fields: as in JSON; what else Python knows is left to those who read it.

    Raises:
        ValueError: the first field beyond its bound.
    """
    depths = list(_check_values(name, fields, is_depth=False, level=1))
    if sum(depths) > MAX_DEPTH_IN_ALL:
        raise ValueError(f"{name}: at most {MAX_DEPTH_IN_ALL} layers are accepted in all, got {sum(depths)}")


def _check_values(name: str, value: Any, is_depth: bool, level: int) -> Iterator[int]:
    """Check a value and all in it; yield the numbers of layers among them."""
    if isinstance(value, Mapping | list | tuple):
        max_entries = MAX_ENTRIES if isinstance(value, Mapping) else MAX_LIST
        if len(value) > max_entries or level > MAX_LEVELS:
            got = f"got {len(value)} and {level}"
            raise ValueError(f"{name}: at most {max_entries} entries and {MAX_LEVELS} levels are accepted, {got}")
        items = value.items() if isinstance(value, Mapping) else (("", each) for each in value)
        for key, each in items:
            _check_text(name, key)
            inner = f"{name}: {key}" if isinstance(value, Mapping) else name
            if isinstance(value, Mapping) and key in LABEL_NAMES:
                _check_labels(inner, each)
                continue
            is_inner_depth = DEPTH_NAME.search(str(key)) is not None if isinstance(value, Mapping) else is_depth
            yield from _check_values(inner, each, is_inner_depth, level + 1)
    elif isinstance(value, str):
        _check_text(name, value)
    elif isinstance(value, int) and not isinstance(value, bool):
        highest = MAX_DEPTH if is_depth else MAX_WINDOW if "window" in name else MAX_WHOLE_NUMBER
        if abs(value) > highest:
            raise ValueError(f"{name} must be at most {highest}, got {_shorten(value)}")
        if is_depth:
            yield max(value, 0)
    elif isinstance(value, float) and not _is_number(value):
        raise ValueError(f"{name} must be a number within {MAX_NUMBER:g}, got {value}")


def _check_labels(name: str, labels: Any) -> None:
    """Refuse a label map that is none; what its labels are called says nothing about layers."""
    if labels is not None and (not isinstance(labels, Mapping) or len(labels) > MAX_ENTRIES):
        raise ValueError(f"{name} must be a dictionary of at most {MAX_ENTRIES} labels, got {_shorten(labels)}")
    for each in itertools.chain.from_iterable((labels or {}).items()):
        _check_text(name, each)
        if not isinstance(each, str) and not (isinstance(each, int) and abs(each) <= MAX_WHOLE_NUMBER):
            raise ValueError(f"{name} must hold texts and whole numbers, got {_shorten(each)}")


def _check_text(name: str, value: Any) -> None:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"{name}: a text has at most {MAX_TEXT} letters, got {len(value)}")


def _check_names(name: str, owner: type, fields: Mapping[str, Any]) -> None:
    """Refuse fields that change how a configuration works: methods of its class, and what transformers steers by.

    Raises:
        ValueError: the first of them.
    """
    for key, value in fields.items():
        member = inspect.getattr_static(owner, str(key), None)
        is_fixed = isinstance(member, property) and member.fset is None
        if callable(member) or isinstance(member, classmethod | staticmethod) or is_fixed or str(key).startswith("__"):
            raise ValueError(f"{name}: {_shorten(key)} is no field, but a part of {owner.__name__}")
        is_kernel = KERNEL_NAMES.match(str(key)) and isinstance(value, str | dict) and not str(value).isidentifier()
        if is_kernel or (key in STEERING_NAMES and value):
            raise ValueError(f"{name}: {key} is not accepted, got {_shorten(value)}")


def _check_backbone(fields: Mapping[str, Any]) -> None:
    """Refuse a backbone that is out of bounds, or whose code or weights lie elsewhere."""
    check_bounds("backbone_config", fields)
    if fields.get("model_type") in FETCHING_MODELS:
        raise ValueError(f"backbone_config: a {fields['model_type']} is fetched from elsewhere, which is not accepted")
    if named := [name for name in FETCHING_NAMES if fields.get(name)]:
        raise ValueError(
            f"backbone_config: {named[0]} names code or weights of another repository, which is not accepted; got "
            f"{_shorten(fields[named[0]])}"
        )


def _make_backbone_config(backbone_config: PretrainedConfig | dict | None, head_type: str) -> PretrainedConfig:
    """Return the backbone's configuration, set to give all four stage maps; the caller's own stays as it is."""
    if backbone_config is None:
        backbone_config = ResNetConfig(depths=[3, 8, 36, 3])
    elif isinstance(backbone_config, dict):
        _check_backbone(backbone_config)
        if not isinstance(backbone_config.get("model_type"), str):
            keys = _shorten(sorted(map(str, backbone_config)))
            raise ValueError(f"backbone_config as a dictionary needs a 'model_type', got keys {keys}")
        fields = dict(backbone_config)
        model_type = fields.pop("model_type")
        if model_type in CONFIG_MAPPING:
            _check_names("backbone_config", CONFIG_MAPPING[model_type], fields)
        backbone_config = AutoConfig.for_model(model_type, **fields)
    elif isinstance(backbone_config, PretrainedConfig):
        _check_backbone(backbone_config.to_dict())
        backbone_config = copy.deepcopy(backbone_config)
    else:
        raise ValueError(f"backbone_config must be a configuration or its dictionary, got {_shorten(backbone_config)}")
    backbone_config._name_or_path = ""  # where it once lay on somebody's disk is not part of the architecture
    if _has_four_stages(backbone_config):
        backbone_config.out_indices = list(range(1, NUM_STAGES + 1))
    elif head_type != "pooled":
        raise ValueError(
            f"backbone_config must describe {NUM_STAGES} stages (strides 4, 8, 16, 32), "
            f"got {backbone_config.model_type!r} with {_count_stages(backbone_config)}"
        )
    else:
        _check_encoder(backbone_config)
    return backbone_config


def _count_stages(backbone_config: PretrainedConfig) -> int:
    stage_names = getattr(backbone_config, "stage_names", None)
    return max(len(stage_names) - 1, 0) if isinstance(stage_names, list) else 0  # the first name is the stem


def _has_four_stages(backbone_config: PretrainedConfig) -> bool:
    return _count_stages(backbone_config) == NUM_STAGES and _is_pyramid(type(backbone_config))


def _check_encoder(config: PretrainedConfig) -> None:
    """Refuse an encoder that gives no tokens of square patches, or whose tables of positions would be too large."""
    highest = {"hidden_size": MAX_WIDTH, "patch_size": MAX_PATCH_SIZE, "image_size": MAX_PATCH_SIZE}
    for name, limit in highest.items():
        if not _is_count(getattr(config, name, None), limit):
            raise ValueError(
                f"backbone_config must describe {NUM_STAGES} stages, or an encoder of tokens with {name} as a whole "
                f"number, 1 to {limit}; got {config.model_type!r} with {_shorten(getattr(config, name, None))}"
            )
    if (config.image_size // config.patch_size) ** 2 > MAX_TOKENS:
        raise ValueError(
            f"backbone_config: at most {MAX_TOKENS} tokens are accepted, got image_size {config.image_size} and "
            f"patch_size {config.patch_size}"
        )


def _is_pyramid(config_class: type) -> bool:
    """Return whether a backbone's stages can shrink.

    Those of transformers' plain vision transformers are their layers, all of one size: with four of them one would
    load, and fail only in its first pass, after tables of positions of any size.
    """
    return not config_class.__module__.startswith("transformers.") or hasattr(config_class(), "depths")

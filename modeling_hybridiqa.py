"""The hybridIQA model: a backbone and one of two heads, `config.head_type`.

"hyper": a hyper network and the target network that it writes anew for every patch, after hyperIQA (Su et al., "Blindly
Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network", CVPR 2020). "pooled": one small network that
reads mean and standard deviation of the backbone's stages over views of the image.
Use it through `AutoModel.from_pretrained(DIR_OR_REPO, trust_remote_code=True)`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from transformers import AutoBackbone, AutoModel, PreTrainedModel
from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    ModelOutput,
    cached_file,
    is_peft_available,
)

from .configuration_hybridiqa import HybridIQAConfig
from .image_bounds_hybridiqa import TooMuchWork  # noqa: F401 (what a file imports itself travels with it, no more)
from .image_loading_hybridiqa import load_image  # noqa: F401
from .image_processing_hybridiqa import HybridIQAImageProcessor
from .pipeline_hybridiqa import ImageQualityAssessmentPipeline  # noqa: F401

# On a CPU the kernels, and with them the last bits of a score, depend on the batch; 5 patches at a time is fastest.
CPU_CHUNK_SIZE = 5
WEIGHT_ALIGNMENT = 64  # bytes, of the memory that torch allocates on a CPU
STAGE_STRIDES = (4, 8, 16, 32)
PROCESSOR_FILE = "preprocessor_config.json"
NOTICES_FILE = "THIRD_PARTY_NOTICES.md"  # of what the weights started from
MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, as in its own library; of an index of them, too
MAX_SHARDS = 1000  # files of weights
MAX_MISSING = 1_000_000  # numbers that a configuration may describe and no file hold, besides as many as it holds
SHARD_NAME = re.compile(r"[\w-][\w.-]*\.safetensors")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
ONLY_SCORES = "after prepare_for_scoring() this model can only score"
INTERPOLATES_BY_ITSELF = ("dinov2", "dinov2_with_registers")  # positions to other sizes of patches, without an option
MIN_VARIANCE = 1e-8  # of a stage's channel in a patch, below which its standard deviation has no gradient
MAX_DEVIATIONS = 8.0  # standard deviations from the mean, to which the pooled head's statistics are limited


@dataclass
class HybridIQAOutput(ModelOutput):
    """Output of the model.

    Args:
        loss: mean absolute difference between `logits` and `labels`; only where labels were given.
        logits: `(batch,)`, an image's score on the checkpoint's own range. With the hyper head it is the mean over its
            patches, unclamped; with the pooled head it lies within the range.
        patch_scores: `(batch, patches)`, of the native patches one by one. With the pooled head, a patch's score is
            what the image would get if all of its native patches were like this one; None in training mode.
        features: `(batch, num_features)`, what the pooled head's network reads; None with the hyper head.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    patch_scores: torch.FloatTensor | None = None
    features: torch.FloatTensor | None = None


class KaimingConv2d(nn.Conv2d):
    """Convolution that starts from Kaiming-normal weights (fan-in, gain of ReLU)."""

    def reset_parameters(self) -> None:
        super().reset_parameters()  # the bias keeps torch's default
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")


class KaimingLinear(nn.Linear):
    """Linear layer that starts from Kaiming-normal weights (fan-in, gain of ReLU)."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")


class LocalDistortionModule(nn.Module):
    """Layers from one stage map to a short vector of local distortions (LDA module; paper section 3.2).

    Args:
        in_channels: channels of the stage.
        map_size: side of the stage's map, in cells.
        pool_size: side of the windows that are averaged, in cells.
        out_features: length of the vector.
        reduced_channels: channels after a 1 x 1 convolution; none for the last stage, which is pooled as it is.
    """

    def __init__(
        self, in_channels: int, map_size: int, pool_size: int, out_features: int, reduced_channels: int | None = None
    ):
        super().__init__()
        self.conv = KaimingConv2d(in_channels, reduced_channels, 1, bias=False) if reduced_channels else nn.Identity()
        self.pool = nn.AvgPool2d(pool_size)
        num_cells = (map_size // pool_size) ** 2
        self.linear = KaimingLinear((reduced_channels or in_channels) * num_cells, out_features)

    def forward(self, stage_map: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.conv(stage_map))  # (patches, channels, cells, cells)
        return self.linear(x.flatten(1))  # (patches, out_features)


class LocalDistortionFeatures(nn.Module):
    """Layers from the four stage maps to the vector that enters the target network."""

    def __init__(self, config: HybridIQAConfig, stage_channels: list[int]):
        super().__init__()
        pool_size = config.feature_map_size
        last_width = config.target_input_size - len(config.lda_channels) * config.lda_width
        widths = [config.lda_width] * len(config.lda_channels) + [last_width]
        self.stages = nn.ModuleList(
            LocalDistortionModule(in_channels, config.patch_size // stride, pool_size, width, reduced_channels)
            for in_channels, stride, width, reduced_channels in zip(
                stage_channels, STAGE_STRIDES, widths, [*config.lda_channels, None], strict=True
            )
        )

    def forward(self, stage_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        vectors = [stage(stage_map) for stage, stage_map in zip(self.stages, stage_maps, strict=True)]
        return torch.cat(vectors, dim=1)  # (patches, target_input_size)


class HyperNetwork(nn.Module):
    """Layers from the last stage map to weights and biases of the target network (paper section 3.3)."""

    def __init__(self, config: HybridIQAConfig, in_channels: int):
        super().__init__()
        widths = [in_channels, in_channels // 2, in_channels // 4, config.hyper_channels]
        self.reduce = nn.Sequential()
        for inputs, outputs in itertools.pairwise(widths):
            self.reduce.extend([nn.Conv2d(inputs, outputs, 1), nn.ReLU()])
        *hidden_shapes, last_shape = config.target_shapes
        cells = config.feature_map_size**2
        self.weight_layers = nn.ModuleList(
            KaimingConv2d(config.hyper_channels, outputs * inputs // cells, 3, padding=1)
            for outputs, inputs in hidden_shapes
        )
        self.weight_layers.append(KaimingLinear(config.hyper_channels, last_shape[0] * last_shape[1]))
        self.bias_layers = nn.ModuleList(
            KaimingLinear(config.hyper_channels, outputs) for outputs, _ in config.target_shapes
        )
        self.target_shapes = config.target_shapes

    def forward(self, stage_map: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        hyper_features = self.reduce(stage_map)  # (patches, hyper_channels, cells, cells)
        pooled = hyper_features.mean(dim=(2, 3))  # (patches, hyper_channels)
        sources = [hyper_features] * (len(self.target_shapes) - 1) + [pooled]
        layers = []
        for shape, source, weight_layer, bias_layer in zip(
            self.target_shapes, sources, self.weight_layers, self.bias_layers, strict=True
        ):
            weight = weight_layer(source).reshape(-1, *shape)  # (patches, outputs, inputs)
            layers.append((weight, bias_layer(pooled)))  # bias: (patches, outputs)
        return layers


def run_target_network(vectors: torch.Tensor, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Run each patch's vector through its own small network, in float32 at least, whatever the model's dtype.

    Args:
        vectors: `(patches, target_input_size)`.
        layers: weight `(patches, outputs, inputs)` and bias `(patches, outputs)` a layer;
            a sigmoid after all but the last.

    Returns:
        `(patches,)`, a score a patch.
    """
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    with torch.autocast(vectors.device.type, enabled=False):
        x = vectors.to(dtype).unsqueeze(-1)  # (patches, inputs, 1)
        for index, (weight, bias) in enumerate(layers):
            if index > 0:
                x = torch.sigmoid(x)
            # Where `device_map` has dealt the modules to devices, weights and vectors can come from two.
            x = torch.baddbmm(bias.to(x).unsqueeze(-1), weight.to(x), x)  # (patches, outputs, 1)
    return x.flatten()  # (patches,)


def compute_token_statistics(tokens: torch.Tensor, pooled: torch.Tensor | None, num_patches: int) -> torch.Tensor:
    """Return mean and standard deviation of an encoder's tokens over a patch, and its pooled output.

    Args:
        tokens: `(patches, tokens, channels)`, those of the encoder's own patches last.
        pooled: `(patches, channels)`; where there is none, the first token stands for it if it is of no patch, else the
            mean.
        num_patches: of the encoder's own in a patch of ours.

    Returns:
        `(patches, 3 x channels)`, float32 at least.
    """
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    of_patches = tokens[:, tokens.shape[1] - num_patches :]
    mean = of_patches.mean(dim=1)  # (patches, channels)
    variance = (of_patches - mean.unsqueeze(1)).square().mean(dim=1)
    if pooled is None:
        pooled = tokens[:, 0] if tokens.shape[1] > num_patches else mean
    return torch.cat([mean, variance.clamp(min=MIN_VARIANCE).sqrt(), pooled.to(mean.dtype)], dim=1)


def compute_stage_statistics(stage_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return mean and standard deviation of each channel over each patch's cells, in float32 at least.

    Args:
        stage_maps: `(patches, channels, height, width)` each.

    Returns:
        `(patches, 2 x the sum of all channels)`: stage by stage, means before standard deviations.
    """
    statistics = []
    for stage_map in stage_maps:
        cells = stage_map.to(torch.promote_types(stage_map.dtype, torch.float32)).flatten(2)
        mean = cells.mean(dim=2, keepdim=True)  # (patches, channels, 1)
        variance = (cells - mean).square().mean(dim=2)  # (patches, channels)
        statistics += [mean.squeeze(2), variance.clamp(min=MIN_VARIANCE).sqrt()]
    return torch.cat(statistics, dim=1)


class PooledHead(nn.Module):
    """Layers from the statistics of an image's views to its score, the same for all images; always in float32.

    The statistics are standardised by `statistics_mean` and `statistics_std`, which `fit_statistics` sets once. Where
    they are more than `config.num_features`, they are folded: each feature is a sum of a few of them, of fixed signs.

    Args:
        num_statistics: of each view.
    """

    def __init__(self, config: HybridIQAConfig, num_statistics: int):
        super().__init__()
        total = num_statistics * (len(config.whole_views) + 1)
        self.num_features = min(total, config.num_features)
        self.num_folds = math.ceil(total / self.num_features)
        self.score_range = config.score_range
        self.register_buffer("statistics_mean", torch.zeros(total))
        self.register_buffer("statistics_std", torch.ones(total))
        signs = torch.randint(0, 2, (total,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        self.register_buffer("fold_signs", signs)
        self.dropout = nn.Dropout(config.pooled_dropout)
        self.hidden = KaimingLinear(self.num_features, config.pooled_width)
        self.output = nn.Linear(config.pooled_width, 1)

    def _apply(self, fn: Callable, recurse: bool = True) -> PooledHead:
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    @property
    def is_standardised(self) -> bool:
        """Return whether `fit_statistics` was called, here or before the head was saved."""
        return bool((self.statistics_mean != 0).any())

    def fit_statistics(self, statistics: torch.Tensor) -> None:
        """Standardise by the mean and the standard deviation of these images' statistics `(images, statistics)`."""
        std, mean = torch.std_mean(statistics.to(self.statistics_std), dim=0, correction=0)
        self.statistics_mean.copy_(mean)
        self.statistics_std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def to_features(self, statistics: torch.Tensor) -> torch.Tensor:
        """Return `(images, num_features)` of `(images, statistics)`, the views' statistics one after the other."""
        x = (statistics - self.statistics_mean) / self.statistics_std
        x = x.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)
        if self.num_folds == 1:
            return x
        x = nn.functional.pad(x * self.fold_signs, (0, self.num_folds * self.num_features - x.shape[1]))
        return x.unflatten(1, (self.num_folds, self.num_features)).sum(dim=1) / math.sqrt(self.num_folds)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return `(images,)` of `(images, num_features)`: a score before `to_scores`, without bounds."""
        with torch.autocast(features.device.type, enabled=False):
            x = nn.functional.gelu(self.hidden(self.dropout(features)))  # (images, pooled_width)
            return self.output(self.dropout(x)).squeeze(-1)

    def to_scores(self, unbounded: torch.Tensor) -> torch.Tensor:
        """Return scores within the checkpoint's range, in the order of the unbounded ones."""
        lowest, highest = self.score_range
        return lowest + (highest - lowest) * torch.sigmoid(unbounded)


def find_file(name: Any, file: str, **hub_options: Any) -> str | None:
    """Return the path of a file in a folder or of a repository on the Hub; None where there is no such file."""
    return cached_file(name, file, _raise_exceptions_for_missing_entries=False, **hub_options)


def find_weights(name: Any, variant: str | None = None, **hub_options: Any) -> list[str]:
    """Return the paths of a folder's or a repository's weights, all of them in safetensors.

    transformers 4 would hand a pickle, and the user's token, to a service on the Hub that converts it; and both would
    read a pickle that an index names.

    Raises:
        OSError: there are none, or an index names other files than safetensors beside it.
    """
    if weights := find_file(name, _with_variant(SAFE_WEIGHTS_NAME, variant), **hub_options):
        return [weights]
    index_name = _with_variant(SAFE_WEIGHTS_INDEX_NAME, variant)
    index = find_file(name, index_name, **hub_options)
    if index is None:
        raise OSError(f"{name} has no {SAFE_WEIGHTS_NAME}: weights are read from safetensors only")
    shards = [find_file(name, shard, **hub_options) for shard in _shard_names(Path(index), f"{name}: {index_name}")]
    if None in shards:
        raise OSError(f"{name}: {index_name} names a file that is not there")
    return shards


def _with_variant(file: str, variant: str | None) -> str:
    """Return `model.safetensors` as `model.VARIANT.safetensors`, as transformers calls it."""
    return file if variant is None else file.replace("model.", f"model.{variant}.", 1)


def _shard_names(index: Path, title: str) -> list[str]:
    """Return the files that an index of weights names, each once."""
    if index.stat().st_size > MAX_HEADER_BYTES:
        raise OSError(f"{title} has {index.stat().st_size} bytes, at most {MAX_HEADER_BYTES} are accepted")
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OSError(f"{title} is no index of weights") from error
    if len(names) > MAX_SHARDS:
        raise OSError(f"{title}: at most {MAX_SHARDS} files are accepted, got {len(names)}")
    for name in names:
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            raise OSError(f"{title}: weights are read from safetensors only, beside the index; got {name!r}")
    return sorted(names)


def read_shapes(weights: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a safetensors file, of which only the header is read.

    Raises:
        OSError: another kind of file.
    """
    with open(weights, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise OSError(f"{weights} is no safetensors file")
        try:
            header = json.loads(file.read(size))
            return {key: tuple(value["shape"]) for key, value in header.items() if key != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise OSError(f"{weights} is no safetensors file") from error


def check_weights(expected: nn.Module, weights: list[str]) -> None:
    """Compare what a configuration describes with what the weights' headers hold, before any memory is taken.

    Args:
        expected: a model on the meta device.
        weights: paths of safetensors files.

    Raises:
        ValueError: another shape, or a much larger network. Single weights that are missing are told after loading.
    """
    shapes = {key: shape for file in weights for key, shape in read_shapes(file).items()}
    described = {key: tuple(tensor.shape) for key, tensor in expected.state_dict().items()}
    for key, shape in described.items():
        if shapes.get(key, shape) != shape:
            raise ValueError(f"config.json describes {key} as {list(shape)}, the weights hold {list(shapes[key])}")
    num_described, num_held = (sum(map(math.prod, each.values())) for each in (described, shapes))
    if num_described > MAX_MISSING + 2 * num_held:
        raise ValueError(
            f"config.json describes {num_described / 1e6:.1f} million numbers, the weights hold "
            f"{num_held / 1e6:.1f} million"
        )


def align_weights(model: nn.Module) -> None:
    """Move weights on the CPU to where torch would have put them.

    Loading leaves them where they stood in the file, at any address, and some kernels then round otherwise: scores
    would differ in their last bits from those before saving.
    """
    for weight in itertools.chain(model.parameters(), model.buffers()):
        if weight.device.type == "cpu" and weight.data_ptr() % WEIGHT_ALIGNMENT:
            weight.data = weight.data.clone()


def fold_batch_norm(backbone: nn.Module) -> None:
    """Put every batch norm, as evaluation mode applies it, into the convolution before it, in float32 at least.

    Known are the pairs `convolution`, `normalization` of transformers' ResNets; a backbone without batch norm stays as
    it is.
    """
    for module in backbone.modules():
        norm = getattr(module, "normalization", None)
        if isinstance(norm, nn.BatchNorm2d):
            dtype = module.convolution.weight.dtype
            exact = torch.promote_types(dtype, torch.float32)
            module.convolution = fuse_conv_bn_eval(module.convolution.to(exact), norm.to(exact)).to(dtype)
            module.normalization = nn.Identity()


def find_blocks(backbone: nn.Module) -> list[nn.Module]:
    """Return the residual blocks of a backbone that transformers builds; none where it is of a kind not known here."""
    encoder = getattr(backbone, "encoder", None)
    lists = [getattr(stage, "layers", ()) for stage in getattr(encoder, "stages", ())]  # ResNet, ConvNeXt
    lists += [getattr(stage, "blocks", ()) for stage in getattr(encoder, "layers", ())]  # Swin and its kin
    return [block for blocks in lists for block in blocks]


@contextmanager
def _frozen_running_statistics(block: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by the batch as before, but not update its running statistics a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked


@contextmanager
def checkpointed_blocks(backbone: nn.Module, checkpoint_function: Callable) -> Iterator[None]:
    """Have a backbone's blocks recomputed in the backward pass instead of kept, for one forward pass in this context.

    Not for longer: in a copy of the model, as DataParallel makes them, the blocks would be those of the original.
    """
    blocks = find_blocks(backbone)
    for block in blocks:
        block.forward = partial(
            checkpoint_function,
            block.forward,
            use_reentrant=False,
            context_fn=lambda block=block: (nullcontext(), _frozen_running_statistics(block)),
        )
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own shows again


class HybridIQAModel(PreTrainedModel):
    """Scorer of how good an image looks, without a reference.

    `model.score(images)` is the short way; `forward` takes what `HybridIQAImageProcessor` gives. The processor of the
    checkpoint is loaded with the model as `model.image_processor`.
    """

    config_class = HybridIQAConfig
    base_model_prefix = "hybridiqa"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    model_tags = ["image-quality-assessment", "no-reference-iqa", "aesthetic", "custom_code"]  # noqa: RUF012 (of cards)
    _no_split_modules = []  # noqa: RUF012 (the backbone names its own)
    _auto_class = "AutoModel"

    def __init__(self, config: HybridIQAConfig, weights: list[str] | None = None):
        """Build the network.

        Args:
            weights: paths of the safetensors files that are about to be loaded, which are compared with what stands
                here: `from_pretrained` builds on the meta device, so before any memory is taken.

        Raises:
            ValueError: weights that the configuration does not describe.
        """
        super().__init__(config)
        backbone_loader = AutoModel if config.has_tokens else AutoBackbone
        self.backbone = backbone_loader.from_config(config.backbone_config, trust_remote_code=False)
        for module in self.backbone.modules():
            if isinstance(module, nn.ReLU):  # after batch norm and sums, whose gradients do not need their results
                module.inplace = True
        if config.head_type == "pooled":
            self._keep_in_fp32_modules_strict = {"pooled_head"}  # transformers 4 refuses the name where it is not there
            self.pooled_head = PooledHead(
                config,
                3 * config.backbone_config.hidden_size if config.has_tokens else 2 * sum(self.backbone.channels),
            )
        else:
            self.distortion_features = LocalDistortionFeatures(config, self.backbone.channels)
            self.hyper_network = HyperNetwork(config, self.backbone.channels[-1])
        self.image_processor = HybridIQAImageProcessor(
            patch_size=config.patch_size, num_patches=config.num_patches, whole_views=config.whole_views
        )
        self.notices: str | None = None
        self.gradient_checkpointing = False
        self.is_backbone_frozen = False
        self.is_prepared_for_scoring = False
        if weights is not None and all(parameter.is_meta for parameter in self.parameters()):
            check_weights(self, weights)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Load as `PreTrainedModel.from_pretrained` does, of safetensors unless told otherwise.

        The checkpoint's image processor comes along, and so do the notices that its licence wants to stay with it.
        """
        hub_options = {name: kwargs[name] for name in HUB_OPTIONS if kwargs.get(name) is not None}
        processor = cls._check_checkpoint(pretrained_model_name_or_path, kwargs, hub_options)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        align_weights(model)
        if commit := getattr(model.config, "_commit_hash", None):
            hub_options["revision"] = commit  # of the weights, whatever has been pushed since
        if notices := find_file(pretrained_model_name_or_path, NOTICES_FILE, **hub_options):
            model.notices = Path(notices).read_text(encoding="utf-8")
        if processor is not None:
            model.image_processor = processor
        return loaded

    @classmethod
    def _check_checkpoint(cls, name: Any, kwargs: dict, hub_options: dict) -> HybridIQAImageProcessor | None:
        """Refuse a checkpoint whose parts do not belong together, before anything is built; return its image processor.

        Raises:
            OSError: weights that are not in safetensors, or lie elsewhere.
            ValueError: a processor or weights that the configuration does not describe.
        """
        config = kwargs.get("config")
        if not hasattr(config, "patch_size"):
            fields = {key: value for key, value in kwargs.items() if key != "config"}
            config, _ = cls.config_class.from_pretrained(config or name, return_unused_kwargs=True, **fields)
        if commit := getattr(config, "_commit_hash", None):
            hub_options = hub_options | {"revision": commit}
        if is_peft_available() and find_file(name, ADAPTER_CONFIG_NAME, **hub_options):
            raise OSError(f"{name} has an {ADAPTER_CONFIG_NAME}, which leads to another repository's weights")
        if getattr(config, "transformers_weights", None) is not None:
            raise OSError(f"{name}: config.json names other weights than {SAFE_WEIGHTS_NAME}, which is not accepted")
        if kwargs.setdefault("use_safetensors", True) and kwargs.get("state_dict") is None:
            weights = find_weights(name, kwargs.get("variant"), **hub_options)
            if not kwargs.get("ignore_mismatched_sizes"):
                kwargs["weights"] = weights
        if not find_file(name, PROCESSOR_FILE, **hub_options):
            return None
        processor = HybridIQAImageProcessor.from_pretrained(name, **hub_options)
        if processor.patch_size != config.patch_size:
            raise ValueError(
                f"{name}: {PROCESSOR_FILE} cuts patches of {processor.patch_size} pixels, the model takes "
                f"{config.patch_size}"
            )
        if processor.whole_views != config.whole_views:
            raise ValueError(
                f"{name}: {PROCESSOR_FILE} has whole_views {processor.whole_views}, the model takes "
                f"{config.whole_views}"
            )
        return processor

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs) -> None:
        """Save as `PreTrainedModel.save_pretrained` does, with the image processor and the notices of the weights.

        A model that is loaded from there scores the same.

        Raises:
            RuntimeError: after `prepare_for_scoring`, whose weights no checkpoint can hold.
        """
        if self.is_prepared_for_scoring:
            raise RuntimeError(f"{ONLY_SCORES}; save it before that call, or load it again")
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            self.image_processor.save_pretrained(save_directory)
            if self.notices is not None:
                Path(save_directory, NOTICES_FILE).write_text(self.notices, encoding="utf-8")

    def _init_weights(self, module: nn.Module) -> None:
        # The backbone initialises itself. Ours know their own start; the base class would draw normal(0, 0.02).
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()

    def freeze_backbone(self) -> None:
        """Keep the backbone as it is, its batch norm statistics too; the head (LDA modules, too) stays trainable."""
        self.is_backbone_frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> HybridIQAModel:
        """Set training mode as `nn.Module.train` does, but a frozen backbone stays in evaluation mode.

        Raises:
            RuntimeError: training after `prepare_for_scoring`, which has folded the batch norm away.
        """
        if mode and self.is_prepared_for_scoring:
            raise RuntimeError(f"{ONLY_SCORES}; load it again to train it")
        super().train(mode)
        if self.is_backbone_frozen:
            self.backbone.eval()
        return self

    def prepare_for_scoring(self) -> HybridIQAModel:
        """Make scoring faster, here and for good: batch norm folded into the convolutions before it, channels last.

        Scores move by float noise (at most 1e-5 in float32). The model can then be neither trained nor saved. A second
        call changes nothing. A model that shall score in half precision is best prepared in float32 first, then cast.

        Returns:
            The model itself, in evaluation mode.
        """
        self.eval()
        if not self.is_prepared_for_scoring:
            fold_batch_norm(self.backbone)
            self.requires_grad_(False)
            self.to(memory_format=torch.channels_last)
            self.is_prepared_for_scoring = True
        return self

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> HybridIQAOutput:
        """Score every patch, and each image: as the mean over its patches, or by all of its views (the pooled head).

        Args:
            pixel_values: `(batch, patches, 3, patch_size, patch_size)`, RGB normalised as the image processor does.
                With the hyper head also `(batch, 3, patch_size, patch_size)`, one patch an image; with the pooled head
                the patches of `config.whole_views` come first, then one native patch at least.
            labels: `(batch,)`, the images' scores on the checkpoint's own range.

        Raises:
            ValueError: shapes other than these.
        """
        self._check_shape(pixel_values)
        if pixel_values.ndim == 4:
            pixel_values = pixel_values.unsqueeze(1)  # (batch, 1, 3, height, width)
        readings = self._read_patches(pixel_values.flatten(0, 1))
        output = self._score_images(readings.reshape(*pixel_values.shape[:2], *readings.shape[1:]))
        if labels is not None:
            logits = output.logits
            if labels.shape != logits.shape:
                raise ValueError(f"labels must be (batch,) = {tuple(logits.shape)}, got {tuple(labels.shape)}")
            return HybridIQAOutput(loss=nn.functional.l1_loss(logits, labels.to(logits.dtype)), **output)
        return output

    def _check_shape(self, pixel_values: torch.Tensor) -> None:
        side, shape = self.config.patch_size, tuple(pixel_values.shape)
        num_whole = sum(tiles**2 for tiles in self.config.whole_views)
        is_right = pixel_values.ndim in (4, 5) and shape[-3:] == (3, side, side) and 0 not in shape
        if self.config.head_type == "hyper" and not is_right:
            raise ValueError(
                f"pixel_values must be (batch, patches, 3, {side}, {side}) or (batch, 3, {side}, {side}), got {shape}"
            )
        if self.config.head_type == "pooled" and not (is_right and len(shape) == 5 and shape[1] > num_whole):
            raise ValueError(
                f"pixel_values must be (batch, patches, 3, {side}, {side}) with more than the {num_whole} patches of "
                f"the whole image, got {shape}"
            )

    def _read_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Return what the head needs of patches `(patches, 3, patch_size, patch_size)`, of each by itself.

        That is a score `(patches,)` with the hyper head, statistics `(patches, statistics)` with the pooled head.
        """
        if self.config.has_tokens:
            return self._read_tokens(patches.to(self.dtype))
        stage_maps = self._stage_maps(patches.to(self.dtype))
        if self.config.head_type == "pooled":
            return compute_stage_statistics(stage_maps)
        return run_target_network(self.distortion_features(stage_maps), self.hyper_network(stage_maps[-1]))

    def _read_tokens(self, patches: torch.Tensor) -> torch.Tensor:
        encoder, side = self.config.backbone_config, self.config.patch_size
        is_asked = side != encoder.image_size and encoder.model_type not in INTERPOLATES_BY_ITSELF
        output = self.backbone(pixel_values=patches, **({"interpolate_pos_encoding": True} if is_asked else {}))
        num_patches = (side // encoder.patch_size) ** 2
        return compute_token_statistics(output.last_hidden_state, getattr(output, "pooler_output", None), num_patches)

    def _score_images(self, readings: torch.Tensor) -> HybridIQAOutput:
        """Return the output for images of whose patches `_read_patches` gave `(batch, patches, ...)`."""
        if self.config.head_type == "hyper":
            return HybridIQAOutput(logits=readings.mean(dim=1), patch_scores=readings)
        head = self.pooled_head
        whole, native = self._split_views(readings)
        features = head.to_features(self._join_views(whole, native))
        patch_scores = None
        if not self.training:
            num_native = native.shape[1]
            of_patches = torch.cat([whole.unsqueeze(1).expand(-1, num_native, -1), native], dim=2)
            unbounded = head(head.to_features(of_patches.flatten(0, 1)))  # (batch * native patches,)
            patch_scores = head.to_scores(unbounded).reshape(-1, num_native)
        return HybridIQAOutput(logits=head.to_scores(head(features)), patch_scores=patch_scores, features=features)

    def _split_views(self, statistics: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Split the statistics of patches `(batch, patches, statistics)` by view.

        Returns:
            Those of the whole views, each the mean over its patches, one view after the other `(batch, views x
            statistics)`; and those of the native patches `(batch, native patches, statistics)`.
        """
        views, start = [statistics[:, 0, :0]], 0  # nothing, where there is no whole view
        for tiles in self.config.whole_views:
            views.append(statistics[:, start : start + tiles**2].mean(dim=1))
            start += tiles**2
        return torch.cat(views, dim=1), statistics[:, start:]

    @staticmethod
    def _join_views(whole: torch.Tensor, native: torch.Tensor) -> torch.Tensor:
        """Return all of an image's statistics `(batch, statistics)` from what `_split_views` gives."""
        return torch.cat([whole, native.mean(dim=1)], dim=1)

    def _stage_maps(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            with checkpointed_blocks(self.backbone, self._gradient_checkpointing_func):
                stage_maps = self.backbone(patches).feature_maps
        else:
            stage_maps = self.backbone(patches).feature_maps
        sizes = [tuple(stage_map.shape[-2:]) for stage_map in stage_maps]
        expected = [(self.config.patch_size // stride,) * 2 for stride in STAGE_STRIDES]
        if sizes != expected:
            raise ValueError(
                f"the backbone must give maps of stride {STAGE_STRIDES}, here {expected}; "
                f"{self.config.backbone_config.model_type!r} gave {sizes}"
            )
        return stage_maps

    def score(self, images: Any, batch_size: int = 8, **processor_options: Any) -> torch.Tensor:
        """Score images, on the checkpoint's own range, unmapped and unclamped.

        Args:
            images: one image or a list of them: path, URL, bytes, PIL image, NumPy array, torch tensor; see
                `HybridIQAImageProcessor`.
            batch_size: images that are prepared together. It sets memory and speed; on a CPU it cannot change a bit.
            processor_options: `sampling`, `seed`, `num_patches` for this call.

        Returns:
            `(number of images,)`, float32, on the CPU.

        Raises:
            ValueError: something that cannot be read as an image; the message says what was got.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        images = self.image_processor.as_list(images)
        scores = [torch.empty(0)]
        for start in range(0, len(images), batch_size):
            pixel_values = self.image_processor(images[start : start + batch_size], **processor_options)["pixel_values"]
            scores.append(self.predict(pixel_values).logits)
        return torch.cat(scores)

    def predict(self, pixel_values: torch.Tensor) -> HybridIQAOutput:
        """Score images in evaluation mode and without gradients; the model's mode is as before afterwards.

        On a CPU each image's patches run in chunks of their own, so that other images in the batch change nothing.

        Args:
            pixel_values: `(batch, patches, 3, patch_size, patch_size)`, as the image processor gives them.

        Returns:
            The output, without a loss, in float32 and on the CPU.

        Raises:
            ValueError: another shape.
        """
        with self._evaluating(), torch.inference_mode():
            outputs = [self._score_images(readings) for readings in self._iterate_readings(pixel_values)]
        fields = {name: torch.cat([output[name] for output in outputs]).float().cpu() for name in outputs[0]}
        return HybridIQAOutput(**fields)

    def read_views(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the statistics that the pooled head standardises, in evaluation mode and without gradients.

        Args:
            pixel_values: `(batch, patches, 3, patch_size, patch_size)`, as the image processor gives them.

        Returns:
            `(batch, statistics)`, float32, on the CPU: those of the whole views, then of the native patches.

        Raises:
            ValueError: another shape.
        """
        with self._evaluating(), torch.inference_mode():
            rows = [self._join_views(*self._split_views(each)) for each in self._iterate_readings(pixel_values)]
        return torch.cat(rows).float().cpu()

    def _iterate_readings(self, pixel_values: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield what `_read_patches` gives, `(images, patches, ...)`; on a CPU one image, a few patches at a time."""
        self._check_shape(pixel_values)
        if pixel_values.ndim == 4:
            pixel_values = pixel_values.unsqueeze(1)  # (batch, 1, 3, height, width)
        is_on_cpu = self.device.type == "cpu"
        for images in pixel_values.split(1 if is_on_cpu else len(pixel_values)):
            patches = images.flatten(0, 1).to(self.device)
            chunks = patches.split(CPU_CHUNK_SIZE if is_on_cpu else len(patches))
            readings = torch.cat([self._read_chunk(chunk) for chunk in chunks])
            yield readings.reshape(*images.shape[:2], *readings.shape[1:])

    def _read_chunk(self, patches: torch.Tensor) -> torch.Tensor:
        """Return what `_read_patches` gives; with the hyper head by `forward`, which mixed precision wraps."""
        if self.config.head_type == "hyper":
            return self(patches.unsqueeze(0)).patch_scores.squeeze(0)
        return self._read_patches(patches)

    def predict_patch_scores(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the `patch_scores` of `predict`: `(batch, native patches)`, float32, on the CPU."""
        return self.predict(pixel_values).patch_scores

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = {module: module.training for module in self.modules()}
        self.eval()
        try:
            yield
        finally:
            for module, training in was_training.items():
                module.training = training

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable = checkpoint, **kwargs: Any
    ) -> None:
        # Only here, not in the backbone: one mechanism serves every backbone, those without support of their own too.
        if enable and not find_blocks(self.backbone):
            raise ValueError(
                f"gradient checkpointing: no blocks are known in a backbone {self.config.backbone_config.model_type!r}"
            )
        self.gradient_checkpointing = enable
        self._gradient_checkpointing_func = gradient_checkpointing_func

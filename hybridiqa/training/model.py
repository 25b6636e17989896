"""Model that a training run starts from, and its optimiser."""

from __future__ import annotations

import torch
from lion_pytorch import Lion
from transformers import PretrainedConfig, PreTrainedModel

from hybridiqa.models import hub_code
from hybridiqa.models.backbones import DEFAULT_BACKBONE, is_encoder, load_backbone, read_normalization
from hybridiqa.models.loading import find_head_type, load_model
from hybridiqa.training.arguments import TrainingArguments


def build_model(args: TrainingArguments) -> hub_code.HybridIQAModel:
    """Build or load the model that the run starts from.

    Raises:
        ValueError: a start that cannot be loaded; the message names the alternatives.
    """
    model: hub_code.HybridIQAModel
    if args.init_from:
        model = load_model(args.init_from, None, torch.float32, args.trust_remote_code, args.model_revision)
        if args.head_type not in (None, find_head_type(model.config)):
            model = _with_new_head(model, args.head_type)
    else:
        model = _build_from_backbone(args)
    if args.score_range:
        model.config.score_range = args.score_range
    is_pooled = find_head_type(model.config) == "pooled"
    if args.freeze_backbone or is_pooled:
        model.freeze_backbone()
    if args.more_datasets and not is_pooled:
        raise ValueError("--more_datasets are for the pooled head: --head_type pooled")
    if args.gradient_checkpointing:
        # transformers 5.23 renamed it
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
    if model.image_processor.size is not None:
        raise ValueError(f"{args.init_from} squeezes every image to {model.image_processor.size}: not trained here")
    model.image_processor.num_patches = args.num_eval_patches  # what is measured is what users load
    model.image_processor.sampling = args.eval_sampling or model.image_processor.sampling
    return model


def _with_new_head(model: hub_code.HybridIQAModel, head_type: str) -> hub_code.HybridIQAModel:
    """Return a model with another head, fresh and for patches of the usual size, on the backbone of a loaded one."""
    config, processor = model.config, model.image_processor
    model_class = hub_code.HybridIQAModel
    new_config = model_class.config_class(
        backbone_config=config.backbone_config, score_range=config.score_range, head_type=head_type
    )
    new = model_class(new_config)
    new.backbone.load_state_dict(model.backbone.state_dict())
    new.image_processor.image_mean, new.image_processor.image_std = processor.image_mean, processor.image_std
    new.notices = model.notices
    return new


def _read_config(path: str) -> PretrainedConfig:
    config_class = hub_code.HybridIQAConfig
    try:
        fields, _ = config_class.get_config_dict(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--config must be a config.json or its folder, got {path}") from error
    if fields.get("model_type") != config_class.model_type:
        raise ValueError(f"--config {path} describes a model of type {fields.get('model_type')!r}, not 'hybridiqa'")
    return config_class.from_dict(fields)


def _build_from_backbone(args: TrainingArguments) -> hub_code.HybridIQAModel:
    model_class = hub_code.HybridIQAModel
    config = _read_config(args.config) if args.config else None
    if config and args.head_type not in (None, config.head_type):
        raise ValueError(f"--head_type is {args.head_type}, and --config describes the head {config.head_type}")
    head_type = args.head_type or "hyper"
    if args.from_scratch:
        return model_class(config or model_class.config_class(head_type=head_type))
    name = args.pretrained_backbone or DEFAULT_BACKBONE
    head_type = config.head_type if config else head_type
    try:
        backbone = load_backbone(name, config.backbone_config if config else None, head_type)
    except ValueError as error:
        hint = (
            "" if args.pretrained_backbone else "; offline, choose --pretrained_backbone, --init_from or --from_scratch"
        )
        raise ValueError(f"{error}{hint}") from error
    if config is None:
        fields = {"patch_size": backbone.config.image_size} if is_encoder(backbone.config) else {}
        config = model_class.config_class(backbone_config=backbone.config, head_type=head_type, **fields)
    model = model_class(config)
    model.backbone.load_state_dict(backbone.state_dict())
    if config.has_tokens:
        processor = model.image_processor
        model.image_processor = type(processor)(**(processor.to_dict() | read_normalization(name)))
    return model


def build_optimizer(model: hub_code.HybridIQAModel, args: TrainingArguments) -> Lion:
    """Build a Lion with two groups: backbone and LDA modules, and the hyper network at a multiple of their rate."""
    hyper = list(model.hyper_network.parameters())
    base = [*model.backbone.parameters(), *model.distortion_features.parameters()]
    groups = [
        {"params": [parameter for parameter in base if parameter.requires_grad], "lr": args.learning_rate},
        {"params": hyper, "lr": args.learning_rate * args.hyper_learning_rate_factor},
    ]
    return Lion(groups, betas=(args.beta1, args.beta2), weight_decay=args.weight_decay)


def total_gradient_norm(model: PreTrainedModel) -> torch.Tensor:
    """Return the 2-norm of all gradients together, a scalar on the model's device; not finite if any of them is not."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)

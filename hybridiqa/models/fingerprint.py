"""Which scorer a checkpoint is, in 16 hex digits: what a score depends on besides the picture and its patches."""

from __future__ import annotations

import hashlib
import json

from transformers import PretrainedConfig, PreTrainedModel

OWN_FIELDS = ("patch_size", "lda_channels", "lda_width", "hyper_channels", "target_input_size", "target_widths")
PROCESSOR_FIELDS = ("patch_size", "size", "image_mean", "image_std")


def _backbone_fields(config: PretrainedConfig) -> dict:
    """The fields that the backbone's class adds to those of any configuration, which change with the library."""
    fields = config.to_dict()
    return {name: fields[name] for name in fields.keys() - PretrainedConfig().to_dict().keys()}


def model_fingerprint(model: PreTrainedModel) -> str:
    """16 hex digits that decide weights (as float32), architecture and normalisation, the same on every machine.

    What only says what a score means (`score_range`, `score_quantiles`) and how patches are chosen is not in it.

    Raises:
        RuntimeError: after `prepare_for_scoring`, which changes the weights.
    """
    if model.is_prepared_for_scoring:
        raise RuntimeError("a fingerprint is taken before prepare_for_scoring()")
    config, processor = model.config, model.image_processor
    description = {
        "model": {name: getattr(config, name) for name in OWN_FIELDS},
        "backbone_type": config.backbone_config.model_type,
        "backbone": _backbone_fields(config.backbone_config),
        "processor": {name: getattr(processor, name) for name in PROCESSOR_FIELDS},
    }
    digest = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()

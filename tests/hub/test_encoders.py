"""Encoders of tokens and pyramids of several families under the pooled head, by folder and from the Hub."""

import json
import re
from pathlib import Path

import pytest
import torch
from factories import hub_object, make_picture
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from hybridiqa.models import hub_code
from hybridiqa.models.backbones import load_backbone, read_normalization
from hybridiqa.training.arguments import TrainingArguments
from hybridiqa.training.model import build_model

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 8}
PIXELS = {"image_size": 64, "patch_size": 16}
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def make_encoder(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "siglip":
        return SiglipModel(SiglipConfig(text_config=TEXT, vision_config=SIZES | PIXELS))
    if family == "clip":
        return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=SIZES | PIXELS, projection_dim=16))
    if family == "dinov2":
        return Dinov2Model(Dinov2Config(image_size=56, patch_size=14, **SIZES))
    if family == "vit":
        return ViTModel(ViTConfig(**(SIZES | PIXELS)))
    return SwinModel(
        SwinConfig(image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=2)
    )


def build_from(folder: Path | str, tmp_path: Path):
    args = TrainingArguments(
        dataset="data", output_dir=str(tmp_path / "out"), head_type="pooled", pretrained_backbone=str(folder)
    )
    model = build_model(args).eval()
    images = [make_picture(100, 80, seed=seed) for seed in range(5)]
    model.image_processor.num_patches = 2
    model.pooled_head.fit_statistics(model.read_views(model.image_processor(images)["pixel_values"]))
    return model, images


@pytest.mark.parametrize("family", ["siglip", "clip", "dinov2", "vit", "swin"])
def test_an_encoder_is_taken_from_its_folder_saved_whole_and_loaded_without_other_code(family, tmp_path):
    encoder = make_encoder(family)
    encoder.save_pretrained(tmp_path / "encoder")
    model, images = build_from(tmp_path / "encoder", tmp_path)
    theirs = getattr(encoder, "vision_model", encoder).state_dict()
    prefix = re.compile("(vision_model|swin)[.]")
    ours = {prefix.sub("", name, count=1): tensor for name, tensor in model.backbone.state_dict().items()}
    shared = [name for name in ours if name in theirs]
    assert len(shared) > len(theirs) / 2 and all(torch.equal(ours[name], theirs[name]) for name in shared)
    scores = model.score(images)
    assert scores.std() > 0 and scores.min() > 1 and scores.max() < 9
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert torch.allclose(loaded.score(images), scores, rtol=0, atol=1e-5)
    assert loaded.image_processor.patch_size == (224 if family == "swin" else encoder_side(model))


def encoder_side(model) -> int:
    return model.config.backbone_config.image_size


def test_an_encoder_is_taken_from_the_hub_by_name_with_its_own_normalisation(hub, tmp_path):
    make_encoder("siglip").save_pretrained(tmp_path / "encoder")
    files = {path.name: path.read_bytes() for path in (tmp_path / "encoder").iterdir()}
    hub.add("somebody/siglip", files | {"preprocessor_config.json": json.dumps(HALVES).encode()})
    code = "import sys; from hybridiqa.training.arguments import TrainingArguments as A; "
    code += "from hybridiqa.training.model import build_model; "
    code += "model = build_model(A(dataset='d', output_dir=sys.argv[1], head_type='pooled', "
    code += "pretrained_backbone='somebody/siglip')); model.save_pretrained(sys.argv[1])"
    done = hub.run("-c", code, tmp_path / "saved", home=tmp_path / "home", cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    loaded = AutoModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert loaded.image_processor.image_mean == HALVES["image_mean"]
    assert loaded.config.backbone_config.model_type == "siglip_vision_model"


def test_statistics_are_those_of_the_patches_tokens_and_the_pooled_output():
    compute = hub_object("modeling_hybridiqa.compute_token_statistics")
    tokens, pooled = torch.randn(2, 5, 3), torch.randn(2, 3)
    of_patches = tokens[:, 1:]
    expected = [of_patches.mean(dim=1), of_patches.std(dim=1, correction=0)]
    assert torch.allclose(compute(tokens, pooled, 4), torch.cat([*expected, pooled], dim=1), atol=1e-6)
    assert torch.allclose(compute(tokens, None, 4), torch.cat([*expected, tokens[:, 0]], dim=1), atol=1e-6)
    whole = compute(tokens, None, 5)
    assert torch.allclose(whole[:, 6:], tokens.mean(dim=1), atol=1e-6)


def test_positions_are_interpolated_for_patches_of_another_size():
    for config in (
        SiglipVisionConfig(**(SIZES | PIXELS)),
        CLIPVisionConfig(**(SIZES | PIXELS)),
        ViTConfig(**(SIZES | PIXELS)),
    ):
        fields = hub_code.HybridIQAConfig(backbone_config=config, patch_size=96, num_patches=1, head_type="pooled")
        model = hub_code.HybridIQAModel(fields).eval()
        assert model.score(make_picture(120, 100)).isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_type": "hyper"}, "backbone_config must describe 4 stages"),
        ({"patch_size": 72}, "patch_size must be a multiple of 16, got 72"),
        ({"backbone_config": SiglipVisionConfig(image_size=2048, patch_size=1)}, "at most 16384 tokens"),
        (
            {"backbone_config": SiglipVisionConfig(image_size=64, patch_size=1, **SIZES), "patch_size": 2048},
            "at most 16384",
        ),
        ({"backbone_config": SiglipVisionConfig(image_size=5000)}, "image_size as a whole number, 1 to 2048"),
        ({"backbone_config": SiglipVisionConfig(hidden_size=8192)}, "hidden_size as a whole number, 1 to 4096"),
    ],
)
def test_encoders_that_cannot_be_are_refused(fields: dict, message: str):
    good = {"backbone_config": SiglipVisionConfig(**(SIZES | PIXELS)), "patch_size": 64, "head_type": "pooled"}
    with pytest.raises(ValueError, match=message):
        hub_code.HybridIQAConfig(**(good | fields))


def test_the_hyper_head_takes_no_encoder(tmp_path):
    make_encoder("vit").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot load the backbone"):
        load_backbone(str(tmp_path))


def test_a_processor_that_is_no_json_is_one_clear_line(tmp_path):
    assert read_normalization(str(tmp_path)) == {}
    (tmp_path / "preprocessor_config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"preprocessor_config\.json cannot be read"):
        read_normalization(str(tmp_path))

"""The configuration: what it builds, what it refuses, and that it comes back as it went."""

import json

import pytest
from transformers import (
    AutoConfig,
    ConvNextConfig,
    Dinov2Config,
    ResNetConfig,
    SiglipConfig,
    SiglipVisionConfig,
    SwinConfig,
)

from hybridiqa.models import hub_code

HybridIQAConfig = hub_code.HybridIQAConfig


def test_the_default_backbone_is_a_true_resnet_152():
    config = HybridIQAConfig()
    assert config.backbone_config.depths == [3, 8, 36, 3]
    assert config.backbone_config.hidden_sizes == [256, 512, 1024, 2048]
    assert (config.patch_size, config.num_patches, config.score_range) == (224, 25, [1.0, 9.0])
    assert config.target_shapes == [(112, 224), (56, 112), (28, 56), (14, 28), (1, 14)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": 200}, "patch_size must be a multiple of 32, got 200"),
        ({"patch_size": 0}, "patch_size must be a whole number of at least 1"),
        ({"num_patches": 2.5}, "num_patches must be a whole number"),
        ({"lda_channels": (16, 32)}, "lda_channels must name 3 stages"),
        ({"target_widths": (112, 0)}, r"target_widths\[1\] must be a whole number"),
        ({"target_widths": ()}, "target_widths must name at least one layer"),
        ({"target_input_size": 48}, "target_input_size must exceed 3 x lda_width"),
        ({"target_widths": (110,)}, r"target_input_size and target_widths.*= 49; got 224 x 110"),
        ({"patch_size": 160}, r"\^2 = 25; got 224 x 112"),
        ({"score_range": (9, 1)}, "score_range must be"),
        ({"score_range": ("a", "b")}, "score_range must be"),
        ({"score_quantiles": [5.0]}, r"score_quantiles must be at least 2 finite numbers .* got \[5.0\]"),
        ({"score_quantiles": [1.0, 3.0, 2.0]}, "score_quantiles must be .* that never decrease"),
        ({"score_quantiles": [1.0, float("nan"), 2.0]}, "score_quantiles must be"),
        ({"score_quantiles": [1.0, float("inf")]}, "score_quantiles must be"),
        ({"score_quantiles": ["1", "2"]}, "score_quantiles must be"),
        ({"score_quantiles": 4.5}, "score_quantiles must be a list"),
        ({"lda_channels": 16}, "lda_channels must be a list"),
        ({"backbone_config": {"depths": [1]}}, "needs a 'model_type'"),
        ({"backbone_config": ResNetConfig(hidden_sizes=[8, 16, 32], depths=[1, 1, 1])}, "must describe 4 stages"),
    ],
)
def test_sizes_that_cannot_work_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        HybridIQAConfig(**fields)


RESNET = {"model_type": "resnet", "depths": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone_config": RESNET | {"depths": [1, 2, 1, 20_000]}}, "depths must be at most 100, got 20000"),
        ({"backbone_config": RESNET | {"depths": [90] * 5}}, "at most 400 layers are accepted in all, got 450"),
        (
            {"backbone_config": {"model_type": "dinov2", "num_hidden_layers": 10**6}},
            "num_hidden_layers must be at most",
        ),
        ({"backbone_config": {"model_type": "siglip", "vision_config": {"num_hidden_layers": 999}}}, "at most 100"),
        ({"backbone_config": RESNET | {"num_labels": 10**9}}, "num_labels must be at most 100000"),
        ({"backbone_config": RESNET | {"hidden_sizes": [10**400] * 4}}, "got a whole number|got 1000"),
        ({"backbone_config": RESNET | {"hidden_sizes": [8] * 300}}, "at most 256 entries"),
        (
            {"backbone_config": {"model_type": "focalnet", "focal_levels": [100_000, 1, 1, 1]}},
            "focal_levels must be at",
        ),
        (
            {"backbone_config": {"model_type": "pp_lcnet_v4", "block_configs": [[[3, 8, 8, 1, False]] * 5000] * 4}},
            "256",
        ),
        ({"backbone_config": {"model_type": "swin", "window_size": 150}}, "window_size must be at most 32, got 150"),
        ({"backbone_config": RESNET | {"id2label": {n: "x" for n in range(30_000)}}}, "at most 25000 labels"),
        ({"backbone_config": RESNET | {"label2id": {"x": [1]}}}, "must hold texts and whole numbers"),
        ({"backbone_config": {"model_type": "beit", "num_hidden_layers": 4}}, "must describe 4 stages"),
        ({"backbone_config": RESNET | {"x": [[[[[[[[[[]]]]]]]]]]}}, "8 levels are accepted"),
        ({"backbone_config": RESNET | {"x": "x" * 2000}}, "a text has at most 1000 letters, got 2000"),
        ({"backbone_config": RESNET | {"dropout": float("inf")}}, "dropout must be a number within 1e"),
        ({"backbone_config": RESNET | {"dropout": float("nan")}}, "dropout must be a number within 1e"),
        ({"backbone_config": {"model_type": ["resnet"]}}, "needs a 'model_type'"),
        ({"backbone_config": ["resnet"]}, r"must be a configuration or its dictionary, got \['resnet'\]"),
        ({"num_labels": 10**9}, "config.json: num_labels must be at most 100000"),
        ({"target_widths": [16, 8] * 5000}, "target_widths has at most 16 layers, got 10000"),
        ({"target_widths": [5000]}, r"target_widths\[0\] must be at most 4096, got 5000"),
        ({"target_input_size": 10**4000}, "target_input_size must be at most 4096, got 1000"),
        ({"hyper_channels": 10**9}, "hyper_channels must be at most 4096"),
        ({"lda_channels": [16] * 1000}, r"lda_channels must name 3 stages, got .* \(1000 entries\)"),
        ({"patch_size": 4096}, "patch_size must be at most 2048"),
        ({"num_patches": 10**6}, "num_patches must be at most 10000"),
        ({"score_range": (1, float("inf"))}, "score_range must be .* each within 1e"),
        ({"score_range": (1, 10**400)}, "score_range must be"),
        ({"score_range": (False, True)}, "score_range must be"),
        ({"score_quantiles": [1.0] * 3_000_000}, r"at most 10001, or none, got .* \(3000000 entries\)"),
        ({"score_quantiles": [1, 10**400]}, "score_quantiles must be"),
    ],
)
def test_what_describes_more_than_any_network_is_refused_at_once(fields, message):
    with pytest.raises(ValueError, match=message) as refused:
        HybridIQAConfig(**fields)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": {"AutoBackbone": "evil/code--mod.Class"}},
        {"use_pretrained_backbone": True, "backbone": "resnet50"},
        {"backbone": "evil/weights"},
        {"use_timm_backbone": True},
        {"model_type": "timm_backbone", "backbone": "resnet18"},
    ],
)
def test_a_backbone_names_no_code_and_no_weights_of_another_repository(fields):
    with pytest.raises(ValueError, match="which is not accepted"):
        HybridIQAConfig(backbone_config=RESNET | fields)
    backbone = ResNetConfig(depths=[1, 1, 1, 1])
    for name, value in fields.items():
        if name != "model_type":
            setattr(backbone, name, value)
            with pytest.raises(ValueError, match="which is not accepted"):
                HybridIQAConfig(backbone_config=backbone)


@pytest.mark.parametrize(
    "fields",
    [
        {"attribute_map": {"depths": "x"}, "x": [1, 1, 1, 20_000]},
        {"to_dict": 5},
        {"from_dict": None},
        {"use_return_dict": True},
        {"__class__": "x"},
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation_internal": "evil/kernel"},
        {"per_layer_config": {"0": {"x": 1}}},
        {"sub_configs": {"x": "y"}},
        {"fusion_config": {"patch_embeddings": True}},
        {"quantization_config": {"quant_method": "x"}},
    ],
)
def test_a_field_changes_nothing_in_how_a_configuration_works(fields):
    with pytest.raises(ValueError, match=r"is no field, but a part of HybridIQAConfig|is not accepted"):
        HybridIQAConfig(**fields)
    with pytest.raises(ValueError, match=r"is no field, but a part of ResNetConfig|is not accepted"):
        HybridIQAConfig(backbone_config=RESNET | fields)


def test_labels_of_a_backbone_are_called_as_they_like():
    labels = ["window shade", "layers", "depths", "building blocks", *map(str, range(21_837))]
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
    assert len(HybridIQAConfig(backbone_config=RESNET | names).backbone_config.id2label) == 21_841
    assert (
        HybridIQAConfig(backbone_config=ResNetConfig(depths=[1, 1, 1, 1], **names)).backbone_config.num_labels == 21_841
    )


@pytest.mark.parametrize(
    "backbone",
    [
        ResNetConfig(depths=[3, 8, 36, 3]),
        ConvNextConfig(hidden_sizes=[256, 512, 1024, 2048], depths=[3, 3, 27, 3], num_labels=21_841),
        SwinConfig(embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48]),
        Dinov2Config(hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, use_swiglu_ffn=True),
        SiglipVisionConfig(
            hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384
        ),
        SiglipConfig(),
    ],
    ids=lambda config: type(config).__name__,
)
def test_the_bounds_admit_the_largest_backbones_in_use(backbone):
    hub_code.check_bounds("backbone_config", backbone.to_dict())
    if backbone.model_type in ("resnet", "convnext", "swin"):  # of four stages
        assert HybridIQAConfig(backbone_config=backbone).backbone_config.model_type == backbone.model_type


@pytest.mark.parametrize("backbone", [ResNetConfig(depths=[1, 1, 1, 1]), ConvNextConfig(depths=[1, 1, 1, 1])])
def test_save_and_load_keeps_every_field(tmp_path, backbone):
    config = HybridIQAConfig(backbone_config=backbone, patch_size=64, target_widths=(28, 14), score_range=(0, 100))
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    ignored = {"auto_map", "_name_or_path", "transformers_version"}
    before, after = config.to_dict(), loaded.to_dict()
    assert {k: v for k, v in before.items() if k not in ignored} == {k: v for k, v in after.items() if k not in ignored}
    assert loaded.backbone_config.model_type == backbone.model_type


@pytest.mark.parametrize("score_quantiles", [None, [1, 9], [-0.5, 2.25, 2.25, 10.125]])
def test_score_quantiles_come_back_as_they_went(tmp_path, score_quantiles):
    HybridIQAConfig(score_quantiles=score_quantiles).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, trust_remote_code=True).score_quantiles == score_quantiles


def test_a_configuration_without_score_quantiles_has_none(tmp_path):
    HybridIQAConfig(score_quantiles=[1.0, 2.0]).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["score_quantiles"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert AutoConfig.from_pretrained(tmp_path, trust_remote_code=True).score_quantiles is None


def test_a_backbone_given_as_a_dictionary_is_the_same():
    fields = {"depths": [1, 1, 1, 1]}
    as_object = HybridIQAConfig(backbone_config=ResNetConfig(**fields))
    as_dictionary = HybridIQAConfig(backbone_config={"model_type": "resnet", **fields})
    assert as_object.backbone_config.to_dict() == as_dictionary.backbone_config.to_dict()


def test_the_callers_backbone_configuration_is_left_as_it_was():
    backbone = ResNetConfig(depths=[1, 1, 1, 1])
    before = backbone.to_dict()
    HybridIQAConfig(backbone_config=backbone)
    assert backbone.to_dict() == before

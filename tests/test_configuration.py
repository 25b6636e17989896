"""The configuration: what it builds, what it refuses, and that it comes back as it went."""

import json

import pytest
from transformers import AutoConfig, ConvNextConfig, ResNetConfig

from hybridiqa.loading import hub_class

HybridIQAConfig = hub_class("configuration_hybridiqa.HybridIQAConfig")


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

"""Pooled head: views of the whole image beside native patches, statistics of the stages, one network for all images."""

import numpy as np
import pytest
import torch
from factories import hub_object, make_picture, make_pooled_model
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline

from hybridiqa.models import hub_code

IMAGES = [make_picture(150, 100, seed=0), make_picture(90, 200, seed=1), make_picture(64, 64, seed=2)]
NUM_WHOLE = 1 + 4  # patches of the whole views [1, 2]


def test_patches_of_the_whole_image_come_before_the_native_ones():
    processor = make_pooled_model().image_processor
    native = type(processor)(patch_size=64, num_patches=4)
    patches = processor.extract_patches(IMAGES[0])
    assert processor.whole_views == [1, 2] and processor.num_whole_patches == NUM_WHOLE
    assert patches.shape == (NUM_WHOLE + 4, 3, 64, 64)
    assert torch.equal(patches[NUM_WHOLE:], native.extract_patches(IMAGES[0]))
    assert processor.patch_boxes(150, 100) == native.patch_boxes(150, 100)  # of the native ones


def test_a_whole_view_keeps_the_aspect_and_is_filled_by_mirror_images():
    image = make_picture(256, 128, seed=3)
    whole = type(make_pooled_model().image_processor)(patch_size=64, num_patches=1, whole_views=[2])
    tiles = whole.extract_patches(image)[:4].permute(0, 2, 3, 1).numpy()  # row by row
    canvas = np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)])
    reduced = np.asarray(image.resize((128, 64), Image.Resampling.BILINEAR))
    assert canvas.shape == (128, 128, 3)
    assert np.array_equal(canvas[32:96], reduced)
    assert np.array_equal(canvas[:32], reduced[31::-1]) and np.array_equal(canvas[96:], reduced[:31:-1])


def test_a_whole_view_never_enlarges():
    image = make_picture(64, 64, seed=4)
    processor = type(make_pooled_model().image_processor)(patch_size=64, num_patches=1, whole_views=[2])
    tiles = processor.extract_patches(image)[:4].permute(0, 2, 3, 1).numpy()
    canvas = np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)])
    assert np.array_equal(canvas[32:96, 32:96], np.asarray(image))


@pytest.mark.parametrize(("width", "height"), [(2000, 3), (1, 700), (64, 64), (65, 63)])
def test_an_image_of_any_shape_is_scored(width: int, height: int):
    assert make_pooled_model().score(make_picture(width, height)).isfinite().all()


def test_statistics_are_mean_and_standard_deviation_of_each_channel():
    stage_maps = [torch.randn(3, channels, side, side) for channels, side in ((5, 8), (7, 2))]
    statistics = hub_object("modeling_hybridiqa.compute_stage_statistics")(stage_maps)
    expected = [part for x in stage_maps for part in (x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0))]
    assert torch.allclose(statistics, torch.cat(expected, dim=1), atol=1e-6)


def test_features_are_standardised_statistics_of_the_views():
    model = make_pooled_model()
    pixel_values, head = model.image_processor(IMAGES)["pixel_values"], model.pooled_head
    views = []
    for first, last in ((0, 1), (1, 5), (5, 9)):  # each the mean of its patches' statistics
        with torch.no_grad():
            maps = model.backbone(pixel_values[:, first:last].flatten(0, 1)).feature_maps
        of_patches = hub_object("modeling_hybridiqa.compute_stage_statistics")(maps)
        views.append(of_patches.unflatten(0, (len(IMAGES), -1)).mean(dim=1))
    statistics = torch.cat(views, dim=1)
    assert torch.allclose(model.read_views(pixel_values), statistics, atol=1e-5)
    expected = (statistics - head.statistics_mean) / head.statistics_std
    assert torch.allclose(model.predict(pixel_values).features, expected.clamp(-8, 8), atol=1e-4)


def test_more_statistics_than_features_are_folded_with_all_of_them_in():
    model = make_pooled_model(num_features=100)
    head = model.pooled_head
    total = len(head.statistics_mean)
    assert total > 300 and head.num_features == 100
    features = head.to_features(head.statistics_mean + torch.eye(total) * head.statistics_std)  # a unit vector a row
    assert features.shape == (total, 100)
    assert torch.equal(features.abs().argmax(dim=1), torch.arange(total) % 100)  # each statistic goes to one place
    assert torch.allclose(features.abs().sum(dim=1), torch.tensor(head.num_folds**-0.5), atol=1e-3)
    assert 0.4 < (features.sum(dim=1) > 0).float().mean() < 0.6
    assert model.predict(model.image_processor(IMAGES[:1])["pixel_values"]).features.shape == (1, 100)


def test_scores_lie_within_the_range_and_keep_the_order_of_what_they_are_made_of():
    head = make_pooled_model(score_range=[1, 9]).pooled_head
    unbounded = torch.linspace(-12, 12, 1001)
    scores = head.to_scores(unbounded)
    assert scores.min() > 1 and scores.max() < 9 and (scores.diff() > 0).all()


def test_a_score_does_not_depend_on_the_batch():
    model = make_pooled_model()
    together = model.score(IMAGES)
    assert torch.equal(together, torch.cat([model.score(image) for image in IMAGES]))
    assert together.std() > 0


def test_forward_and_predict_agree():
    model = make_pooled_model()
    pixel_values = model.image_processor(IMAGES)["pixel_values"]
    with torch.no_grad():
        output = model(pixel_values, labels=torch.tensor([1.0, 5.0, 9.0]))
    predicted = model.predict(pixel_values)
    assert predicted.loss is None and set(predicted) == {"logits", "patch_scores", "features"}
    for name in predicted:
        assert torch.allclose(output[name], predicted[name], atol=1e-4)
    assert next(iter(output)) == "loss"  # what copies the output as a dictionary has it, too
    assert torch.isclose(output.loss, (output.logits - torch.tensor([1.0, 5.0, 9.0])).abs().mean())


def test_a_patch_score_is_that_of_an_image_whose_native_patches_are_all_like_it():
    model = make_pooled_model()
    pixel_values = model.image_processor(IMAGES[0])["pixel_values"]
    patch_scores = model.predict(pixel_values).patch_scores
    assert patch_scores.shape == (1, 4) and patch_scores.std() > 0
    for index in range(4):
        native = pixel_values[:, NUM_WHOLE + index : NUM_WHOLE + index + 1].expand(-1, 4, -1, -1, -1)
        alike = torch.cat([pixel_values[:, :NUM_WHOLE], native], dim=1)
        assert torch.isclose(model.predict(alike).logits[0], patch_scores[0, index], atol=1e-4)


def test_every_view_counts():
    model = make_pooled_model()
    pixel_values = model.image_processor(IMAGES[0])["pixel_values"]
    score = model.predict(pixel_values).logits
    for first, last in ((0, 1), (1, 5), (5, 9)):
        changed = pixel_values.clone()
        changed[:, first:last] = 0.3
        assert not torch.isclose(model.predict(changed).logits, score, atol=1e-4)


def test_every_parameter_of_the_head_gets_a_gradient():
    model = make_pooled_model().train()
    output = model(model.image_processor(IMAGES)["pixel_values"], labels=torch.tensor([1.0, 5.0, 9.0]))
    assert output.patch_scores is None
    output.loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.pooled_head.parameters())
    assert all(weight.grad is not None for weight in model.backbone.parameters())


def test_a_saved_model_scores_the_same(tmp_path):
    model = make_pooled_model(num_features=100, whole_views=[1])
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert loaded.config.head_type == "pooled" and loaded.config.whole_views == [1]
    assert AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=True).whole_views == [1]
    assert torch.equal(loaded.score(IMAGES), model.score(IMAGES))
    [result] = pipeline("image-quality-assessment", model=str(tmp_path), trust_remote_code=True)(IMAGES[0])
    assert result["score"] == pytest.approx(model.score(IMAGES[0]).item(), abs=1e-6)


def test_the_head_stays_in_float32(tmp_path):
    model = make_pooled_model()
    scores = model.score(IMAGES)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True, dtype=torch.bfloat16)
    for half in (loaded, model.to(torch.bfloat16)):
        assert half.dtype == torch.bfloat16
        assert {tensor.dtype for tensor in half.pooled_head.state_dict().values()} == {torch.float32}
        assert torch.allclose(half.score(IMAGES), scores, atol=0.1)


def test_scores_after_prepare_for_scoring_are_the_same():
    model = make_pooled_model()
    before = model.score(IMAGES)
    assert torch.allclose(model.prepare_for_scoring().score(IMAGES), before, atol=1e-4)


def test_a_processor_with_other_views_is_refused(tmp_path):
    model = make_pooled_model()
    model.image_processor = type(model.image_processor)(patch_size=64, num_patches=4, whole_views=[1])
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has whole_views \[1\], the model takes \[1, 2\]"):
        AutoModel.from_pretrained(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize("shape", [(1, 5, 3, 64, 64), (2, 3, 64, 64), (1, 9, 3, 32, 32)])
def test_patches_without_all_views_are_refused(shape: tuple[int, ...]):
    model = make_pooled_model()
    for call in (model, model.predict):
        with pytest.raises(ValueError, match="more than the 5 patches of the whole image, got"):
            call(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_type": "other"}, "head_type must be one of hyper, pooled, got 'other'"),
        ({"whole_views": [1]}, "whole_views are of the head 'pooled'"),
        ({"head_type": "pooled", "whole_views": [9]}, "each 1 to 8, got \\[9\\]"),
        ({"head_type": "pooled", "whole_views": [1] * 5}, "at most 4 whole numbers"),
        ({"head_type": "pooled", "whole_views": "12"}, "whole_views must be a list"),
        ({"head_type": "pooled", "num_features": 5000}, "num_features must be a whole number, 1 to 4096, got 5000"),
        ({"head_type": "pooled", "pooled_width": True}, "pooled_width must be a whole number"),
        ({"head_type": "pooled", "pooled_dropout": 1}, "pooled_dropout must be at least 0 and below 1, got 1"),
    ],
)
def test_a_head_that_cannot_be_is_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        hub_code.HybridIQAConfig(**fields)


def test_native_patches_are_of_one_scale():
    model = make_pooled_model()
    assert model.score(IMAGES[0], sampling="random").isfinite().all()
    with pytest.raises(ValueError, match="sampling multiscale shows the whole image by itself"):
        model.score(IMAGES[0], sampling="multiscale")


@pytest.mark.parametrize(("whole_views", "message"), [([0], "each 1 to 8"), (3, "must be a list"), ([True], "each 1")])
def test_views_that_cannot_be_are_refused(whole_views, message: str):
    with pytest.raises(ValueError, match=message):
        hub_code.HybridIQAImageProcessor(whole_views=whole_views)

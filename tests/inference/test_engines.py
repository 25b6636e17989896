"""Engines: equal scores in and out of company, what tells one scorer from another, and what is refused."""

import shutil

import pytest
import torch
from factories import make_picture, make_tiny_model
from transformers import AutoModel

from hybridiqa.inference.engine import DTYPES, load_engine
from hybridiqa.models.loading import load_model, model_fingerprint
from hybridiqa.utils.root import ROOT


def patches_of(engine, num_images: int = 3, **options) -> torch.Tensor:
    """Return uint8 `(images, patches, 3, 64, 64)` of images of several sizes."""
    images = [make_picture(100 + 40 * index, 90, seed=index) for index in range(num_images)]
    return torch.stack([engine.image_processor.extract_patches(image, **options) for image in images])


def test_torch_gives_the_bits_of_the_prepared_model(tiny_checkpoint):
    engine = load_engine(tiny_checkpoint, device="cpu")
    model = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True).prepare_for_scoring()
    patches = patches_of(engine, num_patches=9)
    expected = model.predict_patch_scores(model.image_processor.normalize_patches(patches))
    assert torch.equal(engine.score_patches(patches).patch_scores, expected)
    assert (engine.name, engine.dtype, engine.device.type) == ("torch", "float32", "cpu")
    assert engine.config.score_range == [1.0, 9.0]


def test_the_embedded_checkpoint_prepared_for_scoring_gives_the_same_scores():
    model = load_model(ROOT)
    examples = [ROOT / "examples" / f"{name}.png" for name in ("lake_clean", "city_blur")]
    before = model.score(examples, num_patches=4)
    after = model.prepare_for_scoring().score(examples, num_patches=4)
    assert torch.allclose(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_score_does_not_depend_on_company_in_torch(tiny_checkpoint, dtype):
    engine = load_engine(tiny_checkpoint, device="cpu", dtype=dtype)
    patches = patches_of(engine, num_patches=7)
    together = engine.score_patches(patches).patch_scores
    assert together.shape == (3, 7) and together.dtype == torch.float32
    for index in range(3):
        assert torch.equal(engine.score_patches(patches[index : index + 1]).patch_scores, together[index : index + 1])


def test_half_precision_is_folded_in_float32_first(tiny_checkpoint):
    full, half = (load_engine(tiny_checkpoint, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    convolution = full.model.backbone.embedder.embedder.convolution
    halved = half.model.backbone.embedder.embedder.convolution
    assert torch.equal(halved.weight, convolution.weight.bfloat16())
    assert torch.allclose(
        full.score_patches(patches_of(full)).patch_scores, half.score_patches(patches_of(half)).patch_scores, atol=0.05
    )


def test_a_fingerprint_tells_weights_architecture_and_normalisation(tmp_path, tiny_checkpoint):
    same = load_engine(tiny_checkpoint, device="cpu", dtype="bfloat16").fingerprint
    assert same == load_engine(tiny_checkpoint, device="cpu").fingerprint and len(same) == 16
    model = make_tiny_model(score_range=[0.0, 10.0])
    model.image_processor.num_patches = 9
    assert model_fingerprint(model) == same  # neither changes a patch's score
    model.image_processor.image_mean = [0.5, 0.5, 0.5]
    others = {model_fingerprint(model), model_fingerprint(make_tiny_model(seed=1))}
    others.add(model_fingerprint(make_tiny_model("convnext")))
    model = make_tiny_model()
    model.config.backbone_config.hidden_act = "gelu"  # the same weights mean something else
    others.add(model_fingerprint(model))
    assert len(others | {same}) == 5
    with pytest.raises(RuntimeError, match=r"before prepare_for_scoring\(\)"):
        model_fingerprint(model.prepare_for_scoring())


def test_what_no_engine_has_is_one_clear_line(tiny_checkpoint):
    assert DTYPES == ("float32", "bfloat16", "float16", "int8")
    for options, message in [
        ({"engine": "abacus"}, "--engine must be one of torch, onnxruntime, openvino, got abacus"),
        ({"dtype": "int8"}, "--engine torch computes in float32, bfloat16, float16, got --dtype int8"),
        ({"engine": "openvino", "dtype": "float16"}, "computes in float32, bfloat16, int8, got --dtype float16"),
        ({"device": "abacus"}, "--device abacus cannot be used here"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_engine(tiny_checkpoint, **options)
    with pytest.raises(ValueError, match=r"scorer.onnx is for --engine onnxruntime or openvino"):
        load_engine("scorer.onnx")


def test_what_cannot_be_compiled_is_one_clear_line(tiny_checkpoint, monkeypatch):
    def fail(self, pixel_values):
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(type(load_model(tiny_checkpoint)), "predict", fail)
    with pytest.raises(ValueError, match=r"^--compile does not work here: no compiler$"):
        load_engine(tiny_checkpoint, device="cpu", compile=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_scores_are_the_same_and_do_not_depend_on_company(tiny_checkpoint):
    plain = load_engine(tiny_checkpoint, device="cpu")
    compiled = load_engine(tiny_checkpoint, device="cpu", compile=True)
    patches = patches_of(plain, num_patches=7)
    together = compiled.score_patches(patches).patch_scores
    assert torch.allclose(together, plain.score_patches(patches).patch_scores, rtol=0, atol=1e-5)
    assert torch.equal(compiled.score_patches(patches[1:2]).patch_scores, together[1:2])

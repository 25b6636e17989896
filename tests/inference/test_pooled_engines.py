"""Pooled head in every engine and through score.py: equal scores, patch scores and features."""

from pathlib import Path

import pytest
import torch
from factories import make_picture, make_pooled_model
from PIL import Image

from hybridiqa.commands import export, score
from hybridiqa.inference.engine import load_engine
from hybridiqa.inference.engine_output import EngineOutput
from hybridiqa.inference.scoring import PatchChoice, scorer_name
from hybridiqa.models.loading import model_fingerprint, views_fingerprint
from hybridiqa.scores.score_file import read_scores

OUTPUTS = ("scores", "patch_scores", "features")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("pooled") / "model"
    make_pooled_model(num_features=200).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        make_picture(70 + 19 * index, 120, seed=index).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def float_file(checkpoint, tmp_path_factory) -> str:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("exported") / "scorer.onnx"
    assert export.main([checkpoint, "--output", str(path)]) == 0
    return str(path)


def patches_of(engine, images: Path, **options) -> torch.Tensor:
    return torch.stack([engine.image_processor.extract_patches(path, **options) for path in sorted(images.iterdir())])


def check_same(output: EngineOutput, expected: EngineOutput, tolerance: float) -> None:
    for name in OUTPUTS:
        ours, theirs = getattr(output, name), getattr(expected, name)
        assert ours.dtype == torch.float32 and ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance), name


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("num_patches", [None, 3])
def test_every_engine_gives_what_the_model_gives(checkpoint, float_file, images, name, num_patches):
    pytest.importorskip(name)
    expected = load_engine(checkpoint, device="cpu").score_patches
    engine = load_engine(checkpoint if name == "torch" else float_file, name)
    patches = patches_of(engine, images, num_patches=num_patches)
    together = engine.score_patches(patches)
    assert together.patch_scores.shape == (12, num_patches or 4) and together.features.shape == (12, 200)
    check_same(together, expected(patches), 1e-4)
    alone = engine.score_patches(patches[3:4])
    assert all(torch.equal(getattr(alone, field)[0], getattr(together, field)[3]) for field in OUTPUTS)


def test_int8_scores_near_float(checkpoint, float_file, images, tmp_path, monkeypatch):
    for name in ("openvino", "nncf"):
        pytest.importorskip(name)
    path = tmp_path / "int8.onnx"
    monkeypatch.setattr(export, "LEAST_RANK_CORRELATION", 0.0)  # random weights rank little
    command = [checkpoint, "--output", str(path), "--dtype", "int8", "--calibration_images", str(images)]
    assert export.main(command) == 0
    exact = load_engine(float_file, "openvino")
    patches = patches_of(exact, images)
    expected = exact.score_patches(patches)
    for name in ("openvino", "onnxruntime"):
        output = load_engine(str(path), name, dtype="int8").score_patches(patches)
        correlation = torch.corrcoef(torch.stack([output.scores, expected.scores]))[0, 1]
        assert correlation > 0.9  # of random weights, which are sensitive


def test_bfloat16_scores_near_float(checkpoint, images):
    exact, half = load_engine(checkpoint, device="cpu"), load_engine(checkpoint, device="cpu", dtype="bfloat16")
    patches = patches_of(exact, images)
    difference = (half.score_patches(patches).scores - exact.score_patches(patches).scores).abs()
    assert 0 < difference.max() < 0.2


def test_kept_features_give_the_score_again(checkpoint, images):
    model = make_pooled_model(num_features=200)
    output = load_engine(checkpoint, device="cpu").score_patches(patches_of(model, images))
    kept = output.features.half()  # as they are kept beside the scores
    with torch.no_grad():
        again = model.pooled_head.to_scores(model.pooled_head(kept.float()))
    assert torch.allclose(again, output.scores, rtol=0, atol=1e-3)


def test_the_scorers_id_names_the_views(checkpoint):
    engine = load_engine(checkpoint, device="cpu")
    assert scorer_name(engine, PatchChoice()) == f"{engine.fingerprint} views-1-2 grid-4 float32 torch"


def test_fingerprints_tell_heads_views_and_backbones():
    model, other = make_pooled_model(), make_pooled_model(seed=1)
    fingerprint, views = model_fingerprint(model), views_fingerprint(model)
    with torch.no_grad():
        model.pooled_head.output.bias += 1
    assert model_fingerprint(model) != fingerprint and views_fingerprint(model) == views
    model.image_processor.num_patches = 5
    assert len({views, views_fingerprint(model), views_fingerprint(other)}) == 3
    assert model_fingerprint(make_pooled_model(score_range=[0, 1])) != fingerprint


def test_score_py_scores_maps_and_knows_them_again(checkpoint, images, tmp_path, capsys):
    command = [str(images), "--model", checkpoint, "--output", str(tmp_path / "scores.csv"), "--num_workers", "0"]
    assert score.main([*command, "--map", str(tmp_path / "maps")]) == 0
    rows = read_scores(tmp_path / "scores.csv")
    assert len(rows) == 12 and all(1 < row.score < 9 and row.score_std > 0 for row in rows)
    assert len(list((tmp_path / "maps").iterdir())) == 12
    with Image.open(next((tmp_path / "maps").iterdir())) as drawn:
        assert min(drawn.size) > 100
    assert score.main(command) == 0
    assert "0 scored, 0 failed, 12 skipped as known" in capsys.readouterr().err

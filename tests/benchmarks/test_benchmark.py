"""Benchmarks of speed: the reference gives the recorded numbers, and what is printed fits together. No timings."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from factories import NUMBERS, RECORDED, make_picture, original_state_dict
from PIL import Image
from torchvision.transforms.functional import normalize

from hybridiqa.benchmarks.options import DEPTHS
from hybridiqa.benchmarks.published import (
    MEAN,
    STANDARD_DEVIATION,
    PublishedHyperNetwork,
    PublishedPatches,
    PublishedTrainer,
    build_loader,
    build_seeded_network,
    compute_published_score,
    compute_published_score_in_one_batch,
    move_batch,
    predict,
)
from hybridiqa.benchmarks.timing import Row, make_images, memory_row, speed_row, take_turns
from hybridiqa.commands import benchmark
from hybridiqa.models.hyperiqa_weights import build_model
from hybridiqa.utils.root import ROOT


@pytest.mark.slow
def test_the_published_network_gives_the_recorded_scores():
    network = PublishedHyperNetwork([3, 4, 6, 3]).eval()
    network.load_state_dict(original_state_dict([3, 4, 6, 3]))
    with Image.open(RECORDED / "patches.png") as image:
        patches = torch.from_numpy(np.asarray(image).copy()).view(4, 224, 224, 3).permute(0, 3, 1, 2)
    pixel_values = normalize(patches.contiguous() / 255, MEAN, STANDARD_DEVIATION)
    with torch.no_grad():
        patch_scores = predict(network, pixel_values)
    assert torch.allclose(patch_scores, torch.tensor(NUMBERS["patch_scores"]), rtol=0, atol=2e-5)


def test_the_published_step_records_and_learns():
    torch.manual_seed(0)
    trainer = PublishedTrainer([1, 1, 1, 1], "cpu")
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    trainer.step(torch.randn(2, 3, 224, 224), torch.tensor([3.0, 7.0]))
    assert trainer.labels == [3.0, 7.0]
    assert trainer.losses == [pytest.approx(np.abs(np.subtract(trainer.predictions, trainer.labels)).mean(), rel=1e-5)]
    for (name, parameter), old in zip(trainer.network.named_parameters(), before, strict=True):
        assert not torch.equal(parameter, old), name


def test_the_published_step_takes_one_patch():
    torch.manual_seed(0)
    trainer = PublishedTrainer([1, 1, 1, 1], "cpu")
    trainer.step(torch.randn(1, 3, 224, 224), torch.tensor([3.0]))
    assert trainer.losses == [pytest.approx(abs(trainer.predictions[0] - 3.0), rel=1e-5)] and trainer.labels == [3.0]
    assert len(trainer.predictions) == 1


def test_the_published_input_pipeline_caches_whole_float_images():
    arrays = [np.full((60, 50, 3), value, np.uint8) for value in (0, 255)]
    patches = PublishedPatches(arrays, [2.0, 8.0], num_patches=3, device="cpu")
    assert len(patches) == 6 and patches.num_bytes == 0
    pixel_values, labels = move_batch(next(iter(build_loader(patches, batch_size=6))), "cpu")
    assert patches.num_bytes == 2 * 60 * 50 * 3 * 4
    assert pixel_values.shape == (6, 3, 224, 224) and pixel_values.dtype == labels.dtype == torch.float32
    assert sorted(labels.tolist()) == [2.0] * 3 + [8.0] * 3
    for patch, label in zip(pixel_values, labels, strict=True):  # black and white, normalised
        value = 0 if label == 2 else 1
        expected = (value - torch.tensor(MEAN)) / torch.tensor(STANDARD_DEVIATION)
        assert torch.allclose(patch, expected.view(3, 1, 1).expand_as(patch), atol=1e-3)


def test_a_row_is_the_round_of_the_median_ratio():
    row = speed_row("a", "patches/s", 6, [(1.0, 2.0), (2.0, 2.0), (100.0, 300.0)])
    assert row == Row("a", "patches/s", ours=6.0, reference=3.0, ratio=2.0, rounds=3)
    even = speed_row("a", "patches/s", 1, [(1.0, 4.0), (1.0, 2.0)])
    assert even.ratio == 2.0  # never the better half
    assert memory_row("a", "bytes", 2.0, 8.0).ratio == 4.0


def test_training_prints_and_writes_rows_that_fit_together(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DEPTHS, "r50", [1, 1, 1, 1])
    path = tmp_path / "training.json"
    sizes = ["--image_size", "64", "--num_images", "2", "--batch_size", "2", "--input_batch_size", "3"]
    command = ["training", *sizes, "--rounds", "1", "--device", "cpu", "--threads", "1", "--json", str(path)]
    assert benchmark.main(command) == 0
    report = json.loads(path.read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["input_pipeline", "input_memory", "train_step_fp32", "train_step_bf16"]
    printed = capsys.readouterr().out
    for name, row in rows.items():
        better, worse = ("reference", "ours") if name == "input_memory" else ("ours", "reference")
        assert set(row) == {"name", "unit", "ours", "reference", "ratio", "rounds"}
        assert row["ours"] > 0 and row["ratio"] == pytest.approx(row[better] / row[worse]) and row["rounds"] == 1
        assert name in printed and row["unit"] in printed
    assert (rows["input_memory"]["ours"], rows["input_memory"]["ratio"]) == (64 * 64 * 3, 4.0)
    assert (
        report["threads"] == 1
        and report["device"]
        and report["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    )
    assert report["facts"]["peak_rss_bytes"] > 1e8
    sizes = {"image_size": 64, "num_images": 2, "batch_size": 2, "input_batch_size": 3}
    assert report["arguments"] == {"layout": "r50", **sizes, "rounds": 1}


def test_all_sides_take_turns_and_another_one_begins_each_round():
    order = []
    rounds = take_turns([lambda name=name: order.append(name) for name in "abc"], 4, torch.device("cpu"))
    assert "".join(order) == "abcbcacababc"
    assert [len(seconds) for seconds in rounds] == [3] * 4 and min(map(min, rounds)) > 0


def test_the_published_scoring_and_ours_agree_on_the_same_crops(tmp_path):
    network = build_seeded_network([1, 1, 1, 1])
    model = build_model(network.state_dict(), [1.0, 9.0]).eval()
    scores = []
    for index, image in enumerate(make_images(2, 300)):
        path = tmp_path / f"{index}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        scores.append(model.score(path, sampling="random", seed=0, num_patches=3).item())
        for score in (compute_published_score, compute_published_score_in_one_batch):
            torch.manual_seed(0)
            assert score(network, path, "cpu", num_patches=3) == pytest.approx(scores[-1], abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-2  # else agreement would say little


def scoring_report(tmp_path, monkeypatch) -> dict:
    """Return what the command writes for a small network and image."""
    monkeypatch.setitem(DEPTHS, "r50", [1, 1, 1, 1])
    command = ["scoring", "--layout", "r50", "--image_size", "224", "--rounds", "2", "--num_patches", "2"]
    assert benchmark.main([*command, "--device", "cpu", "--json", str(tmp_path / "scoring.json")]) == 0
    return json.loads((tmp_path / "scoring.json").read_text())


def test_scoring_compares_every_engine_that_is_installed(tmp_path, monkeypatch):
    report = scoring_report(tmp_path, monkeypatch)
    rows = {row["name"]: row for row in report["rows"]}
    expected = {"fp32_r50", "bf16_r50", "embedded_r50", "one_batch_r50"}
    if all(map(importlib.util.find_spec, ("onnx", "onnxruntime", "openvino", "nncf"))):
        expected |= {"onnxruntime_fp32_r50", "openvino_fp32_r50", "openvino_int8_r50"}
    assert expected <= set(rows)
    for row in rows.values():
        assert row["unit"] == "images/s" and row["rounds"] == 2
        assert row["ours"] > 0 and row["ratio"] == pytest.approx(row["ours"] / row["reference"])
    for name in expected - {"bf16_r50", "openvino_int8_r50", "embedded_r50", "one_batch_r50"}:
        assert report["facts"][f"score_difference_{name}"] <= 1e-4


def test_scoring_goes_on_without_optional_libraries(tmp_path, monkeypatch, caplog):
    for name in ("onnx", "pyiqa"):
        monkeypatch.setitem(sys.modules, name, None)
    report = scoring_report(tmp_path, monkeypatch)
    assert [row["name"] for row in report["rows"]] == ["fp32_r50", "bf16_r50", "embedded_r50", "one_batch_r50"]
    assert "pip install -r requirements-optional.txt" in caplog.text and "no row of pyiqa" in caplog.text


def test_precision_compares_with_float32_on_real_images(tiny_checkpoint, tmp_path, capsys):
    for index in range(5):
        make_picture(100 + 40 * index, 90, seed=index).save(tmp_path / f"{index}.png")
    command = ["precision", "--model", tiny_checkpoint, "--images", str(tmp_path), "--device", "cpu"]
    assert benchmark.main([*command, "--num_images", "4", "--json", str(tmp_path / "precision.json")]) == 0
    facts = json.loads((tmp_path / "precision.json").read_text())["facts"]
    assert facts["num_images"] == 4 and -1 <= facts["rank_correlation_bf16"] <= 1
    assert 0 < facts["largest_difference_bf16"] < 0.1
    assert "rank_correlation_bf16" in capsys.readouterr().out
    assert benchmark.main(["precision", "--images", str(tmp_path / "0.png")]) == 2
    assert "must hold at least 2 images, got 1" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(tmp_path, capsys):
    taken = tmp_path / "taken.json"
    taken.write_text("{}")
    for options, message in {
        ("--rounds", "0"): "--rounds must be at least 1, got 0",
        ("--batch_size", "1"): "--batch_size must be at least 2, got 1",
        ("--json", str(taken)): "--json must be a new file",
        ("--json", str(tmp_path / "nowhere" / "a.json")): "--json must be a new file in a folder that is there",
    }.items():
        assert benchmark.main(["training", *options]) == 2
        assert message in capsys.readouterr().err
    assert taken.read_text() == "{}"
    assert benchmark.main(["scoring", "--image_size", "100"]) == 2
    assert "--image_size must be at least 224" in capsys.readouterr().err
    for options in (["--seed", "-1"], ["--num_workers", "-1"]):
        command = ["robustness", "--model", "x", "--images", "x", "--output_dir", str(tmp_path / "new"), *options]
        assert benchmark.main(command) == 2
        assert capsys.readouterr().err == f"benchmark.py: error: {options[0]} must be at least 0, got -1\n"


@pytest.mark.parametrize("command", ["benchmark", "convert_checkpoint"])
def test_help_loads_no_torch(command):
    code = f"import sys; from hybridiqa.commands import {command}; {command}.parse_arguments(['--help'])"
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("usage: ") and run.stdout.endswith("\nFalse\n"), run.stderr

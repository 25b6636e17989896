"""Export to ONNX: one file that scores as the checkpoint does in every engine, or a clear refusal and no file."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from factories import make_picture, make_tiny_model

from hybridiqa.commands import export
from hybridiqa.inference.engine import load_engine
from hybridiqa.inference.onnx_export import choose_evenly, read_images
from hybridiqa.inference.scoring import find_images
from hybridiqa.utils.root import ROOT

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
NEEDED_FOR_INT8 = ("openvino", "nncf")


def run(*arguments: str | Path) -> int:
    return export.main([str(argument) for argument in arguments])


def make_image_files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        make_picture(70 + 9 * index, 80, seed=index).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def float_file(tiny_checkpoint, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "scorer.onnx"
    assert run(tiny_checkpoint, "--output", path) == 0
    return path


@pytest.fixture(scope="module")
def int8_file(tiny_checkpoint, tmp_path_factory) -> Path:
    for name in NEEDED_FOR_INT8:
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("quantised")
    images = make_image_files(folder / "images", 12)
    path = folder / "scorer.int8.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "LEAST_RANK_CORRELATION", 0.0)  # random weights rank little
        command = [tiny_checkpoint, "--output", path, "--dtype", "int8", "--calibration_images", images]
        assert run(*command) == 0
    return path


def patches_of(engine, num_images: int = 3, num_patches: int = 7) -> torch.Tensor:
    """Return uint8 `(images, patches, 3, 64, 64)`."""
    images = (make_picture(100 + 40 * index, 90, seed=index) for index in range(num_images))
    return torch.stack([engine.image_processor.extract_patches(image, num_patches=num_patches) for image in images])


def check_engine(engine, expected: torch.Tensor, tolerance: float) -> None:
    """Check the scores, in company and alone."""
    patches = patches_of(engine)
    together = engine.score_patches(patches).patch_scores
    assert together.dtype == torch.float32 and together.shape == (3, 7)
    assert torch.allclose(together, expected, rtol=0, atol=tolerance)
    for index in range(3):
        assert torch.equal(engine.score_patches(patches[index : index + 1]).patch_scores, together[index : index + 1])


TWO_ENGINES = """
import gc, signal, sys
from hybridiqa.inference.engine import load_engine

signal.signal(signal.SIGTERM, lambda number, _: print("handled", number))
engines = [load_engine(sys.argv[1], "openvino") for _ in range(2)]
for _ in range(2):  # the first made goes first
    del engines[0]
    gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


def test_signals_are_handled_after_two_engines_of_openvino(float_file):
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", TWO_ENGINES, str(float_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"handled {signal.SIGTERM:d}\n"), done.stderr


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_every_engine_gives_torchs_scores(tiny_checkpoint, float_file, engine_name):
    pytest.importorskip(engine_name)
    torch_engine = load_engine(tiny_checkpoint, device="cpu")
    engine = load_engine(str(float_file), engine_name)
    check_engine(engine, torch_engine.score_patches(patches_of(torch_engine)).patch_scores, 1e-4)
    assert (engine.name, engine.dtype, engine.device.type) == (engine_name, "float32", "cpu")
    assert engine.fingerprint == torch_engine.fingerprint
    assert engine.config.score_range == torch_engine.config.score_range
    assert engine.image_processor.to_dict().items() <= torch_engine.image_processor.to_dict().items()


def test_openvino_computes_in_bfloat16_only_where_asked(tiny_checkpoint, float_file):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ValueError, match="this processor does not compute in it"):
            load_engine(str(float_file), "openvino", dtype="bfloat16")
        return
    exact = load_engine(str(float_file), "openvino")
    half = load_engine(str(float_file), "openvino", dtype="bfloat16")
    expected = exact.score_patches(patches_of(exact)).patch_scores
    check_engine(half, expected, 0.05)
    assert not torch.equal(half.score_patches(patches_of(half)).patch_scores, expected)


def test_a_convnext_is_exported_as_well_and_its_scale_and_quantiles_go_along(tmp_path):
    model = make_tiny_model("convnext", score_range=[0.0, 100.0], score_quantiles=[10.0, 20.0, 30.0])
    model.image_processor.sampling, model.image_processor.num_patches = "multiscale", 9
    model.save_pretrained(tmp_path / "model")
    assert run(tmp_path / "model", "--output", tmp_path / "scorer.onnx") == 0
    engine = load_engine(str(tmp_path / "scorer.onnx"), "onnxruntime")
    assert engine.config.score_range == [0.0, 100.0] and engine.config.score_quantiles == [10.0, 20.0, 30.0]
    assert (engine.image_processor.sampling, engine.image_processor.num_patches) == ("multiscale", 9)
    torch_engine = load_engine(str(tmp_path / "model"), device="cpu")
    check_engine(engine, torch_engine.score_patches(patches_of(torch_engine)).patch_scores, 1e-3)


def test_a_file_says_nothing_of_the_machine_it_was_made_on(float_file, tiny_checkpoint):
    content = float_file.read_bytes()
    assert str(Path(tiny_checkpoint).parent).encode() not in content
    assert str(Path(export.__file__).parent).encode() not in content
    assert [path.name for path in float_file.parent.iterdir()] == ["scorer.onnx"]


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_int8_scores_near_float_and_is_a_scorer_of_its_own(int8_file, float_file, engine_name):
    engine, exact = load_engine(str(int8_file), engine_name, dtype="int8"), load_engine(str(float_file), "onnxruntime")
    check_engine(engine, exact.score_patches(patches_of(exact)).patch_scores, 0.2)
    assert engine.fingerprint != exact.fingerprint
    assert engine.fingerprint == load_engine(str(int8_file), "onnxruntime", dtype="int8").fingerprint


def test_the_heads_stay_in_float(int8_file):
    network = pytest.importorskip("onnx").load(int8_file)
    quantized = [node.name for node in network.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantized) > 5
    assert not [name for name in quantized if "hyper_network" in name or "distortion_features" in name]


def refused(capsys, *arguments: str | Path) -> str:
    assert run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("export.py: error: ")]
    assert len(lines) == 1
    return lines[0]


def test_int8_that_ranks_otherwise_is_refused_and_nothing_is_written(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    for name in NEEDED_FOR_INT8:
        pytest.importorskip(name)
    monkeypatch.setattr(export, "measure_rank_correlation", lambda *_: 0.9876)
    images = make_image_files(tmp_path / "images", 10)
    arguments = [tiny_checkpoint, "--output", tmp_path / "a.onnx", "--dtype", "int8", "--calibration_images", images]
    assert "SRCC 0.9876, at least 0.99 is accepted" in refused(capsys, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_scores_that_differ_from_torchs_are_refused_and_nothing_is_written(
    tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(export, "measure_difference", lambda *_: float("nan"))
    assert "differs from torch's" in refused(capsys, tiny_checkpoint, "--output", tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_usage_is_one_clear_line(tiny_checkpoint, tmp_path, capsys):
    taken = tmp_path / "taken.onnx"
    taken.write_text("mine")
    few = make_image_files(tmp_path / "few", 3)
    (few / "broken.png").write_text("hello")
    output = ["--output", tmp_path / "new.onnx"]
    for arguments, message in [
        ([tiny_checkpoint, "--output", taken], "nothing is overwritten"),
        ([tiny_checkpoint, "--output", tmp_path / "a.pt"], "must end in .onnx"),
        ([tiny_checkpoint, "--output", tmp_path / "no" / "a.onnx"], "there is no folder"),
        ([tmp_path, *output], "cannot load"),
        ([tiny_checkpoint, *output, "--calibration_images", few], "are for --dtype int8"),
    ]:
        assert message in refused(capsys, *arguments)
    for name in NEEDED_FOR_INT8:
        pytest.importorskip(name)
    int8 = [tiny_checkpoint, *output, "--dtype", "int8"]
    assert "needs --calibration_images" in refused(capsys, *int8)
    assert "there is no file or folder" in refused(capsys, *int8, "--calibration_images", tmp_path / "nothing")
    message = refused(capsys, *int8, "--calibration_images", few)
    assert "at least 10 calibration images are needed, got 3 that can be read" in message
    assert taken.read_text() == "mine" and not (tmp_path / "new.onnx").exists()


def test_a_missing_library_is_named_with_the_command_that_installs_it(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    message = refused(capsys, tiny_checkpoint, "--output", tmp_path / "a.onnx")
    assert "this needs onnxruntime: pip install -r requirements-optional.txt" in message


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_an_engine_refuses_what_is_not_its_file(tiny_checkpoint, float_file, int8_file, tmp_path, engine_name):
    onnx = pytest.importorskip("onnx")
    bare, text = tmp_path / "bare.onnx", tmp_path / "text.onnx"
    network = onnx.load(float_file)
    del network.metadata_props[:]
    onnx.save(network, bare)
    text.write_text("hello")
    for number, value in enumerate(["", "{", "[]", "{}", '{"config": 5}', "[" * 5000]):
        network.metadata_props.add(key="hybridiqa", value=value)
        onnx.save(network, tmp_path / f"damaged {number}.onnx")
        del network.metadata_props[:]
    for model in (bare, text, tiny_checkpoint, tmp_path / "nothing.onnx", *tmp_path.glob("damaged *.onnx")):
        with pytest.raises(ValueError, match=r"is no \.onnx file of export\.py: python export\.py MODEL --output"):
            load_engine(str(model), engine_name)
    with pytest.raises(ValueError, match=r"the \.onnx file is float32, got --dtype int8"):
        load_engine(str(float_file), engine_name, dtype="int8")
    with pytest.raises(ValueError, match=r"the \.onnx file is int8, got --dtype float32"):
        load_engine(str(int8_file), engine_name)
    with pytest.raises(ValueError, match="runs on the cpu, got --device cuda"):
        load_engine(str(float_file), engine_name, device="cuda")
    with pytest.raises(ValueError, match="--compile is for --engine torch"):
        load_engine(str(float_file), engine_name, compile=True)


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/dev/zero"])
def test_an_onnx_file_with_weights_in_other_files_is_refused(float_file, tmp_path, engine_name, place):
    onnx = pytest.importorskip("onnx")
    network = onnx.load(float_file)
    weight = network.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    (tmp_path / "a.onnx").write_bytes(network.SerializeToString())
    with pytest.raises(ValueError, match=r"a\.onnx has weights in other files, which are not read"):
        load_engine(str(tmp_path / "a.onnx"), engine_name)


def test_images_are_evenly_chosen_and_broken_ones_reported(tmp_path, tiny_model, caplog):
    folder = make_image_files(tmp_path / "images", 12)
    (folder / "notes.txt").write_text("no image")
    assert [path.stem for path in choose_evenly(find_images([str(folder)]), 4)] == ["00", "03", "06", "09"]
    assert len(find_images([str(folder), str(folder / "00.png")])) == 12
    (folder / "05.png").write_text("broken")
    patches = read_images(find_images([str(folder)]), tiny_model.image_processor)
    assert patches.shape == (11, 4, 3, 64, 64) and patches.dtype == torch.uint8
    assert "05.png" in caplog.text

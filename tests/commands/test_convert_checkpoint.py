"""Converter of checkpoints: the original's numbers, what it writes, and what it refuses.

The numbers were recorded from the original implementation on weights that key names and shapes decide.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import NUMBERS, RECORDED, original_state_dict
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from hybridiqa.commands import convert_checkpoint
from hybridiqa.models import hub_code
from hybridiqa.models.hyperiqa_weights import key_table


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """Convert the seeded [3, 4, 6, 3] checkpoint by the command."""
    folder = tmp_path_factory.mktemp("converted")
    torch.save(original_state_dict([3, 4, 6, 3]), folder / "original.pth")
    assert convert_checkpoint.main([str(folder / "original.pth"), "--output_dir", str(folder / "model")]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def converted_model(converted):
    return AutoModel.from_pretrained(converted, trust_remote_code=True).eval()


def test_patch_scores_loss_and_gradients_are_the_originals(converted, converted_model):
    with Image.open(RECORDED / "patches.png") as image:
        patches = torch.from_numpy(np.asarray(image).copy()).view(4, 224, 224, 3).permute(0, 3, 1, 2)
    processor = AutoImageProcessor.from_pretrained(converted, trust_remote_code=True)
    output = converted_model(processor.normalize_patches(patches), torch.tensor(NUMBERS["labels"]))
    # Float noise between the two implementations is 2e-6.
    assert torch.allclose(output.logits, torch.tensor(NUMBERS["patch_scores"]), rtol=0, atol=2e-5)
    assert output.loss.item() == pytest.approx(NUMBERS["l1_loss"], abs=2e-5)
    output.loss.backward()
    table, parameters = key_table([3, 4, 6, 3]), dict(converted_model.named_parameters())
    for key, norm in NUMBERS["grad_norms"].items():
        assert parameters[table[key]].grad.norm().item() == pytest.approx(norm, rel=0.01), key
    converted_model.zero_grad()


def test_the_demos_random_crops_and_score_are_the_originals(converted_model):
    path, options = RECORDED / "image.png", {"sampling": "random", "seed": NUMBERS["demo_seed"]}
    patch_scores = converted_model.predict_patch_scores(
        converted_model.image_processor(path, **options)["pixel_values"]
    )
    assert torch.allclose(patch_scores[0], torch.tensor(NUMBERS["demo_patch_scores"]), rtol=0, atol=1e-3)
    assert converted_model.score(path, **options).item() == pytest.approx(NUMBERS["demo_score"], abs=1e-3)


def test_depths_score_range_and_size_go_where_they_belong(tmp_path, capsys):
    torch.save(original_state_dict([1, 2, 3, 1], prefix="module."), tmp_path / "original.pkl")
    arguments = [str(tmp_path / "original.pkl"), "--output_dir", str(tmp_path / "model")]
    assert convert_checkpoint.main([*arguments, "--score_range", "0", "100", "--size", "512", "384"]) == 0
    assert "depths [1, 2, 3, 1]" in capsys.readouterr().out
    model = AutoModel.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert model.config.backbone_config.depths == [1, 2, 3, 1]
    assert model.config.score_range == [0.0, 100.0]
    assert model.image_processor.size == [512, 384]


def test_the_key_table_is_complete_for_resnet_152():
    model_class = hub_code.HybridIQAModel
    with torch.device("meta"):
        model = model_class(model_class.config_class())
    assert set(key_table([3, 8, 36, 3]).values()) == set(model.state_dict())
    assert (
        sum(name.startswith("res.layer3.") and name.endswith("conv1.weight") for name in key_table([3, 8, 36, 3])) == 36
    )


def refused(arguments: list[str], output_dir: Path, capsys) -> str:
    """Return the one line that a refusal prints; nothing may be left behind."""
    before = sorted(output_dir.parent.iterdir())
    assert convert_checkpoint.main([*arguments, "--output_dir", str(output_dir)]) == 2
    assert sorted(output_dir.parent.iterdir()) == before
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_is_no_such_checkpoint_is_refused_and_nothing_left_behind(tmp_path, capsys):
    state_dict = original_state_dict([1, 1, 1, 1])
    weight = state_dict.pop("fc1w_conv.weight")
    torch.save(state_dict | {"surplus": weight}, tmp_path / "keys.pth")
    torch.save(state_dict | {"fc1w_conv.weight": weight[:5]}, tmp_path / "shape.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(Path("surprise"), tmp_path / "code.pth")  # a pickle that builds an object
    (tmp_path / "text.pth").write_text("hello")
    output_dir = tmp_path / "model"
    message = refused([str(tmp_path / "keys.pth")], output_dir, capsys)
    assert "first missing key fc1w_conv.weight (1 missing), first unexpected key surplus (1 unexpected)" in message
    assert "fc1w_conv.weight must be (512, 112, 3, 3), got (5, 112, 3, 3)" in refused(
        [str(tmp_path / "shape.pth")], output_dir, capsys
    )
    assert "holds list" in refused([str(tmp_path / "list.pth")], output_dir, capsys)
    assert "weights_only=True" in refused([str(tmp_path / "code.pth")], output_dir, capsys)
    assert "weights_only=True" in refused([str(tmp_path / "text.pth")], output_dir, capsys)
    assert "neither a file nor a Hub id" in refused([str(tmp_path / "nothing.pth")], output_dir, capsys)
    options = ["--score_range", "9", "1"]
    assert "--score_range must be MIN MAX" in refused([str(tmp_path / "keys.pth"), *options], output_dir, capsys)
    assert "size must be" in refused([str(tmp_path / "keys.pth"), "--size", "0", "5"], output_dir, capsys)
    output_dir.mkdir()
    (output_dir / "mine.txt").write_text("keep")
    assert "nothing is overwritten" in refused([str(tmp_path / "keys.pth")], output_dir, capsys)
    assert (output_dir / "mine.txt").read_text() == "keep"


def test_a_hub_id_gives_its_only_checkpoint_or_lists_them(tmp_path, monkeypatch, capsys):
    torch.save(original_state_dict([1, 1, 1, 1]), tmp_path / "a.pth")
    files = ["README.md", "a.pth"]
    monkeypatch.setattr(convert_checkpoint, "list_repo_files", lambda name: files)
    monkeypatch.setattr(convert_checkpoint, "hf_hub_download", lambda name, filename: str(tmp_path / filename))
    assert convert_checkpoint.main(["user/repo", "--output_dir", str(tmp_path / "one")]) == 0
    files.append("b.pkl")
    assert "holds a.pth, b.pkl: choose with --filename" in refused(["user/repo"], tmp_path / "two", capsys)
    assert convert_checkpoint.main(["user/repo", "--filename", "a.pth", "--output_dir", str(tmp_path / "two")]) == 0

"""Scorers that benchmark.py compares: each kind is told from the others, scores, and says why it cannot."""

import io
import json
import math
import shutil
import sys
import types
import weakref

import numpy as np
import pytest
import torch
from factories import make_picture, make_tiny_model
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    ResNetModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from hybridiqa.commands import score
from hybridiqa.evaluation import reference_scorers
from hybridiqa.evaluation.scorers import ScoreFile, ScorerOptions, load_scorer, load_scorers, split_label
from hybridiqa.utils.root import ROOT

OPTIONS = ScorerOptions("cpu", num_workers=0)
TOWER_SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MAX_TOKENS = 20


@pytest.fixture
def images(tmp_path):
    """Return names and files of two images."""
    sources = []
    for index in range(2):
        path = tmp_path / f"image{index}.png"
        make_picture(90, 80, seed=index).save(path)
        sources.append((path.name, path))
    return sources


@pytest.fixture
def tiny_checkpoint(tmp_path):
    make_tiny_model().save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def test_a_checkpoint_scores_as_its_model_does_and_a_broken_image_has_no_score(
    tiny_checkpoint, images, tmp_path, caplog
):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    scorer = load_scorer(tiny_checkpoint, OPTIONS)
    *scores, missing = scorer.score([*images, ("broken.png", tmp_path / "broken.png")])
    model = make_tiny_model()
    assert scores == pytest.approx([model.score(path).item() for _, path in images], abs=1e-5)
    assert math.isnan(missing) and "broken.png: " in caplog.text
    assert scorer.score([(name, path.read_bytes()) for name, path in images]) == scores
    assert not scorer.needs_prompts and "grid-4 float32 torch" in scorer.description
    one_patch = load_scorer(tiny_checkpoint, ScorerOptions("cpu", num_patches=1, num_workers=0))
    expected = [model.score(path, num_patches=1).item() for _, path in images]
    assert one_patch.score(images) == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(scores, abs=1e-5) and "grid-1" in one_patch.description


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_what_score_py_writes_is_a_scorer(tiny_checkpoint, images, tmp_path, suffix):
    output, broken = tmp_path / f"scores{suffix}", tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    inputs = [str(path) for path in (*dict(images).values(), broken)]
    command = [*inputs, "--model", tiny_checkpoint, "--output", str(output), "--num_workers", "0", "--device", "cpu"]
    assert score.main(command) == 1  # for the broken one
    scorer = load_scorer(str(output), OPTIONS)
    *scores, missing = scorer.score([*images, ("broken.png", broken)])  # by the end of their paths
    assert scores == pytest.approx(load_scorer(tiny_checkpoint, OPTIONS).score(images), abs=1e-6)
    assert math.isnan(missing) and scorer.description == f"column score of scores{suffix}"


def write(path, text: str):
    path.write_text(text)
    return path


def test_a_table_finds_an_image_by_its_name_or_by_one_ending(tmp_path, caplog):
    table = write(tmp_path / "a.csv", "path,score\na/1.png,1\nb/1.png,2\nc/2.png,3\n4.png,\nd/4.png,5\n")
    scorer = ScoreFile(table)
    names = ["b/1.png", "2.png", "1.png", "5.png", "4.png"]
    scores = scorer.score([(name, b"") for name in names])
    assert scores[:2] == [2, 3] and all(math.isnan(value) for value in scores[2:])
    assert "1.png: several such paths in" in caplog.text and "5.png: not listed in" in caplog.text


def test_beside_predictions_the_score_of_a_table_is_the_true_one(tmp_path):
    table = write(tmp_path / "predictions.csv", "split,path,score,prediction\ntest,1.png,9,2.5\n")
    scorer = load_scorer(str(table), OPTIONS)
    assert scorer.score([("1.png", b"")], None) == [2.5]
    assert scorer.description == "column prediction of predictions.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,score\n1.png,1\n1.png,2\n", "lists 1.png twice"),
        ("path,quality\n1.png,1\n", "neither a column prediction nor score; it has path, quality"),
        ("file,score\n1.png,1\n", "lacks the columns path"),
        ("path,score\n", "lacks the columns path"),
        ("path,score\n1.png,good\n", "a.csv has no number as score of 1.png: 'good'"),
    ],
)
def test_another_table_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_scorer(str(write(tmp_path / "a.csv", text)), OPTIONS)


def test_rows_of_json_lines_may_lack_a_score_but_not_a_path(tmp_path):
    rows = write(tmp_path / "a.jsonl", '{"path": "1.png", "score": 1}\n{"path": "2.png", "error": "broken"}\n')
    assert load_scorer(str(rows), OPTIONS).score([("1.png", b""), ("2.png", b"")]) == pytest.approx(
        [1, math.nan], nan_ok=True
    )
    for path in ("null", "[1]"):
        rows = write(tmp_path / "b.jsonl", f'{{"path": {path}, "score": 1}}\n')
        with pytest.raises(ValueError, match=r"b\.jsonl has a row without a path"):
            load_scorer(str(rows), OPTIONS)


def test_a_model_is_called_by_the_last_part_of_its_name(tiny_checkpoint, tmp_path, monkeypatch):
    scores = write(tmp_path / "a.csv", "path,score\n1.png,1\n")
    assert list(load_scorers([tiny_checkpoint, f"mine={tiny_checkpoint}", str(scores)], OPTIONS)) == [
        "tiny",
        "mine",
        "a.csv",
    ]
    assert list(load_scorers([f"{tiny_checkpoint}/"], OPTIONS)) == ["tiny"]
    monkeypatch.chdir(tiny_checkpoint)
    assert list(load_scorers(["."], OPTIONS)) == ["tiny"]
    assert split_label("user/name@abc") == ("name@abc", "user/name@abc")
    assert split_label("v2=user/name@abc") == ("v2", "user/name@abc")
    assert split_label("pyiqa:niqe") == ("pyiqa:niqe", "pyiqa:niqe")


def test_models_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "lr=3.csv"):
        write(tmp_path / name, "path,score\n1.png,1\n")
    assert list(load_scorers(["a.csv", "mine=a.csv", "my scorer (v2)=b.csv", "lr=3.csv"], OPTIONS)) == [
        "a.csv",
        "mine",
        "my scorer (v2)",
        "lr=3.csv",
    ]
    with pytest.raises(ValueError, match=r"--model has a\.csv twice: name them apart, NAME=MODEL"):
        load_scorers(["a.csv", str(tmp_path / "a.csv")], OPTIONS)


def test_what_is_no_scorer_is_refused_with_what_is_accepted(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.txt", "1")
    for name in (tmp_path / "empty", tmp_path / "a.txt", "brisk", "nobody/nothing"):
        with pytest.raises(ValueError, match=r"accepted.* a checkpoint's folder or Hub id") as caught:
            load_scorer(str(name), OPTIONS)
        assert str(name) in str(caught.value) and "\n" not in str(caught.value)


LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def save_clip(folder) -> None:
    """Save a CLIP of a few thousand parameters that reads letters."""
    folder.mkdir()
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = write(folder / "vocab.json", json.dumps({token: number for number, token in enumerate(tokens)}))
    merges = write(folder / "merges.txt", "#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=MAX_TOKENS)
    end = len(tokens) - 1
    text = {"vocab_size": len(tokens), "max_position_embeddings": MAX_TOKENS, "eos_token_id": end, "pad_token_id": end}
    vision = {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=TOWER_SIZES | text, vision_config=TOWER_SIZES | vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)


def save_siglip(folder) -> None:
    """Save a SigLIP like that; as of the released ones, its tokenizer names no length and returns no mask."""
    tokens = ["<pad>", "<unk>", "</s>", *LETTERS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, model_input_names=["input_ids"], **special)
    numbers = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
    text = {"vocab_size": len(tokens), "max_position_embeddings": MAX_TOKENS, "projection_size": 16, **numbers}
    vision = {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=TOWER_SIZES | text, vision_config=TOWER_SIZES | vision)).save_pretrained(
        folder
    )
    image_processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    SiglipProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)


@pytest.fixture(params=[save_clip, save_siglip], ids=["clip", "siglip"])
def two_towers(request, tmp_path):
    """Save a tiny model of images and texts."""
    request.param(tmp_path / "towers")
    return str(tmp_path / "towers")


def features_of(outputs) -> np.ndarray:
    """Return one vector of what a model of transformers 4 returns as a tensor, and of 5 in an output."""
    return (outputs if isinstance(outputs, torch.Tensor) else outputs.pooler_output)[0].double().numpy()


def cosine_by_hand(folder: str, path, prompt: str) -> float:
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    words = processor.tokenizer([prompt], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
    with Image.open(path) as image, torch.no_grad():
        image = features_of(model.get_image_features(**processor.image_processor([image], return_tensors="pt")))
        text = features_of(model.get_text_features(**words))
    return image @ text / np.linalg.norm(image) / np.linalg.norm(text)


def test_a_clip_style_model_scores_how_near_an_image_is_to_its_prompt(two_towers, images, caplog):
    scorer = load_scorer(two_towers, OPTIONS)
    assert scorer.needs_prompts and scorer.description == f"{two_towers}, cosine of image and prompt"
    prompts = ["a cat", "a dog"]
    scores = scorer.score(images, prompts)
    expected = [cosine_by_hand(two_towers, path, prompt) for (_, path), prompt in zip(images, prompts, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert scorer.score(images, ["a dog", "a cat"]) != pytest.approx(scores, abs=1e-5)
    long, cut = (scorer.score(images[:1], ["b" * length]) for length in (500, MAX_TOKENS))
    assert long == cut and not any(record.name.startswith("hybridiqa") for record in caplog.records)


def test_a_broken_image_has_no_cosine_and_the_others_do(two_towers, images, caplog):
    scorer, prompts = load_scorer(two_towers, OPTIONS), ["a cat", "a hat", "a dog"]
    first, missing, second = scorer.score([images[0], ("broken.png", b"nothing"), images[1]], prompts)
    assert math.isnan(missing) and "broken.png: " in caplog.text
    assert [first, second] == scorer.score(images, ["a cat", "a dog"])


def test_cosines_of_a_checkpoint_in_half_precision_are_as_fine_as_of_others(two_towers, images, tmp_path):
    half = AutoModel.from_pretrained(two_towers).bfloat16()
    for name, dtype in {"half": torch.bfloat16, "same weights": torch.float32}.items():
        shutil.copytree(two_towers, tmp_path / name)
        half.to(dtype).save_pretrained(tmp_path / name)
    halved, expected = (
        load_scorer(str(tmp_path / name), OPTIONS).score(images, ["a cat"] * 2) for name in ("half", "same weights")
    )
    assert halved == pytest.approx(expected, abs=1e-6)


def test_a_model_of_images_and_texts_without_a_processor_is_refused_in_one_line(two_towers, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(f"{two_towers}/{name}", folder)
    with pytest.raises(ValueError, match=f"cannot load {folder}: ") as caught:
        load_scorer(str(folder), OPTIONS)
    assert "\n" not in str(caught.value)


SCORE_MODEL = """
import torch
from transformers import PretrainedConfig, PreTrainedModel


class BrightnessConfig(PretrainedConfig):
    model_type = "brightness"


class BrightnessModel(PreTrainedModel):
    config_class = BrightnessConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.post_init()

    def score(self, images, task_="quality"):
        if images[0].width == 13:
            raise RuntimeError("13 is too much")
        return torch.stack([self.scale * sum(image.convert("L").tobytes()) / 255 for image in images]).squeeze(-1)
"""


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def save_own_code(folder, auto_class: str, code: str = SCORE_MODEL):
    """Save a folder whose model comes with its code."""
    folder.mkdir()
    write(folder / "modeling_brightness.py", code)
    auto_map = {
        "AutoConfig": "modeling_brightness.BrightnessConfig",
        auto_class: "modeling_brightness.BrightnessModel",
    }
    write(folder / "config.json", json.dumps({"model_type": "brightness", "auto_map": auto_map}))
    save_file({"scale": torch.full((1,), 2.0)}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("auto_class", ["AutoModel", "AutoModelForCausalLM"])
def test_any_model_with_a_score_is_a_scorer_once_its_code_is_allowed(tmp_path, images, auto_class, caplog):
    folder = save_own_code(tmp_path / f"brightness_{auto_class.lower()}", auto_class)
    with pytest.raises(ValueError, match=r"brings code of its own: .* --trust_remote_code"):
        load_scorer(str(folder), OPTIONS)
    scorer = load_scorer(str(folder), ScorerOptions("cpu", trust_remote_code=True))
    assert not scorer.needs_prompts
    expected = []
    for _, path in images:
        with Image.open(path) as image:
            expected.append(2 * np.asarray(image.convert("L"), dtype=float).sum() / 255)
    *scores, missing = scorer.score([*images, ("odd.png", png_bytes(Image.new("RGB", (13, 5))))])
    assert scores == pytest.approx(expected, rel=1e-5)
    assert math.isnan(missing) and "odd.png: 13 is too much" in caplog.text


def test_a_layer_that_is_called_score_is_no_way_to_score(tmp_path):
    code = SCORE_MODEL.replace("def score", "def forward")
    code = code.replace("self.post_init()", "self.score = torch.nn.Linear(2, 2)\n        self.post_init()")
    folder = save_own_code(tmp_path / "layer", "AutoModel", code)
    with pytest.raises(ValueError, match="BrightnessModel has neither a score nor embeddings of images and texts"):
        load_scorer(str(folder), ScorerOptions("cpu", trust_remote_code=True))


def test_a_model_that_scores_nothing_is_refused(tmp_path):
    config = make_tiny_model().config.backbone_config
    ResNetModel(config).save_pretrained(tmp_path / "resnet")
    with pytest.raises(ValueError, match="ResNetModel has neither a score nor embeddings of images and texts"):
        load_scorer(str(tmp_path / "resnet"), OPTIONS)


def brightness(pixels) -> float:
    return float(np.asarray(pixels, dtype=float).mean())


class StubBrisque:
    """Stand-in for `brisque.BRISQUE`; low is good."""

    def __init__(self, url):
        assert url is False

    def score(self, img):
        assert img.dtype == np.uint8 and img.ndim == 3 and img.shape[2] == 3
        return math.nan if np.ptp(img) == 0 else brightness(img) / 10


class OldBrisque(StubBrisque):
    def score(self, img):
        raise TypeError("only 0-dimensional arrays can be converted to Python scalars")


@pytest.fixture
def install(monkeypatch):
    """Put a module in the place of an installed one."""

    def put(name: str, **attributes) -> None:
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**attributes))
        monkeypatch.setattr(reference_scorers, "version", lambda package: "9.9" if package == name else "?")

    return put


def test_a_scorer_of_another_library_holds_one_image_at_a_time(images):
    class Watching(reference_scorers.LibraryScorer):
        def __init__(self):
            self.seen: list[weakref.ref] = []

        def score_image(self, image, prompt):
            assert not any(before() for before in self.seen)  # all are gone
            self.seen.append(weakref.ref(image))
            return 1.0

    assert Watching().score(images * 3) == [1.0] * 6


def test_brisque_is_inverted_and_flat_images_have_no_score(install, images, tmp_path, caplog):
    install("brisque", BRISQUE=StubBrisque)
    scorer = load_scorer("brisque", OPTIONS)
    assert scorer.description == "brisque 9.9, 100 less its score"
    flat = tmp_path / "flat.png"
    Image.new("RGB", (20, 20), (9, 9, 9)).save(flat)
    *scores, missing = scorer.score([*images, ("flat.png", flat)])
    for (_, path), value in zip(images, scores, strict=True):
        with Image.open(path) as image:
            assert value == pytest.approx(100 - brightness(image) / 10)
    assert math.isnan(missing) and "flat.png: its score is nan" in caplog.text


def test_a_brisque_that_newer_libraries_break_is_told_from_a_missing_one(install, monkeypatch):
    for attributes in ({"BRISQUE": OldBrisque}, {"BRISQUE": lambda: StubBrisque(False)}, {}):
        install("brisque", **attributes)
        with pytest.raises(ValueError, match=r'does not work with NumPy .*: pip install "brisque\[.*\]" "numpy<2.4"'):
            load_scorer("brisque", OPTIONS)
    monkeypatch.setitem(sys.modules, "brisque", None)
    with pytest.raises(ValueError, match="this needs brisque: pip install"):
        load_scorer("brisque", OPTIONS)


def test_the_real_brisque_prefers_a_clean_image(tmp_path):
    pytest.importorskip("brisque")
    try:
        scorer = load_scorer("brisque", OPTIONS)
    except ValueError as error:
        pytest.skip(str(error))
    clean = make_picture(200, 160)
    noise = np.random.default_rng(0).normal(0, 60, (160, 200, 3))
    Image.fromarray(np.clip(np.asarray(clean) + noise, 0, 255).astype(np.uint8)).save(tmp_path / "noisy.png")
    clean.save(tmp_path / "clean.png")
    better, worse = scorer.score([(name, tmp_path / name) for name in ("clean.png", "noisy.png")])
    assert better > worse


def test_pyiqa_metrics_are_inverted_so_that_high_is_good(install, images, monkeypatch):
    class StubMetric:
        def __init__(self, name, device):
            self.lower_better = name == "niqe"

        def __call__(self, pixels):
            assert pixels.shape == (1, 3, 80, 90) and pixels.dtype == torch.float32
            assert pixels.min() >= 0 and pixels.max() <= 1
            return pixels.mean().reshape(1, 1)

    install("pyiqa", list_models=lambda metric_mode: ["niqe", "musiq"][: 2 if metric_mode == "NR" else 0])
    sys.modules["pyiqa"].create_metric = StubMetric
    high, low = (load_scorer(f"pyiqa:{name}", OPTIONS) for name in ("musiq", "niqe"))
    assert (high.description, low.description) == ("musiq of pyiqa 9.9", "niqe of pyiqa 9.9, inverted")
    scores = high.score(images)
    with Image.open(images[0][1]) as image:
        assert scores[0] == pytest.approx(brightness(image) / 255, abs=1e-5)
    assert low.score(images) == [-value for value in scores]
    with pytest.raises(ValueError, match="pyiqa has no metric 'ssim' without a reference; it has niqe, musiq"):
        load_scorer("pyiqa:ssim", OPTIONS)

    def fail(name, device):
        raise OSError("no network\nand more")

    sys.modules["pyiqa"].create_metric = fail
    with pytest.raises(ValueError, match=r"cannot load pyiqa:niqe: no network$"):
        load_scorer("pyiqa:niqe", OPTIONS)
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ValueError, match="this needs pyiqa: pip install pyiqa"):
        load_scorer("pyiqa:niqe", OPTIONS)


LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
from hybridiqa.evaluation.scorers import ScorerOptions, load_scorer
for model, is_trusted in zip(sys.argv[2::2], sys.argv[3::2]):
    try:
        print(load_scorer(model, ScorerOptions("cpu", trust_remote_code=is_trusted == "yes")).description)
    except ValueError as error:
        print(error)
"""


def test_foreign_code_of_a_hub_checkpoint_is_asked_for_with_its_commit(hub, tiny_checkpoint, tmp_path):
    folder = tmp_path / "tiny"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    files["modeling_hybridiqa.py"] += b"\n# changed\n"
    commit = hub.add("somebody/scorer", files)
    pinned = f"somebody/scorer@{commit}"
    models = ("somebody/scorer", "no", pinned, "no", pinned, "yes")
    lines = hub.run(write(tmp_path / "load.py", LOAD), ROOT, *models, home=tmp_path / "home").stdout.splitlines()
    for asked in lines[:2]:
        assert asked.endswith(f"allow just that with --trust_remote_code --model {pinned}"), asked
        assert f"somebody/scorer/tree/{commit}" in asked and "--model_revision" not in asked
    assert lines[2].startswith("hybridIQA ") and len(lines) == 3, lines

"""Scoring a dataset's column of images: saved, streamed, resumed, refused."""

from pathlib import Path

import pytest
from datasets import DatasetDict, Image, load_dataset, load_from_disk
from factories import make_split

from hybridiqa.commands import score
from hybridiqa.inference import dataset_scoring
from hybridiqa.scores.ledger import progress_dir_of
from hybridiqa.scores.score_file import ScoreRow


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return DatasetDict({"train": make_split(0, 6), "odd": make_split(10, 3)})


@pytest.fixture
def saved(splits, tmp_path) -> Path:
    splits.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="module")
def expected(splits, tiny_checkpoint) -> dict[str, list[float | None]]:
    """Return the scores that every way must give."""
    engine = score.load_engine(tiny_checkpoint)
    scores = {}
    for name, split in splits.items():
        scores[name] = [
            None if index == 1 else engine.model.score(split[index]["picture"]).item() for index in range(len(split))
        ]
    return scores


def run(checkpoint: str, dataset: str | Path, *arguments: str | Path) -> int:
    options = ["--image_column", "picture", "--model", checkpoint, *map(str, arguments)]
    return score.main(["--dataset", str(dataset), *options])


def test_a_saved_dataset_gets_two_columns(saved, expected, splits, tiny_checkpoint, tmp_path, capsys):
    assert run(tiny_checkpoint, saved, "--output", tmp_path / "scored") == 1
    scored = load_from_disk(tmp_path / "scored")
    assert {name: split["score"][:] for name, split in scored.items()} == expected
    assert scored["train"].column_names == ["picture", "name", "score", "score_std"]
    assert scored["train"]["name"][:] == splits["train"]["name"][:]
    assert scored["odd"][0]["picture"].tobytes() == splits["odd"][0]["picture"].tobytes()
    captured = capsys.readouterr()
    assert "7 scored, 2 failed" in captured.err and "train/1: not an image" in captured.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "scored"]


def test_a_stream_gives_the_same_in_parquet_files(saved, expected, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_scoring, "ROWS_PER_SHARD", 4)
    assert run(tiny_checkpoint, saved, "--output", tmp_path / "scored", "--streaming") == 1
    assert sorted(path.name for path in (tmp_path / "scored" / "data").iterdir()) == [
        "odd-00000-000000.parquet",
        "train-00000-000000.parquet",
        "train-00000-000001.parquet",
    ]
    scored = load_dataset(str(tmp_path / "scored"), cache_dir=str(tmp_path / "cache"))
    assert {name: split["score"][:] for name, split in scored.items()} == expected
    assert isinstance(scored["odd"].features["picture"], Image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "saved", "scored"]


@pytest.mark.parametrize("streaming", [[], ["--streaming"]])
def test_a_run_that_was_stopped_goes_on(saved, expected, tiny_checkpoint, tmp_path, monkeypatch, streaming):
    monkeypatch.setattr(dataset_scoring, "ROWS_PER_SHARD", 2)
    monkeypatch.setattr(dataset_scoring, "STREAM_BATCH_SIZE", 2)
    engine_class = score.load_engine(tiny_checkpoint).__class__
    score_patches, calls = engine_class.score_patches, []

    def stop_at_the_fifth(self, patches):
        calls.append(len(patches))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return score_patches(self, patches)

    monkeypatch.setattr(engine_class, "score_patches", stop_at_the_fifth)
    output = tmp_path / "scored"
    assert run(tiny_checkpoint, saved, "--output", output, *streaming) == 130
    assert not output.exists() and progress_dir_of(output).is_dir()
    assert run(tiny_checkpoint, saved, "--output", output, *streaming) == 1
    scored = load_dataset(str(output), cache_dir=str(tmp_path / "cache")) if streaming else load_from_disk(output)
    assert {name: split["score"][:] for name, split in scored.items()} == expected
    assert len(calls) < 2 * 7  # not everything anew
    assert not progress_dir_of(output).exists()


@pytest.mark.parametrize("num_files", [1, 3])
def test_processes_share_a_streams_rows_and_score_none_twice(tmp_path, num_files):
    (tmp_path / "rows").mkdir()
    for number in range(num_files):
        make_split(10 * number, 6).to_parquet(tmp_path / "rows" / f"train-{number}.parquet")
    scored = []

    def score_rows(sources):
        scored.append(len(sources))
        return [ScoreRow(path=name, score=1.0, score_std=0.0) for name, _ in sources]

    for index in range(2):
        splits = dict(load_dataset(str(tmp_path / "rows"), streaming=True))
        stream = dataset_scoring.ScoredStream(splits, "picture", "score", score_rows)
        folder = stream.write(tmp_path / "scored", "a scorer", index, 2)
    written = load_dataset("parquet", data_dir=str(folder / "data"), cache_dir=str(tmp_path / "cache"))["train"]
    names = [str(10 * number + row) for number in range(num_files) for row in range(6)]
    assert sorted(written["name"][:]) == sorted(names)
    assert sum(scored) == len(names)


def test_a_stopped_stream_does_not_go_on_with_another_scorer(saved, tiny_checkpoint, tmp_path, capsys):
    folder = progress_dir_of(tmp_path / "scored")
    (folder / "data").mkdir(parents=True)
    (folder / ".scorer-0-of-1").write_text("another")
    assert run(tiny_checkpoint, saved, "--output", tmp_path / "scored", "--streaming") == 2
    assert "holds an unfinished run of other options" in capsys.readouterr().err
    assert folder.is_dir()


def test_a_scored_copy_inside_of_a_folder_of_rows_is_refused_and_inside_of_a_saved_dataset_is_not(
    saved, tiny_checkpoint, tmp_path, capsys
):
    (tmp_path / "rows").mkdir()
    make_split(0, 3).to_parquet(tmp_path / "rows" / "train.parquet")
    (tmp_path / "link").symlink_to("rows")
    for output in (tmp_path / "rows" / "scored", tmp_path / "link" / "deep" / "scored"):
        assert run(tiny_checkpoint, tmp_path / "rows", "--output", output, "--streaming") == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert "--output" in line and "lies in the dataset" in line
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["train.parquet"]
    assert run(tiny_checkpoint, saved, "--output", Path(saved, "scored"), "--split", "odd") == 1


def test_a_file_where_the_progress_is_to_lie_is_told_before_work(saved, tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "scored.progress").write_text("mine")
    assert run(tiny_checkpoint, saved, "--output", tmp_path / "scored") == 2
    assert "scored.progress is there already and no folder" in capsys.readouterr().err


def test_one_split_and_another_column_name(saved, expected, tiny_checkpoint, tmp_path):
    options = ["--split", "odd", "--score_column", "quality"]
    assert run(tiny_checkpoint, saved, "--output", tmp_path / "scored", *options) == 1
    scored = load_from_disk(tmp_path / "scored")
    assert list(scored) == ["odd"] and scored["odd"]["quality"][:] == expected["odd"]
    assert scored["odd"].column_names[-1] == "quality_std"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--dataset needs --output, a new folder, or --streaming"),
        (["--output", "TAKEN"], "is there already; nothing is overwritten"),
        (["--output", "NEW", "--gallery", "a.html"], "--gallery is for files and folders"),
        (["--output", "NEW", "--split", "test"], "--split must be one of train, odd, got test"),
        (["--output", "NEW", "--image_column", "name"], "--image_column must name a column of images, here picture"),
        (["--output", "NEW", "--score_column", "name"], "has a column 'name' already: choose another --score_column"),
        (["--output", "NEW", "--push_to_hub", "user/name", "--streaming"], "takes either --output or --push_to_hub"),
        (["--output", "NEW", "--dataset", "no/such/dataset"], "cannot load no/such/dataset"),
    ],
)
def test_wrong_usage_is_one_clear_line(saved, tiny_checkpoint, tmp_path, capsys, arguments, message):
    (tmp_path / "taken").mkdir()
    places = {"TAKEN": str(tmp_path / "taken"), "NEW": str(tmp_path / "new")}
    assert run(tiny_checkpoint, saved, *(places.get(argument, argument) for argument in arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "new").exists()

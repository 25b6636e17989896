"""Scores as two more columns of a dataset from a folder or the Hub: as a whole, or as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from datasets import (
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    IterableDatasetDict,
    Value,
    load_dataset,
    load_from_disk,
)
from pyarrow import parquet

from hybridiqa.scores.ledger import progress_dir_of
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.atomic import is_within, open_atomically, write_text_atomically
from hybridiqa.utils.hub import HubRepository, pushing_to
from hybridiqa.utils.libraries import first_line

SAVED_FILES = ("dataset_dict.json", "state.json")  # by which save_to_disk's folders are known
STREAM_BATCH_SIZE = 64  # images whose bytes are in memory together
ROWS_PER_SHARD = 512
Sources = Sequence[tuple[str, Path | bytes]]


def load_splits(name: str, split: str | None, is_streaming: bool) -> dict[str, Dataset | IterableDataset]:
    """Load the splits of a dataset (all, or the one named): a folder that `datasets` reads, or a Hub id.

    Raises:
        ValueError: no such dataset, or no such split.
    """
    try:
        if any(Path(name, file).is_file() for file in SAVED_FILES):
            loaded = load_from_disk(name)
            loaded = loaded if isinstance(loaded, DatasetDict) else {str(loaded.split or "train"): loaded}
            splits = {key: rows.to_iterable_dataset() if is_streaming else rows for key, rows in loaded.items()}
        else:
            splits = dict(load_dataset(name, streaming=is_streaming))
    except Exception as error:  # each reader and each version of the Hub's client has classes of its own
        raise ValueError(f"--dataset: cannot load {name}: {first_line(error)}") from error
    if split is None:
        return splits
    if split not in splits:
        raise ValueError(f"--split must be one of {', '.join(splits)}, got {split}")
    return {split: splits[split]}


def check_outside_dataset(output: Path, name: str) -> None:
    """Raise ValueError for a scored copy in a folder whose files are all read as rows: the next run would score it.

    A folder of `save_to_disk` names its files and may hold others.
    """
    is_saved = any(Path(name, file).is_file() for file in SAVED_FILES)
    if Path(name).is_dir() and not is_saved and is_within(output, Path(name)):
        raise ValueError(
            f"--output {output} lies in the dataset {name} and would be read as part of it by the next run"
        )


def check_columns(splits: dict[str, Dataset | IterableDataset], image_column: str, score_column: str) -> None:
    """Raise ValueError unless every split has such a column of images, and room for the scores."""
    for name, rows in splits.items():
        features = rows.features or {}
        images = [column for column, feature in features.items() if isinstance(feature, Image)]
        if image_column not in images:
            raise ValueError(
                f"--image_column must name a column of images, here {', '.join(images) or 'none'}; "
                f"got {image_column} (split {name})"
            )
        for column in _name_columns(score_column):
            if column in features:
                raise ValueError(f"split {name} has a column {column!r} already: choose another --score_column")


def _name_columns(score_column: str) -> tuple[str, str]:
    """Return the names of the columns of scores and of their standard deviations."""
    return score_column, f"{score_column}_std"


def _file_or_bytes(image: dict | None) -> Path | bytes:
    if image is None:
        return b""
    return Path(image["path"]) if image["bytes"] is None else image["bytes"]


def row_name(split: str, index: int) -> str:
    """Return the name of a row, which stands where a file would have its path."""
    return f"{split}/{index}"


class DatasetImages:
    """Images of all splits as they are stored, each with its name, `SPLIT/ROW`; of several processes one's share.

    Args:
        splits: datasets by name.
        image_column: a column of images in each of them.
        process_index: every `num_processes`-th image from this one on.
    """

    def __init__(
        self, splits: Mapping[str, Dataset], image_column: str, process_index: int = 0, num_processes: int = 1
    ):
        self.image_column = image_column
        self.rows = {
            name: rows.with_format(None).select_columns([image_column]).cast_column(image_column, Image(decode=False))
            for name, rows in splits.items()
        }
        places = [(name, index) for name, rows in splits.items() for index in range(len(rows))]
        self.places = places[process_index::num_processes]

    def __len__(self) -> int:
        return len(self.places)

    def names(self) -> list[str]:
        """Return the `row_name` of every image."""
        return [row_name(split, index) for split, index in self.places]

    def __getitem__(self, index: int) -> tuple[str, Path | bytes]:
        split, row = self.places[index]
        return row_name(split, row), _file_or_bytes(self.rows[split][row][self.image_column])


def with_scores(splits: dict[str, Dataset], rows: dict[str, ScoreRow], score_column: str) -> DatasetDict:
    """Return the splits with `score_column` and `score_column` + "_std", float32; null where an image has no score.

    Args:
        rows: by `row_name`, one for every row of every split.
    """
    scored = {}
    for split, dataset in splits.items():
        of_split = [rows[row_name(split, index)] for index in range(len(dataset))]
        for column, attribute in zip(_name_columns(score_column), ("score", "score_std"), strict=True):
            values = [getattr(row, attribute) for row in of_split]
            dataset = dataset.add_column(column, values, feature=Value("float32"))
        scored[split] = dataset
    return DatasetDict(scored)


class ScoredStream:
    """Splits of a dataset that are read, scored and written a few rows at a time.

    Args:
        splits: streams by name.
        score: sources -> their rows, in the same order.
    """

    def __init__(
        self,
        splits: dict[str, IterableDataset],
        image_column: str,
        score_column: str,
        score: Callable[[Sources], list[ScoreRow]],
    ):
        self.splits, self.image_column, self.score_column, self.score = splits, image_column, score_column, score
        self.num_rows = 0
        self.errors: list[ScoreRow] = []

    def _features(self, split: str) -> Features:
        columns = dict.fromkeys(_name_columns(self.score_column), Value("float32"))
        return Features({**self.splits[split].features, **columns})

    def _score_batch(self, split: str, images: list[dict | None], positions: list[int]) -> dict[str, list]:
        sources = [(row_name(split, at), _file_or_bytes(image)) for at, image in zip(positions, images, strict=True)]
        rows = self.score(sources)
        self.num_rows += len(rows)
        self.errors += [row for row in rows if row.error is not None]
        score_column, std_column = _name_columns(self.score_column)
        return {score_column: [row.score for row in rows], std_column: [row.score_std for row in rows]}

    def _add_scores(self, split: str, stream: IterableDataset, num_skipped: int = 0) -> IterableDataset:
        """Return the stream with its scores, images as they are stored."""
        features = Features({**self._features(split), self.image_column: Image(decode=False)})
        return (
            stream.skip(num_skipped)
            .cast_column(self.image_column, Image(decode=False))
            .map(
                lambda images, positions: self._score_batch(split, images, [at + num_skipped for at in positions]),
                with_indices=True,
                input_columns=[self.image_column],
                batched=True,
                batch_size=STREAM_BATCH_SIZE,
                features=features,
            )
        )

    def write(self, output: Path, scorer_id: str, process_index: int = 0, num_processes: int = 1) -> Path:
        """Write this process's share as Parquet files of 512 rows, below a folder that later takes the name `output`.

        A stream that was killed goes on after its last whole file.

        Raises:
            ValueError: an unfinished stream of another scorer lies there.
        """
        folder = progress_dir_of(output)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        begun = folder / f".scorer-{process_index}-of-{num_processes}"
        if not begun.exists():
            write_text_atomically(begun, scorer_id)  # other processes look at it
        others = {path.name: path.read_text() for path in folder.glob(".scorer-*")}
        if set(others.values()) != {scorer_id} or any(not name.endswith(f"-of-{num_processes}") for name in others):
            raise ValueError(f"{folder} holds an unfinished run of other options: finish it with those, or remove it")
        for split, stream in self.splits.items():
            share = self._take_share(stream, process_index, num_processes)
            self._write_split(folder / "data", f"{split}-{process_index:05d}", split, share)
        return folder

    def _take_share(self, stream: IterableDataset, process_index: int, num_processes: int) -> IterableDataset:
        """Return a process's part of a stream: whole files, or where there are too few every `num_processes`-th row.

        `split_dataset_by_node` would let every process score all rows of a single file; and of what it gives,
        datasets 4 forgets the share at the next `skip`.
        """
        if num_processes == 1:
            return stream
        if stream.num_shards >= num_processes:
            return stream.shard(num_processes, process_index)
        return stream.cast_column(self.image_column, Image(decode=False)).filter(
            lambda image, row: row % num_processes == process_index,
            with_indices=True,
            input_columns=[self.image_column],
        )

    def _write_split(self, folder: Path, prefix: str, split: str, stream: IterableDataset) -> None:
        written = sorted(folder.glob(f"{prefix}-*.parquet"))
        num_written = sum(parquet.read_metadata(path).num_rows for path in written)
        batches = self._add_scores(split, stream, num_written).iter(ROWS_PER_SHARD)
        for number, batch in zip(count(len(written)), batches, strict=False):
            path = folder / f"{prefix}-{number:06d}.parquet"
            with open_atomically(path) as file:
                Dataset.from_dict(batch, features=self._features(split)).to_parquet(file)

    def push(self, repository: HubRepository) -> None:
        """Score while uploading: nothing is kept on the disk.

        Raises:
            PushError: it did not arrive, or not all of it.
        """
        scored = {
            split: self._add_scores(split, stream).cast_column(self.image_column, Image())
            for split, stream in self.splits.items()
        }
        with pushing_to(repository):
            IterableDatasetDict(scored).push_to_hub(repository.repo_id, private=repository.is_private or None)


def finish_stream(folder: Path, output: Path, splits: Iterable[str]) -> None:
    """Give the folder that `ScoredStream.write` has filled, in all processes, its name, and say which file is which."""
    files = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    for path in folder.glob(".scorer-*"):
        path.unlink()
    folder.rename(output)

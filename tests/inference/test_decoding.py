"""Decoding ahead of the model: every source once, whatever happens to one of them."""

import os
import signal

import numpy as np
import pytest
import torch
from factories import make_picture
from PIL import Image

from hybridiqa.inference import decoding
from hybridiqa.inference.decoding import decode_images
from hybridiqa.utils.files import content_hash

KILLING_WIDTH = 61  # of the image whose decoding kills its process


def extract_mean(image: Image.Image) -> torch.Tensor:
    """Return a stand-in for patches: `(1, 3, 1, 1)`."""
    if image.width == KILLING_WIDTH:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.tensor(image.resize((1, 1)).getpixel((0, 0)), dtype=torch.uint8).view(1, 3, 1, 1)


@pytest.fixture
def sources(tmp_path) -> list:
    paths = [tmp_path / f"{index}.png" for index in range(9)]
    for index, path in enumerate(paths):
        make_picture(60 - index, 40, seed=index).save(path)
    return [(path.name, path) for path in paths]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_source_comes_once_with_its_own_patches(sources, num_workers):
    decoded = {image.index: image for image in decode_images(sources, extract_mean, num_workers=num_workers)}
    assert sorted(decoded) == list(range(9))
    for index, (name, path) in enumerate(sources):
        row = decoded[index].row
        assert (row.path, row.width, row.height, row.content_hash) == (name, 60 - index, 40, content_hash(path))
        with Image.open(path) as image:
            assert torch.equal(torch.from_numpy(decoded[index].patches), extract_mean(image.convert("RGB")))


def test_a_handful_of_images_needs_no_process(sources, monkeypatch):
    monkeypatch.setattr(decoding, "ProcessPoolExecutor", lambda *arguments: pytest.fail("a process was started"))
    assert [image.index for image in decode_images(sources, extract_mean, num_workers=10)] == list(range(9))
    with pytest.raises(pytest.fail.Exception):
        next(decode_images(sources, extract_mean, num_workers=9))


def test_a_large_image_does_not_hold_up_the_others(sources, tmp_path):
    def wait_for_the_others(image: Image.Image) -> torch.Tensor:
        if image.width == 60:
            while not (tmp_path / "last").exists():
                pass
        if image.width == 52:
            (tmp_path / "last").touch()
        return extract_mean(image)

    order = [image.index for image in decode_images(sources, wait_for_the_others, num_workers=2)]
    assert sorted(order) == list(range(9)) and order.index(0) > order.index(7)


def test_an_image_that_kills_its_process_is_a_row_and_the_others_go_on(sources, tmp_path):
    make_picture(KILLING_WIDTH, 40).save(tmp_path / "killer.png")
    sources.insert(4, ("killer.png", tmp_path / "killer.png"))
    decoded = {image.index: image for image in decode_images(sources, extract_mean, num_workers=2)}
    assert sorted(decoded) == list(range(10))
    assert [index for index, image in decoded.items() if image.row.error] == [4]
    assert decoded[4].row.path == "killer.png" and "killed" in decoded[4].row.error and decoded[4].patches is None


def test_known_contents_are_not_decoded(sources):
    known = {content_hash(sources[3][1])}
    decoded = {image.index: image for image in decode_images(sources, extract_mean, known, num_workers=2)}
    assert [index for index, image in decoded.items() if image.patches is None] == [3]
    assert decoded[3].row.content_hash in known and decoded[3].row.error is None


def test_bytes_are_decoded_like_files_and_errors_name_the_reason_alone(sources, tmp_path):
    path = sources[0][1]
    broken = tmp_path / "a: b.png"
    broken.write_bytes(path.read_bytes()[:-300])
    mixed = [("bytes", path.read_bytes()), ("file", path), ("nothing", b""), ("broken", broken), ("folder", tmp_path)]
    decoded = {image.row.path: image for image in decode_images(mixed, extract_mean, num_workers=0)}
    assert np.array_equal(decoded["bytes"].patches, decoded["file"].patches)
    assert decoded["bytes"].row.content_hash == decoded["file"].row.content_hash
    assert decoded["nothing"].row.error == "the file is empty"
    assert "truncated" in decoded["broken"].row.error and str(tmp_path) not in decoded["broken"].row.error
    assert decoded["folder"].row.error == "a folder that cannot be read"

"""Training patches: the published distribution, and draws that nothing but their place in the run decides."""

import numpy as np
import pytest
import torch
from conftest import make_picture
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms

from hybridiqa.patch_sampling import (
    PatchOptions,
    RandomPatchDataset,
    balanced_indices,
    cut_patch,
    draw_resized_box,
)


def make_images(count: int = 3) -> list[torch.Tensor]:
    pictures = [make_picture(90 + 20 * index, 80 + 10 * index, seed=index) for index in range(count)]
    return [torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) for picture in pictures]


def make_dataset(num_patches: int = 4, seed: int = 0, **options) -> RandomPatchDataset:
    return RandomPatchDataset(make_images(), [1.0, 5.0, 9.0], num_patches, PatchOptions(32, **options), seed)


@pytest.mark.parametrize(("height", "width"), [(100, 150), (500, 20)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    ours = np.array([draw_resized_box(rng, height, width, (0.08, 1.0)) for _ in range(4000)])
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] > 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()
    for column in range(4):  # top, left, height, width
        spread = max(theirs[:, column].std(), 1)
        assert abs(ours[:, column].mean() - theirs[:, column].mean()) < 0.1 * spread
        assert abs(ours[:, column].std() - theirs[:, column].std()) < 0.1 * spread


def test_a_resized_patch_is_torchvisions_antialiased_resize():
    image, options = make_images(1)[0], PatchOptions(32)
    box = draw_resized_box(np.random.default_rng(7), *image.shape[1:], options.crop_scale)
    expected = transforms.resized_crop(image, *box, size=[32, 32], antialias=True)
    assert torch.equal(cut_patch(image, np.random.default_rng(7), options), expected)


def test_a_native_patch_is_a_part_of_the_image():
    image = make_images(1)[0]
    patch = cut_patch(image, np.random.default_rng(0), PatchOptions(32, crop="native"))
    windows = image.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)  # (tops, lefts, 3, 32, 32)
    assert (windows == patch).flatten(2).all(dim=2).sum() == 1


def test_a_native_patch_of_a_small_image_is_enlarged():
    assert cut_patch(make_images(1)[0], np.random.default_rng(0), PatchOptions(128, crop="native")).shape == (
        3,
        128,
        128,
    )


def test_a_patch_depends_on_seed_epoch_image_and_number_alone():
    dataset = make_dataset()
    together = dataset.__getitems__([0, 5, 11, 2])
    assert together["patches"].shape == (4, 3, 32, 32)
    assert together["patches"].dtype == torch.uint8
    assert together["labels"].tolist() == [1.0, 5.0, 9.0, 1.0]
    torch.manual_seed(1)
    assert torch.equal(make_dataset().__getitems__([5])["patches"][0], together["patches"][1])
    dataset.set_epoch(1)
    assert not torch.equal(dataset.__getitems__([5])["patches"][0], together["patches"][1])
    assert not torch.equal(make_dataset(seed=1).__getitems__([5])["patches"][0], together["patches"][1])


def test_flips_and_grays_come_as_often_as_asked():
    def count_gray(probability: float) -> int:
        patches = make_dataset(200, grayscale_probability=probability).__getitems__(list(range(600)))["patches"]
        return int((patches == patches[:, :1]).flatten(1).all(dim=1).sum())

    assert count_gray(0) == 0
    assert 60 < count_gray(0.15) < 120  # of 600
    assert count_gray(1) == 600
    plain = make_dataset(flip_probability=0, grayscale_probability=0).__getitems__([0, 1])["patches"]
    flipped = make_dataset(flip_probability=1, grayscale_probability=0).__getitems__([0, 1])["patches"]
    assert torch.equal(flipped, plain.flip(-1))


@pytest.mark.parametrize("options", [{"crop": "whole"}, {"crop_scale": (0, 1)}, {"crop_scale": (0.5, 0.2)}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=r"--(train_)?crop"):
        PatchOptions(32, **options)


def test_balancing_repeats_the_images_of_rare_scores():
    assert balanced_indices([1, 1, 1, 1, 7, 3, 3.2]) == [0, 1, 2, 3, 4, 4, 4, 4, 5, 5, 6, 6]
    assert balanced_indices([2, 5, 9]) == [0, 1, 2]
    assert balanced_indices([1, 1, 1, 2, 2]) == [0, 1, 2, 3, 3, 4, 4]

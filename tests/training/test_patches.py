"""Training patches: the published distribution, torchvision's pixels, and draws that only their place decides."""

import numpy as np
import pytest
import torch
from factories import make_picture
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms

from hybridiqa.data.loading import ResidentImages
from hybridiqa.training import resize as bilinear
from hybridiqa.training.blocks import BLOCK_SIZE
from hybridiqa.training.patches import (
    NUM_DRAWS,
    PatchOptions,
    RandomPatches,
    balanced_repeats,
    cut_patch,
    cut_patches,
    draw_patches,
    draw_resized_boxes,
    uniform_draws,
)

SIZES = [(80, 90), (300, 210), (33, 500), (20, 70)]  # the last is smaller than a patch of 32


def make_images() -> list[torch.Tensor]:
    images = [make_picture(width, height, seed=index) for index, (height, width) in enumerate(SIZES)]
    return [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) for image in images]


def unchanged(patches: torch.Tensor) -> torch.Tensor:
    return patches.float()


def make_patches(num_patches: int = 4, seed: int = 0, repeats=None, **options) -> RandomPatches:
    images = ResidentImages.from_tensors(make_images())
    return RandomPatches(
        images, [1.0, 5.0, 9.0, 3.0], num_patches, PatchOptions(32, **options), unchanged, seed, repeats
    )


def draws_of(patches: RandomPatches, pairs: np.ndarray, epoch: int = 0):
    indices = patches.pair_images[pairs]
    uniforms = uniform_draws(patches.seed, epoch, indices, patches.pair_patches[pairs], NUM_DRAWS)
    images = patches.images
    return indices, draw_patches(uniforms, images.heights[indices], images.widths[indices], patches.options)


def test_draws_are_uniform_and_independent():
    images, numbers = np.repeat(np.arange(100), 100), np.tile(np.arange(100), 100)
    draws = uniform_draws(0, 0, images, numbers, 6)
    assert draws.shape == (10000, 6) and draws.min() >= 0 and draws.max() < 1
    counts = np.apply_along_axis(lambda column: np.histogram(column, 10, (0, 1))[0], 0, draws)
    assert abs(counts - 1000).max() < 150  # 5 standard deviations
    others = [uniform_draws(seed, epoch, images, numbers, 1)[:, 0] for seed, epoch in ((1, 0), (0, 1))]
    columns = np.column_stack([draws, np.roll(draws[:, 0], 1), np.roll(draws[:, 0], 100), *others])
    correlations = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    assert abs(correlations).max() < 0.05


@pytest.mark.parametrize(("height", "width"), [(100, 150), (500, 20)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    image, count = torch.zeros(1, height, width), 4000
    draws = uniform_draws(0, 0, np.arange(count), np.zeros(count, int), NUM_DRAWS)
    ours = draw_resized_boxes(draws, np.full(count, height), np.full(count, width), (0.08, 1.0))
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(count)])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] > 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()
    for column in range(4):  # top, left, height, width
        spread = max(theirs[:, column].std(), 1)
        assert abs(ours[:, column].mean() - theirs[:, column].mean()) < 0.1 * spread
        assert abs(ours[:, column].std() - theirs[:, column].std()) < 0.1 * spread


@pytest.mark.parametrize("crop", ["resized", "native"])
def test_matrix_products_give_torchvisions_antialiased_resize(crop, monkeypatch):
    monkeypatch.setattr(bilinear, "CHUNK_BYTES", 2**18)  # several chunks
    patches = make_patches(12, crop=crop, flip_probability=0, grayscale_probability=0)
    indices, draws = draws_of(patches, np.arange(len(patches)))
    ours = cut_patches(patches.images, indices, draws, 32) / 255
    for row, index in enumerate(indices):
        (top, left, height, width), size, start = draws.boxes[row], draws.sizes[row].tolist(), draws.starts[row]
        crop_pixels = make_images()[index][:, top : top + height, left : left + width] / 255
        theirs = transforms.resize(crop_pixels, size, antialias=True)
        theirs = theirs[:, start[0] : start[0] + 32, start[1] : start[1] + 32]
        assert torch.allclose(ours[row], theirs, atol=1e-5, rtol=0), (row, index)


def test_a_patch_of_uint8_is_torchvisions_own_resize_of_uint8():
    patches = make_patches(12, flip_probability=0, grayscale_probability=0)
    indices, draws = draws_of(patches, np.arange(len(patches)))
    pixels, _ = patches.batch(0, np.arange(len(patches)))
    for row, index in enumerate(indices):
        theirs = transforms.resized_crop(
            make_images()[index], *draws.boxes[row].tolist(), size=[32, 32], antialias=True
        )
        assert torch.equal(pixels[row], theirs.float())
        assert torch.equal(cut_patch(patches.images[int(index)], draws, row, 32), theirs)


def test_both_ways_flip_and_gray_the_same_patches():
    patches = make_patches(12, flip_probability=0.5, grayscale_probability=0.5)
    pairs = np.arange(len(patches))
    pixels, _ = patches.batch(0, pairs)
    products = cut_patches(patches.images, *draws_of(patches, pairs), 32)
    assert (products - pixels).abs().max() < 2.5  # uint8 is rounded after each side, and once more where it is gray


def test_a_native_patch_is_a_part_of_the_image():
    patches = make_patches(crop="native", flip_probability=0, grayscale_probability=0)
    for pair in range(12):  # of the images that are large enough
        pixels, _ = patches.batch(0, np.array([pair]))
        windows = make_images()[patches.pair_images[pair]].unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
        assert (windows == pixels[0]).flatten(2).all(dim=2).any()


def test_a_native_patch_of_a_small_image_is_cut_from_it_enlarged():
    patches = make_patches(crop="native", flip_probability=0, grayscale_probability=0)
    enlarged = transforms.resize(make_images()[3], [32, 112], antialias=True).float()
    pixels, _ = patches.batch(0, np.array([12]))
    assert (enlarged.unfold(2, 32, 1).permute(2, 0, 1, 3) == pixels).flatten(1).all(dim=1).any()


def test_a_patch_depends_on_seed_epoch_image_and_number_alone():
    patches = make_patches()
    together, labels = patches.batch(0, np.array([0, 5, 11, 2]))
    assert together.shape == (4, 3, 32, 32) and together.dtype == torch.float32
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [1.0, 5.0, 9.0, 1.0]
    torch.manual_seed(1)
    alone = np.array([5])
    assert torch.equal(make_patches().batch(0, alone)[0][0], together[1])
    assert torch.equal(make_patches(num_patches=2).batch(0, np.array([3]))[0][0], together[1])  # image 1, patch 1
    assert not torch.equal(patches.batch(1, alone)[0][0], together[1])
    assert not torch.equal(make_patches(seed=1).batch(0, alone)[0][0], together[1])


def test_an_epoch_has_every_pair_once_in_an_order_of_its_own():
    patches = make_patches()
    assert sorted(patches.blocks.order(0)) == list(range(16)) == sorted(patches.blocks.order(1))
    assert (
        patches.blocks.order(0).tolist() == make_patches().blocks.order(0).tolist() != patches.blocks.order(1).tolist()
    )
    assert patches.blocks.order(0).tolist() != make_patches(seed=1).blocks.order(0).tolist()


def test_a_repeated_image_brings_other_patches():
    patches = make_patches(num_patches=2, repeats=[1, 3, 1, 1])
    assert len(patches) == 12
    assert patches.pair_images.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3]
    pixels, _ = patches.batch(0, np.arange(2, 8))
    assert len({patch.numpy().tobytes() for patch in pixels}) == 6


def test_images_that_lie_elsewhere_are_copied_as_a_batch_needs_them():
    images = ResidentImages.from_tensors(make_images())
    chosen = images.select(np.array([3, 1]), torch.device("cpu"))
    assert len(chosen) == 2 and chosen.num_bytes == 3 * (20 * 70 + 300 * 210)
    assert torch.equal(chosen[0], images[3]) and torch.equal(chosen[1], images[1])


def test_images_take_three_bytes_a_pixel():
    images = ResidentImages.from_tensors(make_images())
    assert images.num_bytes == sum(3 * height * width for height, width in SIZES)
    assert all(torch.equal(images[index], image) for index, image in enumerate(make_images()))
    with pytest.raises(ValueError, match=r"12 bytes of uint8, got 11"):
        ResidentImages(torch.zeros(11, dtype=torch.uint8), [2], [2])


def test_flips_and_grays_come_as_often_as_asked():
    def count_gray(probability: float) -> int:
        pixels, _ = make_patches(600, grayscale_probability=probability).batch(0, np.arange(2400))
        return int((pixels == pixels[:, :1]).flatten(1).all(dim=1).sum())

    assert count_gray(0) == 0
    assert 290 < count_gray(0.15) < 430  # 360 and 4 standard deviations
    assert count_gray(1) == 2400
    plain, _ = make_patches(flip_probability=0, grayscale_probability=0).batch(0, np.array([0, 1]))
    flipped, _ = make_patches(flip_probability=1, grayscale_probability=0).batch(0, np.array([0, 1]))
    assert torch.equal(flipped, plain.flip(-1))


@pytest.mark.parametrize("options", [{"crop": "whole"}, {"crop_scale": (0, 1)}, {"crop_scale": (0.5, 0.2)}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=r"--(train_)?crop"):
        PatchOptions(32, **options)


def test_balancing_repeats_the_images_of_rare_scores():
    assert balanced_repeats([1, 1, 1, 1, 7, 3, 3.2]) == [1, 1, 1, 1, 4, 2, 2]
    assert balanced_repeats([2, 5, 9]) == [1, 1, 1]
    assert balanced_repeats([1, 1, 1, 2, 2]) == [1, 1, 1, 2, 2]


def make_versions(**options) -> RandomPatches:
    """Make patches of three images in 12, 5 and 1 versions of one size; the scores go round 1-5."""
    images = [
        torch.from_numpy(np.asarray(make_picture(50, 40, seed=seed)).copy()).permute(2, 0, 1) for seed in range(18)
    ]
    scores = [float(1 + index % 5) for index in range(18)]
    references = ["a"] * 12 + ["b"] * 5 + ["c"]
    options = {"crop": "native"} | options
    return RandomPatches(
        ResidentImages.from_tensors(images), scores, 3, PatchOptions(32, **options), unchanged, reference_ids=references
    )


def test_blocks_hold_versions_of_one_image_with_scores_as_various_as_can_be():
    patches = make_versions()
    blocks = patches.blocks.numbers(0)
    assert len(patches.blocks) == len(set(blocks)) == 5 + 2 + 1  # of 36, 15 and 3 patches
    for block in set(blocks):
        pairs = np.flatnonzero(blocks == block)
        assert len(pairs) <= BLOCK_SIZE
        names = {"aaaaaaaaaaaabbbbbc"[image] for image in patches.pair_images[pairs]}
        assert len(names) == 1
        scores = patches.scores[patches.pair_images[pairs]].tolist()
        assert names == {"c"} or set(scores) == {1, 2, 3, 4, 5}
    assert patches.blocks.numbers(1).tolist() != blocks.tolist()
    assert patches.blocks.numbers(0).tolist() == blocks.tolist() == make_versions().blocks.numbers(0).tolist()


@pytest.mark.parametrize("crop", ["native", "resized"])
def test_the_patches_of_a_block_are_cut_at_one_place_and_flipped_alike(crop):
    image = torch.from_numpy(np.asarray(make_picture(50, 40)).copy()).permute(2, 0, 1)
    same = ResidentImages.from_tensors([image] * 16)
    options = PatchOptions(32, crop=crop, grayscale_probability=0.5)
    patches = RandomPatches(same, [1.0, 2.0] * 8, 4, options, unchanged, reference_ids=["a"] * 8 + ["b"] * 8)
    pairs = patches.blocks.order(0)
    pixels, _ = patches.batch(0, pairs)
    blocks = patches.blocks.numbers(0)[pairs]
    looks = [{patch.numpy().tobytes() for patch in pixels[blocks == block]} for block in range(8)]
    assert [len(look) for look in looks] == [1] * 8
    assert len(set.union(*looks)) == 8, "other blocks are cut elsewhere"
    assert not torch.equal(patches.batch(1, pairs)[0], pixels)


def test_batches_and_their_parts_keep_blocks_whole():
    patches = make_versions()
    batches = patches.blocks.batches(0, 24)
    assert len(batches) == patches.blocks.num_batches(24) == 3
    assert np.concatenate(batches).tolist() == patches.blocks.order(0).tolist()
    assert sorted(patches.blocks.order(0)) == list(range(54))
    assert [len(set(patches.blocks.numbers(0)[pairs])) for pairs in batches] == [3, 3, 2]
    for num_parts in (1, 2, 3, 5):
        parts = patches.blocks.split(0, batches[0], num_parts)
        assert len(parts) == num_parts and np.concatenate(parts).tolist() == batches[0].tolist()
        held = [set(patches.blocks.numbers(0)[part]) for part in parts]
        assert sum(map(len, held)) == 3 == len(set.union(*held))
    assert patches.blocks.num_batches(1) == 8, "a batch is one block at least"


def test_without_references_every_patch_is_a_block():
    patches = make_patches()
    assert patches.blocks.numbers(0).tolist() == list(range(16))
    batches = patches.blocks.batches(0, 5)
    assert [len(pairs) for pairs in batches] == [5, 5, 5, 1] and patches.blocks.num_batches(5) == 4
    assert [part.tolist() for part in patches.blocks.split(0, batches[0], 2)] == [
        part.tolist() for part in np.array_split(batches[0], 2)
    ]
    assert [len(part) for part in patches.blocks.split(0, batches[3], 3)] == [1, 0, 0]
    assert [len(part) for part in patches.blocks.split(0, batches[3][:0], 2)] == [0, 0]

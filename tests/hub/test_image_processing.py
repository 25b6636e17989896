"""The image processor: every kind of input, the patches' places, and what is refused."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import hub_object, make_picture
from PIL import Image, ImageCms

from hybridiqa.models import hub_code

MODULE = "image_processing_hybridiqa"
Processor, load_image = hub_code.HybridIQAImageProcessor, hub_code.load_image
grid_starts = hub_object(f"{MODULE}.grid_starts")


def pixels(image) -> np.ndarray:
    return np.asarray(load_image(image))


def corner(image) -> tuple[int, ...]:
    return tuple(int(value) for value in pixels(image)[0, 0])


def test_every_kind_of_input_gives_the_same_pixels(tmp_path):
    image = make_picture()
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    same = [str(path), path, path.read_bytes(), image, array, tensor, tensor / 255, array / 255.0]
    for given in same:
        assert np.array_equal(pixels(given), array), type(given)
    patches = Processor(patch_size=64, num_patches=4)(same)["pixel_values"]
    assert patches.shape == (8, 4, 3, 64, 64)
    assert patches.dtype == torch.float32
    assert (patches == patches[:1]).all()


def test_a_url_is_fetched(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    make_picture().save(buffer, "PNG")
    asked = []
    monkeypatch.setattr(
        "urllib.request.urlopen",
        lambda request, timeout: asked.append(request.full_url) or io.BytesIO(buffer.getvalue()),
    )
    assert np.array_equal(pixels("https://example.org/a.png"), np.asarray(make_picture()))
    assert asked == ["https://example.org/a.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.new("RGB", (40, 20), "blue")
    upright.paste("red", (0, 0, 20, 10))  # top left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition whose inverse the viewer applies
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(upright))


def test_alpha_is_composited_on_white(tmp_path):
    assert corner(Image.new("RGBA", (2, 2), (0, 0, 0, 0))) == (255, 255, 255)
    assert corner(Image.new("RGBA", (2, 2), (0, 0, 0, 51))) == (204, 204, 204)
    assert corner(Image.new("LA", (2, 2), (0, 0))) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=0)
    assert corner(tmp_path / "p.png") == (255, 255, 255)
    assert corner(np.zeros((2, 2, 4), np.uint8)) == (255, 255, 255)


def test_other_modes_are_scaled_to_8_bit_rgb(tmp_path):
    assert corner(Image.fromarray(np.full((2, 2), 40000, np.uint16))) == (156, 156, 156)
    Image.fromarray(np.full((2, 2), 65535, np.uint16)).save(tmp_path / "16.png")
    assert corner(tmp_path / "16.png") == (255, 255, 255)
    assert corner(Image.fromarray(np.full((2, 2), 32768, np.int32))) == (128, 128, 128)
    assert corner(Image.fromarray(np.full((2, 2), 0.5, np.float32))) == (128, 128, 128)
    assert corner(Image.new("CMYK", (2, 2), (0, 255, 255, 0))) == (255, 0, 0)
    assert corner(np.full((2, 2), 40000, ">u2")) == (156, 156, 156)
    assert corner(Image.new("1", (2, 2), 1)) == (255, 255, 255)
    assert corner(Image.new("L", (2, 2), 7)) == (7, 7, 7)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_a_large_image_is_converted_in_strips_and_its_pixels_are_those_of_the_whole(monkeypatch, mode):
    image = make_picture(40, 30).convert("RGBA")
    image.putalpha(make_picture(40, 30, seed=1).convert("L"))
    image = image.convert({"La": "LA", "PA": "P"}.get(mode, mode)).convert(mode)
    whole = pixels(image)
    monkeypatch.setattr(sys.modules[load_image.__module__], "STRIP_PIXELS", 90)  # two rows, and one that remains
    assert np.array_equal(pixels(image), whole)


def test_an_image_that_was_turned_upright_is_not_turned_again(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    make_picture(40, 20).save(tmp_path / "a.png", exif=exif)
    upright = load_image(tmp_path / "a.png")
    assert upright.size == (20, 40)
    assert np.array_equal(pixels(upright), np.asarray(upright))


def test_a_colour_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    make_picture().save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(make_picture()))


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_gives_its_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(
        tmp_path / f"a.{kind}",
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if kind == "webp" else {}),
    )
    assert corner(tmp_path / f"a.{kind}") == (255, 0, 0)


def test_a_grid_touches_all_borders_and_follows_the_shape():
    assert grid_starts(1120, 1120, 25, 224) == [(t, left) for t in range(0, 897, 224) for left in range(0, 897, 224)]
    assert grid_starts(5000, 224, 25, 224) == [(0, round(i * 4776 / 24)) for i in range(25)]  # 1 x 25
    starts = grid_starts(600, 900, 6, 100)  # 3 rows x 2 columns
    assert starts == [(0, 0), (0, 500), (400, 0), (400, 500), (800, 0), (800, 500)]
    assert grid_starts(301, 300, 1, 100) == [(100, 100)]


def test_a_grid_shows_every_pixel_of_a_1024_image():
    seen = np.zeros((1024, 1024), bool)
    for top, left in grid_starts(1024, 1024, 25, 224):
        seen[top : top + 224, left : left + 224] = True
    assert seen.all()


def test_patches_are_cut_where_the_grid_says():
    array = np.asarray(make_picture(130, 128))
    patches = Processor(patch_size=64, num_patches=4).extract_patches(array)
    assert np.array_equal(patches[3].permute(1, 2, 0).numpy(), array[64:, 66:])


def test_random_patches_follow_the_seed_alone():
    processor = Processor(patch_size=64, num_patches=5, sampling="random", seed=3)
    image, other = make_picture(), make_picture(200, 300, seed=1)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    alone = processor(image)["pixel_values"]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(processor([other, image])["pixel_values"][1:], alone)
    assert not torch.equal(processor(image, seed=4)["pixel_values"], alone)
    generator = torch.Generator().manual_seed(3)  # the recorded rule: row, then column
    top, left = (int(torch.randint(0, last + 1, (), generator=generator)) for last in (100 - 64, 150 - 64))
    first = processor.extract_patches(image)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(first, np.asarray(image)[top : top + 64, left : left + 64])


def as_arrays(patches: torch.Tensor) -> list[np.ndarray]:
    return list(patches.permute(0, 2, 3, 1).numpy())  # each (height, width, 3)


def test_the_first_of_multiscale_patches_is_the_whole_image():
    processor = Processor(patch_size=64, sampling="multiscale")
    for width, height in ((300, 200), (64, 64), (50, 40), (3, 500), (1, 1)):  # the small ones are resized once, too
        image = make_picture(width, height)
        expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
        for num_patches in (1, 2, 9):
            assert np.array_equal(as_arrays(processor.extract_patches(image, num_patches=num_patches))[0], expected)


@pytest.mark.parametrize(
    ("num_patches", "num_halved", "num_native"), [(1, 0, 0), (2, 0, 1), (6, 1, 4), (9, 2, 6), (25, 6, 18)]
)
def test_a_quarter_of_multiscale_patches_is_cut_at_half_size(num_patches, num_halved, num_native):
    image = make_picture(301, 200)
    patches = Processor(patch_size=64, num_patches=num_patches, sampling="multiscale").extract_patches(image)
    assert (patches.shape, patches.dtype) == ((num_patches, 3, 64, 64), torch.uint8)
    halved = np.asarray(image.resize((150, 100), Image.Resampling.BILINEAR))
    expected = []
    for array, count in ((halved, num_halved), (np.asarray(image), num_native)):
        starts = grid_starts(array.shape[1], array.shape[0], count, 64) if count else []
        expected += [array[top : top + 64, left : left + 64] for top, left in starts]
    cut = as_arrays(patches)[1:]
    assert len(cut) == len(expected) == num_halved + num_native
    assert all(np.array_equal(*pair) for pair in zip(cut, expected, strict=True))


def test_multiscale_patches_stand_where_they_should_by_hand():
    image = make_picture(400, 200)
    patches = as_arrays(Processor(patch_size=64, num_patches=9, sampling="multiscale").extract_patches(image))
    halved = np.asarray(image.resize((200, 100), Image.Resampling.BILINEAR))
    assert np.array_equal(patches[1], halved[18:82, :64])  # 1 row x 2 columns, in the middle of the height
    assert np.array_equal(patches[2], halved[18:82, 136:])
    native = np.asarray(image)
    assert np.array_equal(patches[3], native[:64, :64])  # 2 rows x 3 columns
    assert np.array_equal(patches[4], native[:64, 168:232])
    assert np.array_equal(patches[8], native[136:, 336:])


def test_half_size_is_never_smaller_than_a_patch():
    processor = Processor(patch_size=64, num_patches=6, sampling="multiscale")
    image = make_picture(160, 80)  # half is 80 x 40, enlarged to 128 x 64
    halved = np.asarray(image.resize((128, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(as_arrays(processor.extract_patches(image))[1], halved[:, 32:96])
    image = make_picture(80, 40)  # smaller than a patch itself: both sizes are the enlarged image
    enlarged = np.asarray(image.resize((128, 64), Image.Resampling.BILINEAR))
    patches = as_arrays(processor.extract_patches(image))
    assert np.array_equal(patches[1], enlarged[:, 32:96])
    assert np.array_equal(patches[2], enlarged[:, :64])


def test_size_is_applied_before_the_scales_of_multiscale():
    image, squeezed = make_picture(300, 150), make_picture(300, 150).resize((160, 140), Image.Resampling.BILINEAR)
    processor = Processor(patch_size=64, num_patches=9, sampling="multiscale")
    expected = processor.extract_patches(squeezed)
    squeezing = Processor(patch_size=64, num_patches=9, sampling="multiscale", size=(140, 160))
    assert torch.equal(squeezing.extract_patches(image), expected)


def test_multiscale_patches_follow_neither_seed_nor_batch():
    processor = Processor(patch_size=64, num_patches=6, sampling="multiscale")
    image, other = make_picture(), make_picture(200, 300, seed=1)
    alone = processor(image)["pixel_values"]
    assert torch.equal(processor([other, image], seed=5)["pixel_values"][1:], alone)
    assert torch.equal(Processor(patch_size=64, num_patches=6)(image, sampling="multiscale")["pixel_values"], alone)


def rescaled(box: tuple[float, ...], across: float, down: float) -> list[int]:
    """Return a box in whole pixels of an image that is `across` times as wide and `down` times as high."""
    scaled = [box[0] * across, box[1] * down, box[2] * across, box[3] * down]
    assert scaled == pytest.approx([round(value) for value in scaled])
    return [round(value) for value in scaled]


@pytest.mark.parametrize("sampling", ["grid", "random"])
def test_patches_are_the_image_cut_at_their_boxes(sampling):
    processor, image = Processor(patch_size=64, num_patches=6), make_picture(301, 200)
    boxes = processor.patch_boxes(301, 200, sampling=sampling, seed=5)
    cut = [np.asarray(image.crop(box)) for box in boxes]
    assert np.array_equal(as_arrays(processor.extract_patches(image, sampling=sampling, seed=5)), cut)


@pytest.mark.parametrize("sampling", ["grid", "random"])
@pytest.mark.parametrize(("size", "dimensions"), [(None, (128, 64)), ((90, 70), (70, 90))])
def test_boxes_of_a_resized_image_are_those_of_the_image_as_given(sampling, size, dimensions):
    processor, image = Processor(patch_size=64, num_patches=6, size=size), make_picture(60, 30)
    resized = image.resize(dimensions, Image.Resampling.BILINEAR)  # enlarged, or squeezed
    boxes = processor.patch_boxes(60, 30, sampling=sampling)
    assert all(0 <= left < right <= 60.001 and 0 <= top < bottom <= 30.001 for left, top, right, bottom in boxes)
    cut = [np.asarray(resized.crop(rescaled(box, dimensions[0] / 60, dimensions[1] / 30))) for box in boxes]
    assert np.array_equal(as_arrays(processor.extract_patches(image, sampling=sampling)), cut)


def test_boxes_of_multiscale_patches_are_the_whole_then_double_ones_then_native_ones():
    processor, image = Processor(patch_size=64, num_patches=9, sampling="multiscale"), make_picture(400, 200)
    patches, boxes = as_arrays(processor.extract_patches(image)), processor.patch_boxes(400, 200)
    assert boxes[:3] == [(0, 0, 400, 200), (0, 36, 128, 164), (272, 36, 400, 164)]
    halved = image.resize((200, 100), Image.Resampling.BILINEAR)
    assert all(np.array_equal(patches[i], halved.crop(rescaled(boxes[i], 1 / 2, 1 / 2))) for i in (1, 2))
    assert all(np.array_equal(patches[i], image.crop(boxes[i])) for i in range(3, 9))


def test_boxes_of_an_image_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="width must be a whole number, at least 1, got 0"):
        Processor().patch_boxes(0, 100)
    with pytest.raises(ValueError, match=r"64 megapixels.*got 9000 x 9000"):
        Processor().patch_boxes(9000, 9000)


def test_normalisation_is_imagenets():
    white = Processor(patch_size=32, num_patches=1)(np.full((32, 32, 3), 255, np.uint8))["pixel_values"]
    expected = [(1 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert torch.allclose(white[0, 0, :, 5, 7], torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("sampling", ["grid", "random", "multiscale"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 500), (223, 224), (10, 7)])
def test_a_small_image_is_enlarged(width, height, sampling):
    patches = Processor(sampling=sampling)(make_picture(width, height))["pixel_values"]
    assert patches.shape == (1, 25, 3, 224, 224)


def test_size_squeezes_the_image_first():
    processor = Processor(patch_size=64, num_patches=1, size=(64, 64))
    image = make_picture(300, 100)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(processor.extract_patches(image)[0].permute(1, 2, 0).numpy(), expected)
    assert Processor(size={"height": 64, "width": 32}).size == [64, 32]


def test_more_than_64_megapixels_are_refused():
    with pytest.raises(ValueError, match=r"64 megapixels.*got 448000 x 224"):
        Processor()(np.zeros((1, 2000, 3), np.uint8))
    with pytest.raises(ValueError, match=r"got 9000 x 9000"):
        Processor(size=(9000, 9000))(make_picture())


def test_num_patches_and_tensor_type_can_be_given_at_the_call():
    processor = Processor(patch_size=64)
    result = processor(make_picture(), num_patches=6, return_tensors="np")["pixel_values"]
    assert isinstance(result, np.ndarray)
    assert result.shape == (1, 6, 3, 64, 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "got NoneType"),
        (7, "got int"),
        ("no/such/file.png", "no/such/file.png: No such file"),
        (b"GIF89a nonsense", "cannot read 15 bytes"),
        (np.zeros((5, 6, 7), np.uint8), r"got \(5, 6, 7\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (np.full((4, 4, 3), 2.0), "got float64 2 to 2"),
        (np.full((4, 4, 3), np.nan), "got float64 nan"),
        (torch.full((3, 4, 4), -1), "got int64 -1"),
        ([], "got an empty list"),
    ],
)
def test_anything_else_is_refused_with_what_was_got(given, message):
    with pytest.raises(ValueError, match=message):
        Processor()(given)


def test_broken_files_are_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    make_picture().save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"text\.png: not an image"):
        load_image(tmp_path / "text.png")
    with pytest.raises(ValueError, match=r"cut\.jpg: .*truncated"):
        load_image(tmp_path / "cut.jpg")
    with Image.open(tmp_path / "cut.jpg") as opened, pytest.raises(ValueError, match=r"the PIL image: .*truncated"):
        load_image(opened)
    with pytest.raises(ValueError, match=r"folder\.png: Is a directory"):
        load_image(Path(tmp_path / "folder.png"))


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": "best"},
        {"num_patches": 0},
        {"num_patches": 5 * 10**12},
        {"num_patches": True},
        {"size": (5,)},
        {"size": (0, 5)},
        {"size": 300},
        {"size": (300.5, 300)},
        {"seed": 1.5},
        {"patch_size": 0},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Processor(**options)


def test_a_wrong_sampling_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="sampling must be one of grid, random, multiscale, got 'Multiscale'"):
        Processor()(make_picture(), sampling="Multiscale")


@pytest.mark.parametrize("sampling", ["random", "multiscale"])
def test_save_and_load_keeps_the_options(tmp_path, sampling):
    from transformers import AutoImageProcessor

    Processor(patch_size=64, num_patches=9, sampling=sampling, seed=5, size=(128, 96)).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert (loaded.patch_size, loaded.num_patches, loaded.sampling, loaded.seed) == (64, 9, sampling, 5)
    assert loaded.size == [128, 96]

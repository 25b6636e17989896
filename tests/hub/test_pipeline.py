"""`pipeline("image-quality-assessment", ...)`: what goes in, what comes out."""

import numpy as np
import pytest
from factories import make_picture, make_tiny_model
from transformers import AutoModel, pipeline

IMAGES = [make_picture(seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint") / "scorer"
    make_tiny_model(score_quantiles=[-1.0, 0.0, 1.0]).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def scorer(checkpoint):
    return pipeline("image-quality-assessment", model=checkpoint, trust_remote_code=True)


@pytest.fixture(scope="module")
def expected(checkpoint) -> list[float]:
    return AutoModel.from_pretrained(checkpoint, trust_remote_code=True).score(IMAGES).tolist()


def scores_of(results) -> list[float]:
    return [result["score"] for result in results]


def test_one_image_gives_a_list_of_one_dictionary(scorer, expected):
    (result,) = scorer(IMAGES[0])
    assert list(result) == ["score", "score_std", "percentile"]
    assert result["score"] == expected[0]
    assert result["percentile"] == pytest.approx(50 * (result["score"] + 1), abs=0.006)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_many_images_give_one_dictionary_each_whatever_the_batch(scorer, expected, batch_size):
    assert scores_of(scorer(IMAGES, batch_size=batch_size)) == expected


def test_a_generator_is_answered_as_it_is_read(scorer, expected):
    results = scorer(image for image in IMAGES)
    assert not isinstance(results, list)
    assert scores_of(results) == expected


def test_an_image_may_be_a_path_bytes_or_an_array(scorer, expected, tmp_path):
    path = tmp_path / "a.png"
    IMAGES[0].save(path)
    forms = [str(path), path.read_bytes(), np.asarray(IMAGES[0])]
    assert [scorer(form)[0]["score"] for form in forms] == [expected[0]] * 3


def test_patches_are_chosen_by_the_call_or_the_pipeline(checkpoint, scorer):
    options = {"sampling": "random", "seed": 3, "num_patches": 5}
    made_so = pipeline("image-quality-assessment", model=checkpoint, trust_remote_code=True, **options)
    assert scorer(IMAGES[0], **options) == made_so(IMAGES[0]) != scorer(IMAGES[0])


def test_the_task_is_known_without_its_name(checkpoint, scorer):
    assert type(pipeline(model=checkpoint, trust_remote_code=True)).__name__ == type(scorer).__name__


def test_a_checkpoint_without_a_distribution_has_no_percentile(tiny_checkpoint):
    unmeasured = pipeline("image-quality-assessment", model=tiny_checkpoint, trust_remote_code=True)
    assert unmeasured(IMAGES[0])[0]["percentile"] is None


def test_what_is_no_image_is_refused(scorer):
    with pytest.raises(ValueError, match="cannot read 7 bytes: not an image"):
        scorer(b"nothing")


def test_a_saved_pipeline_is_a_checkpoint(scorer, tmp_path):
    scorer.save_pretrained(tmp_path)
    again = pipeline("image-quality-assessment", model=str(tmp_path), trust_remote_code=True)
    assert again(IMAGES[0]) == scorer(IMAGES[0])

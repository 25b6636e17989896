"""Pipeline from images to scores: `pipeline("image-quality-assessment", model=DIR_OR_REPO, trust_remote_code=True)`."""

from __future__ import annotations

from typing import Any

from transformers import Pipeline

from .configuration_hybridiqa import percentiles_in


class ImageQualityAssessmentPipeline(Pipeline):
    """Pipeline that scores images as `HybridIQAModel.score` does, to the last bit.

    One image, or a list, generator or dataset of images, each as `HybridIQAModel.score` takes them. `sampling`, `seed`
    and `num_patches` may be given to the pipeline or to a call.

    Returns:
        A list of one dictionary an image (a generator of them for a generator or a dataset): `score`, on the
        checkpoint's own range; `score_std`, the standard deviation of its native patches' scores; `percentile`, 0-100,
        where the score stands among the checkpoint's own on its validation images, None where the checkpoint does not
        know.

    Raises:
        ValueError: something that cannot be read as an image; the message says what was got.
    """

    _load_processor = _load_tokenizer = _load_feature_extractor = _load_image_processor = False  # the model has its own

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.image_processor = self.image_processor or self.model.image_processor

    def __call__(self, images: Any, **options: Any) -> list[dict[str, float | None]]:
        results = super().__call__(images, **options)
        return [results] if isinstance(results, dict) else results

    def _sanitize_parameters(self, **options: Any) -> tuple[dict, dict, dict]:
        return options, {}, {}

    def preprocess(self, image: Any, **options: Any) -> dict:
        pixel_values = self.image_processor(image, **options)["pixel_values"]  # (1, patches, 3, height, width)
        return {"pixel_values": pixel_values}

    def _forward(self, inputs: dict) -> dict:
        return dict(self.model.predict(inputs["pixel_values"]))

    def postprocess(self, outputs: dict) -> dict[str, float | None]:
        score, quantiles = outputs["logits"].item(), self.model.config.score_quantiles
        return {
            "score": score,
            "score_std": outputs["patch_scores"].std(correction=0).item(),
            "percentile": percentiles_in(quantiles, [score])[0] if quantiles else None,
        }

"""Names that the Hub files at the root hand on, loaded as the Hub loads them, when they are first used.

Among them the one way from a file to plain RGB: nothing else in the project opens images, so that training reads them
exactly as scoring does. Write `from hybridiqa.models import hub_code` and `hub_code.load_image(path)`: importing a name
itself would load torch at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hybridiqa.utils.root import ROOT

if TYPE_CHECKING:  # a test compares these with the Hub files; what is of transformers' own classes stays Any
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from PIL import Image

    PERCENTILE_DECIMALS: int
    FORMATS: tuple[str, ...]
    HybridIQAConfig: Any
    HybridIQAImageProcessor: Any
    HybridIQAModel: Any

    class UnknownFormat(ValueError): ...

    def check_bounds(name: str, fields: Mapping[str, Any]) -> None: ...
    def percentiles_in(quantiles: Sequence[float], scores: Sequence[float]) -> list[float]: ...
    def decode_file(data: bytes, draft_size: int | None = None) -> tuple[Image.Image, Image.Image]: ...
    def load_image(image: Any) -> Image.Image: ...
    def open_image(file: BinaryIO) -> Image.Image: ...
    def read_file(path: str | Path) -> bytes: ...
    def to_rgb(image: Image.Image) -> Image.Image: ...
    def upright_size(data: bytes) -> tuple[int, int]: ...
    def find_file(name: Any, file: str, **hub_options: Any) -> str | None: ...
    def find_weights(name: Any, variant: str | None = None, **hub_options: Any) -> list[str]: ...


FILE_OF = {
    "PERCENTILE_DECIMALS": "configuration_hybridiqa",
    "HybridIQAConfig": "configuration_hybridiqa",
    "check_bounds": "configuration_hybridiqa",
    "percentiles_in": "configuration_hybridiqa",
    "FORMATS": "image_loading_hybridiqa",
    "UnknownFormat": "image_loading_hybridiqa",
    "decode_file": "image_loading_hybridiqa",
    "load_image": "image_loading_hybridiqa",
    "open_image": "image_loading_hybridiqa",
    "read_file": "image_loading_hybridiqa",
    "to_rgb": "image_loading_hybridiqa",
    "upright_size": "image_loading_hybridiqa",
    "HybridIQAImageProcessor": "image_processing_hybridiqa",
    "HybridIQAModel": "modeling_hybridiqa",
    "find_file": "modeling_hybridiqa",
    "find_weights": "modeling_hybridiqa",
}


def __getattr__(name: str) -> Any:  # called once for each name, which is a plain attribute of the module from then on
    if name not in FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    value = get_class_from_dynamic_module(f"{FILE_OF[name]}.{name}", str(ROOT))
    globals()[name] = value
    return value

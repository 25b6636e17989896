"""Names that the Hub files at the root hand on, loaded as the Hub loads them, when they are first used.

Among them the one way from a file to plain RGB: nothing else in the project opens images, so that training reads them
exactly as scoring does. Write `from hybridiqa.models import hub_code` and `hub_code.load_image(path)`: importing a name
itself would load torch at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hybridiqa.utils.root import ROOT

if TYPE_CHECKING:
    pass

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

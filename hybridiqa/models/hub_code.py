"""Classes and functions of the Hub files at the root.

Among them the one way from a file to plain RGB: nothing else in the project opens images, so that training reads them
exactly as scoring does.
"""

from __future__ import annotations

from transformers.dynamic_module_utils import get_class_from_dynamic_module

from hybridiqa.utils.runtime import ROOT


def hub_class(name: str) -> type:
    """A class of this repository's Hub files, such as `modeling_hybridiqa.HybridIQAModel`."""
    return get_class_from_dynamic_module(name, str(ROOT))


FORMATS = hub_class("image_loading_hybridiqa.FORMATS")
UnknownFormat = hub_class("image_loading_hybridiqa.UnknownFormat")
decode_file = hub_class("image_loading_hybridiqa.decode_file")
load_image = hub_class("image_loading_hybridiqa.load_image")
open_image = hub_class("image_loading_hybridiqa.open_image")
read_file = hub_class("image_loading_hybridiqa.read_file")
to_rgb = hub_class("image_loading_hybridiqa.to_rgb")
upright_size = hub_class("image_loading_hybridiqa.upright_size")

"""The one way from a picture's file to plain RGB: training reads pictures exactly as scoring does.

Nothing else in the project opens pictures, so that what is decoded, and how far, is decided in one place.
"""

from hybridiqa.models.loading import hub_class

FORMATS = hub_class("image_loading_hybridiqa.FORMATS")
UnknownFormat = hub_class("image_loading_hybridiqa.UnknownFormat")
decode_file = hub_class("image_loading_hybridiqa.decode_file")
load_image = hub_class("image_loading_hybridiqa.load_image")
open_image = hub_class("image_loading_hybridiqa.open_image")
read_file = hub_class("image_loading_hybridiqa.read_file")
to_rgb = hub_class("image_loading_hybridiqa.to_rgb")
upright_size = hub_class("image_loading_hybridiqa.upright_size")

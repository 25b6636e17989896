"""One way from any picture that Pillow opens to plain RGB: training reads pictures exactly as scoring does."""

from hybridiqa.loading import hub_class

load_image = hub_class("image_processing_hybridiqa.load_image")
open_image = hub_class("image_processing_hybridiqa.open_image")
to_rgb = hub_class("image_processing_hybridiqa.to_rgb")

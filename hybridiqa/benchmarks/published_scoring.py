"""The published demo's scoring, written down to be measured against; nothing here scores anybody's pictures.

For every patch it opens the file anew, cuts a random crop and runs it through the network alone, gradients on.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms

from hybridiqa.benchmarks.published import MEAN, PATCH_SIZE, STANDARD_DEVIATION, PublishedHyperNetwork, predict
from hybridiqa.models.hub_code import open_image

NUM_PATCHES = 25
HEADS = ("conv1.", "fc", "res.lda")  # all that is not the ResNet

random_patch = transforms.Compose(
    [transforms.RandomCrop(PATCH_SIZE), transforms.ToTensor(), transforms.Normalize(MEAN, STANDARD_DEVIATION)]
)


def open_picture(path: Path) -> Image.Image:
    """As the published loader does."""
    with open(path, "rb") as file:
        return open_image(file).convert("RGB")


def published_score(
    network: PublishedHyperNetwork, path: Path, device: torch.device | str, num_patches: int = NUM_PATCHES
) -> float:
    """The mean over random crops, which the global seed decides."""
    patch_scores = []
    for _ in range(num_patches):
        pixel_values = random_patch(open_picture(path)).to(device).clone().detach().unsqueeze(0)  # (1, 3, 224, 224)
        patch_scores.append(float(predict(network, pixel_values).item()))
    return statistics.fmean(patch_scores)


def published_score_in_one_batch(
    network: PublishedHyperNetwork, path: Path, device: torch.device | str, num_patches: int = NUM_PATCHES
) -> float:
    """The same with one read of the file and all crops in one batch."""
    picture = open_picture(path)
    pixel_values = torch.stack([random_patch(picture) for _ in range(num_patches)]).to(device)
    return float(predict(network, pixel_values).mean().item())


def seeded_network(depths: list[int], seed: int = 0) -> PublishedHyperNetwork:
    """A network in evaluation mode, with random weights under which scores differ and do not explode."""
    torch.manual_seed(seed)
    network = PublishedHyperNetwork(depths).eval()
    gain = sum(depths) ** -0.5  # of the end of a residual block: their sum neither grows nor vanishes with the depth
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.constant_(module.weight, gain if name.endswith("bn3") else 1.0)
        elif name.startswith(HEADS) and hasattr(module, "weight"):
            torch.nn.init.kaiming_normal_(module.weight)  # torch's default start lets all patches score alike
    return network

"""Published training and scoring, written down to be measured against: input pipeline, network, step, and demo.

Nothing here trains or scores for anybody: `benchmark.py training` and `scoring` time it beside ours, and a test holds
its network to the numbers recorded from the original. The names of its weights are those of the published checkpoints
(hyperIQA, Su et al., CVPR 2020), which is why they do not follow ours. For every patch the demo opens the file anew,
cuts a random crop and runs it through the network alone, gradients on.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models.resnet import Bottleneck, ResNet

from hybridiqa.models import hub_code

PATCH_SIZE = 224  # pixels
MEAN, STANDARD_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
LDA_WIDTH, HYPER_CHANNELS = 16, 112
TARGET_WIDTHS = (224, 112, 56, 28, 14, 1)
LEARNING_RATE, HYPER_LEARNING_RATE_FACTOR, WEIGHT_DECAY = 2e-5, 10, 5e-4

NUM_PATCHES = 25
HEADS = ("conv1.", "fc", "res.lda")  # all that is not the ResNet
random_patch = transforms.Compose(
    [transforms.RandomCrop(PATCH_SIZE), transforms.ToTensor(), transforms.Normalize(MEAN, STANDARD_DEVIATION)]
)


class PublishedPatches(Dataset):
    """Every image `num_patches` times; each access transforms the whole cached float image to one random patch.

    Args:
        images: uint8 `(height, width, 3)` RGB arrays, in place of the files: they are read on first access.
        scores: one an image.
        num_patches: accesses an image and epoch.
        device: where the cache lies and the transforms run.
    """

    def __init__(
        self, images: Sequence[np.ndarray], scores: Iterable[float], num_patches: int, device: torch.device | str
    ):
        self.images = images
        self.samples = [(index, score) for index, score in enumerate(scores) for _ in range(num_patches)]
        self.device = device
        self.cache: dict[int, torch.Tensor] = {}  # float32 (3, height, width), 0-1
        self.to_tensor = transforms.ToTensor()
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomGrayscale(p=0.15),
                transforms.RandomResizedCrop(
                    size=PATCH_SIZE, interpolation=transforms.InterpolationMode.BILINEAR, antialias=True
                ),
                transforms.Normalize(MEAN, STANDARD_DEVIATION),
            ]
        )

    @property
    def num_bytes(self) -> int:
        """Return how many bytes the cache holds by now."""
        return sum(image.numel() * image.element_size() for image in self.cache.values())

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, np.float32]:
        image_index, score = self.samples[index]
        if image_index not in self.cache:
            self.cache[image_index] = self.to_tensor(self.images[image_index]).to(self.device)
        return self.transform(self.cache[image_index]), np.float32(score)


def build_loader(patches: PublishedPatches, batch_size: int) -> DataLoader:
    """Return shuffled batches, made in the training process."""
    return DataLoader(patches, batch_size=batch_size, shuffle=True)


def move_batch(
    batch: tuple[torch.Tensor, torch.Tensor], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move and copy what the loader gives, as the published loop does."""
    pixel_values, labels = batch
    return pixel_values.to(device).clone().detach(), labels.to(device).clone().detach()


class PublishedBackbone(ResNet):
    """Bottleneck ResNet that returns its last map and the vector of local distortions.

    Args:
        depths: blocks of its four stages.
    """

    def __init__(self, depths: Sequence[int]):
        super().__init__(Bottleneck, list(depths))
        del self.avgpool, self.fc
        self.lda1_pool = nn.Sequential(nn.Conv2d(256, 16, 1, bias=False), nn.AvgPool2d(7))
        self.lda1_fc = nn.Linear(16 * 64, LDA_WIDTH)
        self.lda2_pool = nn.Sequential(nn.Conv2d(512, 32, 1, bias=False), nn.AvgPool2d(7))
        self.lda2_fc = nn.Linear(32 * 16, LDA_WIDTH)
        self.lda3_pool = nn.Sequential(nn.Conv2d(1024, 64, 1, bias=False), nn.AvgPool2d(7))
        self.lda3_fc = nn.Linear(64 * 4, LDA_WIDTH)
        self.lda4_pool = nn.AvgPool2d(7)
        self.lda4_fc = nn.Linear(2048, TARGET_WIDTHS[0] - 3 * LDA_WIDTH)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map `(batch, 3, 224, 224)` to `(batch, 2048, 7, 7)` and `(batch, 224)`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (batch, 64, 56, 56)
        vectors = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            pooled = getattr(self, f"lda{stage}_pool")(x)
            vectors.append(getattr(self, f"lda{stage}_fc")(pooled.flatten(1)))
        return x, torch.cat(vectors, dim=1)


class PublishedHyperNetwork(nn.Module):
    """Network from patches to the weights of each patch's target network, and the vector that enters it.

    Args:
        depths: blocks of the backbone's four stages.
    """

    def __init__(self, depths: Sequence[int]):
        super().__init__()
        self.res = PublishedBackbone(depths)
        self.conv1 = nn.Sequential(
            nn.Conv2d(2048, 1024, 1), nn.ReLU(inplace=True),
            nn.Conv2d(1024, 512, 1), nn.ReLU(inplace=True),
            nn.Conv2d(512, HYPER_CHANNELS, 1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        for layer in range(1, 5):
            inputs, outputs = TARGET_WIDTHS[layer - 1 : layer + 1]
            setattr(self, f"fc{layer}w_conv", nn.Conv2d(HYPER_CHANNELS, inputs * outputs // 49, 3, padding=1))
            setattr(self, f"fc{layer}b_fc", nn.Linear(HYPER_CHANNELS, outputs))
        self.fc5w_fc = nn.Linear(HYPER_CHANNELS, TARGET_WIDTHS[4])
        self.fc5b_fc = nn.Linear(HYPER_CHANNELS, 1)

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map `(batch, 3, 224, 224)` to `vector`, and `weight1`, `bias1` to `weight5`, `bias5`."""
        last_map, vector = self.res(pixel_values)
        features = self.conv1(last_map)  # (batch, 112, 7, 7)
        pooled = self.pool(features).flatten(1)  # (batch, 112)
        generated = {"vector": vector.view(-1, TARGET_WIDTHS[0], 1, 1)}
        for layer in range(1, 6):
            inputs, outputs = TARGET_WIDTHS[layer - 1 : layer + 1]
            weight = self.fc5w_fc(pooled) if layer == 5 else getattr(self, f"fc{layer}w_conv")(features)
            generated[f"weight{layer}"] = weight.view(-1, outputs, inputs, 1, 1)
            generated[f"bias{layer}"] = getattr(self, f"fc{layer}b_fc")(pooled).view(-1, outputs)
        return generated


class GroupedLinear(nn.Module):
    """Linear layer with other weights for every patch, as one grouped 1 x 1 convolution: a group a patch."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.weight = weight  # (batch, outputs, inputs, 1, 1); a plain tensor, no parameter
        self.bias = bias  # (batch, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch_size, outputs, inputs = self.weight.shape[:3]
        x = nn.functional.conv2d(
            x.view(1, batch_size * inputs, 1, 1),
            self.weight.view(batch_size * outputs, inputs, 1, 1),
            self.bias.view(batch_size * outputs),
            groups=batch_size,
        )
        return x.view(batch_size, outputs, 1, 1)


class PublishedTargetNetwork(nn.Module):
    """Small network of every patch's own, built anew for every batch, from what the hyper network gives."""

    def __init__(self, generated: dict[str, torch.Tensor]):
        super().__init__()
        layers = [GroupedLinear(generated[f"weight{layer}"], generated[f"bias{layer}"]) for layer in range(1, 6)]
        self.layers = nn.Sequential(
            layers[0],
            nn.Sigmoid(),
            layers[1],
            nn.Sigmoid(),
            layers[2],
            nn.Sigmoid(),
            layers[3],
            nn.Sigmoid(),
            layers[4],
        )

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """Map `(batch, 224, 1, 1)` to `(batch,)`."""
        return self.layers(vector).flatten()


def predict(network: PublishedHyperNetwork, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return a score a patch, `(batch,)`, of normalised `(batch, 3, 224, 224)`."""
    generated = network(pixel_values)
    target_network = PublishedTargetNetwork(generated).to(pixel_values.device)
    for parameter in target_network.parameters():  # there are none; the published step asks all the same
        parameter.requires_grad = False
    return target_network(generated["vector"])


class PublishedTrainer:
    """Network, optimiser and the records of an epoch.

    Args:
        depths: blocks of the backbone's four stages.
        device: where the network lies.
    """

    def __init__(self, depths: Sequence[int], device: torch.device | str):
        self.network = PublishedHyperNetwork(depths).to(device).train()
        hyper = [value for name, value in self.network.named_parameters() if not name.startswith("res.")]
        groups = [
            {"params": hyper, "lr": LEARNING_RATE * HYPER_LEARNING_RATE_FACTOR},
            {"params": self.network.res.parameters(), "lr": LEARNING_RATE},
        ]
        self.optimizer = torch.optim.Adam(groups, weight_decay=WEIGHT_DECAY)
        self.criterion = nn.L1Loss().to(device)
        self.losses: list[float] = []
        self.predictions: list[float] = []
        self.labels: list[float] = []

    def step(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> None:
        """Do one update, from `(batch, 3, 224, 224)` and `(batch,)` on the device."""
        self.optimizer.zero_grad()
        prediction = predict(self.network, pixel_values)
        self.predictions += prediction.cpu().tolist()
        self.labels += labels.cpu().tolist()
        loss = self.criterion(prediction, labels.float().detach())
        self.losses.append(loss.item())
        loss.backward()
        self.optimizer.step()


def open_image(path: Path) -> Image.Image:
    """Open an image as the published loader does."""
    with open(path, "rb") as file:
        return hub_code.open_image(file).convert("RGB")


def compute_published_score(
    network: PublishedHyperNetwork, path: Path, device: torch.device | str, num_patches: int = NUM_PATCHES
) -> float:
    """Return the mean score of random crops, which the global seed decides."""
    patch_scores = []
    for _ in range(num_patches):
        pixel_values = random_patch(open_image(path)).to(device).clone().detach().unsqueeze(0)  # (1, 3, 224, 224)
        patch_scores.append(float(predict(network, pixel_values).item()))
    return statistics.fmean(patch_scores)


def compute_published_score_in_one_batch(
    network: PublishedHyperNetwork, path: Path, device: torch.device | str, num_patches: int = NUM_PATCHES
) -> float:
    """Return the same with one read of the file and all crops in one batch."""
    image = open_image(path)
    pixel_values = torch.stack([random_patch(image) for _ in range(num_patches)]).to(device)
    return float(predict(network, pixel_values).mean().item())


def build_seeded_network(depths: list[int], seed: int = 0) -> PublishedHyperNetwork:
    """Build a network in evaluation mode, with random weights under which scores differ and do not explode."""
    torch.manual_seed(seed)
    network = PublishedHyperNetwork(depths).eval()
    gain = sum(depths) ** -0.5  # of the end of a residual block: their sum neither grows nor vanishes with the depth
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None and module.running_mean is not None:
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.constant_(module.weight, gain if name.endswith("bn3") else 1.0)
        elif name.startswith(HEADS) and hasattr(module, "weight"):
            torch.nn.init.kaiming_normal_(module.weight)  # torch's default start lets all patches score alike
    return network

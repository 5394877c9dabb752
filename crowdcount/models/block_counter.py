"""BlockCounter: what every model does with an image of any size before and after its network."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.core.bins import Bins, expected_counts
from crowdcount.core.image import Normalisation
from crowdcount.core.types import BlockPrediction, pad_to_multiple
from crowdcount.errors import ConfigError
from crowdcount.models.config import ModelConfig
from crowdcount.models.output import check_head


class BlockCounter(nn.Module, ABC):
    """Images in [0, 1] to the probabilities of the bins, and the expected heads, of every block.

    A subclass is a network that gives logits for images whose sides are whole numbers of blocks
    and of its own strides. Normalisation, padding, cropping and the expectation are done here.

    Attributes:
        config: The settings it was built from.
        bins: The bins it tells apart.
        normalisation: The channel statistics it applies.
        stride: The coarsest stride of the network, in pixels: sides are padded to multiples.
        prompts: The sentences it compares blocks with, where the network reads sentences.
        frozen: Names of the modules and parameters that training leaves as they are.
        unmoved: Names of the modules whose statistics training leaves as they are.
    """

    mean: Tensor
    std: Tensor
    bin_values: Tensor
    prompts: tuple[str, ...] | None = None
    frozen: tuple[str, ...] = ()
    unmoved: tuple[str, ...] = ()

    def __init__(
        self, config: ModelConfig, bins: Bins, *, normalisation: Normalisation, stride: int
    ) -> None:
        """Keep what every prediction needs.

        Args:
            config: Settings; ``config.block`` must be the block side of the bins.
            bins: The bins to tell apart.
            normalisation: Channel statistics to apply to images.
            stride: The coarsest stride of the network, in pixels: sides are padded to multiples.

        Raises:
            ConfigError: If settings and bins are for blocks of different sides, or the head cannot
                tell these bins apart.
        """
        super().__init__()
        if config.block != bins.block:
            raise ConfigError(
                f"model.block: {config.block}, but the bins were made for blocks of {bins.block}",
                next_step=f"make bins for blocks of {config.block} pixels, or change the setting",
            )
        check_head(config.head, bins)
        self.config = config.resolved()
        self.bins = bins
        self.normalisation = normalisation
        self.stride = stride
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(3, 1, 1))
        self.register_buffer("bin_values", torch.tensor(bins.values))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> BlockPrediction:
        """Predict the blocks of RGB images in [0, 1].

        The maps have ``ceil(height / block)`` rows and ``ceil(width / block)`` columns: the last
        may stand for partial blocks. Plain regression has no bins, so no logits.
        """
        return self.from_normalised(self.normalised(images))

    def normalised(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """RGB images in [0, 1] with the channel statistics that the network knows."""
        return (images - self.mean) / self.std

    def from_normalised(self, images: Float[Tensor, "batch 3 height width"]) -> BlockPrediction:
        """Predict the blocks of images whose channels are normalised already.

        Images are padded at the bottom and the right with zeros, which is the mean colour.
        """
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, math.lcm(self.stride, self.config.block))
        if self.training:
            # Batch normalisation has no statistics of a single value, which is what one image of
            # one stride would give in the deepest stage.
            padded = F.pad(padded, (0, max(2 * self.stride - padded.shape[-1], 0)))
        rows, cols = -(-height // self.config.block), -(-width // self.config.block)
        logits = self.block_logits(padded)[..., :rows, :cols]
        if self.config.head == "regression":
            return BlockPrediction(logits=logits[:, :0], counts=F.relu(logits))
        return BlockPrediction(logits=logits, counts=expected_counts(logits, self.bin_values))

    def freeze(self, names: Sequence[str]) -> None:
        """Leave modules and parameters as they are from now on.

        Their parameters ask for no gradient, and in training, too, they behave as in evaluation:
        no dropout, and batch normalisation by statistics that stay.
        """
        self.frozen = (*self.frozen, *names)
        for name, parameter in self.named_parameters():
            if f"{name}.".startswith(tuple(f"{each}." for each in self.frozen)):
                parameter.requires_grad = False
        self.train(self.training)

    def freeze_statistics(self, *, head: bool = False) -> None:
        """Let batch normalisation go by the statistics it has from now on, in training, too.

        Args:
            head: That of all that is not the encoder, in place of the encoder's.

        Raises:
            ConfigError: If there is none.
        """
        names = [
            name
            for name, module in self.named_modules()
            if isinstance(module, nn.BatchNorm2d) and name.startswith("encoder.") is not head
        ]
        if not names:
            setting = "frozen_head_statistics" if head else "frozen_statistics"
            part = "head" if head else "encoder"
            raise ConfigError(
                f"model.{setting}: the {part} of {self.config.backbone} has no batch normalisation",
                next_step="leave the setting out",
            )
        self.unmoved = (*self.unmoved, *names)
        self.train(self.training)

    def train(self, mode: bool = True) -> "BlockCounter":
        """Set the mode of all modules that are not frozen."""
        super().train(mode)
        for name, module in self.named_modules():
            if name in self.frozen or name in self.unmoved:
                module.eval()
        return self

    @abstractmethod
    def block_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch bins rows cols"]:
        """The network: logits of every block of normalised images; heads before ReLU of regression.

        Sides are multiples of both the block side and the network's strides.
        """

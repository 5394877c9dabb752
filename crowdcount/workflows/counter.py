"""The counter: a checkpoint that counts images, for ``predict``, ``eval`` and the Python API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from crowdcount.core.device import resolve_device
from crowdcount.core.image import WorkingSize
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.data.images import load_image
from crowdcount.errors import BadInputError
from crowdcount.inference.counting import ImageCount, count_image
from crowdcount.inference.heatmap import heatmap
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.checkpoint import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many people are in one image, and where."""

    result: ImageCount
    """What the model found, with the geometry of the working image."""

    image: UInt8[np.ndarray, "height width 3"] = field(repr=False)
    """Upright RGB pixels of the image."""

    @property
    def total(self) -> float:
        """Expected heads in the whole image."""
        return self.result.total

    @property
    def blocks(self) -> Float[Tensor, "rows cols"]:
        """Expected heads in each block of the working image."""
        return self.result.blocks

    def heatmap(self) -> Image.Image:
        """The image with its block counts laid over it, a colour scale and the count."""
        return Image.fromarray(heatmap(self.image, self.result))


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A model in evaluation mode with the working size of its checkpoint."""

    model: BlockCounter
    working_size: WorkingSize
    device: torch.device
    name: str
    """What the model is called in records and reports."""

    card: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What else the checkpoint says of itself: provenance, metrics, settings."""

    @property
    def fold(self) -> int | None:
        """The fold, from 1, that was kept for validation in training; None: no fold."""
        fold: int | None = self.card.get("provenance", {}).get("fold")
        return fold

    def count(
        self,
        image: Path | str | UInt8[np.ndarray, "height width 3"],
        *,
        scale: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Count:
        """Count the people in an image.

        Args:
            image: A file, or upright RGB pixels.
            scale: Factor by which the image is resized before it is counted; None: what brings it
                into the model's working size.
            max_pixels: A larger file is refused by its header.

        Raises:
            InputMissingError: If the file is not there.
            BadInputError: If it is no image that can be read.
        """
        if isinstance(image, np.ndarray):
            pixels = image
        else:
            pixels = load_image(Path(image), max_pixels=max_pixels)
        result = count_image(
            self.model,
            pixels,
            block=self.model.config.block,
            working_size=self.working_size,
            device=self.device,
            scale=scale,
        )
        return Count(result=result, image=pixels)


def load(checkpoint: Path | str, *, device: str = "auto") -> Counter:
    """Make a counter of a checkpoint folder.

    Raises:
        InputMissingError: If the folder is not there.
        BadInputError: If it is no checkpoint of ours.
        ConfigError: If there is no such device.
    """
    folder = Path(checkpoint)
    target = resolve_device(device)
    loaded = load_checkpoint(folder)
    try:
        working_size = WorkingSize(**loaded.card["working_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{folder}: the checkpoint has no valid working size") from error
    return Counter(
        model=loaded.model.to(target),
        working_size=working_size,
        device=target,
        name=str(loaded.card.get("name", folder.name)),
        card=loaded.card,
    )

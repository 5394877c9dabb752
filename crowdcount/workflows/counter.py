"""The counter, which counts images with a checkpoint, for commands and the Python API."""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from crowdcount.core.device import resolve_device
from crowdcount.core.image import WorkingSize
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.precision import PRECISIONS, keep_weights, predict_blocks
from crowdcount.core.settings import check_choice
from crowdcount.core.types import BlockPrediction, ImageCount
from crowdcount.data.sources.images import load_image, pixels_of
from crowdcount.drawing.heatmap import heatmap
from crowdcount.errors import NoCountError
from crowdcount.inference.counting import BlockModel, count_image
from crowdcount.inference.sliding import SlidingModel
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.checkpoints.card import Provenance
from crowdcount.models.checkpoints.format import load_checkpoint
from crowdcount.models.checkpoints.names import ResolvedCheckpoint, resolve_checkpoint
from crowdcount.models.deploy.fuse_batch_norm import fuse_batch_norm
from crowdcount.models.deploy.winograd import use_winograd


@dataclass(frozen=True, kw_only=True)
class Count:
    """The people in one image: how many, and where."""

    result: ImageCount
    """Counts of the model, with the geometry of the working image."""

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
        """Draw block counts over the image, with a colour scale and the count."""
        return Image.fromarray(heatmap(self.image, self.result))


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A model in evaluation mode with the working size of its checkpoint."""

    model: BlockCounter
    working_size: WorkingSize
    device: torch.device
    name: str
    """Name of the model in records and reports."""

    provenance: Provenance = field(default_factory=Provenance)
    """Training data of the model, as far as its checkpoint names it."""

    precision: str = "fp32"
    """Precision of its network: a key of ``PRECISIONS``. Counts are float32 in any case."""

    def count(
        self,
        image: Path | str | Image.Image | np.ndarray,
        *,
        scale: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Count:
        """Count the people in an image.

        Args:
            image: A file; a Pillow image; or an upright array of 8 bits a channel, grey, RGB or
                RGBA, as (height, width) or (height, width, channels).
            scale: Factor by which the image is resized before it is counted; None: the one that
                brings it into the model's working size.
            max_pixels: Largest size of a file, checked before it is decoded.

        Raises:
            InputMissingError: If the file does not exist.
            BadInputError: If it cannot be read as an image, or the array has another type or shape.
            NoCountError: If the model's count is not a finite number.
        """
        if isinstance(image, Path | str):
            name, pixels = str(image), load_image(Path(image), max_pixels=max_pixels)
        else:
            name, pixels = "image", pixels_of(image)
        result = count_image(
            whole_image_model(self.model, precision=self.precision),
            pixels,
            block=self.model.config.block,
            working_size=self.working_size,
            device=self.device,
            scale=scale,
        )
        if not math.isfinite(result.total):
            raise NoCountError(
                f"{name}: {self.name} gives {result.total} heads, which is not a count",
                next_step="its weights are damaged or diverged; take another checkpoint"
                if self.precision == "fp32"
                else f"its numbers may not fit {self.precision}; count with the precision fp32",
            )
        return Count(result=result, image=pixels)

    @torch.inference_mode()
    def density(self, images: Float[Tensor, "batch 3 height width"]) -> BlockPrediction:
        """Predict block counts and logits of normalised images, as the published code does.

        Images are counted at their own size, whole or in windows, as the checkpoint's settings say.

        Args:
            images: RGB normalised with the channel statistics of the model
                (``model.normalisation``), of any floating type.

        Returns:
            ``counts`` (batch, 1, rows, cols) and ``logits`` (batch, bins, rows, cols), a row for
            every ``model.config.block`` pixels; the last may be part of a block. Where
            windows overlap, ``logits`` are logarithms of averaged probabilities.
        """
        return _from_normalised(self.model, precision=self.precision)(
            images.to(self.device, torch.float32)
        )


def whole_image_model(model: BlockCounter, *, precision: str = "fp32") -> BlockModel:
    """Return a function that counts whole images, in windows if the model's settings say so.

    Validation, ``eval`` and ``predict`` all count with it, so that they agree. The model is in
    evaluation mode.
    """
    if not model.config.window:
        return partial(predict_blocks, model, precision=precision)
    # Windows are cut from normalised pixels, so that padding a small image adds the mean colour.
    count = _from_normalised(model, precision=precision)
    return lambda images: count(model.normalised(images))


def _from_normalised(model: BlockCounter, *, precision: str) -> BlockModel:
    config = model.config
    network = partial(predict_blocks, model.from_normalised, precision=precision)
    if not config.window:
        return network
    # SlidingModel averages overlaps in float32.
    return SlidingModel(
        model=network,
        block=config.block,
        window=config.window,
        stride=config.window_stride or config.window,
    )


def load(
    checkpoint: Path | str | ResolvedCheckpoint,
    *,
    device: str = "auto",
    precision: str = "fp32",
    offline: bool = False,
) -> Counter:
    """Load a checkpoint as a counter.

    Its model can only count, not train: batch normalisation is fused into the convolutions.

    Args:
        checkpoint: ``starter`` for the model that ships with the package; text like
            ``hf://OWNER/NAME@REVISION`` for one of the model hub; or the folder of a checkpoint, or
            of a run, whose best checkpoint is loaded.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        precision: Precision of the network: ``fp32``, ``bf16`` or ``fp16``.
        offline: Download nothing; use the local cache of the hub.

    Raises:
        InputMissingError: If the checkpoint does not exist or cannot be downloaded.
        BadInputError: If it is not a checkpoint of crowdcount.
        ConfigError: If the device or the precision does not exist.
    """
    check_choice("precision", precision, PRECISIONS)
    folder = resolve_checkpoint(checkpoint, offline=offline).path
    target = resolve_device(device)
    loaded = load_checkpoint(folder)
    make_ready(loaded.model.to(target), precision=precision)
    return Counter(
        model=loaded.model,
        working_size=loaded.card.working_size,
        device=target,
        name=loaded.card.name or folder.name,
        provenance=loaded.card.provenance,
        precision=precision,
    )


def make_ready(model: BlockCounter, *, precision: str) -> None:
    """Make a model count faster, with the same counts. Changes it in place, so it cannot train.

    Folds batch normalisation into convolutions, uses Winograd's algorithm for wide float32
    convolutions on a CPU, and stores weights in the precision and in the memory layout
    (channels last) of the arithmetic. The model is in evaluation mode, on the device where it will
    count.
    """
    fuse_batch_norm(model)
    if precision == "fp32" and model.mean.device.type == "cpu":
        use_winograd(model)
    keep_weights(model, precision=precision)
    model.to(memory_format=torch.channels_last)

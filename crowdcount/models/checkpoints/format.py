"""A checkpoint: one folder with the settings, bins, card and weights of a model."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from crowdcount.core.bins import StoredBins
from crowdcount.core.image import Normalisation
from crowdcount.core.settings import parse
from crowdcount.errors import BadInputError, ConfigError, InputMissingError
from crowdcount.files import atomic_folder, check_format, read_json, write_json
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.checkpoints.card import Card
from crowdcount.models.checkpoints.names import CONFIG_NAME, WEIGHTS_NAME
from crowdcount.models.checkpoints.tensor_files import exact_tensors, read_tensors
from crowdcount.models.config import ModelConfig
from crowdcount.version import __version__

FORMAT = 1
"""Version of the folder's layout; raised when an older reader would misread a newer folder."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of ``config.json``: everything about a model but its weights."""

    crowdcount: str = __version__
    """Version that wrote it."""

    model: ModelConfig
    bins: StoredBins
    prompts: tuple[str, ...] | None = None
    normalisation: Normalisation
    card: Card

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {"format": FORMAT} | dataclasses.asdict(self)
        return values | {"bins": self.bins.to_json(), "card": self.card.to_json()}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint folder."""

    model: BlockCounter
    """In evaluation mode, on the CPU."""

    description: Description

    @property
    def card(self) -> Card:
        """The card in its description."""
        return self.description.card


def save_checkpoint(folder: Path, model: BlockCounter, *, card: Card, half: bool = False) -> None:
    """Write a model into a folder, which is replaced whole or not at all.

    ``half`` stores matrices and kernels in float16, which halves the size.
    """
    description = Description(
        model=model.config,
        bins=model.bins,
        prompts=model.prompts,
        normalisation=model.normalisation,
        card=card,
    )
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    if half:
        weights = dict(model.named_parameters())
        tensors |= {name: _halved(tensors[name]) for name in tensors.keys() & weights.keys()}
    with atomic_folder(folder) as temporary:
        write_json(temporary / CONFIG_NAME, description.to_json())
        # save_file() would let the owner alone read the file, and hide what a full disk says.
        (temporary / WEIGHTS_NAME).write_bytes(save(tensors))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, without network and without the pretrained weights of its backbone.

    The model is float32, whatever the type of its stored weights. The state of PyTorch's random
    generator does not change.

    Raises:
        InputMissingError: If the folder or one of its files is missing.
        BadInputError: If it is of a newer format or damaged, or its parts do not fit together.
    """
    description = describe(folder)
    try:
        with torch.random.fork_rng(devices=[]):
            model = empty_model(
                description.model, description.bins, normalisation=description.normalisation
            )
    except (ConfigError, ValueError) as error:
        raise _no_model(folder, error) from error
    path = folder / WEIGHTS_NAME
    tensors = read_tensors(path).tensors
    model.load_state_dict(exact_tensors(tensors, model.state_dict(), source=str(path)))
    return Checkpoint(model=model.eval(), description=description)


def describe(folder: Path) -> Description:
    """Read the description of a checkpoint, without building its model.

    Raises:
        InputMissingError: If the folder or one of its files is missing.
        BadInputError: If it is of a newer format or damaged.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise InputMissingError(
                f"{folder}: not a checkpoint", looked_for=f"{CONFIG_NAME} and {WEIGHTS_NAME} in it"
            )
    path = folder / CONFIG_NAME
    try:
        values = read_json(path)
        version = values["format"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path}: not the description of a checkpoint: {error}") from error
    newer = "use the version of crowdcount that wrote it, or a newer one"
    check_format(path, version, expected=FORMAT, next_step=newer)
    try:
        return parse(Description, {"crowdcount": None} | values)
    except (ConfigError, ValueError) as error:
        raise _no_model(folder, error) from error


def _no_model(folder: Path, error: Exception) -> BadInputError:
    return BadInputError(f"{folder / CONFIG_NAME}: does not describe a model: {error}")


def _halved(weights: Tensor) -> Tensor:
    """Convert matrices and kernels to float16 if their values fit.

    Biases and scales stay as they are: they are few, and the count of every block depends on each.
    """
    if weights.ndim < 2 or weights.dtype != torch.float32:
        return weights
    half = weights.half()
    return half if bool(half.isfinite().all()) else weights

"""TrainConfig: the settings section ``train``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crowdcount.core.precision import Precision
from crowdcount.core.settings import (
    NaturalInt,
    NonEmptyText,
    PositiveFloat,
    PositiveInt,
    settings,
)
from crowdcount.errors import ConfigError

FREE_ON_RESUME = (
    "train.workers",
    "train.cache",
    "train.checkpoint_every_steps",
    "train.checkpoint_every_minutes",
    "train.tensorboard",
)
"""Settings that may change when a run is resumed: they do not affect its weights."""


@settings("train")
class TrainConfig:
    """Settings of a training run that belong to no single component."""

    init: NonEmptyText | None = None
    """Checkpoint whose weights, model settings, bins and statistics training starts from: a folder,
    a run, ``hf://OWNER/NAME[@REVISION]`` or ``starter``. None: fresh weights, as the section
    ``model`` says."""

    init_part: Literal["all", "encoder"] = "all"
    """Part of that checkpoint to start from. ``encoder``: the backbone's weights and statistics
    alone; the rest is new, as the section ``model`` says, and bins are those of the data."""

    epochs: PositiveInt = 200
    """Passes over the training images."""

    batch_size: PositiveInt = 8
    """Crops per step."""

    crops_per_image: PositiveInt = 1
    """Crops of each training image in an epoch. They follow one another, so those of one image
    share a step where ``batch_size`` is a multiple of this."""

    accumulate: PositiveInt = 1
    """Pieces in which the crops of a step go through the network, to need less memory."""

    crop: Annotated[int, Field(ge=32)] | None = None
    """Side of the square training crops in pixels. None: the usual one of the backbone."""

    precision: Precision = "fp32"
    """Number format of the network's arithmetic. Losses are always float32."""

    seed: NaturalInt = 42
    """Seed of weights, order and augmentation."""

    workers: NaturalInt | None = None
    """Processes that prepare crops. None: one less than there are processors, at most four."""

    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where decoded training images are kept. ``auto``: the first of the others in which they take
    at most half of the free space."""

    validate_every: PositiveInt = 1
    """Epochs between two validations; the last epoch is always validated."""

    select_on: Literal["val", "test"] = "val"
    """Split that is validated on and that decides which weights are the best."""

    patience: NaturalInt = 0
    """Epochs without a better validation after which training ends. 0: it does not."""

    keep_best: PositiveInt = 1
    """Checkpoints of the best validations that are kept."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the averaged weights that are validated and kept. 0: the plain weights."""

    checkpoint_every_steps: PositiveInt | None = None
    """Steps between two saved training states, from which ``--resume`` continues."""

    checkpoint_every_minutes: PositiveFloat | None = None
    """Minutes between two saved states. Where neither is set, one is saved after every epoch."""

    tensorboard: bool = False
    """Write the log as TensorBoard events, too."""

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.init_part == "encoder" and self.init is None:
            raise ConfigError(
                "train.init_part: encoder, and there is no checkpoint to take one from",
                next_step="name it with --init, or leave the setting out",
            )
        if self.accumulate > self.batch_size:
            raise ConfigError(
                "train.accumulate: expected at most train.batch_size, got "
                f"{self.accumulate} pieces of {self.batch_size} crops"
            )
        return self

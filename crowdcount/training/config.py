"""TrainConfig: the settings section ``train``."""

import math
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from crowdcount.core.precision import check_precision
from crowdcount.errors import ConfigError

FREE_ON_RESUME = (
    "train.workers",
    "train.cache",
    "train.checkpoint_every_steps",
    "train.checkpoint_every_minutes",
    "train.tensorboard",
)
"""Settings that may change when a run is resumed: they do not touch what it computes."""

CACHES = ("auto", "memory", "disk", "off")
"""Where decoded training images may be kept."""

SELECTION_SPLITS = ("val", "test")
"""Splits that a run may be validated on."""

INIT_PARTS = ("all", "encoder")
"""What of the checkpoint in ``train.init`` training starts from."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run that belong to no single component."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    init: str | None = None
    """Checkpoint whose weights, model settings, bins and statistics training starts from: a folder,
    a run, ``hf://OWNER/NAME[@REVISION]`` or ``starter``. None: fresh weights, as the section
    ``model`` says."""

    init_part: str = "all"
    """``encoder``: of that checkpoint the backbone's weights and statistics alone; what is behind
    it is new, as the section ``model`` says, and bins are those of the data."""

    epochs: int = 200
    """Passes over the training images."""

    batch_size: int = 8
    """Crops a step."""

    crops_per_image: int = 1
    """Crops of each training image in an epoch. They follow one another, so that those of one
    image share a step where ``batch_size`` is a multiple of it."""

    accumulate: int = 1
    """Pieces in which the crops of a step go through the network, to need less memory."""

    crop: int | None = None
    """Side of the square training crops in pixels; none: what the backbone is usually given."""

    precision: str = "fp32"
    """Numbers the network computes with: a key of ``PRECISIONS``. Losses are always float32."""

    seed: int = 42
    """Seed of weights, order and augmentation."""

    workers: int | None = None
    """Processes that prepare crops; none: one less than there are processors, four at most."""

    cache: str = "auto"
    """Where decoded training images are kept: one of ``CACHES``; ``auto``: the first of the others
    in which they take at most half of what is free."""

    validate_every: int = 1
    """Epochs between two validations; the last epoch is always validated."""

    select_on: str = "val"
    """Split that is validated on and that decides which weights are the best: a key of
    ``SELECTION_SPLITS``."""

    patience: int = 0
    """Epochs without a better validation after which training ends; 0: it does not."""

    keep_best: int = 1
    """Checkpoints of the best validations that are kept."""

    ema_decay: float = 0.0
    """Decay a step of the averaged weights that are validated and kept; 0 keeps the plain ones."""

    checkpoint_every_steps: int | None = None
    """Steps between two saved training states, from which ``--resume`` continues."""

    checkpoint_every_minutes: float | None = None
    """Minutes between two. Where neither is set, a state is saved at the end of every epoch."""

    tensorboard: bool = False
    """Keep the log as events for TensorBoard, too."""

    def __post_init__(self) -> None:
        for name in (
            *("epochs", "batch_size", "crops_per_image", "accumulate"),
            *("validate_every", "keep_best"),
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if self.init == "":
            raise ConfigError("train.init: must not be empty")
        if self.init_part not in INIT_PARTS:
            raise ConfigError(
                f"train.init_part: unknown part {self.init_part!r}; "
                f"choose from: {', '.join(INIT_PARTS)}"
            )
        if self.init_part == "encoder" and self.init is None:
            raise ConfigError(
                "train.init_part: encoder, and there is no checkpoint to take one from",
                next_step="name it with --init, or leave the setting out",
            )
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"train.accumulate must be at most train.batch_size, got {self.accumulate} pieces "
                f"of {self.batch_size} crops"
            )
        if self.crop is not None and self.crop < 32:
            raise ConfigError(f"train.crop must be at least 32 pixels, got {self.crop}")
        check_precision("train.precision", self.precision)
        if self.seed < 0:
            raise ConfigError(f"train.seed must be >= 0, got {self.seed}")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"train.workers must be >= 0, got {self.workers}")
        if self.select_on not in SELECTION_SPLITS:
            raise ConfigError(
                f"train.select_on: cannot select on {self.select_on!r}; "
                f"choose from: {', '.join(SELECTION_SPLITS)}"
            )
        if self.cache not in CACHES:
            raise ConfigError(
                f"train.cache: unknown place {self.cache!r}; choose from: {', '.join(CACHES)}"
            )
        if self.patience < 0:
            raise ConfigError(f"train.patience must be >= 0, got {self.patience}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay must be in [0, 1), got {self.ema_decay}")
        steps, minutes = self.checkpoint_every_steps, self.checkpoint_every_minutes
        if steps is not None and steps < 1:
            raise ConfigError(f"train.checkpoint_every_steps must be at least 1, got {steps}")
        if minutes is not None and not 0 < minutes < math.inf:
            raise ConfigError(f"train.checkpoint_every_minutes must be positive, got {minutes}")

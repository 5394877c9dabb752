"""The card of a checkpoint: origin, data, measurements and terms of a model."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from crowdcount.core.image import WorkingSize
from crowdcount.core.limits import MAX_COUNT
from crowdcount.core.metrics import CountMetrics
from crowdcount.core.settings import NonEmptyText, NonNegativeFloat, PositiveInt, parse
from crowdcount.errors import ConfigError, InputMissingError
from crowdcount.files import read_toml


class _Written:
    """Refuses unknown keys in the text that a person writes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Source(_Written):
    """A data set that a model was trained on, or the weights that its training began with."""

    name: NonEmptyText
    terms: NonEmptyText
    """Terms of use, and their consequences for the model."""

    images: PositiveInt | None = None
    """Number of training images from it."""

    url: NonEmptyText | None = None
    """Its home page."""


@dataclass(frozen=True, kw_only=True)
class Measured(_Written):
    """Errors of counts, and the command that gave them."""

    data: NonEmptyText
    """Which images were counted."""

    images: PositiveInt
    mae: NonNegativeFloat
    rmse: NonNegativeFloat
    command: NonEmptyText
    nae: NonNegativeFloat | None = None
    note: NonEmptyText | None = None
    """A condition of the measurement that changes how to read it."""


@dataclass(frozen=True, kw_only=True)
class Timed(_Written):
    """Time to count an image."""

    image: NonEmptyText
    """Its size."""

    machine: NonEmptyText
    seconds: NonNegativeFloat
    command: NonEmptyText


@dataclass(frozen=True, kw_only=True)
class CardText(_Written):
    """The part of a card that a person writes. Fields that are left out are shown as not known."""

    title: NonEmptyText
    """The model in one line."""

    licence: NonEmptyText
    """Terms of the weights."""

    name: NonEmptyText | None = None
    """Its name in records and reports; None: that of its run."""

    protocol: NonEmptyText | None = None
    """Which images it was trained, selected and measured on."""

    data: tuple[Source, ...] = ()
    """Data sets it was trained on."""

    weights: tuple[Source, ...] = ()
    """Weights that its training began with."""

    metrics: tuple[Measured, ...] = ()
    speed: tuple[Timed, ...] = ()
    known_failures: tuple[NonEmptyText, ...] = ()
    """Kinds of images that it counts badly."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """The checkpoint that a training started from."""

    name: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """The published file that a checkpoint was converted from."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Settings of a published model that its file does not state."""

    bins: str
    block: int
    prompts: str | None = None
    window: int
    window_stride: int | None = None
    normalisation: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The origin of the weights of a checkpoint; None: not known."""

    data: tuple[str, ...] = ()
    """Names of the training data sets."""

    training_images: int | None = None
    validation_images: int | None = None
    mean_heads: Annotated[float, Field(ge=0, le=MAX_COUNT)] | None = None
    """Mean heads of a training image."""

    selected_on: str = "val"
    """The split on which these weights were selected."""

    fold: int | None = None
    """The fold, from 1, that was kept for validation; None: no fold."""

    init: InitialWeights | None = None
    """None: the training started from fresh weights."""

    imported: ImportedFile | None = None
    assumed: Assumptions | None = None
    torch: str | None = None
    """Version of PyTorch."""

    epoch: int | None = None
    """The last epoch of training."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without those that are not known."""
        return _known(dataclasses.asdict(self) | {"data": list(self.data) or None})


@dataclass(frozen=True, kw_only=True)
class Card:
    """The card of a checkpoint, as it stands in ``config.json``."""

    working_size: WorkingSize
    name: str | None = None
    """Its name in records and reports; None: that of its folder."""

    provenance: Provenance = field(default_factory=Provenance)
    metrics: dict[str, CountMetrics | dict[str, CountMetrics]] = field(default_factory=dict)
    """The validation of its run: by split, and under ``<split>_sets`` by data set."""

    settings: dict[str, dict[str, Any]] | None = None
    """The settings of its run, by section."""

    text: CardText | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without those that are not known."""
        return _known(dataclasses.asdict(self) | {"provenance": self.provenance.to_json()})


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def read_card_text(path: Path) -> CardText:
    """Read a card's text from a TOML file.

    Raises:
        InputMissingError: If the file cannot be read.
        ConfigError: If it is no TOML, a key is unknown or missing, or a value is wrong.
    """
    try:
        return parse(CardText, read_toml(path))
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(
            f"{path}: no text of a card: {error}",
            next_step="crowdcount docs models describes its keys",
        ) from error

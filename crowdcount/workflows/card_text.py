"""The part of a model's card that a person writes: a TOML file, as docs/models.md describes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from crowdcount.core.typed import typed
from crowdcount.errors import ConfigError, InputMissingError
from crowdcount.files import read_toml

Words = Annotated[str, Field(min_length=1)]
Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Images = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something that a model was made from: a data set, or weights that its training began with."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Words
    terms: Words
    """On what terms it can be used, and what that means for the model."""

    images: Images | None = None
    """How many of its images were trained on."""

    url: Words | None = None
    """Where it comes from."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Errors of counts, and the command that gave them."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    data: Words
    """Which images were counted."""

    images: Images
    mae: Error
    rmse: Error
    command: Words
    nae: Error | None = None
    note: Words | None = None
    """What a reader must know to read the numbers rightly."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """How long counting an image takes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    image: Words
    """Its size."""

    machine: Words
    seconds: Error
    command: Words


@dataclass(frozen=True, kw_only=True)
class CardText:
    """What a person says of a model. Nothing is known of what is left out, and the card says so."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    title: Words
    """What the model is, in a line."""

    licence: Words
    """Terms of the weights."""

    name: Words | None = None
    """What records and reports call it; none: as its run is called."""

    protocol: Words | None = None
    """What it was trained, selected and measured on."""

    data: tuple[Source, ...] = ()
    """Data sets it was trained on."""

    weights: tuple[Source, ...] = ()
    """Weights that its training began with."""

    metrics: tuple[Measured, ...] = ()
    speed: tuple[Timed, ...] = ()
    known_failures: tuple[Words, ...] = ()
    """On what it counts badly, one thing each."""


def read_card_text(path: Path) -> CardText:
    """Read a card's text from a TOML file.

    Raises:
        InputMissingError: If the file cannot be read.
        ConfigError: If it is no TOML, a key is unknown or missing, or a value is wrong.
    """
    try:
        return typed(CardText, read_toml(path))
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(
            f"{path}: no text of a card: {error}", next_step="see docs/models.md for its keys"
        ) from error

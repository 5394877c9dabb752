"""A data set as a description: the Recipe, loading and validating its TOML, listing the names."""

import difflib
import hashlib
import importlib.resources
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, TypeAdapter

from crowdcount.data.points import PointsFormat
from crowdcount.data.resize import ResizeRule
from crowdcount.errors import ConfigError, InputMissingError, UsageError

SPLITS = ("train", "val", "test")
"""Splits a data set can have, in the order in which they are told."""

Patterns = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
"""Paths below the set's folder; ``{id}`` pairs an image with its annotation, ``*`` and ``**`` match
any name and any folders. In TOML one string or a list of them."""


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How a folder that has the layout of a recipe is told to be its set."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    folders: tuple[str, ...] = ()
    """Names of the set's folder; case, spaces, dashes and underscores do not matter."""

    image_size: tuple[int, int] | None = None
    """Width and height of every image, where the folder's name does not tell."""

    any_folder: bool = False
    """A layout of any number of sets, named after their folder, when no known set fits."""


@dataclass(frozen=True, kw_only=True)
class SplitLayout:
    """Where the files of a split lie."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    images: Patterns
    """Where images lie; together, if there are several."""

    points: Patterns
    """Where annotations lie; the first that is there, if there are several."""

    expect_images: int | None = None
    """How many images the split has."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything there is to know about a data set's archive."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    """What the set is called everywhere: the name of the recipe's file."""

    title: str
    homepage: str
    licence: str
    """Terms of use, and whether images may be redistributed."""

    citation: str
    points: PointsFormat
    resize: ResizeRule
    splits: dict[str, SplitLayout]
    """Layout of ``train``, ``val`` and ``test``, as far as there are any."""

    recognise: Recognition = field(default_factory=Recognition)

    releases: dict[str, dict[str, int]] = field(default_factory=dict)
    """Heads of each split in each known release of the annotations."""

    def __post_init__(self) -> None:
        if not self.splits:
            raise ConfigError("splits: a recipe needs at least one")
        for split, layout in self.splits.items():
            if split not in SPLITS:
                raise ConfigError(
                    f"splits.{split}: no such split; choose from: {', '.join(SPLITS)}"
                )
            if self.points.is_table:
                continue
            for key, patterns in (("images", layout.images), ("points", layout.points)):
                for pattern in patterns:
                    if pattern.count("{id}") != 1:
                        raise ConfigError(
                            f"splits.{split}.{key}: {pattern!r} must hold {{id}} once, which pairs "
                            "an image with its annotation"
                        )
        for release, heads in self.releases.items():
            if not set(heads) <= set(self.splits):
                raise ConfigError(f"releases.{release}: has a split that the recipe has not")

    def sha256(self) -> str:
        """A hash of all the recipe says, independent of how its file is laid out."""
        content = TypeAdapter(Recipe).dump_python(self, mode="json")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def recipes_folder() -> Path:
    """The folder that holds the recipes: inside an installed package, beside it in a checkout."""
    package = Path(str(importlib.resources.files("crowdcount")))
    shipped = package / "data_recipes"
    return shipped if shipped.is_dir() else package.parent / "data_recipes"


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in recipes_folder().glob("*.toml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe of a known name, or in a TOML file.

    Raises:
        UsageError: If no recipe has the name.
        InputMissingError: If the file is not there.
        ConfigError: If the file is no valid recipe; names the file and the key.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        name = str(name_or_path)
        if name not in recipe_names():
            close = difflib.get_close_matches(name, recipe_names(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(
                f"no data set is called {name!r}{hint}",
                next_step=f"choose from: {', '.join(recipe_names())}",
            )
        path = recipes_folder() / f"{name}.toml"
    if not path.is_file():
        raise InputMissingError(f"{path}: no such recipe")
    return _parsed(path)


def load_recipes() -> tuple[Recipe, ...]:
    """All recipes that come with the package, by name."""
    return tuple(load_recipe(name) for name in recipe_names())


def _parsed(path: Path) -> Recipe:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    if "name" in content:
        raise ConfigError(f"{path}: name: no such key; a recipe is called after its file")
    try:
        return TypeAdapter(Recipe).validate_python({"name": path.stem, **content})
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        what = "no such key" if problem["type"] == "unexpected_keyword_argument" else problem["msg"]
        raise ConfigError(f"{path}: {key}: {what}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error

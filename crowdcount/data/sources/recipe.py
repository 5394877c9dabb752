"""A data set as a description: the Recipe, loading and validating its TOML, listing the names."""

import hashlib
import importlib.resources
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, TypeAdapter

from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
from crowdcount.files import read_toml
from crowdcount.wording import did_you_mean

SPLITS = ("train", "val", "test")
"""Splits a data set can have, in the order in which they are told."""

Patterns = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
"""Paths below the set's folder; ``{id}`` pairs an image with its annotation; ``?``, ``*`` and
``**`` match one character, any name and any folders. In TOML one string or a list of them."""

IdRange = tuple[int, int]
"""First and last number of a run of ids, both of them included."""

TOTAL = "total"
"""In a release, the heads of all splits together, where those of each are not known."""


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

    layout: bool = False
    """No other set is laid out like this one, so its annotated images tell it without a name."""


@dataclass(frozen=True, kw_only=True)
class SplitLayout:
    """Where the files of a split lie."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    images: Patterns
    """Where images lie; together, if there are several."""

    points: Patterns = ()
    """Where annotations lie; the first that is there, if there are several."""

    unlabelled: bool = False
    """Annotations of this split were not published: it is known, and not prepared."""

    list: str | None = None
    """File below the set's folder that names the ids of the split's images: the first field of each
    line, up to a comma or white space."""

    ids: IdRange | None = None
    """The numbers of the split's images, where their ids are numbers and splits share a folder."""

    expect_images: int | None = None
    """How many images the split has."""

    @property
    def has_ids(self) -> bool:
        """Whether ``{id}`` in the images' paths tells which is whose; else their paths do."""
        return all("{id}" in pattern for pattern in self.images)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How training images are parted for validation, apart from seed and share."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    group: str | None = None
    """What the files of the training images look like, with ``{group}`` for what those have in
    common that stay together: frames of one camera, of one minute."""

    folds: tuple[IdRange, ...] = ()
    """The ids of the training images in each fold of the set's own protocol."""

    def __post_init__(self) -> None:
        if self.group is not None and self.group.count("{group}") != 1:
            raise ConfigError(
                f"validation.group: {self.group!r} must hold {{group}} once: what the images that "
                "stay together have in common"
            )
        _check_ranges(self.folds, key="validation.folds")
        if len(self.folds) == 1:
            raise ConfigError("validation.folds: one fold is none; name two at least")

    def fold_of(self, image_id: str) -> int | None:
        """Which of the folds, from 0, an image is in."""
        folds = (k for k, ids in enumerate(self.folds) if in_range(image_id, ids))
        return next(folds, None)


def in_range(image_id: str, ids: IdRange) -> bool:
    """Whether an id is a number in a range."""
    return bool(re.fullmatch(r"[0-9]+", image_id)) and ids[0] <= int(image_id) <= ids[1]


def _check_ranges(ranges: Sequence[IdRange], *, key: str) -> None:
    for first, last in ranges:
        if not 0 <= first <= last:
            raise ConfigError(
                f"{key}: expected the first and the last number, got [{first}, {last}]"
            )
    ordered = sorted(ranges)
    for (first, last), (following, _) in itertools.pairwise(ordered):
        if following <= last:
            raise ConfigError(f"{key}: {following} is in two, the other being [{first}, {last}]")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything there is to know about a data set's archive."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    """What the set is called everywhere: the name of the recipe's file."""

    title: str
    homepage: str
    download: str = ""
    """How to get the archive, from the homepage on."""

    licence: str
    """Terms of use, and whether images may be redistributed."""

    citation: str
    points: PointsFormat
    resize: ResizeRule
    splits: dict[str, SplitLayout]
    """Layout of ``train``, ``val`` and ``test``, as far as there are any."""

    recognise: Recognition = field(default_factory=Recognition)

    validation: Validation = field(default_factory=Validation)

    releases: dict[str, dict[str, int]] = field(default_factory=dict)
    """Heads of each split, or ``total``, in each known release of the annotations."""

    def __post_init__(self) -> None:
        if not self.splits:
            raise ConfigError("splits: a recipe needs at least one")
        for split, layout in self.splits.items():
            if split not in SPLITS:
                raise ConfigError(
                    f"splits.{split}: no such split; choose from: {', '.join(SPLITS)}"
                )
            self._check_split(f"splits.{split}", layout)
        if not self.labelled:
            raise ConfigError("splits: one at least must have annotations")
        for release, heads in self.releases.items():
            unknown = sorted(set(heads) - {*self.labelled, TOTAL})
            if unknown:
                raise ConfigError(
                    f"releases.{release}.{unknown[0]}: no split with annotations, nor {TOTAL}"
                )
        if self.validation != Validation() and "train" not in self.labelled:
            raise ConfigError("validation: parts training images, and there is no splits.train")
        if self.validation.folds and not self.splits["train"].has_ids:
            raise ConfigError("validation.folds: needs {id} in splits.train.images")

    def _check_split(self, key: str, layout: SplitLayout) -> None:
        if layout.unlabelled and layout.points:
            raise ConfigError(f"{key}.unlabelled: and yet {key}.points says where annotations lie")
        if not layout.images:
            raise ConfigError(f"{key}.images: says nothing")
        if not layout.points and not layout.unlabelled:
            raise ConfigError(
                f"{key}.points: missing; a split without published annotations says "
                "unlabelled = true"
            )
        paired = layout.points if not self.points.is_table else ()
        by_id = bool(paired or layout.list or layout.ids)
        for name, patterns in (("images", layout.images if by_id else ()), ("points", paired)):
            for pattern in patterns:
                if pattern.count("{id}") != 1:
                    raise ConfigError(
                        f"{key}.{name}: {pattern!r} must hold {{id}} once, which pairs "
                        "an image with its annotation"
                    )
        if layout.ids is not None:
            _check_ranges([layout.ids], key=f"{key}.ids")

    @property
    def labelled(self) -> dict[str, SplitLayout]:
        """The splits that have annotations."""
        return {name: each for name, each in self.splits.items() if not each.unlabelled}

    def heads(self, split: str) -> dict[str, int]:
        """Heads of a split, or ``total``, in each release that tells."""
        told = {}
        for release, known in self.releases.items():
            if split in known:
                told[release] = known[split]
            elif split == TOTAL and known.keys() == self.labelled.keys():
                told[release] = sum(known.values())
        return told

    def sha256(self) -> str:
        """A hash of all the recipe says, independent of how its file is laid out."""
        content = _ADAPTER.dump_python(self, mode="json")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def recipes_folder() -> Path:
    """The folder that holds the recipes: inside an installed package, beside it in a checkout."""
    package = Path(str(importlib.resources.files("crowdcount")))
    shipped = package / "data_recipes"
    return shipped if shipped.is_dir() else package.parent / "data_recipes"


# Built once: that takes ten times as long as to read a recipe with it.
_ADAPTER = TypeAdapter(Recipe)


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in recipes_folder().glob("*.toml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe of a known name, or in a TOML file.

    Args:
        name_or_path: A path is a file; so is a name that ends in ``.toml``.

    Raises:
        UsageError: If no recipe has the name.
        InputMissingError: If the file is not there.
        ConfigError: If the file is no valid recipe; names the file and the key.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix != ".toml":
        name = str(name_or_path)
        if name not in recipe_names():
            raise UsageError(
                f"no data set is called {name!r}{did_you_mean(name, recipe_names())}",
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
        content = read_toml(path)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error}") from error
    if "name" in content:
        raise ConfigError(f"{path}: name: no such key; a recipe is called after its file")
    try:
        return _ADAPTER.validate_python({"name": path.stem, **content})
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        what = "no such key" if problem["type"] == "unexpected_keyword_argument" else problem["msg"]
        raise ConfigError(f"{path}: {key}: {what}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error

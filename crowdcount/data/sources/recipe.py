"""Recipes: descriptions of data sets in TOML files."""

import hashlib
import itertools
import json
import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, model_validator

from crowdcount.core.settings import NaturalInt, check_choice, parse, settings
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
from crowdcount.files import read_toml, shipped_folder
from crowdcount.wording import did_you_mean, number_key

SPLITS = ("train", "val", "test")
"""Splits that a data set can have, in the order of every list."""

TOTAL = "total"
"""Key of a release for the heads of all splits together, where those of each are not known."""


def _as_patterns(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _check_range(ids: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= ids[0] <= ids[1]:
        raise ValueError(f"expected the first and the last number, got {list(ids)}")
    return ids


def _check_folds(folds: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    if len(folds) == 1:
        raise ValueError("expected at least two folds, got one")
    for (first, last), (following, _) in itertools.pairwise(sorted(folds)):
        if following <= last:
            raise ValueError(f"{following} is in two folds; one of them is [{first}, {last}]")
    return folds


def _check_group(pattern: str | None) -> str | None:
    if pattern is not None and pattern.count("{group}") != 1:
        raise ValueError(
            f"{pattern!r} must hold {{group}} once: the common part of images that stay together"
        )
    return pattern


Patterns = Annotated[tuple[str, ...], BeforeValidator(_as_patterns)]
"""Paths below the set's folder, in TOML one string or a list. ``{id}`` pairs an image with its
annotation; ``?``, ``*`` and ``**`` match one character, any name and any folders."""

IdRange = Annotated[tuple[int, int], AfterValidator(_check_range)]
"""First and last number of a range of ids, both inclusive."""


@settings("recognise")
class Recognition:
    """How a folder with the layout of a recipe is identified as its set."""

    folders: tuple[str, ...] = ()
    """Names of the set's folder; case, spaces, dashes and underscores are ignored."""

    image_size: tuple[int, int] | None = None
    """Width and height of every image, which identify a set whose folder has another name."""

    any_folder: bool = False
    """A layout of many sets, named after their folder, used if no known set matches."""

    layout: bool = False
    """No other set has this layout, so annotated images identify the set without a name."""


@settings("splits")
class SplitLayout:
    """Paths of the files of a split."""

    images: Patterns
    """Paths of the images: all matches of all patterns."""

    points: Patterns = ()
    """Paths of the annotations: the first pattern that matches."""

    unlabelled: bool = False
    """Annotations of this split were not published, so it is not prepared."""

    list: str | None = None
    """File that lists the ids of the images: the first field of each line, up to a comma or white
    space."""

    ids: IdRange | None = None
    """Range of the ids of the images, if they are numbers and splits share a folder."""

    expect_images: NaturalInt | None = None
    """Number of images of the complete split."""

    @property
    def has_ids(self) -> bool:
        """Whether ``{id}`` in the paths of images identifies them, and not the paths themselves."""
        return all("{id}" in pattern for pattern in self.images)


@settings("validation")
class Validation:
    """How training images are parted for validation, apart from seed and share."""

    group: Annotated[str | None, AfterValidator(_check_group)] = None
    """Pattern of the files of training images, with ``{group}`` for the common part of images that
    stay together, such as frames of one camera or of one minute."""

    folds: Annotated[tuple[IdRange, ...], AfterValidator(_check_folds)] = ()
    """Ids of the training images in each fold of the set's published protocol."""

    def fold_of(self, image_id: str) -> int | None:
        """Return the fold of an image, from 0; None if it is in none."""
        folds = (k for k, ids in enumerate(self.folds) if in_range(image_id, ids))
        return next(folds, None)


def in_range(image_id: str, ids: IdRange) -> bool:
    """Return whether an id is a number in a range."""
    first, last = (number_key(str(number)) for number in ids)
    return bool(re.fullmatch(r"[0-9]+", image_id)) and first <= number_key(image_id) <= last


@settings("")
class Recipe:
    """Description of a data set and of its archive."""

    name: str
    """Name of the set: that of the recipe's file."""

    title: str
    homepage: str
    download: str = ""
    """How to get the archive, starting at the homepage."""

    licence: str
    """Terms of use, and whether images may be redistributed."""

    citation: str
    points: PointsFormat
    resize: ResizeRule
    splits: dict[str, SplitLayout]
    """Layouts of the splits: ``train``, ``val`` and ``test``, or some of them."""

    recognise: Recognition = field(default_factory=Recognition)
    validation: Validation = field(default_factory=Validation)
    releases: dict[str, dict[str, int]] = field(default_factory=dict)
    """Heads of each split, or ``total``, in each known release of the annotations."""

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        for split, layout in self.splits.items():
            check_choice("splits", split, SPLITS)
            self._check_split(f"splits.{split}", layout)
        if not self.labelled:
            raise ConfigError("splits: at least one must have annotations")
        for release, heads in self.releases.items():
            for split in heads:
                check_choice(f"releases.{release}", split, [*self.labelled, TOTAL])
        if self.validation != Validation() and "train" not in self.labelled:
            raise ConfigError("validation: parts training images, but splits.train is missing")
        if self.validation.folds and not self.splits["train"].has_ids:
            raise ConfigError("validation.folds: needs {id} in splits.train.images")
        return self

    def _check_split(self, key: str, layout: SplitLayout) -> None:
        if layout.unlabelled and layout.points:
            raise ConfigError(f"{key}.unlabelled: contradicts {key}.points")
        if not layout.images:
            raise ConfigError(f"{key}.images: is empty")
        if not layout.points and not layout.unlabelled:
            raise ConfigError(
                f"{key}.points: is missing; a split without published annotations has "
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

    @property
    def labelled(self) -> dict[str, SplitLayout]:
        """The splits with annotations."""
        return {name: layout for name, layout in self.splits.items() if not layout.unlabelled}

    def heads(self, split: str) -> dict[str, int]:
        """Return the heads of a split, or of ``total``, in each release where they are known."""
        heads = {}
        for release, by_split in self.releases.items():
            if split in by_split:
                heads[release] = by_split[split]
            elif split == TOTAL and by_split.keys() == self.labelled.keys():
                heads[release] = sum(by_split.values())
        return heads

    def to_json(self) -> dict[str, Any]:
        """Return the facts by which people choose a data set."""
        return {
            "name": self.name,
            "title": self.title,
            "homepage": self.homepage,
            "download": self.download,
            "licence": self.licence,
            "citation": self.citation,
            "own": self.recognise.any_folder,
            "images": {name: layout.expect_images for name, layout in self.splits.items()},
            "unlabelled": [name for name, layout in self.splits.items() if layout.unlabelled],
            "heads": self.heads(TOTAL),
            "releases": self.releases,
            "folds": len(self.validation.folds),
        }

    def sha256(self) -> str:
        """Return a hash of the content, independent of the layout of the TOML file."""
        content = TypeAdapter(Recipe).dump_python(self, mode="json")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def recipes_folder() -> Path:
    """Return the folder of the package's recipes."""
    return shipped_folder("data_recipes")


def recipe_names() -> tuple[str, ...]:
    """List the names of the package's recipes."""
    return tuple(sorted(path.stem for path in recipes_folder().glob("*.toml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe by name, or from a TOML file.

    Args:
        name_or_path: A name; a path, or text that ends in ``.toml``, is a file.

    Raises:
        UsageError: If no recipe has the name.
        InputMissingError: If the file does not exist.
        ConfigError: If the file is not a valid recipe; names the file and the key.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix != ".toml":
        if name_or_path not in recipe_names():
            raise UsageError(
                f"no data set is called {name_or_path!r}"
                f"{did_you_mean(name_or_path, recipe_names())}",
                next_step=f"choose from: {', '.join(recipe_names())}",
            )
        path = recipes_folder() / f"{name_or_path}.toml"
    if not path.is_file():
        raise InputMissingError(f"{path}: no such recipe")
    return _read_recipe(path)


def load_recipes() -> tuple[Recipe, ...]:
    """Load the package's recipes, sorted by name."""
    return tuple(load_recipe(name) for name in recipe_names())


def _read_recipe(path: Path) -> Recipe:
    try:
        content = read_toml(path)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error}") from error
    if "name" in content:
        raise ConfigError(f"{path}: name: no such setting; a recipe is named after its file")
    try:
        return parse(Recipe, {"name": path.stem, **content})
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error

"""The manifest of a prepared folder and the paths of its files.

::

    data/sha/
      manifest.json
      train/images/IMG_1.jpg          copied, or resized by the recipe's rule
      train/points/IMG_1.jpg.npy      float64 (heads, 2): x, y in pixels of the prepared image
      train/blocks/IMG_1.jpg.npz      raw and corrected: int32 (rows, cols), heads per block
      val/ ... test/ ...
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import ConfigDict, Field, TypeAdapter

from crowdcount.core.heads import largest_observable_count
from crowdcount.core.limits import MAX_BLOCK
from crowdcount.data.prepared.versions import Versions
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.recipe import SPLITS
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError, ConfigError, InputMissingError
from crowdcount.wording import first_problem

MANIFEST = "manifest.json"
"""The file that makes a folder a prepared data set; written last."""

CALIBRATION = "calibration"
"""The split of the training images that are kept from training and from selection."""

JOURNAL = "manifest.unfinished.jsonl"
"""Beside the manifest while preparation runs: a line for each finished image."""

FORMAT: Literal[1] = 1
"""Version of the prepared layout."""

# What a manifest may say; sums of them stay far below what an integer of numpy holds.
_Number = Annotated[int, Field(ge=0, lt=2**31)]
_Side = Annotated[int, Field(ge=1, lt=2**31)]


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """Settings of the preparation, apart from what the recipe says."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    block: int = 8
    """Side of the blocks whose heads are counted, in pixels: r."""

    smallest_head: int = 4
    """Side, in pixels, of the smallest head that can be recognised: s."""

    max_count: int | None = None
    """m: the count to which fuller blocks are corrected. None: the (r // s)^2 of the paper."""

    val_fraction: float = 0.1
    """Share of the training images held out for validation, where a set has no such split."""

    calibration_fraction: float = 0.0
    """Share of the training images kept from training and selection alike, for calibration."""

    seed: int = 42
    """Seed of the choice of the images held out for validation and for calibration."""

    folds: int = 0
    """Into how many folds the training images are parted; 0: into those of the recipe, if any."""

    def __post_init__(self) -> None:
        for key in ("block", "smallest_head"):
            if getattr(self, key) < 1:
                raise ConfigError(
                    f"preprocess.{key} must be at least 1 pixel, got {getattr(self, key)}"
                )
        if self.block > MAX_BLOCK:
            raise ConfigError(
                f"preprocess.block must be at most {MAX_BLOCK} pixels, got {self.block}"
            )
        if self.max_count is not None and not 1 <= self.max_count <= self.block**2:
            raise ConfigError(
                f"preprocess.max_count must be 1 to {self.block**2}, a head on each pixel of a "
                f"block, got {self.max_count}"
            )
        for key in ("val_fraction", "calibration_fraction"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(
                    f"preprocess.{key} must be at least 0 and below 1, got {getattr(self, key)}"
                )
        if self.val_fraction + self.calibration_fraction >= 1:
            raise ConfigError(
                "preprocess.val_fraction and preprocess.calibration_fraction leave nothing to "
                f"train on: {self.val_fraction} and {self.calibration_fraction}"
            )
        if self.seed < 0:
            raise ConfigError(f"preprocess.seed must not be negative, got {self.seed}")
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(
                f"preprocess.folds must be 2 or more, or 0 for none, got {self.folds}"
            )

    @property
    def largest_count(self) -> int:
        """m, given or derived: heads of a block above this are not observable."""
        if self.max_count is not None:
            return self.max_count
        return largest_observable_count(block=self.block, smallest_head=self.smallest_head)


@dataclass(frozen=True, kw_only=True)
class Hashes:
    """SHA-256 of what an image was made from, and of what was made, in hexadecimal."""

    source: str
    annotation: str
    """Of the annotation file, or of the points, where one table holds those of all images."""

    image: str = ""
    """Of the prepared file, as the next two; empty as long as nothing was written."""

    points: str = ""
    blocks: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """What the manifest says of one image."""

    split: str
    """Where its files are: ``train``, ``val`` or ``test``."""

    file: str
    """Path below the split's images, with ``/``."""

    source: str
    """Path of the original below the folder of the set."""

    width: _Side
    height: _Side
    source_width: _Side
    """Of the upright original."""

    source_height: _Side
    orientation: Annotated[int, Field(ge=1, le=8)]
    """EXIF orientation of the original, 1 to 8; prepared images are upright."""

    heads: _Number
    outside: _Number
    """Heads that lay outside the image and were moved to its edge."""

    duplicates: _Number
    """Heads at exactly the place of another."""

    dropped: _Number = 0
    """Annotated heads that are not among ``heads``, because their place is not finite."""

    axes_swapped: bool = False
    """Whether x and y look as if they had changed places."""

    blocks_corrected: _Number
    """Blocks with more heads than can be observed."""

    heads_cut: _Number
    """Heads by which the correction lowers their counts."""

    sha256: Hashes

    @property
    def name(self) -> str:
        """What the image is called in its data set."""
        return f"{self.split}/{self.file}"


@dataclass(frozen=True, kw_only=True)
class SplitTotals:
    """Sums over the images of a split."""

    images: int
    heads: int
    outside: int
    duplicates: int
    blocks_corrected: int
    heads_cut: int
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known of a prepared data set. Holds no time and no absolute path."""

    format: Literal[1]
    versions: Versions
    """Of crowdcount and the libraries that decide bytes; several, where earlier files were kept."""

    name: str
    title: str
    recipe: str
    recipe_sha256: str
    settings: PreprocessConfig
    max_count: int
    """m of the label correction, as given or as derived: the settings' ``largest_count``."""

    resize: ResizeRule
    points: PointsFormat
    complete: bool
    """Whether the set holds what its recipe promises."""

    reasons: tuple[str, ...]
    """Why not."""

    release: str | None
    """Which known release of the annotations it is."""

    totals: dict[str, SplitTotals]
    unpaired: dict[str, tuple[str, ...]]
    """Images left out because nothing annotates them."""

    held_out: tuple[str, ...]
    """Files of ``train`` that are for validation."""

    images: tuple[ImageRecord, ...]

    calibration: tuple[str, ...] = ()
    """Files of ``train`` that are for calibration: neither trained on nor selected on."""

    folds: tuple[tuple[str, ...], ...] = ()
    """Files of ``train`` in each fold, where the set has folds; together they are all of them but
    those for calibration."""

    unlabelled: tuple[str, ...] = ()
    """Splits that are not prepared because their annotations were not published."""


def totals(records: Sequence[ImageRecord]) -> SplitTotals:
    """Sums over ``records``."""
    return SplitTotals(
        images=len(records),
        heads=sum(each.heads for each in records),
        outside=sum(each.outside for each in records),
        duplicates=sum(each.duplicates for each in records),
        blocks_corrected=sum(each.blocks_corrected for each in records),
        heads_cut=sum(each.heads_cut for each in records),
        dropped=sum(each.dropped for each in records),
    )


def totals_by_split(records: Sequence[ImageRecord]) -> dict[str, SplitTotals]:
    """Sums over ``records``, of each split that there is."""
    by_split = {name: tuple(each for each in records if each.split == name) for name in SPLITS}
    return {name: totals(found) for name, found in by_split.items() if found}


def prepared_paths(folder: Path, *, split: str, file: str) -> tuple[Path, Path, Path]:
    """Where the prepared image, its points and its block counts are."""
    below = folder / split
    return (
        below / "images" / file,
        below / "points" / f"{file}.npy",
        below / "blocks" / f"{file}.npz",
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        InputMissingError: If there is none.
        BadInputError: If it is damaged or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / JOURNAL).is_file():
            raise InputMissingError(
                f"{folder}: its preparation was not finished",
                next_step="run the same crowdcount preprocess again; it goes on where it stopped",
            )
        raise InputMissingError(
            f"{folder}: is not a prepared data set",
            looked_for=str(path),
            next_step="run: crowdcount preprocess SOURCE",
        )
    try:
        manifest = TypeAdapter(Manifest).validate_json(path.read_bytes())
        if manifest.max_count != manifest.settings.largest_count:
            raise ConfigError(f"max_count: {manifest.max_count} does not follow from its settings")
        return manifest
    except (OSError, pydantic.ValidationError, ConfigError) as error:
        problem = first_problem(error) if isinstance(error, pydantic.ValidationError) else error
        raise BadInputError(
            f"{path}: not a manifest of format {FORMAT}: {problem}",
            next_step="prepare the data set again, with --force",
        ) from error

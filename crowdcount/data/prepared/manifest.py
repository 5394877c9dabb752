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
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from crowdcount.core.blocks import largest_observable_count
from crowdcount.core.limits import MAX_BLOCK
from crowdcount.core.settings import STRICT, NaturalInt, PositiveInt, parse, settings
from crowdcount.data.prepared.versions import Versions
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.recipe import SPLITS
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError, ConfigError, InputMissingError
from crowdcount.files import check_format, read_json

MANIFEST = "manifest.json"
"""The file that makes a folder a prepared data set; written last."""

CALIBRATION = "calibration"
"""The split of the training images that are kept from training and from selection."""

JOURNAL = "manifest.unfinished.jsonl"
"""The file that replaces the manifest while preparation runs: a line for each finished image."""

FORMAT: Literal[1] = 1
"""Version of the prepared layout."""

# Limits of a manifest's numbers: their sums stay far below the largest integer of numpy.
_Number = Annotated[int, Field(ge=0, lt=2**31)]
_Side = Annotated[int, Field(ge=1, lt=2**31)]
# The system refuses a path with NUL by an error of another kind than for all other paths.
_Path = Annotated[str, Field(pattern=r"^[^\x00]+$")]


@settings("preprocess")
class PreprocessConfig:
    """Settings of the preparation that are not in the recipe."""

    block: Annotated[int, Field(ge=1, le=MAX_BLOCK)] = 8
    """Side of the blocks whose heads are counted, in pixels: r."""

    smallest_head: PositiveInt = 4
    """Side, in pixels, of the smallest head that can be recognised: s."""

    max_count: PositiveInt | None = None
    """m: the count to which fuller blocks are corrected. None: the (r // s)^2 of the paper."""

    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training images held out for validation, where a set has no such split."""

    calibration_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training images kept from training and selection alike, for calibration."""

    seed: NaturalInt = 42
    """Seed of the choice of the images held out for validation and for calibration."""

    folds: NaturalInt = 0
    """Number of folds of the training images; 0: those of the recipe, if any."""

    @model_validator(mode="after")
    def _check(self) -> "PreprocessConfig":
        if self.max_count is not None and self.max_count > self.block**2:
            raise ConfigError(
                f"preprocess.max_count: expected at most {self.block**2}, a head on each pixel of "
                f"a block, got {self.max_count}"
            )
        if self.val_fraction + self.calibration_fraction >= 1:
            raise ConfigError(
                "preprocess.val_fraction and preprocess.calibration_fraction leave nothing to "
                f"train on: {self.val_fraction} and {self.calibration_fraction}"
            )
        if self.folds == 1:
            raise ConfigError("preprocess.folds: expected at least 2, or 0 for none, got 1")
        return self

    @property
    def largest_count(self) -> int:
        """m, given or derived: the largest observable number of heads in a block."""
        if self.max_count is not None:
            return self.max_count
        return largest_observable_count(block=self.block, smallest_head=self.smallest_head)


@dataclass(frozen=True, kw_only=True)
class Hashes:
    """SHA-256 of the sources and the prepared files of an image, in hexadecimal."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    source: str
    annotation: str
    """Hash of the annotation file, or of the image's points if a table holds all."""

    image: str = ""
    """Hash of the prepared image, then of its points and blocks; empty if none was written."""

    points: str = ""
    blocks: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """The manifest's record of one image."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    split: _Path
    """The folder of its files: ``train``, ``val`` or ``test``."""

    file: _Path
    """Path below the split's images, with ``/``."""

    source: str
    """Path of the original below the folder of the set."""

    width: _Side
    height: _Side
    source_width: _Side
    """Width of the upright original."""

    source_height: _Side
    orientation: Annotated[int, Field(ge=1, le=8)]
    """EXIF orientation of the original, 1 to 8; prepared images are upright."""

    heads: _Number
    outside: _Number
    """Heads outside the image that were moved to its edge."""

    duplicates: _Number
    """Heads at exactly the place of another."""

    dropped: _Number = 0
    """Annotated heads left out of ``heads`` because a coordinate is not finite."""

    axes_swapped: bool = False
    """Whether x and y look swapped."""

    blocks_corrected: _Number
    """Blocks with more heads than can be observed."""

    heads_cut: _Number
    """Heads that the correction removes from their counts."""

    sha256: Hashes

    @property
    def name(self) -> str:
        """Name of the image in its data set: split and file."""
        return f"{self.split}/{self.file}"


@dataclass(frozen=True, kw_only=True)
class SplitTotals:
    """Sums over the images of a split."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    images: int
    heads: int
    outside: int
    duplicates: int
    blocks_corrected: int
    heads_cut: int
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Description of a prepared data set, without times and absolute paths."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    format: Literal[1]
    versions: Versions
    """Versions of the software that wrote the files."""

    name: str
    title: str
    recipe: str
    recipe_sha256: str
    settings: PreprocessConfig
    max_count: int
    """m of the label correction: ``largest_count`` of the settings."""

    resize: ResizeRule
    points: PointsFormat
    complete: bool
    """Whether the set holds what its recipe promises."""

    reasons: tuple[str, ...]
    """Why the set is not complete."""

    release: str | None
    """The release of the annotations, where their number of heads is known."""

    totals: dict[str, SplitTotals]
    unpaired: dict[str, tuple[str, ...]]
    """Images left out because they have no annotation."""

    held_out: tuple[str, ...]
    """Files of ``train`` kept for validation."""

    images: tuple[ImageRecord, ...]

    calibration: tuple[str, ...] = ()
    """Files of ``train`` kept for calibration, apart from training and selection."""

    folds: tuple[tuple[str, ...], ...] = ()
    """Files of ``train`` in each fold, if any; together all but those kept for calibration."""

    unlabelled: tuple[str, ...] = ()
    """Splits without published annotations, which are not prepared."""


def totals(records: Sequence[ImageRecord]) -> SplitTotals:
    """Sum the numbers of records."""
    names = [field.name for field in fields(SplitTotals) if field.name != "images"]
    sums = {name: sum(getattr(record, name) for record in records) for name in names}
    return SplitTotals(images=len(records), **sums)


def totals_by_split(records: Sequence[ImageRecord]) -> dict[str, SplitTotals]:
    """Sum the numbers of the records of each split."""
    by_split = {split: [record for record in records if record.split == split] for split in SPLITS}
    return {split: totals(images) for split, images in by_split.items() if images}


def prepared_paths(folder: Path, *, split: str, file: str) -> tuple[Path, Path, Path]:
    """Return the paths of the prepared image, its points and its block counts."""
    below = folder / split
    return (
        below / "images" / file,
        below / "points" / f"{file}.npy",
        below / "blocks" / f"{file}.npz",
    )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared folder.

    Raises:
        InputMissingError: If the folder has none.
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
    again = "prepare the data set again, with --force"
    try:
        content = read_json(path)
        check_format(path, content["format"], expected=FORMAT, next_step=again)
        manifest = parse(Manifest, content)
        if manifest.max_count != manifest.settings.largest_count:
            raise ConfigError(f"max_count: {manifest.max_count} does not follow from its settings")
    except (OSError, KeyError, TypeError, ValueError, ConfigError) as error:
        raise BadInputError(f"{path}: not a manifest: {error}", next_step=again) from error
    return manifest

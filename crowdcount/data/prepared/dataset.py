"""The prepared layout: its manifest, where its files are, and the data set read from it.

::

    data/sha/
      manifest.json
      train/images/IMG_1.jpg          copied, or resized by the recipe's rule
      train/points/IMG_1.jpg.npy      float64 (heads, 2): x, y in pixels of the prepared image
      train/blocks/IMG_1.jpg.npz      raw and corrected: int32 (rows, cols), heads per block
      val/ ... test/ ...
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pydantic
from jaxtyping import Float64
from pydantic import ConfigDict, Field, TypeAdapter

from crowdcount.core.heads import largest_observable_count
from crowdcount.core.limits import MAX_BLOCK, MAX_PIXELS
from crowdcount.core.sample import Sample
from crowdcount.data.prepared.versions import Versions
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.images import load_image
from crowdcount.data.sources.recipe import SPLITS
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
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


def totals(records: tuple[ImageRecord, ...]) -> SplitTotals:
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


def totals_by_split(records: tuple[ImageRecord, ...]) -> dict[str, SplitTotals]:
    """Sums over ``records``, of each split that there is."""
    by_split = {name: tuple(each for each in records if each.split == name) for name in SPLITS}
    return {name: totals(found) for name, found in by_split.items() if found}


def held_out(
    heads: Mapping[str, int],
    *,
    fraction: float,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Choose images for validation, from sparse scenes and dense ones alike.

    The images, sorted by count, are cut into as many runs as images are wanted, and one is drawn
    from each. The order in which they are given does not matter. Groups are drawn in the same way,
    by their mean count, and are left out or added as it brings the share closer.

    Args:
        heads: Heads of each training image.
        fraction: Share to hold out; above 0 that is one group at least, and never all of them.
        seed: Seed of the draw.
        groups: What images that stay together have in common; the others stand alone.
    """
    ranked = _ranked_groups(heads, groups or {})
    if fraction == 0 or len(ranked) < 2:
        return ()
    wanted = min(max(round(fraction * len(heads)), 1), len(heads) - 1)
    draws = min(max(round(wanted * len(ranked) / len(heads)), 1), len(ranked) - 1)
    random = np.random.default_rng(seed)
    drawn = _one_of_each_run(len(ranked), runs=draws, random=random)
    others = [int(i) for i in random.permutation(len(ranked)) if i not in drawn]
    chosen: list[str] = []
    for index in [*drawn, *others]:
        grown = len(chosen) + len(ranked[index])
        if grown < len(heads) and abs(grown - wanted) < abs(len(chosen) - wanted):
            chosen.extend(ranked[index])
    # Where every group is too large for the share, the smallest is closest to it.
    smallest = min(ranked, key=len)
    return tuple(sorted(chosen)) or smallest


def parted(
    heads: Mapping[str, int], *, folds: int, seed: int, groups: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Part images into folds, each with sparse scenes and dense ones, and of like size.

    The groups, sorted by mean count, are dealt out in rounds: one of each run to each fold, the
    largest of a run to the fold that has fewest images. The order in which they are given does not
    matter.

    Args:
        heads: Heads of each training image.
        folds: How many folds; not more than there are groups.
        seed: Seed of the deal.
        groups: What images that stay together have in common; the others stand alone.
    """
    random = np.random.default_rng(seed)
    ranked = _ranked_groups(heads, groups or {})
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, len(ranked), folds):
        run = ranked[start : start + folds]
        shuffled = [run[i] for i in random.permutation(len(run))]
        open_folds = [dealt[i] for i in random.permutation(folds)]
        shuffled.sort(key=len, reverse=True)  # the sorts are stable: equals stay shuffled
        open_folds.sort(key=len)
        for files, fold in zip(shuffled, open_folds, strict=False):
            fold.extend(files)
    return tuple(tuple(sorted(fold)) for fold in dealt)


def _ranked_groups(heads: Mapping[str, int], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Files that stay together, sorted by their mean count."""
    members: dict[tuple[bool, str], list[str]] = {}
    for file in sorted(heads):
        key = (True, groups[file]) if file in groups else (False, file)
        members.setdefault(key, []).append(file)
    return sorted(
        (tuple(files) for files in members.values()),
        key=lambda files: (sum(heads[file] for file in files) / len(files), files),
    )


def spread_by_count(heads: Mapping[str, int], *, number: int, seed: int) -> tuple[str, ...]:
    """Draw images from sparse scenes and dense ones alike, sparse ones first.

    The images, sorted by count, are cut into as many runs as images are wanted, and one is drawn
    from each. The order in which they are given does not matter.

    Args:
        heads: Heads of each image.
        number: Images to draw; where there are fewer, all of them.
        seed: Seed of the draw.
    """
    ranked = sorted(heads, key=lambda file: (heads[file], file))
    if number >= len(ranked):
        return tuple(ranked)
    random = np.random.default_rng(seed)
    return tuple(
        ranked[index] for index in _one_of_each_run(len(ranked), runs=number, random=random)
    )


def _one_of_each_run(length: int, *, runs: int, random: np.random.Generator) -> list[int]:
    """Cut ``0 .. length - 1`` into runs of like length, and draw an index of each."""
    return [int(random.choice(run)) for run in np.array_split(np.arange(length), runs)]


def prepared_paths(folder: Path, *, split: str, file: str) -> tuple[Path, Path, Path]:
    """Where the prepared image, its points and its block counts are."""
    below = folder / split
    return (
        below / "images" / file,
        below / "points" / f"{file}.npy",
        below / "blocks" / f"{file}.npz",
    )


def _read_points(path: Path) -> Float64[np.ndarray, "heads 2"]:
    """The points in a file of the prepared layout.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds anything but float64 (heads, 2).
    """
    try:
        # Mapped first: a file that claims more heads than it holds is refused, and takes no memory.
        array = np.array(np.lib.format.open_memmap(path, mode="r"))
    except OSError:
        raise
    # numpy has Python's own parser read what a file says of its shape, and raises all that does.
    except Exception as error:
        raise ValueError(f"not a file of points: {error}") from error
    if array.dtype != np.float64 or array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"expected float64 (heads, 2), found {array.dtype} {array.shape}")
    points: Float64[np.ndarray, "heads 2"] = array
    return points


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


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """A prepared data set on disk."""

    folder: Path
    manifest: Manifest

    fold: int | None = None
    """The fold, from 1, that stands for the validation split; None: the held-out images do."""

    @classmethod
    def open(cls, folder: Path) -> "PreparedDataset":
        """The data set that ``crowdcount preprocess`` wrote into ``folder``.

        Raises:
            InputMissingError: If there is none, or its preparation was not finished.
            BadInputError: If its manifest is damaged or of another version.
        """
        return cls(folder=folder, manifest=read_manifest(folder))

    @property
    def name(self) -> str:
        """What the data set is called."""
        return self.manifest.name

    def with_fold(self, fold: int) -> "PreparedDataset":
        """The same data with a fold of ``train``, from 1, as ``val``, and the others as ``train``.

        Raises:
            UsageError: If there is no such fold, or no image in it.
        """
        folds = self.manifest.folds
        if not folds:
            raise UsageError(
                f"{self.folder}: has no folds",
                next_step="prepare it with some: crowdcount preprocess SOURCE --folds 5 --force",
            )
        if not 1 <= fold <= len(folds):
            raise UsageError(f"{self.folder}: has no fold {fold}; it has folds 1 to {len(folds)}")
        chosen = folds[fold - 1]
        rest = sum(map(len, folds)) - len(chosen)
        if not chosen or not rest:
            where = "no image" if not chosen else "all images"
            raise UsageError(f"{self.folder}: fold {fold} holds {where}; the data is not complete")
        return replace(self, manifest=replace(self.manifest, held_out=chosen), fold=fold)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be asked for; ``val`` may be the held-out part of ``train``."""
        there = {each.split for each in self.manifest.images}
        if self.manifest.held_out:
            there.add("val")
        if self.manifest.calibration:
            there.add(CALIBRATION)
        return tuple(split for split in (*SPLITS, CALIBRATION) if split in there)

    def records(self, split: str) -> tuple[ImageRecord, ...]:
        """The images of ``train`` (without those kept from it), ``val``, ``test``, ``calibration``.

        Raises:
            InputMissingError: If the data set has no such split.
        """
        if split in self.manifest.unlabelled:
            raise InputMissingError(
                f"{self.folder}: the annotations of {split} were not published, so it cannot be "
                "counted against",
                looked_for=f"splits that are there: {', '.join(self.splits)}",
            )
        if split not in self.splits:
            raise InputMissingError(
                f"{self.folder}: has no split {split!r}",
                looked_for=f"splits that are there: {', '.join(self.splits)}",
            )
        kept_back = {"val": self.manifest.held_out, CALIBRATION: self.manifest.calibration}
        if kept_back.get(split):
            chosen = set(kept_back[split])
            return tuple(each for each in self.all_training() if each.file in chosen)
        from_training = set().union(*kept_back.values()) if split == "train" else set()
        return tuple(
            each
            for each in self.manifest.images
            if each.split == split and each.file not in from_training
        )

    def all_training(self) -> tuple[ImageRecord, ...]:
        """All images of ``train``, those kept from training included, as bins are computed over.

        Raises:
            InputMissingError: If the data set has no training images.
        """
        images = tuple(each for each in self.manifest.images if each.split == "train")
        if not images:
            raise InputMissingError(f"{self.folder}: has no training images")
        return images

    def image_path(self, record: ImageRecord) -> Path:
        """Where the prepared image is."""
        return prepared_paths(self.folder, split=record.split, file=record.file)[0]

    def points(self, record: ImageRecord) -> Float64[np.ndarray, "heads 2"]:
        """Head centres ``(x, y)`` in pixels of the prepared image, all of them inside it.

        Raises:
            BadInputError: If the file is not there or damaged.
        """
        path = prepared_paths(self.folder, split=record.split, file=record.file)[1]
        try:
            points = _read_points(path)
            if len(points) != record.heads:
                raise ValueError(f"holds {len(points)} heads, and the manifest says {record.heads}")
            # Written so that what is no number is not inside either.
            if not ((points >= 0) & (points < (record.width, record.height))).all():
                raise ValueError("a head lies outside the image")
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"{path}: cannot be read: {error}",
                next_step="run the same crowdcount preprocess again; it mends what is not right",
            ) from error
        return points

    def sample(self, record: ImageRecord) -> Sample:
        """An image with its points.

        Raises:
            InputMissingError: If the image is not there.
            BadInputError: If a file is damaged.
        """
        return Sample(
            name=record.name,
            # As large as preparation made it, which --max-pixels may have allowed to be enormous.
            image=load_image(
                self.image_path(record), max_pixels=max(record.width * record.height, MAX_PIXELS)
            ),
            points=self.points(record),
        )

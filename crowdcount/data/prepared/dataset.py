"""A prepared data set on disk: its splits, images and points."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from crowdcount.core.image import Sample
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.data.prepared.manifest import (
    CALIBRATION,
    ImageRecord,
    Manifest,
    prepared_paths,
    read_manifest,
)
from crowdcount.data.sources.images import load_image
from crowdcount.data.sources.recipe import SPLITS
from crowdcount.errors import BadInputError, InputMissingError, UsageError


def _read_array(path: Path) -> np.ndarray:
    """Read an array; raises OSError or ValueError."""
    try:
        # Mapped first: a file that claims more than it holds is refused without memory.
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except OSError:
        raise
    # numpy reads the shape with Python's own parser, which raises errors of many types.
    except Exception as error:
        raise ValueError(f"not a file of points: {error}") from error


def check_points(points: np.ndarray, record: ImageRecord) -> None:
    """Refuse points that are not those of a record.

    Raises:
        ValueError: If their type, shape or number differs, or one is outside the image.
    """
    if points.dtype != np.float64 or points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"expected float64 (heads, 2), found {points.dtype} {points.shape}")
    if len(points) != record.heads:
        raise ValueError(f"holds {len(points)} heads, and the manifest says {record.heads}")
    # Written so that NaN is not inside either.
    if not ((points >= 0) & (points < (record.width, record.height))).all():
        raise ValueError("a head is outside the image")


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """A prepared data set on disk."""

    folder: Path
    manifest: Manifest

    fold: int | None = None
    """Number of the fold, from 1, used for validation; None: the held-out images."""

    @classmethod
    def open(cls, folder: Path) -> "PreparedDataset":
        """Open the data set that ``crowdcount preprocess`` wrote into a folder.

        Raises:
            InputMissingError: If the folder holds none, or its preparation was not finished.
            BadInputError: If its manifest is damaged or of another version.
        """
        return cls(folder=folder, manifest=read_manifest(folder))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.manifest.name

    def with_fold(self, fold: int) -> "PreparedDataset":
        """Return the data set with one fold, from 1, as ``val`` and the others as ``train``.

        Raises:
            UsageError: If the fold does not exist, or holds no image or all of them.
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
        """Names of the splits with images; ``val`` may be the held-out part of ``train``."""
        return tuple(split for split in (*SPLITS, CALIBRATION) if self._images(split))

    def records(self, split: str) -> tuple[ImageRecord, ...]:
        """Return the records of a split; ``train`` is without its images kept for other uses.

        Raises:
            InputMissingError: If the data set has no such split.
        """
        records = self._images(split)
        if not records:
            problem = f"has no split {split!r}"
            if split in self.manifest.unlabelled:
                problem = f"the annotations of {split} were not published"
            raise InputMissingError(
                f"{self.folder}: {problem}", looked_for=f"its splits: {', '.join(self.splits)}"
            )
        return records

    def _images(self, split: str) -> tuple[ImageRecord, ...]:
        """Return the records of a split; none where it does not exist."""
        kept = {"val": self.manifest.held_out, CALIBRATION: self.manifest.calibration}
        chosen = set(kept.get(split, ()))
        folder = "train" if chosen else split
        images = (record for record in self.manifest.images if record.split == folder)
        if chosen:
            return tuple(record for record in images if record.file in chosen)
        left_out = set().union(*kept.values()) if split == "train" else set()
        return tuple(record for record in images if record.file not in left_out)

    def all_training(self) -> tuple[ImageRecord, ...]:
        """Return all images of ``train``, including those kept from training; bins use all of them.

        Raises:
            InputMissingError: If the data set has no training images.
        """
        images = tuple(record for record in self.manifest.images if record.split == "train")
        if not images:
            raise InputMissingError(f"{self.folder}: has no training images")
        return images

    def image_path(self, record: ImageRecord) -> Path:
        """Return the path of the prepared image."""
        return prepared_paths(self.folder, split=record.split, file=record.file)[0]

    def points(self, record: ImageRecord) -> Float64[np.ndarray, "heads 2"]:
        """Read head centres ``(x, y)`` in pixels of the prepared image, all of them inside it.

        Raises:
            BadInputError: If the file is missing or damaged.
        """
        path = prepared_paths(self.folder, split=record.split, file=record.file)[1]
        try:
            points = _read_array(path)
            check_points(points, record)
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"{path}: cannot be read: {error}",
                next_step="run the same crowdcount preprocess again, which repairs damaged files",
            ) from error
        return points

    def sample(self, record: ImageRecord) -> Sample:
        """Read an image with its points.

        Raises:
            InputMissingError: If the image does not exist.
            BadInputError: If a file is damaged.
        """
        return Sample(
            name=record.name,
            # --max-pixels may have allowed an image beyond the usual limit.
            image=load_image(
                self.image_path(record), max_pixels=max(record.width * record.height, MAX_PIXELS)
            ),
            points=self.points(record),
        )

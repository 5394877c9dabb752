"""Assign training images to validation, calibration and folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from crowdcount.data.prepared.manifest import PreprocessConfig


@dataclass(frozen=True, kw_only=True)
class TrainingAssignment:
    """The training images that are kept for validation and calibration, and their folds."""

    held_out: tuple[str, ...]
    calibration: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]


def assign_training(
    heads: Mapping[str, int],
    *,
    config: PreprocessConfig,
    groups: Mapping[str, str],
    folds: Sequence[Sequence[str]],
    has_val: bool,
) -> TrainingAssignment:
    """Assign training images to validation, calibration and folds.

    Args:
        heads: Heads of each training image.
        config: Shares, number of folds and seed.
        groups: Group of each image that stays together with others.
        folds: Images of each fold that the recipe defines, if it defines any.
        has_val: Whether the set has a validation split, so that no image is held out.
    """
    choose = partial(held_out, seed=config.seed, groups=groups)
    validation = () if has_val else choose(heads, fraction=config.val_fraction)
    rest = {file: heads[file] for file in heads if file not in validation}
    fraction = config.calibration_fraction * len(heads) / max(len(rest), 1)
    calibration = choose(rest, fraction=fraction)
    rest = {file: heads[file] for file in heads if file not in calibration}
    if folds:
        chosen = tuple(tuple(file for file in fold if file in rest) for fold in folds)
    elif config.folds:
        chosen = parted(rest, folds=config.folds, seed=config.seed, groups=groups)
    else:
        chosen = ()
    return TrainingAssignment(held_out=validation, calibration=calibration, folds=chosen)


def held_out(
    heads: Mapping[str, int],
    *,
    fraction: float,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Draw images for validation, stratified by count.

    The images, sorted by count, are cut into as many runs as images are wanted, and one is drawn
    from each. Groups are drawn in the same way by their mean count, and are left out or added if
    that brings the share closer. The order of ``heads`` does not matter. Above 0, the fraction is
    at least one group, and never all of them.
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
    # If every group is too large for the share, the smallest is closest to it.
    smallest = min(ranked, key=len)
    return tuple(sorted(chosen)) or smallest


def parted(
    heads: Mapping[str, int], *, folds: int, seed: int, groups: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Divide images into folds of similar size, stratified by count.

    The groups, sorted by mean count, are dealt out in rounds: one of each run to each fold, the
    largest of a run to the fold with the fewest images. The order of ``heads`` does not matter.
    There must not be more folds than groups.
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
    """Return the files of each group, sorted by mean count; other files are groups of one."""
    members: dict[tuple[bool, str], list[str]] = {}
    for file in sorted(heads):
        key = (True, groups[file]) if file in groups else (False, file)
        members.setdefault(key, []).append(file)
    return sorted(
        (tuple(files) for files in members.values()),
        key=lambda files: (sum(heads[file] for file in files) / len(files), files),
    )


def spread_by_count(heads: Mapping[str, int], *, number: int, seed: int) -> tuple[str, ...]:
    """Draw at most all images, stratified by count as in :func:`held_out`; sort them by count."""
    ranked = sorted(heads, key=lambda file: (heads[file], file))
    if number >= len(ranked):
        return tuple(ranked)
    random = np.random.default_rng(seed)
    return tuple(
        ranked[index] for index in _one_of_each_run(len(ranked), runs=number, random=random)
    )


def _one_of_each_run(length: int, *, runs: int, random: np.random.Generator) -> list[int]:
    """Cut ``0 .. length - 1`` into runs of similar length, and draw an index from each."""
    return [int(random.choice(run)) for run in np.array_split(np.arange(length), runs)]

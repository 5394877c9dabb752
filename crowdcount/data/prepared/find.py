"""Find the prepared data sets that a command uses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST
from crowdcount.errors import InputMissingError, UsageError

DATA_FOLDER = Path("data")
DATA_VARIABLE = "CROWDCOUNT_DATA_DIR"
"""The environment variable that holds the folder of prepared data."""


def find_prepared(
    given: Sequence[Path] = (),
    *,
    environment: Mapping[str, str],
    directory: Path = Path(),
) -> list[Path]:
    """Find the prepared data sets given, else those of the environment, else all in ``data/``.

    Args:
        given: Prepared folders, or folders that hold prepared folders.
        environment: Environment variables; ``CROWDCOUNT_DATA_DIR`` holds such a path.
        directory: The folder that holds ``data``.

    Raises:
        InputMissingError: If there is none.
    """
    if not given and DATA_VARIABLE in environment:
        given = [Path(environment[DATA_VARIABLE])]
    if not given:
        given = [directory / DATA_FOLDER]
    folders = [prepared for folder in given for prepared in _prepared_in(folder)]
    return list(dict.fromkeys(folders))


def open_prepared(
    given: Sequence[Path], *, environment: Mapping[str, str], fold: int | None = None
) -> list[PreparedDataset]:
    """Open the data sets to use together: all that are given, or the only one found.

    Args:
        given: See :func:`find_prepared`.
        environment: See :func:`find_prepared`.
        fold: Fold to take for validation; None: the images held out by ``preprocess``.

    Raises:
        InputMissingError: If there is none.
        UsageError: If several were found and none was given, or there is no such fold.
    """
    folders = one_data_set(find_prepared(given, environment=environment), chosen=bool(given))
    data = [PreparedDataset.open(folder) for folder in folders]
    return data if fold is None else [dataset.with_fold(fold) for dataset in data]


def one_data_set(folders: Sequence[Path], *, chosen: bool) -> list[Path]:
    """Return the data sets to use together: all that were chosen, or the only one.

    Raises:
        UsageError: If several were found and none was chosen.
    """
    if chosen or len(folders) == 1:
        return list(folders)
    raise UsageError(
        "several prepared data sets are here and none was chosen",
        looked_for=", ".join(map(str, folders)),
        next_step=f"name one, or several to be used together: --data {folders[0]}",
    )


def _prepared_in(folder: Path) -> list[Path]:
    if (folder / MANIFEST).is_file():
        return [folder]
    if folder.is_dir():
        inside = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
        if inside:
            return inside
    raise InputMissingError(
        f"{folder}: no prepared data set",
        looked_for=f"{folder / MANIFEST} and {folder / '*' / MANIFEST}",
        next_step="prepare one: crowdcount preprocess SOURCE, or name one: --data FOLDER",
    )

"""Tables of bins to use instead of a policy: published ones, and files written by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crowdcount.core.bins import WrittenBins, bin_ranges, format_range
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.errors import BadInputError, ConfigError, InputMissingError
from crowdcount.files import read_json, read_toml
from crowdcount.wording import did_you_mean

READERS: dict[str, Callable[[Path], Any]] = {".json": read_json, ".toml": read_toml}
"""Reader of a table, by the suffix of its file."""


def find_table(name: str) -> WrittenBins:
    """Return a table from a file (.json or .toml) or a published one by its name.

    Raises errors as :func:`read_table` and :func:`published_table` do.
    """
    return read_table(Path(name)) if Path(name).suffix in READERS else published_table(name)


def published_table(name: str) -> WrittenBins:
    """Return a published table by its name.

    Raises:
        ConfigError: If no table has this name.
    """
    if name not in PUBLISHED_BINS:
        raise ConfigError(
            f"{name}: no published table of bins{did_you_mean(name, PUBLISHED_BINS)}",
            looked_for=", ".join(PUBLISHED_BINS),
            next_step="see crowdcount bins --list-presets; a file ends in .json or .toml",
        )
    return PUBLISHED_BINS[name]


def read_table(path: Path) -> WrittenBins:
    """Read a table from a file: one written by hand, or a bins file.

    Raises:
        InputMissingError: If the file cannot be read.
        BadInputError: If the file has no table.
    """
    example = "starts = [0, 1, 2, 4] in a .toml file, or [0, 1, 2, 4] in a .json file"
    try:
        reader = READERS.get(path.suffix, read_json)
        return WrittenBins.from_json(reader(path), name=path.name)
    except OSError as error:
        raise InputMissingError(
            f"{path}: cannot read the table of bins: {error.strerror}"
        ) from error
    except ValueError as error:
        raise BadInputError(f"{path}: not a table of bins: {error}", looked_for=example) from error


def check_block(table: WrittenBins, *, block: int) -> None:
    """Raise ConfigError if a table was made for another block side."""
    if table.block not in (None, block):
        raise ConfigError(
            f"{table.name}: this table is for blocks of {table.block} pixels, not {block}",
            next_step=f"pass --block {table.block}, or use another table",
        )


def published_tables() -> Iterator[tuple[Any, ...]]:
    """Yield name, block side, bins, value of the last bin and source of each published table."""
    for name, table in PUBLISHED_BINS.items():
        ranges = " ".join(format_range(low, high) for low, high in bin_ranges(table.starts))
        last = "from data" if table.values is None else f"{table.values[-1]:.5f}"
        yield name, table.block, ranges, last, table.source

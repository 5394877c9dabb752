"""Write the tables of the documents that follow from the code: settings and backbones.

python docs/tables.py --write
"""

import argparse
import ast
import dataclasses
import inspect
import itertools
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crowdcount.config import RunConfig
from crowdcount.data.training.augment import CHAINS
from crowdcount.models.backbones import BACKBONES, default_crop

DOCS = Path(__file__).parent

BACKBONE_COLUMNS = (
    *("backbone", "encoder", "model", "trained", "GMAC 448", "GMAC 1024", "stride", "window"),
    *("crop", "weights", "licence of the weights"),
)

BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
"""How each limit of pydantic reads, in this order."""

KINDS = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Format a Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def field_docstrings(config: type) -> dict[str, str]:
    """Read the docstring below each field of a class, as one line of Markdown."""
    body = ast.parse(inspect.getsource(config)).body[0].body
    docstrings = {}
    for field, text in itertools.pairwise(body):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and is_text:
            line = " ".join(str(text.value.value).split())
            docstrings[ast.unparse(field.target)] = line.replace("``", "`").replace("|", r"\|")
    return docstrings


def allowed_values(annotation: Any) -> str:
    """Describe the values a type admits, with pydantic's limits."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = {
            name: getattr(limit, name)
            for extra in arguments[1:]
            for limit in (*getattr(extra, "metadata", ()), extra)
            for name in BOUNDS
            if getattr(limit, name, None) is not None
        }
        words = [
            text.format(f"{limits[name]:g}") for name, text in BOUNDS.items() if name in limits
        ]
        return " ".join([allowed_values(arguments[0]), *words])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        parts = [allowed_values(part) for part in arguments if part is not types.NoneType]
        return " or ".join(parts)
    if origin is tuple:
        return f"list: {allowed_values(arguments[0])}"
    return KINDS[annotation]


def shown(value: Any) -> str:
    """Format a default as it is written in a run file."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def default_of(section: str, field: dataclasses.Field[Any]) -> str:
    """Format the default of a setting; augmentation has one for each chain."""
    if section == "augment" and field.name in CHAINS["wide"]:
        wide, published = (CHAINS[chain][field.name] for chain in ("wide", "published"))
        if wide == published:
            return shown(wide)
        return f"{shown(wide)}, published {shown(published)}"
    return shown(field.default)


def settings_rows(config: type, section: str) -> Iterator[tuple[str, ...]]:
    """Describe each setting of a section and of the sections inside it."""
    docstrings = field_docstrings(config)
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from settings_rows(hints[field.name], f"{section}.{field.name}")
            continue
        values = allowed_values(hints[field.name])
        default = default_of(section, field)
        yield f"`{section}.{field.name}`", default, values, docstrings[field.name]


def settings_tables() -> str:
    """Make a heading and a table for each section of the settings."""
    hints = typing.get_type_hints(RunConfig)
    docstrings = field_docstrings(RunConfig)
    parts = []
    for field in dataclasses.fields(RunConfig):
        rows = list(settings_rows(hints[field.name], field.name))
        header = ("setting", "default", "values", "meaning")
        parts.append(f"## `[{field.name}]`\n\n{docstrings[field.name]}\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def backbone_table() -> str:
    """Make the table of named backbones."""
    rows = []
    for name, spec in BACKBONES.items():
        figures = spec.figures
        numbers = (figures.encoder, figures.parameters, figures.trained)
        whole = (figures.gmac_448, figures.gmac_1024, figures.stride)
        pixels = (spec.window or "none", default_crop(name))
        texts = (spec.publisher, spec.licence)
        rows.append((f"`{name}`", *map(str, (*numbers, *whole, *pixels, *texts))))
    return table(BACKBONE_COLUMNS, rows)


TABLES = {"settings.md": settings_tables, "backbones.md": backbone_table}


def with_table(page: str, content: str) -> str:
    """Put ``content`` between the two marks of a page."""
    begin, end = "<!-- from the code: python docs/tables.py --write -->", "<!-- end -->"
    pattern = f"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})"
    changed, replaced = re.subn(pattern, lambda _: f"\n{content}\n\n", page, flags=re.DOTALL)
    if replaced != 1:
        raise ValueError(f"a page needs one place for its table, this has {replaced}")
    return changed


def main() -> None:
    """Compare the pages with the code, or write their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    stale = []
    for name, make in TABLES.items():
        path = DOCS / name
        page = path.read_text(encoding="utf-8")
        wanted = with_table(page, make())
        if wanted != page:
            stale.append(name)
            if write:
                path.write_text(wanted, encoding="utf-8")
    print(("written: " if write else "not as the code says: ") + (", ".join(stale) or "none"))
    sys.exit(bool(stale) and not write)


if __name__ == "__main__":
    main()

"""What the documentation says of a backbone."""

from pathlib import Path


def documented(name):
    """The row of a backbone in docs/backbones.md, by column."""
    lines = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text().splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith(("| backbone", "| `"))]
    header, *rows = ([cell.strip() for cell in row] for row in cells)
    (row,) = (row for row in rows if row[0] == f"`{name}`")
    return dict(zip(header, row, strict=True))

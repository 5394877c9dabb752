"""The pages of ``docs/``, which ship with the package."""

from pathlib import Path

from crowdcount.errors import UsageError
from crowdcount.files import shipped_folder
from crowdcount.wording import did_you_mean

SUFFIXES = (".md", ".json")


def page_titles() -> dict[str, str]:
    """Return the title of every page by its name, in the order of the names."""
    return {name: _title(path) for name, path in sorted(_pages().items())}


def read_page(name: str) -> str:
    """Return the text of a page.

    Args:
        name: The page, such as ``datasets``.

    Raises:
        UsageError: If there is no such page.
    """
    pages = _pages()
    if name not in pages:
        raise UsageError(
            f"{name}: no page of that name{did_you_mean(name, pages)}",
            looked_for=", ".join(sorted(pages)),
        )
    return pages[name].read_text(encoding="utf-8")


def _pages() -> dict[str, Path]:
    return {
        path.name.removesuffix(".md"): path
        for path in shipped_folder("docs").iterdir()
        if path.suffix in SUFFIXES
    }


def _title(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ") if path.suffix == ".md" else "JSON schema"

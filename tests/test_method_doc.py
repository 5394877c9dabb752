"""Every function and every picture that docs/method.md names is there."""

import re
from importlib import import_module
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
METHOD = (DOCS / "method.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"crowdcount(?:\.\w+)+", METHOD)))


def resolved(name):
    """What a dotted name means: a module, or what is in the last module on its way."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_document_names_exists(name):
    assert callable(resolved(name))


def test_the_document_names_functions_and_shows_pictures():
    assert len(NAMES) > 20
    pictures = re.findall(r"\]\((\S+\.(?:png|jpg))\)", METHOD)
    assert len(pictures) >= 3
    for picture in pictures:
        assert (DOCS / picture).stat().st_size > 1000
    for link in re.findall(r"\]\((\w+\.(?:md|py))\)", METHOD):
        assert (DOCS / link).is_file()

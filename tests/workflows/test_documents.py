"""The pages that ship with the package, and ``crowdcount docs``, which prints them."""

import tomllib
from pathlib import Path

import pytest

from crowdcount.errors import UsageError
from crowdcount.workflows.documents import page_titles, read_page

ROOT = Path(__file__).parents[2]


def test_every_page_is_listed_with_its_title_and_read():
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    titles = page_titles()
    assert set(titles) == {*pages, "predict.schema.json"}
    for name, text in pages.items():
        assert read_page(name) == text
        assert text.startswith(f"# {titles[name]}\n")


def test_every_page_is_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages == {source for source in wheel if source.endswith(".md")}
    assert all(wheel[page] == f"crowdcount/{page}" for page in pages)


def test_an_unknown_page_is_told_what_there_is():
    with pytest.raises(UsageError, match="did you mean 'datasets'") as caught:
        read_page("dataset")
    assert "counting" in caught.value.looked_for


def test_the_command_prints_a_page_or_the_list(run):
    code, out, err = run("docs", "counting")
    assert (code, out, err) == (
        0,
        (ROOT / "docs/counting.md").read_text(encoding="utf-8") + "\n",
        "",
    )
    assert "datasets\tData sets\n" in run("docs")[1]
    assert run("docs", "nothing")[0] == 2

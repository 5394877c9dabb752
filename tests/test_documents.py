"""What the documents say is there, and every command line in them can be parsed."""

import re
import shlex
import shutil
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer

import crowdcount
from crowdcount.cli import app
from crowdcount.config import load_run_config, parse_override, preset_names
from crowdcount.data.sources.recipe import load_recipe, recipe_names
from docs import tables

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *PAGES]
LINES = {"README.md": 150, "docs/starter.md": 60}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(path):
    """The anchors of a page's headings, as the site and code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_of_the_site_link_within_it(page):
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if link.startswith("..")]
    assert page.name in text("mkdocs.yml")
    assert page.name == "index.md" or f"({page.name})" in text("docs/index.md")


@pytest.mark.parametrize("name", tables.TABLES)
def test_tables_are_as_the_code_says(name):
    page = text(f"docs/{name}")
    again = "run: python docs/tables.py --write"
    assert tables.with_table(page, tables.TABLES[name]()) == page, again


def command_lines():
    """Every command line of crowdcount in the documents, with where it stands."""
    for path in DOCUMENTS:
        page = path.read_text(encoding="utf-8")
        blocks = "".join(re.findall(r"^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
        shown = re.findall(r"^(?:\$ )?(crowdcount .+)$", blocks, re.MULTILINE)
        inline = re.findall(r"`(crowdcount [^`]+)`", page)
        for line in [*shown, *inline]:
            for part in re.split(r"&&|\|(?![A-Za-z])|;", line):
                # A capital stands for a number; help would end the parsing.
                split = (re.sub("^[A-Z]$", "1", word) for word in shlex.split(part, comments=True))
                words = [word for word in split if word != "--help"]
                if words and words[0] == "crowdcount":
                    yield pytest.param(words[1:], id=f"{path.name}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(command_lines()))
def test_command_lines_can_be_parsed(words):
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        command, *words = command.commands[words[0]], *words[1:]
    parsed = command.make_context(command.name, words).params if words else {}
    if overrides := [parse_override(each) for each in parsed.get("set_") or ()]:
        load_run_config(preset=parsed["preset"], overrides=overrides)


def test_functions_named_exist():
    names = set(re.findall(r"crowdcount(?:\.\w+)+", text("docs/method.md")))
    assert len(names) > 20
    for name in names:
        module, _, function = name.rpartition(".")
        try:
            home = import_module(module)
        except ModuleNotFoundError:
            module, _, owner = module.rpartition(".")
            home = getattr(import_module(module), owner)
        assert callable(getattr(home, function)), name


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/training.md", preset_names()),
        ("docs/datasets.md", [name for name in recipe_names() if load_recipe(name).homepage]),
        ("docs/api.md", crowdcount.__all__),
    ],
)
def test_everything_is_listed(page, names):
    missing = [name for name in names if name not in text(page)]
    assert not missing


def test_the_python_of_the_api_page_counts_what_the_readme_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    shutil.copy(DOCS / "street.jpg", "docs")
    (code,) = re.findall(r"```python\n(.*?)```", text("docs/api.md"), re.DOTALL)
    exec(code, {})
    (shown,) = re.findall(r"^docs/street.jpg\t(\S+)$", text("README.md"), re.MULTILINE)
    assert float(capsys.readouterr().out) == pytest.approx(float(shown), abs=0.2)
    assert Path("street_heat.png").stat().st_size > 10_000


@pytest.mark.parametrize(("name", "most"), [*LINES.items()])
def test_the_doors_stay_short(name, most):
    assert len(text(name).splitlines()) <= most


def test_pages_named_in_the_code_exist():
    sources = [*(ROOT / "crowdcount").rglob("*.py"), *ROOT.glob("*/**/*.toml")]
    for path in sources:
        for page in re.findall(r"docs/[\w.-]+\w", path.read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), f"{path}: {page}"


def test_the_site_has_its_tools():
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    assert any(each.startswith("mkdocs-material") for each in extras["docs"])

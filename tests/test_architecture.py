"""The layers hold, and the command line starts fast."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_imports_point_down():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_help_does_not_wait_for_torch():
    code = "import sys, crowdcount.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_preparing_data_needs_no_torch():
    # It is most of the time and memory that a small set would cost.
    code = "import sys, crowdcount.workflows.preprocess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_types_are_checked_while_tests_run_but_for_painters_of_pictures():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    (checked,) = (each for each in options["ini_options"]["addopts"] if "jaxtyping" in each)
    rooms = {path.parent.name for path in (ROOT / "crowdcount").glob("*/__init__.py")}
    files = {path.stem for path in (ROOT / "crowdcount").glob("[!_]*.py")} - {"version"}
    assert rooms
    names = {f"crowdcount.{name}" for name in (rooms | files) - {"scenes", "presets"}}
    assert set(checked.partition("=")[2].split(",")) == {*names, "beartype.beartype"}


def test_every_module_says_what_it_owns():
    for path in (ROOT / "crowdcount").rglob("*.py"):
        assert path.read_text(encoding="utf-8").startswith('"""'), path


def test_no_assert_guards_the_package():
    # `python -O` removes asserts; checks of what users give must survive it.
    for path in (ROOT / "crowdcount").rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.strip().startswith("assert ")], path

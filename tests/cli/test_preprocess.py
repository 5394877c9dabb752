"""`crowdcount preprocess` in a shell: folders, warnings, verification, exit codes."""

import re
from pathlib import Path

import pytest
from PIL import Image

from crowdcount.data.sources.recipe import recipes_folder
from tests.made_up_sets import write_set


def test_preprocess_writes_below_data_and_prints_the_folder(run, workplace, scenes):
    code, out, err = run("preprocess", scenes)
    assert (code, out) == (0, "data/square\n")
    assert "held out for validation" in err
    assert "nothing to do" in run("preprocess", scenes)[2]
    assert run("preprocess", scenes, "--block", "16")[0] == 2
    assert run("preprocess", scenes, "--block", "16", "--force")[0] == 0


def test_preprocess_dry_run_writes_nothing(run, workplace, scenes):
    code, out, err = run("preprocess", scenes, "--dry-run")
    assert (code, out) == (0, "")
    assert "11 images to prepare" in err
    assert not Path("data").exists()


def test_preprocess_says_which_points_look_wrong_and_strict_exits_6(run, workplace):
    Path("own").mkdir()
    Image.new("RGB", (512, 448)).save("own/a.jpg")
    Path("own/heads.json").write_text('{"a.jpg": [[10, 500], [20, 470], [NaN, 1]]}')
    code, out, err = run("preprocess", "own", "--strict")
    assert (code, out) == (6, "")
    assert re.search("^error: .*not all points can be trusted", err, re.MULTILINE)
    assert not Path("data").exists()
    code, out, err = run("preprocess", "own")
    assert (code, out) == (0, "data/own\n")
    assert "pass --order yx" in err
    assert "1 head without a finite place, left out, in 1 image: train/a.jpg (1)" in err
    assert run("preprocess", "own", "--order", "yx", "--force")[0] == 0
    assert run("preprocess", "own", "--order", "zx")[0] == 2


def test_preprocess_of_nothing_exits_3(run, workplace):
    Path("empty").mkdir()
    assert run("preprocess", "empty")[0] == 3
    assert run("preprocess", "none")[0] == 3


def test_verify_prints_the_folder_that_is_right_and_writes_nothing(run, data):
    before = {path: path.stat().st_mtime_ns for path in data.folder.rglob("*")}
    code, out, err = run("preprocess", "--verify", "data/square", "--jobs", "2")
    assert (code, out) == (0, "data/square\n")
    assert "all 11 images match the manifest" in err
    assert {path: path.stat().st_mtime_ns for path in data.folder.rglob("*")} == before


def test_verify_lists_what_is_wrong_and_exits_6(run, data):
    (data.folder / "train/points/scene_0001.jpg.npy").write_bytes(b"x")
    code, out, err = run("preprocess", "--verify", "data/square")
    assert (code, out) == (6, "")
    assert "1 thing is not as the manifest says: train/points/scene_0001.jpg.npy" in err
    assert len(err.splitlines()) == 2
    assert "scene_0001" in run("preprocess", "--verify", "data/square", "-v")[2].splitlines()[0]


@pytest.mark.parametrize(
    "option",
    [["--out", "x"], ["--block", "8"], ["--force"], ["--dry-run"], ["--strict"], ["--seed", "42"]],
)
def test_verify_takes_no_other_setting(run, data, option):
    code, out, err = run("preprocess", "--verify", "data/square", *option)
    assert (code, out) == (2, "")
    assert f"takes no other setting: leave out {option[0]}" in err


def test_verify_of_a_folder_that_is_not_prepared_exits_3(run, workplace, scenes):
    assert run("preprocess", "--verify", scenes)[0] == 3


def test_preprocess_takes_a_recipe_of_ones_own(run, workplace):
    root = write_set("qnrf", workplace)
    text = (recipes_folder() / "qnrf.toml").read_text()
    Path("mine.toml").write_text(text)
    assert run("preprocess", root, "--recipe", "mine.toml")[:2] == (0, "data/mine\n")
    code, _, err = run("preprocess", root, "--recipe", "mine.toml", "--dataset", "qnrf")
    assert code == 2
    assert "--recipe" in err
    Path("mine.toml").write_text(text.replace("images =", "image ="))
    code, _, err = run("preprocess", root, "--recipe", "mine.toml", "--out", "other")
    assert code == 2
    assert err.startswith("error: mine.toml: splits.train.image")

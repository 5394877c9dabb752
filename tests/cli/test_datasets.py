"""`crowdcount datasets` in a shell: lists and checks."""

import json
from pathlib import Path

from crowdcount.data.sources.recipe import load_recipe, recipe_names, recipes_folder
from tests.made_up_sets import write_set


def test_datasets_lists_what_is_known(run):
    code, out, err = run("datasets")
    assert (code, err) == (0, "")
    assert run("datasets", "list")[1] == out
    text = out
    for name in recipe_names():
        recipe = load_recipe(name)
        assert any(line.split()[:1] == [name] for line in text.splitlines())
        assert recipe.homepage in text
    assert "62,315" in text
    assert "1,500*" in text


def test_datasets_list_for_machines(run):
    code, out, _ = run("datasets", "list", "--json")
    known = {each["name"]: each for each in json.loads(out)}
    assert code == 0
    assert run("datasets", "--json")[1] == out
    assert set(known) == set(recipe_names())
    assert known["sha"]["images"] == {"train": 300, "test": 182}
    assert known["sha"]["heads"] == {"newer": 241_275, "older": 241_677}
    assert known["nwpu"]["unlabelled"] == ["test"]
    assert known["ucf50"]["folds"] == 5


def test_datasets_check_of_an_incomplete_set_exits_6(run, workplace):
    root = write_set("sha", workplace)
    before = sorted(workplace.rglob("*"))
    (root / "train_data/images/IMG_2.jpg").write_bytes(b"<html>404</html>")
    (root / "test_data/ground-truth/GT_IMG_1.mat").unlink()
    before.remove(root / "test_data/ground-truth/GT_IMG_1.mat")
    code, out, err = run("datasets", "check", root)
    assert (code, out) == (6, "sha\tincomplete\t-\n")
    assert "train: 3 images, 300 expected" in err
    assert "train: 1 images cannot be used" in err
    assert "IMG_2.jpg" in err
    assert "IMG_1.jpg" in err
    assert "Traceback" not in err
    assert sorted(workplace.rglob("*")) == before


def test_datasets_check_of_what_is_whole_exits_0(run, workplace):
    root = write_set("qnrf", workplace)
    text = (recipes_folder() / "qnrf.toml").read_text()
    text = text.replace("1201", "3").replace("334", "2") + "[releases]\nfirst = { total = 38 }\n"
    Path("mine.toml").write_text(text)
    code, out, err = run("datasets", "check", root, "--recipe", "mine.toml")
    assert (code, out) == (0, "mine\tcomplete\tfirst\n")
    assert "warning" not in err


def test_datasets_check_of_nothing_exits_3(run, workplace):
    Path("empty").mkdir()
    assert run("datasets", "check", "empty")[:2] == (3, "")
    assert run("datasets", "check", "none")[:2] == (3, "")


def test_datasets_convert_prints_the_folder_that_it_wrote(run, data):
    code, out, err = run("datasets", "convert", data.folder, "--to", "labelme", "-o", "tool")
    assert (code, out) == (0, "tool\n")
    assert "heads for labelme" in err
    assert len(list(Path("tool").rglob("*.json"))) == len(data.manifest.images)
    assert run("datasets", "convert", data.folder, "--to", "labelme", "-o", "tool")[:2] == (2, "")

import dataclasses

import pytest

from crowdcount.data.sources.recipe import in_range, load_recipe, recipe_names, recipes_folder
from crowdcount.errors import ConfigError, InputMissingError, UsageError

SMALL = """
title    = "Lantern Square"
homepage = "https://example.org/lantern-square"
licence  = "CC BY-NC 4.0"
citation = "Doe and Roe"
[points]
reader = "mat"
key    = "annPoints"
[resize]
short_side_min = 448
multiple_of = 32
[splits.train]
images = "Train/{id}.jpg"
points = ["Train/{id}_ann.mat", "Train/{id}.mat"]
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="lantern"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return write


def test_a_recipe_of_ones_own_is_called_after_its_file(written):
    recipe = load_recipe(written(SMALL))
    assert recipe.name == "lantern"
    assert recipe.splits["train"].images == ("Train/{id}.jpg",)
    assert recipe.splits["train"].points == ("Train/{id}_ann.mat", "Train/{id}.mat")
    assert recipe.splits["train"].expect_images is None


def test_the_hash_is_of_what_is_said(written):
    first = load_recipe(written(SMALL)).sha256()
    assert load_recipe(written(SMALL.replace("448", "4_48 # pixels"))).sha256() == first
    assert load_recipe(written(SMALL.replace("448", "512"))).sha256() != first


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('licence  = "CC BY-NC 4.0"', 'license = "CC"', "licen"),
        ('title    = "Lantern Square"', "", "title"),
        (
            "short_side_min = 448",
            "short_side_min = 448\nshort = 1",
            r"resize\.short: no such setting",
        ),
        ("short_side_min = 448", 'short_side_min = "wide"', r"resize\.short_side_min"),
        ("short_side_min = 448", "short_side_min = 0", r"resize\.short_side_min"),
        ('reader = "mat"', 'reader = "xml"', r"points\.reader: expected csv, .*, got 'xml'"),
        (
            "[splits.train]",
            "[splits.training]",
            "splits: expected train, val or test, got 'training'",
        ),
        ('images = "Train/{id}.jpg"', 'images = "Train/*.jpg"', r"splits\.train\.images.*\{id\}"),
        ('images = "Train/{id}.jpg"', "images = 3", r"splits\.train\.images"),
        ("[resize]", "[releases]\nnew = { test = 3 }\n[resize]", r"releases\.new"),
        ("[resize]", "[resize", "not valid TOML"),
        ('title    = "Lantern Square"', 'title = "x"\nname = "y"', "name: no such setting"),
    ],
)
def test_a_wrong_recipe_is_refused_by_file_and_key(written, old, new, message):
    assert old in SMALL
    path = written(SMALL.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_unknown_name_suggests_a_known_one():
    with pytest.raises(UsageError, match=r"'shaa'; did you mean 'sha'\?"):
        load_recipe("shaa")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputMissingError, match=r"gone\.toml"):
        load_recipe(tmp_path / "gone.toml")


def test_names_are_those_of_the_files():
    assert {"sha", "shb", "own"} <= set(recipe_names())
    assert set(recipe_names()) == {path.stem for path in recipes_folder().iterdir()}


def test_recipes_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe("sha").title = "mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("points = [", "unlabelled = true\npoints = [", r"splits\.train\.unlabelled"),
        (
            'points = ["Train/{id}_ann.mat", "Train/{id}.mat"]',
            "",
            r"splits\.train\.points: is missing",
        ),
        ("points = [", "ids = [9, 1]\npoints = [", r"splits\.train\.ids: expected the first"),
        ("points = [", "ids = [1, 2, 3]\npoints = [", r"splits\.train\.ids"),
        ("points = [", "lists = 'a.txt'\npoints = [", r"splits\.train\.lists: no such setting"),
        ("[resize]", '[validation]\ngroup = "cam*"\n[resize]', r"validation\.group: 'cam\*'"),
        ("[resize]", "[validation]\ncamera = 1\n[resize]", r"validation\.camera: no such"),
        (
            "[resize]",
            "[validation]\nfolds = [[1, 9]]\n[resize]",
            r"validation\.folds: expected at least two",
        ),
        (
            "[resize]",
            "[validation]\nfolds = [[1, 9], [9, 12]]\n[resize]",
            r"validation\.folds: 9 is in two",
        ),
        ("[resize]", "[releases]\nnew = { totals = 3 }\n[resize]", "did you mean 'total'"),
    ],
)
def test_what_a_set_needs_is_checked_when_its_recipe_is_read(written, old, new, message):
    assert old in SMALL
    path = written(SMALL.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_split_without_annotations_is_known_and_has_no_heads(written):
    recipe = load_recipe(
        written(SMALL + '[splits.test]\nimages = "Test/{id}.jpg"\nunlabelled = true\n')
    )
    assert set(recipe.splits) == {"train", "test"}
    assert set(recipe.labelled) == {"train"}


def test_heads_of_all_splits_are_said_or_added_up():
    assert load_recipe("sha").heads("total") == {"newer": 241_275, "older": 241_677}
    assert load_recipe("shb").heads("total")["older"] == 88_488
    assert load_recipe("mall").heads("total") == {"published": 62_315}
    assert load_recipe("mall").heads("train") == {}


def test_a_path_is_a_file_whatever_its_ending(written, tmp_path):
    path = written(SMALL)
    path.rename(tmp_path / "lantern.txt")
    assert load_recipe(tmp_path / "lantern.txt").name == "lantern"


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        *[("9", False), ("10", True), ("0011", True), ("12", False), ("x", False), ("", False)],
        *[("9" * 5000, False), ("0" * 5000 + "10", True)],
    ],
)
def test_a_range_of_ids_holds_numbers_of_any_length(image_id, expected):
    assert in_range(image_id, (10, 11)) is expected

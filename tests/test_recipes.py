"""Every recipe of the folder, and the facts that the known ones must state."""

import pytest

from crowdcount.data.sources.recipe import load_recipe, load_recipes, recipe_names

KNOWN = {
    # images and heads of train and test; heads in the newer and in the older release
    "sha": ((300, 182), {"newer": (162_413, 78_862), "older": (162_707, 78_970)}),
    "shb": ((400, 316), {"newer": (49_151, 39_121), "older": (49_280, 39_208)}),
}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_says_what_a_user_must_know(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    assert recipe.licence
    if not recipe.recognise.any_folder:
        assert recipe.homepage.startswith("https://")
        assert recipe.download
        assert recipe.citation
        assert recipe.recognise.folders
        assert all(split.expect_images for split in recipe.splits.values())


@pytest.mark.parametrize("name", KNOWN)
def test_known_sets_promise_the_published_totals(name):
    recipe = load_recipe(name)
    images, releases = KNOWN[name]
    assert (recipe.splits["train"].expect_images, recipe.splits["test"].expect_images) == images
    assert {key: (of["train"], of["test"]) for key, of in recipe.releases.items()} == releases
    assert recipe.resize.short_side_min == 448
    assert recipe.resize.long_side_max == 4096


def test_no_two_recipes_say_the_same():
    hashes = [recipe.sha256() for recipe in load_recipes()]
    assert len(set(hashes)) == len(hashes)


def test_folder_names_tell_one_recipe():
    names = [name.lower() for recipe in load_recipes() for name in recipe.recognise.folders]
    assert len(set(names)) == len(names)

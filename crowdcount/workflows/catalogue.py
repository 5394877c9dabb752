"""The data sets whose recipes ship with the package."""

from typing import Any

from crowdcount.data.sources.recipe import TOTAL, Recipe, load_recipes


def catalogue() -> tuple[list[Recipe], list[Recipe]]:
    """Return the recipes of published data sets, and those for your own images, by name."""
    recipes = load_recipes()
    own = [recipe for recipe in recipes if recipe.recognise.any_folder]
    return [recipe for recipe in recipes if recipe not in own], own


def description(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as one record for somebody who looks for data."""
    return {
        "name": recipe.name,
        "title": recipe.title,
        "homepage": recipe.homepage,
        "download": recipe.download,
        "licence": recipe.licence,
        "citation": recipe.citation,
        "own": recipe.recognise.any_folder,
        "images": {name: each.expect_images for name, each in recipe.splits.items()},
        "unlabelled": [name for name, each in recipe.splits.items() if each.unlabelled],
        "heads": recipe.heads(TOTAL),
        "releases": recipe.releases,
        "folds": len(recipe.validation.folds),
    }

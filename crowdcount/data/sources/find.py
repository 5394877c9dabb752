"""Find data sets in a folder: which recipe describes it, and where its root is."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crowdcount.data.sources.images import image_size, read_content
from crowdcount.data.sources.point_tables import CSV_HEADER
from crowdcount.data.sources.recipe import Recipe, load_recipe, load_recipes
from crowdcount.data.sources.split_files import (
    annotation_files,
    image_files,
    missing_lists,
    subfolders,
    table_files,
)
from crowdcount.errors import CrowdCountError, InputMissingError, UsageError
from crowdcount.wording import counted, natural_key, shorten


@dataclass(frozen=True, kw_only=True)
class SourceSet:
    """A data set found in a folder."""

    name: str
    """Name of the prepared set: the recipe's, or the folder's for a layout of many sets."""

    root: Path
    """The set's folder."""

    recipe: Recipe


def find_sets(
    source: Path,
    *,
    dataset: str | Path | None = None,
    points: Mapping[str, Any] = MappingProxyType({}),
) -> list[SourceSet]:
    """Find the data sets that a folder is or holds, up to two levels below it.

    A folder that matches several recipes is identified by the name of the set's folder or of one
    between it and ``source``; else by the number and size of its images; else by a layout that no
    other set has; else as a set without a recipe of its own, in a known layout.

    Args:
        source: A set's folder, or one that holds sets.
        dataset: Name or file of a recipe, which decides.
        points: Settings of ``PointsFormat`` that differ from those of the recipes.

    Raises:
        InputMissingError: If the folder does not exist, or nothing in it is recognised.
        UsageError: If several recipes match and none was named.
    """
    if not source.is_dir():
        problem = "is a file; name a folder" if source.exists() else "no such folder"
        raise InputMissingError(f"{source}: {problem}")
    # Not resolved: the name a user gave to a link may identify the set.
    source = Path(os.path.abspath(source))  # noqa: PTH100
    if dataset is None:
        recipes = tuple(_with_points(recipe, points) for recipe in load_recipes())
        candidates = list(_candidates(source, recipes, source=source, decided=False, levels=2))
        sets = [_identify(root, fitting, source) for root, fitting in candidates]
    else:
        recipe = _with_points(load_recipe(dataset), points)
        recipes = (recipe,)
        candidates = list(_candidates(source, recipes, source=source, decided=True, levels=2))
        roots = [root for root, _ in candidates]
        named = [root for root in roots if _matching_names(recipes, root, source)]
        sets = [_source_set(root, recipe) for root in (named or roots)]
    if not sets:
        raise _nothing_found(source, recipes)
    names = [source_set.name for source_set in sets]
    for name in names:
        if names.count(name) > 1:
            roots_of_name = [str(source_set.root) for source_set in sets if source_set.name == name]
            raise UsageError(
                f"{source}: more than one folder is {name}: {shorten(roots_of_name)}",
                next_step="name one of them",
            )
    return sets


def _with_points(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    return replace(recipe, points=replace(recipe.points, **changes)) if changes else recipe


def _candidates(
    folder: Path, recipes: Sequence[Recipe], *, source: Path, decided: bool, levels: int
) -> Iterator[tuple[Path, list[Recipe]]]:
    """Yield folders with the recipes they match: this one, or else those ``levels`` below it."""
    named = recipes if decided else _matching_names(recipes, folder, source)
    fitting = [recipe for recipe in recipes if _matches_layout(recipe, folder, recipe in named)]
    if fitting:
        yield folder, fitting
    elif levels:
        for child in subfolders(folder):
            yield from _candidates(
                child, recipes, source=source, decided=decided, levels=levels - 1
            )


def _matches_layout(recipe: Recipe, root: Path, named: bool) -> bool:
    """Return whether a folder has the layout of a recipe in at least one split.

    Images suffice where the folder's name identifies the recipe; else one must have an annotation.
    """
    for layout in recipe.labelled.values():
        if recipe.points.is_table and not table_files(root, layout, recipe.points):
            continue
        images = image_files(root, layout)
        if not images:
            continue
        one_for_each = recipe.recognise.any_folder and recipe.points.reader in ("file", "yolo")
        if named or recipe.points.is_table or (recipe.recognise.any_folder and not one_for_each):
            return True
        annotations = annotation_files(root, layout)
        paired = [annotations[image.id] for image in images if image.id in annotations]
        if one_for_each:
            contents = (read_content(path, what="annotation", may_be_empty=True) for path in paired)
            full = next((content for content in contents if content.strip()), None)
            if full is not None and recipe.points.may_be_of_an_image(full):
                return True
        elif paired:
            return True
    return False


def _matching_names(recipes: Sequence[Recipe], root: Path, source: Path) -> list[Recipe]:
    """Select recipes by the names of folders, from the set's root outwards; the nearest decides."""
    for folder in (root, *root.parents):
        plain = _plain(folder.name)
        named = [recipe for recipe in recipes if plain in map(_plain, recipe.recognise.folders)]
        if named or folder == source:
            return named
    return []


def _plain(name: str) -> str:
    """Return a folder's name in lower case, without spaces, dashes and underscores."""
    return re.sub(r"[\s_-]+", "", name).lower()


def _identify(root: Path, fitting: list[Recipe], source: Path) -> SourceSet:
    """Choose the one recipe among those whose layout matches."""
    chosen = (
        _matching_names(fitting, root, source)
        or [recipe for recipe in fitting if _matches_numbers(recipe, root)]
        or [recipe for recipe in fitting if recipe.recognise.layout or recipe.recognise.any_folder]
    )
    if len(chosen) == 1:
        return _source_set(root, chosen[0])
    names = ", ".join(recipe.name for recipe in chosen or fitting)
    raise UsageError(
        f"{root}: could be any of these sets: {names}"
        if len(chosen or fitting) > 1
        else f"{root}: is laid out like {names}, without its name or its number of images",
        next_step="say which one it is with --dataset NAME",
    )


def _source_set(root: Path, recipe: Recipe) -> SourceSet:
    slug = re.sub(r"[^\w-]+", "_", root.name.lower()).strip("_") or "images"
    name = slug if recipe.recognise.any_folder else recipe.name
    return SourceSet(name=name, root=root, recipe=recipe)


def _matches_numbers(recipe: Recipe, root: Path) -> bool:
    """Return whether each split that exists has the promised images, in number and size."""
    if recipe.recognise.any_folder:
        return False
    for layout in recipe.labelled.values():
        images = image_files(root, layout)
        if images and len(images) != layout.expect_images:
            return False
        size = recipe.recognise.image_size
        if size is not None and any(_size_or_none(image.path) != size for image in images):
            return False
    return True


def _size_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except CrowdCountError:
        return None


def _nothing_found(source: Path, recipes: Sequence[Recipe]) -> InputMissingError:
    """Say what was found, and what the nearest layout lacks."""
    entries = sorted((path.name for path in source.iterdir()), key=natural_key)
    lacks = [
        (images, recipe.recognise.any_folder, text)
        for recipe in recipes
        for images, text in _lacking(source, recipe)
    ]
    known, any_folder = (
        [text for images, own, text in sorted(lacks, key=lambda each: -each[0]) if own == wanted]
        for wanted in (False, True)
    )
    return InputMissingError(
        f"{source}: no data set recognised; found {shorten(entries) or 'nothing'}",
        looked_for="; ".join((*known[:2], *any_folder[:2]))
        or "images with a table of points, or a file of points for each",
        next_step=f"add what lacks, or name the folder that holds it; a table begins with "
        f"{','.join(CSV_HEADER)}, or name its columns with --columns; all layouts: "
        "crowdcount docs datasets",
    )


def _lacking(source: Path, recipe: Recipe) -> Iterator[tuple[int, str]]:
    """Yield what a layout lacks whose images or annotations are there, and how many are."""
    if missing := missing_lists(source, recipe):
        yield 10**9, f"{recipe.name}: {' and '.join(missing)}, beside its images"
        return
    kind = "a table of points in " if recipe.points.is_table else ""
    for layout in recipe.labelled.values():
        if images := image_files(source, layout):
            points = " or ".join(layout.points[:2])
            beside = f"beside {counted(len(images), 'image')}"
            yield len(images), f"{recipe.name}: {kind}{points}, {beside}"
            return
        files = {} if recipe.recognise.any_folder else annotation_files(source, layout)
        if files:
            yield (
                len(files),
                f"{recipe.name}: {layout.images[0]}, beside {counted(len(files), 'annotation')}",
            )
            return

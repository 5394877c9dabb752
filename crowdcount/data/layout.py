"""An unpacked archive: which set it is, which images it holds, which annotation is whose."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crowdcount.data.images import IMAGE_SUFFIXES, image_size, read_content
from crowdcount.data.points import CSV_HEADER, Points, PointsFormat
from crowdcount.data.recipe import SPLITS, Recipe, SplitLayout, load_recipe, load_recipes
from crowdcount.errors import BadInputError, CrowdCountError, InputMissingError, UsageError


@dataclass(frozen=True, kw_only=True)
class Found:
    """A data set found in a folder."""

    name: str
    """What the prepared set is called: the recipe's name, or the folder's for a set of no name."""

    root: Path
    """The set's folder."""

    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image of an archive, and where its annotation is."""

    split: str
    file: str
    """Path below the folder of the split's images, with ``/``: what the image is called."""

    path: Path
    annotation: Path
    """Its own annotation file, or the table that holds its points."""

    rows: Points | None = None
    """Its points, where a table of all images held them."""

    @property
    def name(self) -> str:
        """What the image is called in its data set."""
        return f"{self.split}/{self.file}"


@dataclass(frozen=True, kw_only=True)
class SourceSplit:
    """The images of a split, and those that nothing annotates."""

    images: tuple[SourceImage, ...]
    unpaired: tuple[str, ...]
    """Files of the images without annotation."""

    looked_for: str
    """Where the annotation of the first of them was expected."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``IMG_9`` before ``IMG_10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    # The text comes last, too, so that 01 and 1 have one order.
    return [(0, int(p), p) if p[0] in "0123456789" else (1, 0, p) for p in parts]


def shortened(names: Sequence[str], *, show: int = 5) -> str:
    """Names for a message: the first few, and how many more there are."""
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return ", ".join(names[:show]) + more


def recognise(source: Path, *, dataset: str | None = None) -> list[Found]:
    """The data sets that a folder is or holds, up to two levels below it.

    The name of the set's folder, or of one between it and ``source``, tells which set it is; else
    the number and size of its images; else it is a set of no name in a known layout.

    Args:
        source: A set's folder, or one that holds sets.
        dataset: A recipe's name or file, which decides.

    Raises:
        InputMissingError: If there is no such folder, or nothing in it is recognised.
        UsageError: If more than one recipe fits and none was named.
    """
    if not source.is_dir():
        what = "is a file; name a folder" if source.exists() else "no such folder"
        raise InputMissingError(f"{source}: {what}")
    # Not resolved: the name a user gave to a link may tell the set.
    source = Path(os.path.abspath(source))  # noqa: PTH100
    recipes = load_recipes() if dataset is None else (load_recipe(dataset),)
    fitting = list(_fitting(source, recipes, levels=2))
    if not fitting:
        raise _nothing_found(source, recipes)
    if dataset is not None and len(fitting) > 1:
        by_name = [(root, fit) for root, fit in fitting if _named(fit, root, source)]
        fitting = by_name or fitting
    found = [_identified(root, fit, source) for root, fit in fitting]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            roots_of_it = [str(each.root) for each in found if each.name == name]
            raise UsageError(
                f"{source}: more than one folder is {name}: {shortened(roots_of_it)}",
                next_step="name one of them",
            )
    return found


def source_splits(found: Found) -> dict[str, SourceSplit]:
    """The images of each split that is there, in natural order, each with its annotation.

    Raises:
        BadInputError: If a table is damaged, or two images are called the same.
        InputMissingError: If a table names images that are not there.
    """
    splits = {}
    for split in SPLITS:
        layout = found.recipe.splits.get(split)
        images = [] if layout is None else _listed_images(found.root, layout)
        if layout is None or not images:
            continue
        pair = _paired_by_table if found.recipe.points.is_table else _paired_by_id
        splits[split] = pair(found, split, layout, images)
    return splits


@dataclass(frozen=True, kw_only=True)
class _Match:
    """A file that fits a pattern."""

    path: Path
    file: str
    """Below the pattern's literal folder."""

    id: str


def _matches(root: Path, pattern: str) -> list[_Match]:
    """Files below ``root`` that fit ``pattern``, in natural order, without hidden ones."""
    parts = PurePosixPath(pattern).parts
    literal = next(
        i for i, part in enumerate(parts) if "*" in part or "{" in part or i == len(parts) - 1
    )
    folder, rest = root.joinpath(*parts[:literal]), parts[literal:]
    expression = "".join(
        "(?:.*/)?" if part == "**" else _part_expression(part) + ("/" if more else "")
        for part, more in zip(rest, [*[True] * (len(rest) - 1), False], strict=True)
    )
    fits = re.compile(expression, re.IGNORECASE)
    found = []
    for path in _files_below(folder, deep=len(rest) > 1):
        file = path.relative_to(folder).as_posix()
        match = fits.fullmatch(file)
        if match:
            found.append(_Match(path=path, file=file, id=match.groupdict().get("id", "")))
    return sorted(found, key=lambda each: natural_key(each.file))


def _part_expression(part: str) -> str:
    pieces = re.split(r"(\*|\{id\})", part)
    known = {"*": "[^/]*", "{id}": "(?P<id>[^/]+)"}
    return "".join(known.get(piece, re.escape(piece)) for piece in pieces)


def _files_below(folder: Path, *, deep: bool) -> Iterator[Path]:
    """Files of a folder; hidden ones and what macOS adds to archives are left out."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be read: {error}") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_file():
            yield folder / entry.name
        elif deep and entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder / entry.name, deep=True)


def _listed_images(root: Path, layout: SplitLayout) -> list[_Match]:
    matches = [match for pattern in layout.images for match in _matches(root, pattern)]
    images = [match for match in matches if match.path.suffix.lower() in IMAGE_SUFFIXES]
    for image in images:
        try:
            image.file.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadInputError(
                f"{str(image.path)!r}: the name is not in UTF-8, which a manifest needs",
                next_step="rename the image",
            ) from error
    return images


def _tables(root: Path, layout: SplitLayout, points: PointsFormat) -> list[Path]:
    """The tables of a split: files that fit its pattern and begin like a table of the format."""
    paths = [match.path for pattern in layout.points for match in _matches(root, pattern)]
    return [path for path in paths if points.is_table_of_points(read_content(path, what="table"))]


def _fitting(
    folder: Path, recipes: Sequence[Recipe], *, levels: int
) -> Iterator[tuple[Path, list[Recipe]]]:
    """The folders that have the layout of recipes: this one, or else those ``levels`` below it."""
    fit = [recipe for recipe in recipes if _fits(recipe, folder)]
    if fit:
        yield folder, fit
    elif levels:
        for child in _subfolders(folder):
            yield from _fitting(child, recipes, levels=levels - 1)


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = [child for child in folder.iterdir() if child.is_dir()]
    except OSError:
        return []
    visible = [c for c in children if not c.name.startswith(".") and c.name != "__MACOSX"]
    return sorted(visible, key=lambda child: natural_key(child.name))


def _fits(recipe: Recipe, root: Path) -> bool:
    """Whether a folder has the layout of a recipe, in one split at least."""
    for layout in recipe.splits.values():
        if recipe.points.is_table and not _tables(root, layout, recipe.points):
            continue
        if _listed_images(root, layout):
            return True
    return False


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _named(recipes: Sequence[Recipe], root: Path, source: Path) -> list[Recipe]:
    """The recipes that the name of a folder tells; the folder nearest to the set decides."""
    folder = root
    while True:
        known = [
            recipe
            for recipe in recipes
            if _plain(folder.name) in map(_plain, recipe.recognise.folders)
        ]
        if known or folder == source:
            return known
        folder = folder.parent


def _identified(root: Path, fitting: list[Recipe], source: Path) -> Found:
    """Which of the recipes whose layout a folder has it is."""
    if len(fitting) == 1:
        candidates = fitting
    else:
        candidates = (
            _named(fitting, root, source)
            or [recipe for recipe in fitting if _numbers_fit(recipe, root)]
            or [recipe for recipe in fitting if recipe.recognise.any_folder]
        )
    if len(candidates) != 1:
        names = [recipe.name for recipe in candidates or fitting]
        raise UsageError(
            f"{root}: could be any of these sets: {', '.join(names)}",
            next_step="say which one it is with --dataset NAME",
        )
    (recipe,) = candidates
    name = _slug(root.name) if recipe.recognise.any_folder else recipe.name
    return Found(name=name, root=root, recipe=recipe)


def _numbers_fit(recipe: Recipe, root: Path) -> bool:
    """Whether the splits that are there have exactly the promised images, in number and size."""
    if recipe.recognise.any_folder:
        return False
    present = [
        (layout, images)
        for layout in recipe.splits.values()
        if (images := _listed_images(root, layout))
    ]
    if any(len(images) != layout.expect_images for layout, images in present):
        return False
    size = recipe.recognise.image_size
    return size is None or all(
        _size_or_none(image.path) == size for _, images in present for image in images
    )


def _size_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except CrowdCountError:
        return None


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name.lower()).strip("_") or "images"


def _nothing_found(source: Path, recipes: Sequence[Recipe]) -> InputMissingError:
    layouts = {
        f"{layout.images[0]} with {layout.points[0]}"
        for recipe in recipes
        for layout in list(recipe.splits.values())[:1]
    }
    there = sorted((path.name for path in source.iterdir()), key=natural_key)
    return InputMissingError(
        f"{source}: no data set recognised; found {shortened(there) or 'nothing'}",
        looked_for="; ".join(sorted(layouts)),
        next_step="name the folder that holds these; a table of own images begins with "
        f'{",".join(CSV_HEADER)} or {{"images": [',
    )


def _paired_by_id(
    found: Found, split: str, layout: SplitLayout, images: list[_Match]
) -> SourceSplit:
    """Images with the annotation file of their own that has the same ``{id}``."""
    by_id: dict[str, str] = {}
    paired, unpaired = [], []
    for image in images:
        if image.id in by_id:
            raise BadInputError(
                f"{found.root.name}/{split}: {by_id[image.id]} and {image.file} would share "
                "an annotation",
                next_step="remove or rename one of them",
            )
        by_id[image.id] = image.file
        annotation = next(
            (path for path in _annotations(found.root, layout, image.id) if path.exists()), None
        )
        if annotation is None:
            unpaired.append(image)
        else:
            paired.append(
                SourceImage(split=split, file=image.file, path=image.path, annotation=annotation)
            )
    looked_for = ""
    if unpaired:
        first, *others = _annotations(found.root, layout, unpaired[0].id)
        folders = [other.parent.name for other in others]
        looked_for = str(first) + (f" (and {', '.join(folders)})" if folders else "")
    return SourceSplit(
        images=tuple(paired),
        unpaired=tuple(image.file for image in unpaired),
        looked_for=looked_for,
    )


def _annotations(root: Path, layout: SplitLayout, image_id: str) -> list[Path]:
    return [root / pattern.replace("{id}", image_id) for pattern in layout.points]


def _paired_by_table(
    found: Found, split: str, layout: SplitLayout, images: list[_Match]
) -> SourceSplit:
    """Images with their rows of the split's one table, whose paths start at its folder."""
    tables = _tables(found.root, layout, found.recipe.points)
    if len(tables) != 1:
        raise BadInputError(
            f"{found.root.name}/{split}: {len(tables)} tables of points, expected one",
            looked_for=f"{found.root}/{layout.points[0]}",
        )
    (table,) = tables
    try:
        points = found.recipe.points.read_table(read_content(table, what="table"))
    except ValueError as error:
        raise BadInputError(f"{table}: {error}") from error
    by_name = {image.path.relative_to(table.parent).as_posix(): image for image in images}
    missing = sorted(set(points) - set(by_name), key=natural_key)
    if missing:
        raise InputMissingError(
            f"{table}: names {len(missing)} images that are not there: {shortened(missing)}",
            looked_for=str(table.parent / missing[0]),
            next_step="correct the names (paths start at the table's folder), or add the images",
        )
    return SourceSplit(
        images=tuple(
            SourceImage(
                split=split, file=image.file, path=image.path, annotation=table, rows=points[name]
            )
            for name, image in by_name.items()
            if name in points
        ),
        unpaired=tuple(image.file for name, image in by_name.items() if name not in points),
        looked_for=f"every image in {table}; an empty scene is a row `image,,`, "
        "in JSON an empty list of points",
    )

"""An unpacked archive: which set it is, which images it holds, which annotation is whose."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crowdcount.data.sources.annotations import CSV_HEADER, Points, PointsFormat
from crowdcount.data.sources.images import IMAGE_SUFFIXES, image_size, read_content
from crowdcount.data.sources.recipe import (
    SPLITS,
    Recipe,
    SplitLayout,
    in_range,
    load_recipe,
    load_recipes,
)
from crowdcount.errors import BadInputError, CrowdCountError, InputMissingError, UsageError
from crowdcount.wording import natural_key, shorten


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

    id: str = ""
    """What the recipe's ``{id}`` stands for in its path."""

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

    absent: tuple[str, ...] = ()
    """Ids that the split's list, or the table of points, names and that have no image."""


def recognise(source: Path, *, dataset: str | Path | None = None) -> list[Found]:
    """The data sets that a folder is or holds, up to two levels below it.

    The name of the set's folder, or of one between it and ``source``, tells which set it is; else
    the number and size of its images; else a layout that no other set has; else it is a set of no
    name in a known layout.

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
    decided = dataset is not None
    fitting = list(_fitting(source, recipes, source=source, decided=decided, levels=2))
    if not fitting:
        raise _nothing_found(source, recipes)
    if decided and len(fitting) > 1:
        by_name = [(root, fit) for root, fit in fitting if _named(fit, root, source)]
        fitting = by_name or fitting
    found = [_identified(root, fit, source, decided=decided) for root, fit in fitting]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            roots_of_it = [str(each.root) for each in found if each.name == name]
            raise UsageError(
                f"{source}: more than one folder is {name}: {shorten(roots_of_it)}",
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
        layout = found.recipe.labelled.get(split)
        images = [] if layout is None else _listed_images(found.root, layout)
        if layout is None or not images:
            continue
        pair = _paired_by_table if found.recipe.points.is_table else _paired_by_id
        splits[split] = pair(found, split, layout, images)
    _refuse_shared(found, splits)
    return splits


def unlabelled_images(found: Found) -> dict[str, int]:
    """How many images there are of each split whose annotations were not published."""
    return {
        name: len(_listed_images(found.root, layout))
        for name, layout in found.recipe.splits.items()
        if layout.unlabelled
    }


def grouped(files: Iterable[str], pattern: str) -> dict[str, str]:
    """What the images that belong together have in common, for each that the pattern fits.

    Args:
        files: What the images are called: paths below the folder of their split.
        pattern: Of such a path, with ``{group}`` for what is common.
    """
    fits = _expression(PurePosixPath(pattern).parts)
    return {file: match["group"] for file in files if (match := fits.fullmatch(file))}


def _refuse_shared(found: Found, splits: Mapping[str, SourceSplit]) -> None:
    """An image in two splits would be trained on and tested with."""
    first: dict[Path, str] = {}
    for name, split in splits.items():
        shared = [each.file for each in split.images if first.setdefault(each.path, name) != name]
        if shared:
            raise BadInputError(
                f"{found.root.name}: {len(shared)} images of {name} are in another split, too: "
                f"{shorten(shared)}",
                looked_for=", ".join(
                    each.list for each in found.recipe.splits.values() if each.list
                ),
                next_step="unpack the archive again",
            )


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
        i
        for i, part in enumerate(parts)
        if any(sign in part for sign in "*?{") or i == len(parts) - 1
    )
    folder, rest = _folder(root, parts[:literal]), parts[literal:]
    fits = _expression(rest)
    levels = None if "**" in rest else len(rest) - 1
    found = []
    for path in _files_below(folder, levels=levels):
        file = path.relative_to(folder).as_posix()
        match = fits.fullmatch(file)
        if match:
            found.append(_Match(path=path, file=file, id=match.groupdict().get("id", "")))
    return sorted(found, key=lambda each: natural_key(each.file))


def _folder(root: Path, parts: Sequence[str]) -> Path:
    """The folder of a path below ``root``; upper and lower case may differ, as in ``Train``."""
    for part in parts:
        exact = root / part
        if not exact.exists():
            alike = (each for each in _subfolders(root) if each.name.lower() == part.lower())
            exact = next(alike, exact)
        root = exact
    return root


def _expression(parts: Sequence[str]) -> re.Pattern[str]:
    """What the paths of a pattern match; upper and lower case are the same, as in ``.JPG``."""
    text = "".join(
        "(?:.*/)?" if part == "**" else _part_expression(part) + ("/" if more else "")
        for part, more in zip(parts, [*[True] * (len(parts) - 1), False], strict=True)
    )
    return re.compile(text, re.IGNORECASE)


def _part_expression(part: str) -> str:
    pieces = re.split(r"(\*|\?|\{id\}|\{group\})", part)
    known = {"*": "[^/]*", "?": "[^/]", "{id}": "(?P<id>[^/]+)", "{group}": "(?P<group>[^/]+)"}
    return "".join(known.get(piece, re.escape(piece)) for piece in pieces)


def _files_below(folder: Path, *, levels: int | None) -> Iterator[Path]:
    """Files of a folder and ``levels`` below it; None: all.

    Hidden ones and what macOS adds to archives are left out.
    """
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be read: {error}") from error
    below = None if levels is None else levels - 1
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_file():
            yield folder / entry.name
        elif (below is None or below >= 0) and entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder / entry.name, levels=below)


def _listed_images(root: Path, layout: SplitLayout) -> list[_Match]:
    """The images of a split: those that fit its paths, and are in its list and range of ids."""
    listed = None if layout.list is None else set(_listed_ids(root, layout.list))
    if listed is not None and not listed:
        return []
    matches = [match for pattern in layout.images for match in _matches(root, pattern)]
    images = [
        match
        for match in matches
        if match.path.suffix.lower() in IMAGE_SUFFIXES
        and (listed is None or match.id in listed)
        and (layout.ids is None or in_range(match.id, layout.ids))
    ]
    for image in images:
        try:
            image.file.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadInputError(
                f"{str(image.path)!r}: the name is not in UTF-8, which a manifest needs",
                next_step="rename the image",
            ) from error
    return images


def _listed_ids(root: Path, name: str) -> list[str]:
    """The ids that a list file names, in its order; none, where there is no such file."""
    found = _matches(root, name)
    if not found:
        return []
    try:
        text = read_content(found[0].path, what="list").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{found[0].path}: not a list in UTF-8") from error
    fields = (re.split(r"[\s,]", line.strip(), maxsplit=1)[0] for line in text.splitlines())
    return list(dict.fromkeys(field for field in fields if field))


def _tables(root: Path, layout: SplitLayout, points: PointsFormat) -> list[Path]:
    """The tables of a split: files that fit its pattern and begin like a table of the format."""
    paths = [match.path for pattern in layout.points for match in _matches(root, pattern)]
    return [path for path in paths if points.is_table_of_points(read_content(path, what="table"))]


def _fitting(
    folder: Path, recipes: Sequence[Recipe], *, source: Path, decided: bool, levels: int
) -> Iterator[tuple[Path, list[Recipe]]]:
    """The folders that have the layout of recipes: this one, or else those ``levels`` below it."""
    named = recipes if decided else _named(recipes, folder, source)
    fit = [recipe for recipe in recipes if _fits(recipe, folder, named=recipe in named)]
    if fit:
        yield folder, fit
    elif levels:
        for child in _subfolders(folder):
            yield from _fitting(child, recipes, source=source, decided=decided, levels=levels - 1)


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = [child for child in folder.iterdir() if child.is_dir()]
    except OSError:
        return []
    visible = [c for c in children if not c.name.startswith(".") and c.name != "__MACOSX"]
    return sorted(visible, key=lambda child: natural_key(child.name))


def _fits(recipe: Recipe, root: Path, *, named: bool) -> bool:
    """Whether a folder has the layout of a recipe, in one split at least.

    Images alone do not make a known set that is not named: one must have an annotation.
    """
    for layout in recipe.labelled.values():
        if recipe.points.is_table and not _tables(root, layout, recipe.points):
            continue
        images = _listed_images(root, layout)
        if not images:
            continue
        if named or recipe.recognise.any_folder or recipe.points.is_table:
            return True
        annotations = _annotations(root, layout)
        if any(image.id in annotations for image in images):
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


def _identified(root: Path, fitting: list[Recipe], source: Path, *, decided: bool) -> Found:
    """Which of the recipes whose layout a folder has it is."""
    if decided:
        candidates = fitting
    else:
        candidates = (
            _named(fitting, root, source)
            or [recipe for recipe in fitting if _numbers_fit(recipe, root)]
            or [each for each in fitting if each.recognise.layout or each.recognise.any_folder]
        )
    if len(candidates) != 1:
        names = ", ".join(recipe.name for recipe in candidates or fitting)
        raise UsageError(
            f"{root}: could be any of these sets: {names}"
            if len(candidates or fitting) > 1
            else f"{root}: is laid out like {names}, without its name or its number of images",
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
        for layout in recipe.labelled.values()
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
        for layout in list(recipe.labelled.values())[:1]
    }
    there = sorted((path.name for path in source.iterdir()), key=natural_key)
    return InputMissingError(
        f"{source}: no data set recognised; found {shorten(there) or 'nothing'}",
        looked_for="; ".join(sorted(layouts)),
        next_step="name the folder that holds these; a table of own images begins with "
        f'{",".join(CSV_HEADER)} or {{"images": [',
    )


def _paired_by_id(
    found: Found, split: str, layout: SplitLayout, images: list[_Match]
) -> SourceSplit:
    """Images with the annotation file of their own that has the same ``{id}``."""
    _refuse_same_ids(found, split, images)
    annotations = _annotations(found.root, layout)
    paired = tuple(
        SourceImage(
            split=split,
            file=image.file,
            path=image.path,
            annotation=annotations[image.id],
            id=image.id,
        )
        for image in images
        if image.id in annotations
    )
    unpaired = [image for image in images if image.id not in annotations]
    looked_for = ""
    if unpaired:
        first, *others = (
            found.root / pattern.replace("{id}", unpaired[0].id) for pattern in layout.points
        )
        folders = [other.parent.name for other in others]
        looked_for = str(first) + (f" (and {', '.join(folders)})" if folders else "")
    return SourceSplit(
        images=paired,
        unpaired=tuple(image.file for image in unpaired),
        looked_for=looked_for,
        absent=_absent(found.root, layout, images),
    )


def _refuse_same_ids(found: Found, split: str, images: list[_Match]) -> None:
    by_id: dict[str, str] = {}
    for image in images:
        if image.id in by_id:
            raise BadInputError(
                f"{found.root.name}/{split}: {by_id[image.id]} and {image.file} would share "
                "an annotation",
                next_step="remove or rename one of them",
            )
        by_id[image.id] = image.file


def _annotations(root: Path, layout: SplitLayout) -> dict[str, Path]:
    """The annotation file of each id that has one; of several patterns the first that is there."""
    found: dict[str, Path] = {}
    for pattern in layout.points:
        for match in _matches(root, pattern):
            found.setdefault(match.id, match.path)
    return found


def _absent(root: Path, layout: SplitLayout, images: list[_Match]) -> tuple[str, ...]:
    """Ids of the split's list that have no image."""
    there = {image.id for image in images}
    listed = [] if layout.list is None else _listed_ids(root, layout.list)
    return tuple(each for each in listed if each not in there)


def _paired_by_table(
    found: Found, split: str, layout: SplitLayout, images: list[_Match]
) -> SourceSplit:
    """Images with their rows of the split's one table, by id or by path.

    Paths start at the table's folder. A table that calls images by id may hold those of other
    splits.
    """
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
    if layout.has_ids:
        _refuse_same_ids(found, split, images)
        points = {_as_number(image_id): each for image_id, each in points.items()}
        by_name = {_as_number(image.id): image for image in images}
        absent = _absent(found.root, layout, images)
        if layout.list is None:
            absent = tuple(
                each
                for each in sorted(points, key=natural_key)
                if each not in by_name and (layout.ids is None or in_range(each, layout.ids))
            )
        looked_for = f"the points of each image in {table}"
    else:
        by_name = {image.path.relative_to(table.parent).as_posix(): image for image in images}
        _refuse_absent(table, sorted(set(points) - set(by_name), key=natural_key))
        absent = ()
        looked_for = (
            f"every image in {table}; an empty scene is a row `image,,`, "
            "in JSON an empty list of points"
        )
    return SourceSplit(
        images=tuple(
            SourceImage(
                split=split,
                file=image.file,
                path=image.path,
                annotation=table,
                rows=points[name],
                id=image.id,
            )
            for name, image in by_name.items()
            if name in points
        ),
        unpaired=tuple(image.file for name, image in by_name.items() if name not in points),
        looked_for=looked_for,
        absent=absent,
    )


def _as_number(image_id: str) -> str:
    """An id without leading zeros, which tables leave out."""
    return image_id.lstrip("0") or "0" if re.fullmatch(r"[0-9]+", image_id) else image_id


def _refuse_absent(table: Path, missing: Sequence[str]) -> None:
    if missing:
        raise InputMissingError(
            f"{table}: names {len(missing)} images that are not there: {shorten(missing)}",
            looked_for=str(table.parent / missing[0]),
            next_step="correct the names (paths start at the table's folder), or add the images",
        )

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from crowdcount.core.image import resized
from crowdcount.data.prepared.manifest import PreprocessConfig, prepared_paths
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.convert import convert, is_up_to_date
from crowdcount.data.sources.find import SourceSet
from crowdcount.data.sources.images import encode_image, image_header, load_image
from crowdcount.data.sources.pair import SourceImage
from crowdcount.data.sources.recipe import Recipe, SplitLayout
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError
from crowdcount.files import sha256_file

BY_ID = {"train": SplitLayout(images=("{id}.png",), points=("{id}.txt",))}
RULE = ResizeRule(short_side_min=64, long_side_max=256)

sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))
heads = arrays(np.float64, st.tuples(st.integers(0, 60), st.just(2)), elements=st.floats(-400, 400))
# Far away, without a place, and twice the same: what annotations of crowds hold now and then.
wild = arrays(
    np.float64,
    st.tuples(st.integers(0, 40), st.just(2)),
    elements=st.floats(-400, 400) | st.floats() | st.sampled_from([0.0, 32.0, 64.0]),
)
frames = st.sampled_from(["upright", "stored"])


def found(root, frame="upright"):
    recipe = Recipe(
        name="csv",
        title="t",
        homepage="",
        licence="",
        citation="",
        points=PointsFormat(reader="csv", frame=frame),
        resize=RULE,
        splits={"train": SplitLayout(images=("**/*",), points=("*.csv",))},
    )
    return SourceSet(name="x", root=root, recipe=recipe)


def source(root, points, *, size=(64, 96), file="a.png", **options):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    rows = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return SourceImage(
        split="train", file=file, path=path, annotation=root / "heads.csv", rows=rows
    )


def converted(root, image, config=None, frame="upright"):
    """The record, and what was written: the image's bytes, its points, its block counts."""
    chosen = config or PreprocessConfig()
    record = convert(image, source=found(root, frame), config=chosen, folder=root / "out")
    pixels, points, blocks = prepared_paths(root / "out", split="train", file=image.file)
    return record, pixels.read_bytes(), np.load(points), np.load(blocks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conversion")


@pytest.mark.parametrize("orientation", range(1, 9))
@settings(max_examples=20)
@given(
    points=wild,
    twice=st.integers(0, 5),
    size=sizes,
    block=st.integers(1, 400),
    max_count=st.none() | st.integers(1, 3),
    frame=frames,
)
def test_no_head_is_lost_by_any_resize_and_orientation(
    folder, orientation, points, twice, size, block, max_count, frame
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    annotated = np.concatenate([points, points[:twice]])
    placed = np.isfinite(annotated).all(axis=1)
    image = source(folder, annotated, size=size, exif=exif)
    config = PreprocessConfig(block=block, max_count=max_count)
    record, _, written, counts = converted(folder, image, config, frame)
    assert record.heads + record.dropped == len(annotated)
    assert record.heads == placed.sum() == len(written) == counts["raw"].sum()
    assert record.duplicates == len(annotated[placed]) - len(np.unique(annotated[placed], axis=0))
    assert counts["raw"].shape == (-(-record.height // block), -(-record.width // block))
    assert ((written >= 0) & (written < (record.width, record.height))).all()
    np.testing.assert_array_equal(counts["corrected"], counts["raw"].clip(max=config.largest_count))
    assert record.heads_cut == (counts["raw"] - counts["corrected"]).sum()
    assert record.blocks_corrected == (counts["raw"] > config.largest_count).sum()


@pytest.mark.parametrize("orientation", range(2, 9))
@settings(max_examples=10)
@given(points=heads, size=sizes)
def test_a_turn_puts_no_head_outside_and_none_inside(folder, orientation, points, size):
    facts = []
    for turn in (1, orientation):
        exif = Image.Exif()
        exif[0x0112] = turn
        image = source(folder, points, size=size, exif=exif)
        record, _, _, counts = converted(folder, image, PreprocessConfig(block=32), "stored")
        facts.append((record.outside, record.axes_swapped, sorted(counts["raw"].ravel())))
    # The prepared sides are multiples of the block, so that whole blocks are turned.
    assert facts[0] == facts[1]


@given(points=heads, size=sizes, orientation=st.integers(1, 8))
def test_the_prepared_image_has_the_size_that_is_written_down(folder, points, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = source(folder, points, size=size, exif=exif)
    record, pixels, _, _ = converted(folder, image)
    assert load_image(pixels).shape == (record.height, record.width, 3)
    upright = load_image(image.path).shape[:2]
    assert (record.source_height, record.source_width) == upright
    assert RULE.size(width=upright[1], height=upright[0]) == (record.width, record.height)
    assert record.orientation == orientation


def test_a_head_stays_on_what_it_marks(tmp_path):
    # A red square of 12 pixels in 100x50; the head is its middle, before and after.
    pixels = np.zeros((50, 100, 3), dtype=np.uint8)
    pixels[30:42, 70:82] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = SourceImage(
        split="train",
        file="a.png",
        path=tmp_path / "a.png",
        annotation=tmp_path,
        rows=np.array([[76.0, 36.0]]),
    )
    record, written, points, _ = converted(tmp_path, image)
    assert (record.width, record.height) == (128, 64)
    red = np.argwhere(load_image(written)[:, :, 0] > 128)
    np.testing.assert_allclose(points[0], red.mean(axis=0)[::-1] + 0.5, atol=0.6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["upright", "stored"])
@pytest.mark.parametrize("size", [(64, 96), (150, 100)])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_a_head_stays_on_what_it_marks_however_the_image_lies(
    tmp_path, orientation, frame, size, ending
):
    # A bright square in a dark image; the annotator marked its middle as stored, or as seen.
    width, height = size
    stored = np.zeros((height, width, 3), dtype=np.uint8)
    stored[10:22, 30:42] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(stored).save(path, exif=exif)
    if frame == "stored":
        head = [[36.0, 16.0]]
    else:
        seen = np.argwhere(load_image(path)[:, :, 0] > 128)
        head = [(seen.mean(axis=0)[::-1] + 0.5).tolist()]
    image = SourceImage(
        split="train", file=path.name, path=path, annotation=tmp_path, rows=np.array(head)
    )
    record, written, points, _ = converted(tmp_path, image, frame=frame)
    bright = np.argwhere(load_image(written)[:, :, 0] > 128)
    np.testing.assert_allclose(points[0], bright.mean(axis=0)[::-1] + 0.5, atol=0.6)
    assert record.outside == 0


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp"])
def test_images_of_the_right_size_are_copied_byte_for_byte(tmp_path, ending):
    image = source(tmp_path, [], size=(96, 64), file=f"a.{ending}")
    record, written, _, _ = converted(tmp_path, image)
    assert written == image.path.read_bytes()
    assert record.sha256.image == record.sha256.source


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp"])
def test_resized_images_keep_name_and_format(tmp_path, ending):
    image = source(tmp_path, [], size=(100, 70), file=f"deep/a.{ending}")
    _, written, _, _ = converted(tmp_path, image)
    with Image.open(io.BytesIO(written)) as there, Image.open(image.path) as original:
        assert there.format == original.format
        assert there.size == (96, 64)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp", "gif"])
def test_a_resized_image_is_the_loaded_one_resized_and_nothing_else(tmp_path, ending, orientation):
    # Through arrays, as prediction resizes: no comment, profile or tag of the original is left.
    exif = Image.Exif()
    exif[0x0112] = orientation
    extra = {} if ending in ("bmp", "gif") else {"exif": exif, "icc_profile": b"no profile"}
    if ending in ("jpg", "gif"):
        extra["comment"] = b"somebody's name"
    image = source(tmp_path, [], size=(100, 70), file=f"a.{ending}", **extra)
    record, written, _, _ = converted(tmp_path, image)
    pixels = resized(load_image(image.path), width=record.width, height=record.height)
    header = image_header(image.path)
    assert written == encode_image(pixels, format=header.format)


def test_block_counts_do_not_hold_the_time(tmp_path):
    converted(tmp_path, source(tmp_path, [[1.0, 2.0]]))
    *_, blocks = prepared_paths(tmp_path / "out", split="train", file="a.png")
    with zipfile.ZipFile(blocks) as archive:
        assert {each.date_time for each in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_DEFLATED}


def test_a_turned_image_is_written_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = source(tmp_path, [[10.0, 20.0]], size=(96, 64), file="a.png", exif=exif)
    record, written, points, _ = converted(tmp_path, image)
    assert (record.width, record.height) == (64, 96)
    with Image.open(io.BytesIO(written)) as there:
        assert there.getexif().get(0x0112, 1) == 1
    np.testing.assert_array_equal(load_image(written), load_image(image.path))
    assert points.tolist() == [[10.0, 20.0]]


def test_points_are_not_truncated_and_outside_ones_are_counted(tmp_path):
    image = source(
        tmp_path, [[1.25, 2.75], [1.25, 2.75], [96.0, 10.0], [-3.0, 70.0]], size=(96, 64)
    )
    record, _, points, _ = converted(tmp_path, image)
    assert points.tolist() == [[1.25, 2.75], [1.25, 2.75], [95.0, 10.0], [0.0, 63.0]]
    assert (record.heads, record.outside, record.duplicates) == (4, 2, 1)


def test_a_coordinate_of_exactly_the_width_is_outside_after_scaling_too(tmp_path):
    # 48x64 becomes 64x96 (1.33 and 1.5 times as large), 47.9 the last of 64 columns.
    image = source(
        tmp_path, [[48.0, 1.0], [47.9, 1.0], [1.0, 64.0], [1.7e308, -1.7e308]], size=(48, 64)
    )
    record, _, points, _ = converted(tmp_path, image)
    assert (record.width, record.height) == (64, 96)
    assert record.outside == 3
    assert points[[0, 2, 3]].tolist() == [[63.0, 1.5], [64 / 48, 95.0], [63.0, 0.0]]


def test_heads_without_a_place_are_left_out_and_counted(tmp_path):
    image = source(tmp_path, [[np.nan, 1.0], [1.0, 2.0], [3.0, np.inf], [1.0, 2.0]])
    record, _, points, counts = converted(tmp_path, image)
    assert (record.heads, record.dropped, record.duplicates, record.outside) == (2, 2, 1, 0)
    assert points.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert counts["raw"].sum() == 2


def test_swapped_axes_are_noted_in_the_frame_they_were_annotated_in(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    heads = [[5.0, 90.0], [9.0, 80.0], [20.0, 70.0]]
    image = source(tmp_path, heads, size=(96, 64), exif=exif)
    assert converted(tmp_path, image, frame="stored")[0].axes_swapped
    assert not converted(tmp_path, image, frame="upright")[0].axes_swapped


@pytest.mark.parametrize("reader", ["txt", "mat"])
def test_an_empty_annotation_is_an_empty_scene_only_in_text(tmp_path, reader):
    table = source(tmp_path, [])
    annotation = tmp_path / "a.txt"
    annotation.write_bytes(b"")
    image = replace(table, annotation=annotation, rows=None)
    points = PointsFormat(reader=reader, key="annPoints")
    one = found(tmp_path)
    one = replace(one, recipe=replace(one.recipe, points=points, splits=BY_ID))
    if reader == "txt":
        assert convert(image, source=one, config=PreprocessConfig(), folder=None).heads == 0
    else:
        with pytest.raises(BadInputError, match=r"a\.txt: the file is empty"):
            convert(image, source=one, config=PreprocessConfig(), folder=None)


def test_correction_of_a_crowded_block(tmp_path):
    # Six heads in the first block of 8 pixels, one in the next; four can be seen.
    points = [[x, 1.0] for x in (0, 1, 2, 3, 4, 5, 9)]
    record, _, _, counts = converted(tmp_path, source(tmp_path, points))
    assert counts["raw"][0, :3].tolist() == [6, 1, 0]
    assert counts["corrected"][0, :3].tolist() == [4, 1, 0]
    assert (record.blocks_corrected, record.heads_cut) == (1, 2)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    trees = []
    for run in ("one", "two"):
        image = source(tmp_path / run, [[1.0, 2.0]], size=(100, 70), file="a.jpg")
        record, *_ = converted(tmp_path / run, image)
        paths = prepared_paths(tmp_path / run / "out", split="train", file="a.jpg")
        trees.append((record, [path.read_bytes() for path in paths]))
    assert trees[0] == trees[1]


def test_the_record_names_no_place_on_this_machine(tmp_path):
    image = source(tmp_path, [], file="deep/a.png")
    record, *_ = converted(tmp_path, image)
    assert record.source == "deep/a.png"
    assert str(tmp_path) not in repr(record)


def test_without_a_folder_nothing_is_written_and_the_rest_is_the_same(tmp_path):
    image = source(tmp_path, [[1.0, 2.0], [900.0, 1.0]], size=(100, 70))
    dry = convert(image, source=found(tmp_path), config=PreprocessConfig(), folder=None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    record, *_ = converted(tmp_path, image)
    assert (dry.heads, dry.outside, dry.width) == (record.heads, record.outside, record.width)
    assert dry.sha256.image == ""


def test_a_truncated_image_is_refused_even_where_it_would_be_copied(tmp_path):
    image = source(tmp_path, [], size=(96, 64), file="a.jpg")
    image.path.write_bytes(image.path.read_bytes()[:-500])
    with pytest.raises(BadInputError, match=r"a\.jpg: the image is damaged"):
        converted(tmp_path, image)
    assert not (tmp_path / "out").exists()


def test_a_resize_to_more_than_any_image_is_refused(tmp_path):
    image = source(tmp_path, [], size=(1, 3200))
    rule = replace(RULE, short_side_min=400_000, long_side_max=None)
    set_ = found(tmp_path)
    enlarged = replace(set_, recipe=replace(set_.recipe, resize=rule))
    with pytest.raises(BadInputError, match=r"the recipe makes 400000x\d+ pixels of 1x3200"):
        convert(image, source=enlarged, config=PreprocessConfig(), folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_record_is_up_to_date_until_one_of_its_files_changes(tmp_path):
    image = source(tmp_path, [[1.0, 2.0]])
    record, *_ = converted(tmp_path, image)
    folder = tmp_path / "out"
    assert is_up_to_date(record, image, folder=folder)
    for path in (image.path, *prepared_paths(folder, split="train", file=image.file)):
        content = path.read_bytes()
        path.write_bytes(content + b"x")
        assert not is_up_to_date(record, image, folder=folder), path
        path.unlink()
        assert not is_up_to_date(record, image, folder=folder), path
        path.write_bytes(content)
    moved = source(tmp_path, [[1.0, 3.0]])
    assert not is_up_to_date(record, moved, folder=folder)


def test_the_hashes_are_those_of_the_files(tmp_path):
    image = source(tmp_path, [[1.0, 2.0]], size=(100, 70))
    record, *_ = converted(tmp_path, image)
    hashes = record.sha256
    assert hashes.source == sha256_file(Path(image.path))
    paths = prepared_paths(tmp_path / "out", split="train", file=image.file)
    assert [hashes.image, hashes.points, hashes.blocks] == [sha256_file(path) for path in paths]

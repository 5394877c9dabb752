import contextlib
import io
import os
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdcount.data.images import (
    check_pixels,
    encode_image,
    image_header,
    image_size,
    load_image,
    upright_points,
)
from crowdcount.errors import BadInputError, InputMissingError

ORIENTATION = 0x0112

# What EXIF says of the stored pixels, undone: how an upright image is stored in each orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 3),
}


def encoded(image, format="PNG", **options):
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def corners(width=48, height=32):
    """Each quarter in a colour of its own, so that every turn shows."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (250, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 250, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 250)
    pixels[height // 2 :, width // 2 :] = (250, 250, 250)
    return pixels


def photograph(format="JPEG"):
    noise = np.random.default_rng(5).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), format)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_comes_upright(format, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](corners())))
    content = encoded(stored, format, exif=exif)
    loaded = load_image(content)
    assert loaded.shape == (32, 48, 3)
    # JPEG and WebP blur the edges between the quarters; their middles tell.
    middles = np.ix_([8, 24], [12, 36])
    assert np.abs(loaded[middles].astype(int) - corners()[middles]).max() < 12
    header = image_header(content)
    assert (header.width, header.height) == (48, 32)
    assert header.orientation == orientation
    assert header.format == format


@pytest.mark.parametrize("orientation", STORED)
@given(data=st.data())
def test_a_point_goes_with_its_pixel_in_every_orientation(orientation, data):
    width, height = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    x = data.draw(st.floats(0, width, exclude_max=True))
    y = data.draw(st.floats(0, height, exclude_max=True))
    stored = np.zeros((height, width, 3), dtype=np.uint8)
    stored[int(y), int(x)] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    upright = load_image(encoded(Image.fromarray(stored), exif=exif))
    points = np.array([[x, y]])
    ((column, row),) = upright_points(points, size=(width, height), orientation=orientation)
    assert upright[int(row), int(column)].tolist() == [255, 255, 255]
    assert upright.sum() == 3 * 255


def test_stored_points_by_hand():
    # In 40x30, stored on its side (6: turned right to be upright), x grows downwards.
    points = np.array([[10.5, 2.25], [0.0, 0.0]])
    turned = upright_points(points, size=(40, 30), orientation=6)
    assert turned.tolist() == [[27.75, 10.5], [30 - 1 / 1024, 0.0]]


def test_damaged_exif_leaves_the_pixels_alone():
    content = encoded(Image.fromarray(corners()), "JPEG", exif=b"Exif\x00\x00no such thing")
    assert load_image(content).shape == (32, 48, 3)
    assert image_header(content).orientation == 1


def test_file_and_content_give_the_same_pixels(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(photograph())
    np.testing.assert_array_equal(load_image(path), load_image(photograph()))
    assert image_size(path) == (128, 96)


def test_pixels_can_be_written_to():
    # Tensors share memory with them, and torch warns of memory that is read-only.
    assert load_image(photograph()).flags.writeable


GREY = np.array([[0, 100], [200, 255]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "format"),
    [
        (Image.fromarray(GREY), "PNG"),
        (Image.fromarray(GREY).convert("P"), "GIF"),
        (Image.fromarray(GREY).convert("LA"), "PNG"),
        (Image.fromarray(GREY).convert("RGBA"), "PNG"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
        (Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"),
        (Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
        (Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        (Image.fromarray(GREY).convert("RGB").convert("CMYK"), "TIFF"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_every_mode_gives_the_same_grey(image, format):
    loaded = load_image(encoded(image, format))
    assert np.abs(loaded.astype(int) - GREY[:, :, None]).max() <= 1


def test_two_tones():
    black_and_white = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    assert load_image(encoded(black_and_white))[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    # What colour lies beneath transparent pixels is chance.
    if mode == "P":
        image = Image.new("P", (2, 2), 0)
        image.putpalette([200, 10, 10])
        content = encoded(image, transparency=bytes([0]))
    else:
        content = encoded(Image.new(mode, (2, 2), 0))
    assert (load_image(content) == 255).all()


def test_of_several_frames_the_first_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(content)[0, 0].tolist() == [255, 0, 0]


def test_large_images_are_refused_by_their_header():
    content = encoded(Image.new("1", (400, 300)))
    with pytest.raises(BadInputError, match="400x300 pixels are more than the 119999 allowed"):
        load_image(content, max_pixels=119_999)
    assert load_image(content, max_pixels=120_000).shape == (300, 400, 3)


def test_the_limit_is_ours_and_not_that_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert load_image(photograph()).shape == (96, 128, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
@given(data=st.data())
def test_damaged_images_are_one_error_or_pixels(format, data):
    content = bytearray(photograph(format))
    for at in data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=6)):
        content[at] ^= data.draw(st.integers(1, 255))
    for use in (load_image, image_header, lambda c: check_pixels(c, name="it")):
        with contextlib.suppress(BadInputError):
            use(bytes(content))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_images_are_refused(format, share):
    content = photograph(format)
    cut = content[: int(len(content) * share)]
    with pytest.raises(BadInputError, match="it: "):
        load_image(cut, name="it")
    with pytest.raises(BadInputError, match="it: "):
        check_pixels(cut, name="it")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_whole_images_pass_the_check(format):
    check_pixels(photograph(format), name="it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"not an image at all", "not an image of a known format"),
    ],
)
def test_what_is_no_image_is_said(tmp_path, content, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=message) as caught:
        load_image(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_a_folder_and_a_pipe(tmp_path):
    with pytest.raises(InputMissingError, match=r"gone\.jpg: no such image"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(BadInputError, match="is a folder"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadInputError, match="not a regular file"):
        load_image(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_encoding_keeps_format_and_size(format):
    content = encode_image(Image.fromarray(corners()), format=format)
    assert image_header(content).format == format
    assert np.abs(load_image(content)[8, 12].astype(int) - (250, 0, 0)).max() < 12


def test_jpeg_is_written_at_quality_95():
    assert encode_image(Image.fromarray(corners()), format="JPEG") == encoded(
        Image.fromarray(corners()), "JPEG", quality=95
    )


def test_threads_leave_the_warning_filters_alone():
    # catch_warnings in two threads at once can leave the filters of one behind for good.
    content = photograph()
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [load_image(content) for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before

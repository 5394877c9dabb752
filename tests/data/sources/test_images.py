import contextlib
import io
import logging
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.data.sources.images import (
    IMAGE_SUFFIXES,
    check_pixels,
    encode_image,
    image_header,
    image_size,
    load_image,
    upright_points,
)
from crowdcount.errors import BadInputError, InputMissingError, MemoryExhaustedError

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


def heic(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    content = io.BytesIO()
    pillow_heif.from_pillow(image).save(content, quality=95, **options)
    return content.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
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


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_of_heic_comes_upright(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](corners()))
    content = heic(Image.fromarray(stored), exif=exif.tobytes())
    loaded = load_image(content)
    middles = np.ix_([8, 24], [12, 36])
    assert np.abs(loaded[middles].astype(int) - corners()[middles]).max() < 12
    header = image_header(content)
    assert (header.width, header.height, header.format) == (48, 32, "HEIF")


def tiff(pixels, *, orientation=1, size=None):
    """A TIFF of one strip, which Pillow would not write of every type."""
    height, width, channels = pixels.shape
    data = np.ascontiguousarray(pixels).tobytes()
    claimed_width, claimed_height = size or (width, height)
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = [
        (256, "I", [claimed_width]),
        (257, "I", [claimed_height]),
        (258, "H", [8 * pixels.dtype.itemsize] * channels),
        (259, "H", [1]),
        (262, "H", [2]),
        (273, "I", [8]),
        (274, "H", [orientation]),
        (277, "H", [channels]),
        (278, "I", [claimed_height]),
        (279, "I", [len(data)]),
        *([(338, "H", [2])] if channels == 4 else []),
        (339, "H", [kind] * channels),
    ]
    start = 8 + len(data)
    tail_start = start + 2 + 12 * len(tags) + 4
    entries = tail = b""
    for tag, letter, values in tags:
        packed = struct.pack(f"<{len(values)}{letter}", *values)
        if len(packed) > 4:
            packed, tail = struct.pack("<I", tail_start + len(tail)), tail + packed
        code = {"H": 3, "I": 4}[letter]
        entries += struct.pack("<HHI", tag, code, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", start)
    return head + data + struct.pack("<H", len(tags)) + entries + bytes(4) + tail


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_of_float_colours_comes_upright(orientation):
    stored = STORED[orientation](corners()).astype(np.float32) / 255
    content = tiff(stored, orientation=orientation)
    np.testing.assert_array_equal(load_image(content), corners())
    header = image_header(content)
    assert (header.width, header.height, header.format) == (48, 32, "TIFF")


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
        (Image.fromarray(GREY).convert("RGB").convert("YCbCr"), "TIFF"),
        (Image.fromarray(GREY).convert("P"), "PNG"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_every_mode_gives_the_same_grey(image, format):
    loaded = load_image(encoded(image, format))
    assert np.abs(loaded.astype(int) - GREY[:, :, None]).max() <= 1


def test_two_tones():
    black_and_white = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    assert load_image(encoded(black_and_white))[0].tolist() == [[0] * 3, [255] * 3]


COLOURS = np.array([[(0, 100, 255), (200, 50, 1)]], dtype=np.uint8)


def png_of_16_bits(values):
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return png_of(width, height, (b"IDAT", zlib.compress(rows)), bits=16, colour_type=colour_type)


def png_of(width, height, *chunks, bits=8, colour_type=2):
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [(b"IHDR", head), *chunks, (b"IEND", b"")]
    )


WIDE = COLOURS.astype(np.uint16) * 257
HALF = np.full((1, 2, 1), 32768, dtype=np.uint16)


@pytest.mark.parametrize(
    "content",
    [
        png_of_16_bits(WIDE),
        tiff(WIDE),
        tiff(COLOURS.astype(np.float32)),
        tiff(COLOURS / 255.0),
        tiff(WIDE.astype(np.float32)),
        tiff(COLOURS.astype(np.uint32) * (2**32 // 255)),
        png_of_16_bits(np.dstack([WIDE, np.full_like(HALF, 65535)])),
        tiff(np.dstack([COLOURS / 255.0, np.ones((1, 2))]).astype(np.float32)),
    ],
    ids=["png16", "tiff16", "float255", "double", "float65535", "uint32", "png16a", "floata"],
)
def test_colours_of_more_than_8_bits_are_brought_to_8(content):
    assert np.abs(load_image(content).astype(int) - COLOURS).max() <= 1
    check_pixels(content, name="it")


def test_half_transparent_16_bits_are_half_white():
    loaded = load_image(png_of_16_bits(np.dstack([WIDE, HALF])))
    assert np.abs(loaded.astype(int) - (COLOURS.astype(int) + 255) / 2).max() <= 2


def test_inks_are_inverted_where_adobe_says_so_and_only_there():
    inks = Image.new("CMYK", (16, 16), (10, 200, 30, 40))
    seen = np.asarray(inks.convert("RGB"))[0, 0].astype(int)
    by_adobe = encoded(inks, "JPEG", quality=95)
    assert np.abs(load_image(by_adobe)[8, 8] - seen).max() < 8
    # The same inks, stored as they are, in a file that says nothing of Adobe.
    inverted = encoded(Image.new("CMYK", (16, 16), (245, 55, 225, 215)), "JPEG", quality=95)
    at = inverted.index(b"\xff\xee")
    length = int.from_bytes(inverted[at + 2 : at + 4])
    by_others = inverted[:at] + inverted[at + 2 + length :]
    assert np.abs(load_image(by_others)[8, 8] - seen).max() < 8


def test_colour_profiles_are_ignored():
    plain = encoded(Image.fromarray(corners()))
    swapped = encoded(Image.fromarray(corners()), icc_profile=b"any profile")
    np.testing.assert_array_equal(load_image(swapped), load_image(plain))


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


def animation(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_frames_the_first_counts_and_the_log_says_so_once(format, caplog):
    content = animation(format)
    with caplog.at_level(logging.INFO, logger="crowdcount"):
        assert image_header(content).animated
        check_pixels(content, name="it")
        assert np.abs(load_image(content, name="it")[8, 8].astype(int) - (255, 0, 0)).max() < 12
    assert [each.message for each in caplog.records] == [
        "it: holds several frames; the first is used"
    ]


@given(st.sampled_from([b"", b",", b"!", b"!\xf9", b"!\xff"]), st.binary(max_size=60))
def test_damage_behind_the_first_frame_does_not_matter(start, rest):
    alone = encoded(Image.fromarray(corners()).quantize(8), "GIF")
    content = alone.removesuffix(b";") + start + rest
    np.testing.assert_array_equal(load_image(content), load_image(alone))
    header = image_header(content)
    assert (header.width, header.height) == (48, 32)
    check_pixels(content, name="it")


def test_a_damaged_second_frame_is_one():
    # So preparation keeps the first frame alone, and not the file as it is.
    content = encoded(Image.fromarray(corners()).quantize(8), "GIF").removesuffix(b";")
    assert not image_header(content).animated
    assert image_header(content + b",").animated


@pytest.mark.parametrize("use", [load_image, check_pixels])
def test_pixels_of_another_size_than_the_header_says_are_damage(use):
    content = bytearray(heic(Image.fromarray(corners())))
    at = content.index(b"clap") + 4  # what the decoder cuts off; the width comes first
    content[at : at + 4] = struct.pack(">I", 200)
    with pytest.raises(BadInputError, match="it holds 64x32 pixels, and its header says 200x32"):
        use(bytes(content), name="it")


def test_the_depth_image_of_a_phone_is_no_second_frame(caplog):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "grey")]
    content = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.INFO, logger="crowdcount"):
        assert load_image(content).shape == (16, 16, 3)
    assert image_header(content).format == "MPO"
    assert not image_header(content).animated
    assert not caplog.records


def test_large_images_are_refused_by_their_header():
    content = encoded(Image.new("1", (400, 300)))
    with pytest.raises(BadInputError, match="400x300 pixels are more than the 119999 allowed"):
        load_image(content, max_pixels=119_999)
    assert load_image(content, max_pixels=120_000).shape == (300, 400, 3)


def test_the_limit_is_ours_and_not_that_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert load_image(photograph()).shape == (96, 128, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def enormous(format):
    """A tiny file whose header claims 50,000 x 50,000 pixels."""
    side = 50_000
    if format == "PNG":
        return png_of(side, side, (b"IDAT", zlib.compress(b"")))
    if format == "TIFF":
        return tiff(WIDE, size=(side, side))
    if format == "float TIFF":
        return tiff(WIDE.astype(np.float32), size=(side, side))
    if format == "PPM":
        return b"P6 50000 50000 255\n123"
    content = bytearray(encoded(Image.fromarray(corners()), format))
    if format == "GIF":
        content[6:10] = struct.pack("<HH", side, side)
    elif format == "BMP":
        content[18:26] = struct.pack("<ii", side, side)
    else:
        at = content.index(b"\xff\xc0")
        content[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(content)


ENORMOUS = ["PNG", "TIFF", "float TIFF", "PPM", "GIF", "BMP", "JPEG"]


@pytest.mark.parametrize("format", ENORMOUS)
def test_what_claims_to_be_enormous_is_refused_undecoded(format, capfd):
    message = f"it: 50000x50000 pixels are more than the {MAX_PIXELS} allowed"
    for use in (load_image, image_header, check_pixels):
        with pytest.raises(BadInputError, match=message) as caught:
            use(enormous(format), name="it")
        assert "--max-pixels" in caught.value.next_step
    assert capfd.readouterr() == ("", "")


def test_claims_take_no_memory(tmp_path):
    # In a process of its own, with a fifth of what the claimed pixels would need.
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000))
    pixels = (b"IDAT", zlib.compress(b"\0" + bytes(3)))
    files = {
        "text.png": png_of(1, 1, (b"zTXt", text), pixels),
        "profile.png": png_of(1, 1, (b"iCCP", text), pixels),
        **{f"{format}.img": enormous(format) for format in ENORMOUS},
    }
    packer = zlib.compressobj(1)
    zeros = b"".join(packer.compress(bytes(1_000_000)) for _ in range(1500)) + packer.flush()
    files["pixels.png"] = png_of(1, 1, (b"IDAT", zeros))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    program = dedent(
        """
        import resource, sys
        from pathlib import Path
        from crowdcount.data.sources.images import load_image
        from crowdcount.errors import BadInputError
        import cv2
        resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000,) * 2)
        for name in sys.argv[1:]:
            try:
                print("pixels", load_image(Path(name)).shape)
            except BadInputError as error:
                print("refused", "MemoryError" in repr(error.__cause__))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    *refused, more_than_the_header_says = done.stdout.splitlines()
    assert refused == ["refused False"] * (len(files) - 1)
    assert more_than_the_header_says == "pixels (1, 1, 3)"


FORMATS = ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "AVIF"]


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
def test_damaged_images_are_one_error_or_pixels(format, data):
    content = bytearray(photograph(format))
    for at in data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=6)):
        content[at] ^= data.draw(st.integers(1, 255))
    for use in (load_image, image_header, lambda c: check_pixels(c, name="it")):
        with contextlib.suppress(BadInputError):
            use(bytes(content))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_images_are_refused(format, share):
    content = photograph(format)
    cut = content[: int(len(content) * share)]
    with pytest.raises(BadInputError, match="it: "):
        load_image(cut, name="it")
    with pytest.raises(BadInputError, match="it: "):
        check_pixels(cut, name="it")


@pytest.mark.parametrize("format", FORMATS)
def test_whole_images_pass_the_check(format):
    check_pixels(photograph(format), name="it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b'{"error": "no such object", "code": 404}', "holds JSON"),
        (b'\n[{"message": "rate limit"}]', "holds JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"not an image at all", "not an image of a known format"),
    ],
)
def test_a_file_that_is_no_image_is_reported(tmp_path, content, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=message) as caught:
        load_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("part", ["_identified", "_refuse_larger", "_decode", "_rgb"])
def test_a_bug_of_ours_is_not_called_damage(part, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(f"crowdcount.data.sources.images.{part}", broken)
    with pytest.raises(ZeroDivisionError):
        load_image(photograph())


@pytest.mark.parametrize("call", ["PIL.Image.open", "PIL.JpegImagePlugin.JpegImageFile.load"])
def test_an_image_that_does_not_fit_into_memory_is_not_called_damaged(call, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr(call, exhausted)
    with pytest.raises(MemoryExhaustedError, match="it: the image needs more memory"):
        load_image(photograph(), name="it")


def test_a_missing_file_a_folder_and_a_pipe(tmp_path):
    with pytest.raises(InputMissingError, match=r"gone\.jpg: no such image"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(BadInputError, match="is a folder"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadInputError, match="not a regular file"):
        load_image(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    with pytest.raises(BadInputError, match="not a regular file"):
        image_header(tmp_path / "link.jpg")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_image(device):
    with pytest.raises(BadInputError, match="not a regular file"):
        load_image(Path(device))


def test_heic_without_its_reader_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(BadInputError, match="HEIC image") as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.next_step == "pip install 'crowdcount-ebc[heif]'"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_heic_is_refused(share):
    content = heic(Image.fromarray(corners()))
    with pytest.raises(BadInputError, match="it: "):
        load_image(content[: int(len(content) * share)], name="it")


@pytest.mark.parametrize("format", FORMATS)
def test_the_usual_ending_of_every_format_is_known(format):
    endings = {ending for ending, known in Image.registered_extensions().items() if known == format}
    assert endings & IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("format", "written"), [("GIF", "PNG"), ("MPO", "JPEG"), ("AVIF", "JPEG"), ("HEIF", "JPEG")]
)
def test_what_cannot_well_be_written_becomes_what_can(format, written):
    assert image_header(encode_image(corners(), format=format)).format == written


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM"])
def test_encoding_keeps_format_and_size(format):
    content = encode_image(corners(), format=format)
    assert image_header(content).format == format
    assert np.abs(load_image(content)[8, 12].astype(int) - (250, 0, 0)).max() < 12


def test_jpeg_is_written_at_quality_95():
    assert encode_image(corners(), format="JPEG") == encoded(
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


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}])
def test_a_jpeg_that_lacks_its_end_but_no_pixel_is_read_and_that_is_said(options, caplog):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((160, 120)).save(stream, "JPEG", **options)
    content = stream.getvalue()
    pixels = load_image(content, name="it")
    for cut in (1, 2):
        np.testing.assert_array_equal(load_image(content[:-cut], name="it"), pixels)
        assert check_pixels(content[:-cut], name="it") == content
        assert caplog.messages[-1] == "it: lacks the end of a JPEG file, but no pixel"
    assert check_pixels(content, name="it") == content
    for cut in (6, 10, 40, 400):
        for use in (load_image, check_pixels):
            with pytest.raises(BadInputError, match="truncated"):
                use(content[:-cut], name="it")

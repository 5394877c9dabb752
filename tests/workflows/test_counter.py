import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from crowdcount.core.precision import PRECISIONS
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.sources.images import load_image
from crowdcount.errors import BadInputError, ConfigError, NoCountError
from crowdcount.workflows.counter import load
from crowdcount.workflows.evaluate import evaluate
from crowdcount.workflows.predict import predict
from crowdcount.workflows.preprocess import preprocess

SIDE = 448
"""Pixels of a side that preparation leaves as it is, and so does the model."""


def encoded(image, format, **options):
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def photographs():
    """Contents that only a loader with a rule of its own for each of them reads alike."""
    noise = np.random.default_rng(4).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    colours = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = np.asarray(colours.convert("L")).astype(np.uint16) * 257
    see_through = colours.quantize(16)
    return {
        "turned.jpg": encoded(colours, "JPEG", exif=turned),
        "turned.png": encoded(colours, "PNG", exif=turned),
        "wide.png": encoded(Image.fromarray(wide), "PNG"),
        "inks.jpg": encoded(colours.convert("CMYK"), "JPEG"),
        "palette.png": encoded(see_through, "PNG", transparency=bytes(range(0, 256, 16))),
    }


PHOTOGRAPHS = photographs()
COPIED = ("wide.png", "inks.jpg", "palette.png")
"""Those that stay byte for byte what they were; the others are turned once, and written anew."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs") / "own"
    folder.mkdir()
    for name, content in PHOTOGRAPHS.items():
        (folder / name).write_bytes(content)
    rows = "".join(f"{name},3,4\n" for name in PHOTOGRAPHS)
    (folder / "heads.csv").write_text(f"image,x,y\n{rows}")
    return folder


@pytest.fixture(scope="module")
def trained_on(originals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "own"
    preprocess(originals, out=folder)
    return PreparedDataset.open(folder)


@pytest.fixture
def watched(checkpoint):
    """A counter, and the pixels that reach its model."""
    counter = load(checkpoint, device="cpu")
    seen: list[np.ndarray] = []

    def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        pixels = (inputs[0][0] * 255).round().permute(1, 2, 0)
        seen.append(pixels.to(torch.uint8).numpy())

    counter.model.register_forward_pre_hook(keep)
    return counter, seen


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_training_evaluation_and_prediction_see_the_same_pixels(
    name, originals, trained_on, watched
):
    counter, seen = watched
    (record,) = (each for each in trained_on.all_training() if each.file == name)
    prepared = trained_on.image_path(record)
    loaded = load_image(prepared)
    assert loaded.std() > 20  # a picture, in which a wrong turn or ink would show
    np.testing.assert_array_equal(trained_on.sample(record).image, loaded)

    counter.count(prepared)
    evaluated = evaluate(counter, [trained_on], split=split_of(trained_on, name))
    at = [result.name for result in evaluated.results].index(f"train/{name}")
    np.testing.assert_array_equal(seen[0], loaded)
    np.testing.assert_array_equal(seen[1 + at], loaded)

    seen.clear()
    counter.count(originals / name)
    original = load_image(originals / name)
    np.testing.assert_array_equal(seen[0], original)
    assert (prepared.read_bytes() == PHOTOGRAPHS[name]) == (name in COPIED)
    if name == "turned.jpg":  # compressed a second time
        assert np.abs(original.astype(int) - loaded).mean() < 2
    else:
        np.testing.assert_array_equal(original, loaded)


def split_of(data, file):
    """Where evaluation finds a training image: held out for validation or not."""
    return "val" if file in data.manifest.held_out else "train"


def windowed(checkpoint, folder, **settings):
    """A counter from a copy of the checkpoint with other settings of its model."""
    shutil.copytree(checkpoint, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["model"] |= settings
    path.write_text(json.dumps(config))
    return load(folder, device="cpu")


def test_evaluation_and_prediction_cut_the_same_windows(checkpoint, tmp_path, trained_on):
    counts = {}
    settings = [{}, {"window": 0}, {"window": 128}, {"window": 128, "window_stride": 64}]
    for number, each in enumerate(settings):
        counter = windowed(checkpoint, tmp_path / str(number), **each)
        results = evaluate(counter, [trained_on], split="train").results
        evaluated = [result.predicted for result in results]
        predicted = [each.count for each in predict(counter, [result.path for result in results])]
        assert evaluated == predicted
        counts[number] = predicted
    assert counts[1] == counts[0]  # 0 is the whole image
    for one, other in ((0, 2), (0, 3), (2, 3)):
        assert counts[one] != counts[other]
        assert counts[one] == pytest.approx(counts[other], rel=0.2)


def test_a_small_image_is_seen_amid_the_mean_colour(checkpoint, tmp_path):
    counter = windowed(checkpoint, tmp_path / "tiny", window=64)
    shown = []
    counter.model.encoder.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    seen = counter.count(np.full((20, 30, 3), 255, dtype=np.uint8), scale=1.0)
    (pixels,) = shown
    assert seen.blocks.shape == (3, 4)
    assert pixels.shape == (1, 3, 64, 64)
    assert (pixels[..., :20, :30] > 0.9).all()
    assert (pixels[..., 20:, :] == 0).all()
    assert (pixels[..., 30:] == 0).all()


def in_memory():
    """One photograph in each form that has a single meaning, with the same one as RGB pixels."""
    noise = np.random.default_rng(5).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    colours = Image.fromarray(noise)
    grey = colours.convert("L")
    rgba = np.dstack([noise, np.full((40, 56), 255, dtype=np.uint8)])
    clear = rgba * np.array([1, 1, 1, 0], dtype=np.uint8)
    turned = Image.open(io.BytesIO(photograph_on_its_side(colours)))
    return {
        "rgb": (noise, noise),
        "reversed bgr": (noise[..., ::-1].copy()[..., ::-1], noise),
        "read-only": (np.asarray(colours), noise),
        "grey": (np.asarray(grey), np.asarray(grey.convert("RGB"))),
        "one channel": (np.asarray(grey)[..., None], np.asarray(grey.convert("RGB"))),
        "rgba": (rgba, noise),
        "transparent": (clear, np.full_like(noise, 255)),
        "pillow": (colours, noise),
        "pillow grey": (grey, np.asarray(grey.convert("RGB"))),
        "pillow turned": (turned, noise),
        "pillow 16 bits": (
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
            np.asarray(grey.convert("RGB")),
        ),
    }


def photograph_on_its_side(upright):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


IN_MEMORY = in_memory()


@pytest.mark.parametrize("form", IN_MEMORY)
def test_images_in_memory_are_seen_as_their_file_would_be(form, watched):
    counter, seen = watched
    image, expected = IN_MEMORY[form]
    count = counter.count(image, scale=1.0)
    np.testing.assert_array_equal(seen[0][:40, :56], expected)
    np.testing.assert_array_equal(count.image, expected)
    assert count.heatmap().width >= 56


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((40, 56, 3), dtype=np.float32), r"got float32 of shape \(40, 56, 3\)"),
        (np.ones((40, 56, 3), dtype=np.uint16), "got uint16"),
        (np.ones((40, 56), dtype=bool), "got bool"),
        (np.ones((3, 40, 56), dtype=np.uint8), r"got uint8 of shape \(3, 40, 56\)"),
        (np.ones((40, 56, 2), dtype=np.uint8), "got uint8"),
        (np.ones((1, 40, 56, 3), dtype=np.uint8), "got uint8"),
        (np.ones(40, dtype=np.uint8), "got uint8"),
        (np.ones((0, 56, 3), dtype=np.uint8), "no pixels"),
    ],
)
def test_arrays_of_other_types_and_shapes_are_refused_in_a_line(array, message, checkpoint):
    with pytest.raises(BadInputError, match=message) as caught:
        load(checkpoint, device="cpu").count(array)
    assert "\n" not in caught.value.message
    if "pixels" not in message:
        assert "expected a uint8 array" in caught.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_no_number_is_an_error(value, checkpoint, tmp_path, originals):
    folder = shutil.copytree(checkpoint, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.startswith("head"))
    weights[name].view(-1)[0] = value
    save_file(weights, folder / "model.safetensors")
    counter = load(folder, device="cpu")
    with pytest.raises(BadInputError, match=r"inks\.jpg: tiny gives nan heads"):
        counter.count(originals / "inks.jpg")
    with pytest.raises(BadInputError, match="image: tiny gives nan heads"):
        counter.count(np.zeros((64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("card", "key"),
    [
        ({}, "working_size: is missing"),
        ({"working_size": {"short_side_min": 64, "long_side_max": "long"}}, "long_side_max"),
        ({"working_size": {"short_side_min": 64, "long_side_max": 32}}, "working size needs"),
        ({"provenance": []}, "provenance"),
        ({"provenance": {"fold": "first"}}, "provenance.fold"),
        ({"provenance": {"mean_heads": -1}}, "provenance.mean_heads"),
    ],
)
def test_a_card_that_is_wrong_names_the_key(card, key, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "tiny")
    path: Path = folder / "config.json"
    config = json.loads(path.read_text())
    whole = {"working_size": {"short_side_min": 64, "long_side_max": 512}}
    config["card"] = card and whole | card
    path.write_text(json.dumps(config))
    with pytest.raises(BadInputError, match=key) as caught:
        load(folder, device="cpu")
    assert str(path) in str(caught.value)


def convolutions(model):
    """The convolutions of a network, whose kernels have more than one pixel."""
    return [
        each
        for each in model.modules()
        if isinstance(each, torch.nn.Conv2d) and max(each.kernel_size) > 1
    ]


def given_by(model):
    """A list that fills with what the first convolution of a network gives."""
    given = []
    convolutions(model)[0].register_forward_hook(lambda *call: given.append(call[-1]))
    return given


@pytest.mark.parametrize("window", [0, 64])
def test_a_loaded_model_computes_with_channels_last(window, checkpoint, tmp_path):
    counter = windowed(checkpoint, tmp_path / "tiny", window=window)
    layout = torch.channels_last
    assert all(
        each.weight.is_contiguous(memory_format=layout) for each in convolutions(counter.model)
    )
    given = given_by(counter.model)
    image = np.random.default_rng(0).integers(0, 256, (101, 75, 3), dtype=np.uint8)
    count = counter.count(image)
    normalised = counter.model.normalised(torch.rand(1, 3, 101, 75))
    density = counter.density(normalised)
    assert all(each.is_contiguous(memory_format=layout) for each in given)
    counter.model.to(memory_format=torch.contiguous_format)
    assert counter.count(image).total == pytest.approx(count.total, abs=1e-4)
    torch.testing.assert_close(counter.density(normalised).counts, density.counts)
    assert not given[-1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("window", [0, 64])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_density_takes_pixels_of_any_floating_type(stored, window, checkpoint, tmp_path):
    counter = windowed(checkpoint, tmp_path / "tiny", window=window)
    pixels = counter.model.normalised(torch.rand(1, 3, 101, 75)).to(stored)
    found = counter.density(pixels)
    assert found.counts.dtype == torch.float32
    torch.testing.assert_close(found.counts, counter.density(pixels.float()).counts)


@pytest.mark.parametrize("window", [0, 64])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_network_computes_in_a_precision_and_counts_are_float32(
    precision, window, checkpoint, tmp_path
):
    exact = windowed(checkpoint, tmp_path / "tiny", window=window)
    before = (tmp_path / "tiny" / "config.json").read_bytes()
    rough = load(tmp_path / "tiny", device="cpu", precision=precision)
    given = given_by(rough.model)
    image = np.random.default_rng(0).integers(0, 256, (101, 75, 3), dtype=np.uint8)
    assert rough.count(image).total == pytest.approx(exact.count(image).total, rel=0.02)
    prediction = rough.density(rough.model.normalised(torch.rand(1, 3, 64, 64)))
    assert {each.dtype for each in given} == {PRECISIONS[precision]}
    assert prediction.counts.dtype == prediction.logits.dtype == torch.float32
    assert (tmp_path / "tiny" / "config.json").read_bytes() == before


def test_a_precision_that_is_unknown_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="precision: expected fp32, bf16 or fp16"):
        load(checkpoint, device="cpu", precision="fp8")


def test_numbers_too_large_for_float16_say_what_holds_them(checkpoint):
    counter = load(checkpoint, device="cpu", precision="fp16")
    with torch.no_grad():
        convolutions(counter.model)[0].weight.fill_(6e4)
    with pytest.raises(NoCountError) as caught:
        counter.count(np.full((64, 64, 3), 255, dtype=np.uint8))
    assert caught.value.next_step == "its numbers may not fit fp16; count with the precision fp32"

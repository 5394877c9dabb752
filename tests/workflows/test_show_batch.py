"""The sheet of the first batch shows what training is given, and nothing is trained."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crowdcount.config import RunConfig
from crowdcount.core.image import Sample
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.drawing.contact_sheet import Layout, plain_picture
from crowdcount.errors import UsageError
from crowdcount.workflows import show_batch as workflow
from crowdcount.workflows.plan import TrainingSamples, plan_training, training_batches
from crowdcount.workflows.show_batch import draw_batch, show_batch


@pytest.fixture(scope="module")
def square(prepared, tmp_path_factory):
    """A copy of the prepared scenes, beside which the table of bins may be written."""
    folder = tmp_path_factory.mktemp("data") / "square"
    return PreparedDataset.open(shutil.copytree(prepared.folder, folder))


def config_of(*, bins=None, **train):
    return RunConfig.from_mapping(
        {
            "model": {"backbone": "timm:test_resnet", "pretrained": "none"}
            | ({} if bins is None else {"bins": bins}),
            "train": {"batch_size": 4, "crop": 64, "workers": 0} | train,
        }
    )


def tiles_of(monkeypatch, config, data):
    """The tiles, the layout and the colours of the sheet, which is still drawn."""
    seen = {}

    def spy(tiles, *, title, layout, colours):
        seen.update(tiles=tiles, title=title, layout=layout, colours=colours)
        return b""

    monkeypatch.setattr(workflow, "contact_sheet", spy)
    draw_batch(config, data)
    return seen


def test_the_crops_are_those_that_training_is_given(monkeypatch, square):
    config = config_of()
    seen = tiles_of(monkeypatch, config, [square])
    batches = list(
        training_batches(plan_training(config, [square]), TrainingSamples([square])).epoch(1)
    )
    names = [name for batch in batches for name in batch.names]
    assert [tile.name for tile in seen["tiles"]] == names[: len(seen["tiles"])]
    first, image = seen["tiles"][0].picture, batches[0].images[0]
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    sample = Sample(name="a", image=pixels, points=np.zeros((0, 2)))
    half = Layout(columns=1, width=(seen["layout"].width - 4) // 2, height=seen["layout"].height)
    plain = plain_picture(sample, layout=half)
    assert (first[:, : plain.shape[1]] == plain).all()
    assert first.shape[1] == 2 * plain.shape[1] + 4


@pytest.mark.parametrize(("batch_size", "crops"), [(1, 4), (3, 6), (4, 4), (64, 7)])
def test_small_batches_are_drawn_until_there_is_enough_to_see(
    monkeypatch, square, batch_size, crops
):
    # Seven of the eight scenes are trained on, the last is held out.
    assert len(square.records("train")) == 7
    monkeypatch.setattr(workflow, "FEWEST_CROPS", 4)
    seen = tiles_of(monkeypatch, config_of(batch_size=batch_size), [square])
    assert len(seen["tiles"]) == crops


def test_a_large_batch_is_drawn_in_part(monkeypatch, square):
    monkeypatch.setattr(workflow, "MOST_CROPS", 5)
    monkeypatch.setattr(workflow, "FEWEST_CROPS", 5)
    seen = tiles_of(monkeypatch, config_of(batch_size=7), [square])
    assert len(seen["tiles"]) == 5


def test_captions_and_colours_are_of_the_bins_that_training_uses(monkeypatch, square, tmp_path):
    table = tmp_path / "mine.json"
    table.write_text('{"starts": [0, 1, 3], "values": [0, 1.5, 4]}')
    config = replace(config_of(bins=str(table)), augment=config_of().augment)
    seen = tiles_of(monkeypatch, config, [square])
    assert seen["colours"].classes.starts == (0, 1, 3)
    (batch, *_) = training_batches(
        plan_training(config, [square]), TrainingSamples([square])
    ).epoch(1)
    for counts, tile in zip(batch.target.counts, seen["tiles"], strict=False):
        per_class = [
            ("0", int((counts == 0).sum())),
            ("1-2", int(((counts == 1) | (counts == 2)).sum())),
            ("3+", int((counts >= 3).sum())),
        ]
        heads = int(counts.sum())
        blocks = ", ".join(f"{number} of {label}" for label, number in per_class if number)
        assert tile.caption == f"{heads} head{'s' * (heads != 1)}; blocks: {blocks}"
    assert any("1-2" in tile.caption for tile in seen["tiles"])


def test_the_sheet_does_not_depend_on_workers(square):
    sheet = draw_batch(config_of(), [square])
    assert sheet == draw_batch(config_of(workers=1), [square])
    assert sheet != draw_batch(config_of(seed=1), [square])
    assert np.asarray(Image.open(io.BytesIO(sheet))).shape[2] == 3


def test_an_earlier_file_stays_unless_told(square, workplace):
    out = Path("sheets/batch.png")
    show_batch(config_of(), [square], out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        show_batch(config_of(seed=1), [square], out)
    assert out.read_bytes() == before
    show_batch(config_of(seed=1), [square], out, force=True)
    assert out.read_bytes() != before
    assert [each.name for each in workplace.rglob("*")] == ["sheets", "batch.png"]


def test_the_sheet_is_a_png(square, workplace):
    with pytest.raises(UsageError, match=r"\.png"):
        show_batch(config_of(), [square], Path("batch.jpg"))

"""Preprocess, bins, train, eval and predict, as commands and as Python call them."""

import json
import shutil
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

import crowdcount as cc
from tests.models.small_backbones import shrunken
from tests.tiny_run import tiny_config

PIPELINE = (
    "crowdcount preprocess sha/",
    "crowdcount bins",
    "crowdcount train --backbone clip-rn50",
    "crowdcount eval",
    "crowdcount predict img.jpg --heatmap",
)

TINY_RUN = """
[model]
pretrained = "none"

[train]
epochs = 1
batch_size = 2
crop = 32
workers = 0
"""


def write_archive(folder: Path) -> None:
    """Six images of 64 pixels with a few heads each, laid out like ShanghaiTech."""
    random = np.random.default_rng(3)
    for split, images in (("train_data", 4), ("test_data", 2)):
        for kind in ("images", "ground-truth"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(1, images + 1):
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / "images" / f"IMG_{number}.jpg")
            # image_info{1,1}.location, as the archive's own files nest it.
            location = np.zeros((1, 1), dtype=[("location", object), ("number", object)])
            location[0, 0] = (random.uniform(0, 64, (number + 2, 2)), number + 2)
            cell = np.empty((1, 1), dtype=object)
            cell[0, 0] = location
            annotation = folder / split / "ground-truth" / f"GT_IMG_{number}.mat"
            scipy.io.savemat(annotation, {"image_info": cell})


def test_the_promised_lines_work_as_written(run, workplace):
    write_archive(Path("sha"))
    Path("crowdcount.toml").write_text(TINY_RUN)
    Image.new("RGB", (75, 50)).save("img.jpg")
    printed, said = {}, ""
    # The backbone in small; that of full size is built and trained by the tests of the models.
    with shrunken():
        for line in PIPELINE:
            code, out, err = run(*line.split()[1:])
            assert code == 0, err
            printed[line.split()[1]], said = out.splitlines(), said + err
    assert printed["preprocess"] == ["data/sha"]
    assert printed["bins"] == ["data/sha/bins-r8.json"]
    (checkpoint,) = printed["train"]
    assert Path(checkpoint).parent.resolve() == Path("runs/latest").resolve()
    metrics = dict(line.split("\t") for line in printed["eval"])
    assert list(metrics) == ["mae", "rmse", "nae", "images"]
    ((path, count),) = (line.split("\t") for line in printed["predict"])
    assert path == "img.jpg"
    assert float(count) >= 0
    assert Path("heatmaps/img.jpg.png").is_file()
    assert "warning: sha: train: 4 images, 300 expected" in said


def test_the_same_through_python(scenes, workplace):
    (prepared,) = cc.preprocess(scenes, out=Path("square"))
    data = cc.PreparedDataset.open(prepared.folder)
    table = cc.make_bins([data], block=8)
    run = cc.train(tiny_config(), [data], out=Path("run"))
    counter = cc.load(run.checkpoint, device="cpu")
    assert counter.model.bins == table.bins
    (first, *_) = cc.evaluate(counter, [data], split="test").results
    seen = counter.count(first.path)
    assert seen.total == first.predicted
    assert abs(seen.blocks.double().sum().item() - seen.total) < 1e-9
    seen.heatmap().save("plaza_heat.png")
    assert Path("plaza_heat.png").is_file()
    (record,) = cc.predict(counter, [first.path])
    assert record.count == first.predicted


def test_zip_is_trained_kept_and_read_back(prepared, workplace):
    config = tiny_config(model__head="zip", loss__classification="zip")
    # A copy, because training leaves its bins beside the data.
    data = cc.PreparedDataset.open(shutil.copytree(prepared.folder, Path("square")))
    run = cc.train(config, [data], out=Path("run"))
    described = json.loads((run.checkpoint / "config.json").read_text())
    assert described["model"]["head"] == "zip"
    assert described["card"]["settings"]["loss"]["classification"] == "zip"
    assert described["card"]["settings"]["loss"]["count"] == "multiscale"
    counter = cc.load(run.checkpoint, device="cpu")
    assert counter.model.config == config.model
    image = data.image_path(data.records("test")[0])
    (record,) = cc.predict(counter, [image])
    assert record.count == counter.count(image).total > 0

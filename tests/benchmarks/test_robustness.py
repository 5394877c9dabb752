"""What robustness measures and prints, and what the command of the negatives writes."""

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from benchmarks import robustness
from benchmarks.negatives import FOR_TRAINING, NEGATIVES, UNSEEN, __main__
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import PreprocessConfig
from crowdcount.workflows.counter import Provenance
from crowdcount.workflows.preprocess import preprocess

SMALL = (96, 160)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr("benchmarks.negatives.SIDES", SMALL)


def counting(function, *, fold=None):
    """A counter that answers what ``function`` makes of the pixels."""
    return SimpleNamespace(
        count=lambda image: SimpleNamespace(total=float(function(image))),
        provenance=Provenance(fold=fold),
    )


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_negatives_are_fifty_of_all_kinds_and_always_the_same():
    first, again = robustness.negatives(), robustness.negatives()
    kinds = [kind for kind, _ in first]
    assert len(kinds) == 50
    assert set(kinds) == set(NEGATIVES)
    assert all(kinds.count(kind) == 2 for kind in UNSEEN)
    for (_, one), (_, other) in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_counts_three_or_more_is_named_and_unseen_kinds_stand_apart(monkeypatch, capsys):
    drawn = [("brick", 3.0), ("text", 2.9), ("sky", 7.25), ("grass", 0.0), ("wood", float("nan"))]
    pictures = [(kind, np.array([count])) for kind, count in drawn]
    monkeypatch.setattr(robustness, "negatives", lambda: pictures)
    robustness.show_negatives(counting(lambda picture: picture[0]))
    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[2])[:2] == ["kinds of training", "1 of 3"]
    assert cells(lines[3]) == ["unseen kinds", "1 of 2", "2.95", "3.0"]
    named = sorted(line.split(": ")[1] for line in lines[4:])
    assert named == ["brick, 3.0", "sky, 7.2", "wood, nan"]


def test_changes_of_an_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 4)
    assert robustness.half(image).shape == (20, 30, 3)
    grey = robustness.grey(image)
    assert (grey == grey[..., :1]).all()
    weights = (0.299, 0.587, 0.114)
    np.testing.assert_allclose(grey[..., 0], image @ np.array(weights), atol=1)
    worse = robustness.jpeg(image)
    assert worse.shape == image.shape
    # Some detail is lost; red and blue exchanged would be far off.
    assert 0.5 < np.abs(worse.astype(float) - image).mean() < 6


def test_the_change_of_the_total_and_the_error_are_told(prepared, capsys):
    def pixels(image):
        return image.shape[0] * image.shape[1] / 1000

    robustness.show_changes(counting(pixels), [prepared])
    lines = [cells(line) for line in capsys.readouterr().out.splitlines()[3:]]
    heads = [record.heads for record in prepared.records("val")]
    total = 448 * 448 / 1000 * len(heads)
    label = f"{prepared.folder.name}, {len(heads)}"
    mae = np.mean([abs(total / len(heads) - each) for each in heads])
    assert lines[0] == [label, "as they are", f"{total:.0f}", "", "", f"{mae:.2f}"]
    assert lines[1][1:5] == ["grey", f"{total:.0f}", "+0.0", "10"]
    assert lines[3][1:5] == ["half resolution", f"{total / 4:.0f}", "-75.0", "25"]


def test_a_counter_trained_on_folds_is_measured_on_its_own(scenes, tmp_path):
    (result,) = preprocess(
        scenes, out=tmp_path / "folds", config=PreprocessConfig(folds=2, val_fraction=0.0)
    )
    data = PreparedDataset.open(result.folder)
    for fold in (1, 2):
        held = robustness.held_out(result.folder, counting(np.mean, fold=fold))
        assert held.records("val") == data.with_fold(fold).records("val")


def test_it_runs_on_a_checkpoint_and_two_data_sets(
    checkpoint, prepared, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(robustness, "PICTURES", len(UNSEEN) + 2)
    link = tmp_path / "again"
    link.symlink_to(prepared.folder)
    data = ["--data", str(prepared.folder), "--data", str(link)]
    arguments = ["--checkpoint", str(checkpoint), *data, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["robustness.py", *arguments])
    robustness.main()
    tables = capsys.readouterr().out
    pictures, images = tables.split("\n\n")
    assert "| unseen kinds |" in pictures
    labels = [cells(line)[0] for line in images.splitlines()[2:]]
    number = len(prepared.records("val"))
    expected = [f"{prepared.folder.name}, {number}", f"again, {number}", f"all, {2 * number}"]
    assert labels == [label for label in expected for _ in range(4)]


def test_the_shipped_checkpoint_is_named_as_everywhere(monkeypatch, capsys):
    monkeypatch.setattr(robustness, "PICTURES", len(UNSEEN) + 1)
    monkeypatch.setattr(sys, "argv", ["robustness.py", "--checkpoint", "starter"])
    robustness.main()
    assert f"of {len(UNSEEN)} |" in capsys.readouterr().out


def test_training_negatives_are_written_by_a_command(tmp_path, monkeypatch):
    number = len(FOR_TRAINING)
    arguments = [str(tmp_path / "set"), "--images", str(number), "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["negatives.py", *arguments])
    __main__.main()
    names = [path.stem for path in (tmp_path / "set").glob("*.jpg")]
    kinds = {name.split("_", 2)[2].replace("_", " ") for name in names}
    assert kinds == set(FOR_TRAINING)

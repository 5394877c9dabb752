"""An evaluation says where its numbers flatter the model."""

import dataclasses
import logging

import pytest

import crowdcount as cc
from crowdcount.workflows.counter import Provenance


@pytest.mark.parametrize(
    ("trained", "split", "warning"),
    [
        (Provenance(), "val", None),
        (Provenance(fold=2), "val", "not trained with what preprocess held out for validation"),
        (Provenance(fold=2), "test", None),
        (Provenance(selected_on="test"), "test", "was selected on test images"),
        (Provenance(selected_on="test"), "val", None),
    ],
)
def test_python_is_warned_as_the_command_is(trained, split, warning, prepared, checkpoint, caplog):
    counter = dataclasses.replace(cc.load(checkpoint, device="cpu"), provenance=trained)
    with caplog.at_level(logging.WARNING, logger="crowdcount"):
        result = cc.evaluate(counter, [prepared], split=split)
    logged = [record.getMessage() for record in caplog.records]
    assert list(result.warnings) == logged
    if warning is None:
        assert logged == []
    else:
        assert len(logged) == 1
        assert warning in logged[0]


def test_a_fold_is_compared_with_that_of_the_data(prepared, checkpoint):
    counter = dataclasses.replace(cc.load(checkpoint, device="cpu"), provenance=Provenance(fold=2))
    files = tuple(each.file for each in prepared.manifest.images if each.split == "train")
    folds = (files[:2], files[2:4], files[4:])
    manifest = dataclasses.replace(prepared.manifest, folds=folds)
    data = dataclasses.replace(prepared, manifest=manifest)
    assert cc.evaluate(counter, [data.with_fold(2)]).warnings == ()
    (warning,) = cc.evaluate(counter, [data.with_fold(3)]).warnings
    assert "not trained with fold 3 for validation" in warning

import argparse
import os
import re
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from crowdcount.errors import BadInputError, InputMissingError, UntrustedFileError
from crowdcount.models.checkpoints.tensor_files import exact_tensors, match_tensors, read_tensors


def norm_layer(prefix: str, channels: int = 3) -> dict[str, torch.Tensor]:
    endings = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.{ending}": torch.rand(channels) for ending in endings}


MODEL = {"stem.weight": torch.rand(3, 2), **norm_layer("norm"), "fc.weight": torch.rand(5, 3)}


@pytest.fixture
def match(tmp_path):
    """Write tensors to a file, read them again, and match them to ``MODEL``."""

    def run(tensors, *, optional=(), name="weights.pth"):
        path = tmp_path / name
        if name.endswith(".safetensors"):
            save_file(tensors, path)
        else:
            torch.save(tensors, path)
        return match_tensors(read_tensors(path), MODEL, model="toy", optional=optional)

    return run


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def renamed(tensors):
    return {f"_{name.replace('norm', 'bn')}": tensor for name, tensor in tensors.items()}


@given(order=st.permutations(list(MODEL)))
def test_names_outrank_order(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("weights") / "shuffled.pth"
    torch.save({name: MODEL[name] for name in order}, path)
    assert_same(match_tensors(read_tensors(path), MODEL, model="toy"), MODEL)


PREFIXED = ["", "module.", "_orig_mod.", "model.", "module._orig_mod."]
WRAPPINGS = {
    "bare": lambda tensors: tensors,
    **{
        key: lambda tensors, key=key: {key: tensors, "epoch": 3}
        for key in ("state_dict", "model", "net", "params", "ema", "best_model")
    },
    "list": lambda tensors: [tensors],
    "a weight for each metric": lambda tensors: {"weights": {"mae": tensors, "rmse": OTHER}},
    "an average, too": lambda tensors: {"ema": OTHER, "model": tensors},
    "a trainer": lambda tensors: {
        "model_state_dict": tensors,
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{}]},
        "rng": torch.get_rng_state(),
        "best": np.float64(3.2),
        "history": np.arange(5.0),
        "args": argparse.Namespace(lr=1e-4),
        "path": Path("/data/x"),
    },
}
OTHER = {name: torch.zeros_like(tensor) for name, tensor in MODEL.items()}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_files_are_read(match, wrapping):
    assert_same(match(WRAPPINGS[wrapping](MODEL)), MODEL)


@pytest.mark.parametrize("prefix", PREFIXED)
def test_prefixes_of_training_are_removed(match, prefix):
    assert_same(match({prefix + name: tensor for name, tensor in MODEL.items()}), MODEL)


def archived(tmp_path):
    torch.save(MODEL, tmp_path / "inner.pth")
    for kind in ("zip", "tar"):
        shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "inner.pth")
    return {kind: (tmp_path / f"packed.{kind}").read_bytes() for kind in ("zip", "tar")}


@pytest.mark.parametrize("name", ["weights.pth", "model.safetensors"])
def test_what_people_have_in_place_of_weights_is_named(tmp_path, name):
    cases = {
        b"<!DOCTYPE html><html>scan this file for viruses": "web page",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS pointer",
        **dict.fromkeys(archived(tmp_path).values(), "archive, of inner.pth"),
    }
    for content, description in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInputError, match=description):
            read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "class_"),
    [
        (defaultdict(list, a=[1]), "collections.defaultdict"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
)
def test_a_file_that_holds_objects_is_refused_by_their_class(tmp_path, content, class_):
    torch.save({"model": MODEL, "log": content}, tmp_path / "weights.pth")
    with pytest.raises(UntrustedFileError, match=re.escape(f"holds {class_}, and")) as caught:
        read_tensors(tmp_path / "weights.pth")
    assert "weights_only" not in str(caught.value)


def test_weights_that_are_not_numbers_are_refused_and_masks_are_not(match):
    mask = {"attn_mask": torch.full((2, 2), -torch.inf)}
    assert_same(match(MODEL | mask), MODEL)
    with pytest.raises(BadInputError, match=r"fc\.weight holds NaN"):
        match(MODEL | {"fc.weight": torch.full((5, 3), torch.nan)})


def test_safetensors_are_read(match):
    assert_same(match(MODEL, name="weights.safetensors"), MODEL)


def test_other_names_are_matched_in_order_and_said_so(match, caplog):
    with caplog.at_level("INFO", logger="crowdcount"):
        assert_same(match(renamed(MODEL)), MODEL)
    assert "in order" in caplog.text
    assert "_stem.weight for stem.weight" in caplog.text


def test_nothing_is_said_when_names_agree(match, caplog):
    with caplog.at_level("INFO", logger="crowdcount"):
        match(MODEL)
    assert not caplog.records


def test_counters_of_batch_norm_do_not_matter(match):
    counters = {"bn.num_batches_tracked": torch.tensor(7)}
    assert_same(match(renamed(MODEL) | counters), MODEL)
    assert_same(match(MODEL | counters), MODEL)


def test_a_safetensors_file_is_never_matched_in_order(match):
    # It sorts its tensors, so that equal shapes in order would prove nothing.
    with pytest.raises(BadInputError, match="does not keep the order"):
        match(renamed(MODEL), name="weights.safetensors")


def test_a_norm_whose_scale_and_shift_are_swapped_is_not_matched_in_order(match):
    names = list(renamed(MODEL))
    names[1], names[2] = names[2], names[1]
    with pytest.raises(BadInputError, match=r"tensor 2: norm\.weight .* _bn\.bias"):
        match(dict(zip(names, MODEL.values(), strict=True)))


def test_a_known_name_in_another_place_is_not_matched_in_order(match):
    tensors = renamed(MODEL)
    moved = {("fc.weight" if k == "_stem.weight" else k): v for k, v in tensors.items()}
    with pytest.raises(BadInputError, match="tensor 1"):
        match(moved)


def test_the_first_tensor_that_differs_is_named(match):
    tensors = renamed(MODEL) | {"_fc.weight": torch.rand(5, 4)}
    with pytest.raises(BadInputError, match=r"tensor 6: fc\.weight \(5, 3\).*\(5, 4\)"):
        match(tensors)
    with pytest.raises(BadInputError, match="6 tensors in the model, 5 in the file"):
        match(dict(list(renamed(MODEL).items())[:5]))


def test_optional_tensors_may_be_missing_or_of_another_shape(match):
    body = {name: tensor for name, tensor in MODEL.items() if not name.startswith("fc.")}
    assert_same(match(body, optional=("fc.",)), body)
    assert_same(match(body | {"fc.weight": torch.rand(9, 3)}, optional=("fc.",)), body)
    with pytest.raises(BadInputError, match=r"needs a tensor fc\.weight"):
        match(body)


def test_a_wrong_shape_under_the_right_name_is_named(match):
    with pytest.raises(BadInputError, match=r"stem\.weight has shape \(3, 4\), expected \(3, 2\)"):
        match(MODEL | {"stem.weight": torch.rand(3, 4)})


def test_a_state_dict_must_fit_exactly():
    assert_same(exact_tensors(MODEL, MODEL, source="x"), MODEL)
    with pytest.raises(BadInputError, match=r"x: has the tensor extra that the model does"):
        exact_tensors(MODEL | {"extra": torch.rand(1)}, MODEL, source="x")
    with pytest.raises(BadInputError, match=r"x: lacks the tensor stem\.weight"):
        exact_tensors({k: MODEL[k] for k in MODEL if k != "stem.weight"}, MODEL, source="x")
    with pytest.raises(BadInputError, match=r"fc\.weight has shape"):
        exact_tensors(MODEL | {"fc.weight": torch.rand(1)}, MODEL, source="x")


def test_all_mismatches_are_reported_together():
    found = {f"my_{name}": tensor for name, tensor in MODEL.items()}
    found |= {"stem.weight": torch.rand(1), "fc.weight": torch.rand(2)}
    with pytest.raises(BadInputError) as caught:
        exact_tensors(found, MODEL, source="x")
    said = caught.value.message
    assert "lacks 4 tensors (norm.bias, norm.running_mean, norm.running_var, norm.weight)" in said
    assert "has 6 tensors (my_fc.weight, " in said
    for name in MODEL:
        assert f"my_{name}" in said
    assert "stem.weight has shape (1,), expected (3, 2)" in said
    assert "fc.weight has shape (2,), expected (5, 3)" in said
    assert len(str(caught.value).splitlines()) == 1


def test_a_pickle_that_would_run_code_is_not_trusted_and_runs_none(tmp_path):
    trace = tmp_path / "trace"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    torch.save({"weight": torch.rand(2), "surprise": Hostile()}, tmp_path / "bad.pth")
    with pytest.raises(UntrustedFileError, match="could run code") as caught:
        read_tensors(tmp_path / "bad.pth")
    assert caught.value.exit_code == 8
    assert not trace.exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_a_damaged_file_is_bad_input(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(MODEL, path)
    else:
        torch.save(MODEL, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInputError, match="not a readable"):
        read_tensors(path)


@pytest.mark.parametrize(
    "instructions",
    [
        b"h\x07.",  # KeyError: something remembered that never was
        b".",  # IndexError: the top of an empty stack
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",  # TypeError: a tensor of nothing
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04K\x05K\x06tR.",
        # AttributeError: a tensor whose storage is a number
    ],
)
def test_a_pickle_that_makes_no_sense_is_bad_input(tmp_path, instructions):
    path = tmp_path / "odd.pth"
    path.write_bytes(b"\x80\x02" + instructions)
    with pytest.raises(BadInputError, match=r"odd\.pth: not a readable PyTorch file") as caught:
        read_tensors(path)
    assert caught.value.exit_code == 4


def test_a_file_without_tensors_is_bad_input(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(BadInputError, match="no tensors"):
        read_tensors(tmp_path / "empty.pth")


def test_a_missing_file_is_missing_input(tmp_path):
    with pytest.raises(InputMissingError):
        read_tensors(tmp_path / "nowhere.pth")

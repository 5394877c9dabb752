"""Published checkpoints through the command give, by the public API, what they always gave."""

import dataclasses
import functools
import importlib.util
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import crowdcount as cc
from crowdcount.core.image import NORMALISATIONS, WorkingSize
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
from crowdcount.models.backbones import BACKBONES
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints.format import load_checkpoint
from crowdcount.models.config import ModelConfig
from crowdcount.workflows.card import card_lines, read_card
from crowdcount.workflows.importing import import_checkpoint
from tests.models.published_names import with_published_names, write_published_vgg
from tests.models.small_backbones import shrunken

GOLDEN = Path(__file__).parents[1] / "golden"


def make_weights(name):
    """The weights of a fixture, made again from their seed."""
    spec = importlib.util.spec_from_file_location("make_weights", GOLDEN / "make_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_weights(name, 11)


@pytest.fixture
def run(run, workplace):
    """Run ``crowdcount import`` in an empty working directory."""
    return functools.partial(run, "import")


@pytest.fixture
def vgg(workplace):
    """The model of a small published file in the working directory, ``best.pth``."""
    with shrunken():
        yield write_published_vgg(Path("best.pth"))


@pytest.fixture(
    scope="module", params=["vgg13_bn", "csrnet", "csrnet_bn", "cannet", "resnet18", "resnet50"]
)
def imported(request, tmp_path_factory):
    """A network without CLIP, in small, and the folder that its published file became."""
    folder, name = tmp_path_factory.mktemp(request.param), request.param
    torch.manual_seed(0)
    with shrunken():
        bins = cc.Bins(block=8, starts=(0, 1), values=(0.0, 1.5))
        config = ModelConfig(backbone=name, pretrained="none", normalisation="imagenet")
        model = build_model(config, bins).eval()
        family = BACKBONES[name].family
        tensors = with_published_names(model.state_dict(), family=family)
        # Nothing depends on the counters of batch normalisation, nor on the order of tensors.
        kept = {each: tensors[each] for each in sorted(tensors) if "num_batches" not in each}
        torch.save(kept, folder / "best.pth")
        (folder / "two.toml").write_text("starts = [0, 1]\nvalues = [0, 1.5]\n")
        import_checkpoint(folder / "best.pth", folder / "out", bins=str(folder / "two.toml"))
    return model, folder / "out"


def test_every_family_without_clip_counts_after_import_what_it_counted_before(imported):
    model, folder = imported
    with shrunken():
        loaded, counter = load_checkpoint(folder), cc.load(folder)
    assert loaded.model.config.backbone == model.config.backbone
    assert loaded.card.provenance.assumed.bins == "two.toml"
    images = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        expected = model(images)
        assert_close(loaded.model(images).logits, expected.logits, rtol=0, atol=0)
        found = counter.density(model.normalised(images))
    assert_close(found.counts, expected.counts, rtol=0, atol=1e-6)


ZIP = {"zip_p_r16": "mobilenetv4_conv_small_050", "zip_n_r16": "mobilenetv4_conv_small"}


def zip_file(name, **changes):
    """The content of a published file of EBC-ZIP; ``changes`` replace settings."""
    weights = make_weights(name)
    with np.load(GOLDEN / f"{name}.seed11.npz") as golden:
        centres = golden["anchors"]
    weights["bin_centers"] = torch.from_numpy(centres).view(1, -1, 1, 1)
    lows = [*range(11), 11, 13, 15]
    bins = [[low, high - 1] for low, high in itertools.pairwise([*lows, float("inf")])]
    config = {
        "model_name": ZIP[name],
        "block_size": 16,
        "bins": bins,
        "bin_centers": [float(centre) for centre in centres],
        "zero_inflated": True,
        "norm": "none",
        "act": "none",
        "input_size": 448,
        "num_vpt": None,
    }
    return {"config": config | changes, "weights": weights}


@pytest.mark.parametrize("name", ZIP)
def test_published_files_of_zip_give_the_published_outputs_without_a_flag(run, name):
    torch.save(zip_file(name), "zip.pth")
    assert run("zip.pth", "-o", "imported")[:2] == (0, "imported\n")
    counter, model = cc.load("imported"), load_checkpoint(Path("imported")).model
    assert counter.model.normalisation == NORMALISATIONS["clip"]
    with np.load(GOLDEN / f"{name}.seed11.npz") as golden:
        for case in ("whole_256x320", "whole_416x352"):
            images = torch.from_numpy(golden[f"{case}.input"]).float()
            density = torch.from_numpy(golden[f"{case}.density"])
            with torch.no_grad():
                assert_close(model.from_normalised(images).counts, density, atol=1e-4, rtol=0)
            assert_close(counter.density(images).counts, density, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_name": "CLIP_ViT_B_16"}, "EBC-ZIP with CLIP_ViT_B_16"),
        ({"zero_inflated": False}, "zero_inflated = False"),
        ({"bins": [[0, 0], [2, float("inf")]], "bin_centers": [0.0, 2.5]}, "leave gaps"),
        ({"bin_centers": "many"}, "config is not one of EBC-ZIP"),
    ],
)
def test_other_files_of_zip_are_refused_with_what_they_hold(run, changes, reason):
    torch.save(zip_file("zip_p_r16", **changes), "zip.pth")
    code, out, err = run("zip.pth", "-o", "imported")
    assert (code, out) == (4, "")
    assert reason in err
    assert not Path("imported").exists()


def test_a_file_of_zip_needs_no_bins(run):
    torch.save(zip_file("zip_p_r16"), "zip.pth")
    code, _, err = run("zip.pth", "--bins", "sha", "-o", "imported")
    assert code == 2
    assert "leave out --bins" in err


PARITY = {
    "clip_resnet50_r8_t4": ("clip-rn50", ["whole_256x320"]),
    "clip_vit_b_16_r8_t4_vpt32": ("clip-vit-b-16", ["whole_224x224", "whole_256x320"]),
    "vgg19_ae_r8_t4": ("vgg19", ["whole_256x320"]),
}


@pytest.mark.parametrize("name", PARITY)
def test_published_weights_give_the_published_outputs(run, name, monkeypatch):
    # Drawing random weights, all of which those of the file replace, takes a fifth of the time.
    for draw in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, draw, lambda tensor, *_, **__: tensor)
    backbone, cases = PARITY[name]
    torch.save(make_weights(name), "best_mae.pth")
    exact = {"atol": 1e-4, "rtol": 0}
    with np.load(GOLDEN / f"{name}.seed11.npz") as golden:
        (sliding,) = {key.partition(".")[0] for key in golden if key.startswith("sliding")} or {""}
        code, out, err = run("best_mae.pth", "--bins", "sha", "--window", "0", "-o", "imported")
        assert (code, out) == (0, "imported\n"), err
        assert f"best_mae.pth: {backbone}, 5 bins, whole images" in err
        counter = cc.load("imported")
        model = counter.model
        assert_close(model.bin_values, torch.from_numpy(golden["anchors"]))
        if "text_features" in golden:
            assert_close(model.text_features, torch.from_numpy(golden["text_features"]), **exact)
        for case in cases:
            found = counter.density(torch.from_numpy(golden[f"{case}.input"]).float())
            assert_close(found.counts, torch.from_numpy(golden[f"{case}.density"]), **exact)
            assert_close(found.logits, torch.from_numpy(golden[f"{case}.logits"]), **exact)
        if sliding:
            window, stride = golden[f"{sliding}.window_stride"].tolist()
            model.config = dataclasses.replace(model.config, window=window, window_stride=stride)
            found = counter.density(torch.from_numpy(golden[f"{sliding}.input"]).float())
            assert_close(found.counts, torch.from_numpy(golden[f"{sliding}.density"]), **exact)
    assert model.normalisation == NORMALISATIONS["imagenet"]
    assert not any("text_encoder" in key or "transformer" in key for key in model.state_dict())


def test_an_imported_checkpoint_says_what_it_is_and_counts(run, vgg):
    code, out, err = run("best.pth", "--bins", "nwpu", "-o", "imported")
    assert (code, out) == (0, "imported\n")
    assert "vgg11, 5 bins, whole images" in err
    assert "assumed: bins nwpu-r8-t4, block 8, window 0, normalisation imagenet" in err
    loaded = load_checkpoint(Path("imported"))
    assert loaded.card.working_size == WorkingSize(short_side_min=448, long_side_max=3072)
    said = loaded.card.provenance
    assert said.imported.file == "best.pth"
    assert (said.selected_on, said.data) == ("val", ("nwpu",))
    shown = "\n".join(card_lines(read_card(Path("imported"))))
    assert "  assumed         bins nwpu-r8-t4, block 8, window 0, normalisation imagenet" in shown
    assert "  imported from   best.pth (SHA-256 " in shown
    images = torch.rand(1, 3, 40, 50)
    assert_close(loaded.model(images).logits, vgg(images).logits, rtol=0, atol=0)
    counter = cc.load("imported")
    found = counter.density(counter.model.normalised(images))
    assert_close(found.counts, vgg(images).counts, rtol=0, atol=1e-6)
    assert found.logits.shape == (1, 5, 5, 7)


def test_a_training_state_is_read_and_the_rest_of_it_named(run, vgg):
    weights = torch.load("best.pth", weights_only=True)
    state = {
        "epoch": 7,
        "model_state_dict": weights,
        "best_scores": {"mae": np.float64(62.3), "epoch": np.int64(5)},
        "learning": np.float32(1e-4),
    }
    torch.save(state, "ckpt.pth")
    # As older versions of NumPy spell it.
    old = Path("ckpt.pth").read_bytes()
    assert b"numpy._core.multiarray" in old or b"numpy.core.multiarray" in old
    code, _, err = run("ckpt.pth", "--bins", "nwpu", "-o", "imported")
    assert code == 0, err
    for name in ("epoch", "best_scores", "learning"):
        assert f"not used: {name}" in err
    loaded = load_checkpoint(Path("imported")).model
    images = torch.rand(1, 3, 40, 50)
    assert_close(loaded(images).logits, vgg(images).logits, rtol=0, atol=0)


def test_numbers_are_read_in_the_spelling_of_older_versions_of_numpy(run, vgg):
    weights = torch.load("best.pth", weights_only=True)
    state = {"model_state_dict": weights, "mae": np.float64(62.3)}
    with Path("ckpt.pth").open("wb") as stream:
        torch.save(state, stream, _use_new_zipfile_serialization=False)
    content = Path("ckpt.pth").read_bytes()
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    assert new in content or old in content
    for spelling in (new, old):
        path = Path("spelt.pth")
        path.write_bytes(content.replace(new, spelling).replace(old, spelling))
        code, _, err = run("spelt.pth", "--bins", "nwpu", "-o", "imported", "--dry-run")
        assert (code, err.count("not used: ")) == (0, 1), err
        assert "not used: mae" in err


class Runs:
    """Would make a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("it-ran"),))


@pytest.mark.parametrize(
    "save", [torch.save, lambda it, to: Path(to).write_bytes(pickle.dumps(it))]
)
def test_code_in_a_file_is_refused_and_not_run(run, vgg, save):
    weights = torch.load("best.pth", weights_only=True)
    save({"model_state_dict": weights, "note": Runs()}, "bad.pth")
    code, out, err = run("bad.pth", "--bins", "nwpu", "-o", "imported")
    assert (code, out) == (8, "")
    assert "could run code from it" in err
    assert not Path("it-ran").exists()
    assert not Path("imported").exists()


def test_what_the_file_does_not_tell_is_asked_for(run, vgg):
    code, _, err = run("best.pth", "-o", "imported")
    assert code == 2
    assert "sha, shb, qnrf, nwpu, jhu" in err
    with pytest.raises(UsageError, match="no published tables for blocks of 32"):
        import_checkpoint("best.pth", "imported", bins="sha", block=32)
    with pytest.raises(UsageError, match="of 32 pixels and 5 bins") as caught:
        import_checkpoint("best.pth", "imported", bins="qnrf", block=32)
    assert "qnrf-r32-t19-fine" in caught.value.looked_for
    with pytest.raises(BadInputError, match="has 5 bins, and qnrf-r8-t11 has 12"):
        import_checkpoint("best.pth", "imported", bins="qnrf-r8-t11")
    with pytest.raises(ConfigError, match="for blocks of 16 pixels, not 8"):
        import_checkpoint("best.pth", "imported", bins="qnrf-r16-t8-coarse")
    with pytest.raises(ConfigError, match="not what stands for each"):
        import_checkpoint("best.pth", "imported", bins="zip-r8")
    with pytest.raises(InputMissingError):
        import_checkpoint("none.pth", "imported", bins="sha")


def test_a_table_of_ones_own_is_taken(workplace, vgg):
    Path("mine.toml").write_text("starts = [0, 1, 2, 3, 4]\nvalues = [0, 1, 2, 3, 5.5]\n")
    found = load_checkpoint(import_checkpoint("best.pth", "imported", bins="mine.toml"))
    assert found.model.bins.values == (0.0, 1.0, 2.0, 3.0, 5.5)
    assert found.card.working_size == WorkingSize(short_side_min=448, long_side_max=4096)
    assert found.card.provenance.data == ()


def test_windows_overlap_as_the_stride_says(run, vgg):
    windows = ("--window", "32", "--window-stride", "16")
    code, _, err = run("best.pth", "--bins", "nwpu", "-o", "overlapping", *windows)
    assert code == 0, err
    assert "windows of 32 pixels, one every 16" in err
    assert "window 32, window stride 16" in err
    images = torch.rand(1, 3, 32, 48)
    counter = cc.load("overlapping")
    pixels = counter.model.normalised(images)
    found = counter.density(pixels).counts
    # The middle two of six columns of blocks are seen by both windows.
    with torch.no_grad():
        left, right = (vgg(images[..., start : start + 32]).counts for start in (0, 16))
    both = (left[..., 2:] + right[..., :2]) / 2
    assert_close(found, torch.cat([left[..., :2], both, right[..., 2:]], dim=-1))
    code, _, err = run("best.pth", "--bins", "nwpu", "-o", "whole", "--window-stride", "16")
    assert code == 2
    assert "images are counted whole" in err


def test_all_that_is_missing_or_unknown_is_listed(run, vgg):
    tensors = torch.load("best.pth", weights_only=True)
    for name in ("backbone.features.0.weight", "backbone.reg_layer.2.bias"):
        tensors[f"{name}_"] = tensors.pop(name)
    torch.save(tensors, "odd.pth")
    code, out, err = run("odd.pth", "--bins", "nwpu", "-o", "imported")
    assert (code, out) == (4, "")
    assert "next step   name its backbone with --backbone" in err
    code, _, err = run("odd.pth", "--bins", "nwpu", "-o", "imported", "--backbone", "vgg11")
    assert code == 4
    assert "lacks 2 tensors (backbone.features.0.weight, backbone.reg_layer.2.bias)" in err
    assert "has 2 tensors (backbone.features.0.weight_, backbone.reg_layer.2.bias_) that" in err


def test_a_pickle_that_makes_no_sense_is_bad_input(run):
    Path("odd.pth").write_bytes(b"\x80\x02h\x07.")
    code, out, err = run("odd.pth", "--bins", "sha", "-o", "imported")
    assert (code, out) == (4, "")
    assert "odd.pth: not a readable PyTorch file" in err
    assert "Traceback" not in err


def test_the_api_does_what_the_command_does(workplace, vgg):
    folder = import_checkpoint("best.pth", "imported", bins="sha")
    assert load_checkpoint(folder).model.config.backbone == "vgg11"
    with pytest.raises(UsageError, match="already exists"):
        import_checkpoint("best.pth", "imported", bins="sha")

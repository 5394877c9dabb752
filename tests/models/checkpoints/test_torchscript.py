"""TorchScript archives: their tensors are read, their programs are not run."""

import os
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from crowdcount.core.bins import Bins
from crowdcount.errors import BadInputError, UntrustedFileError
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints.tensor_files import read_tensors
from crowdcount.models.clip_image import random_clip
from crowdcount.models.config import ModelConfig
from tests.models.small_backbones import SHRUNKEN, shrunken

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))


class Net(nn.Module):
    """Parameters of two types, one transposed, two that are one, a list, an empty buffer."""

    def __init__(self):
        super().__init__()
        self.in_half = nn.Parameter(torch.rand(2, 3).half())
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.turned = nn.Linear(2, 5)
        self.turned.weight = nn.Parameter(torch.rand(2, 5).t())
        self.tied = nn.Linear(2, 5)
        self.tied.weight = self.turned.weight
        self.sizes = [1, 2]
        self.register_buffer("empty", torch.empty(0))

    def forward(self, x):
        return self.first(x) * self.sizes[0] + self.in_half.sum()


def scripted(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


def with_pickle(path, out, content):
    """The same archive with another pickle of attributes."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            is_data = name.count("/") == 1 and name.endswith("/data.pkl")
            target.writestr(name, content if is_data else source.read(name))
    return out


def test_all_tensors_have_the_names_of_the_modules(tmp_path):
    torch.manual_seed(0)
    net = Net()
    found = read_tensors(scripted(net, tmp_path / "net.pt")).tensors
    assert found.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def traced(clip, path):
    """CLIP as OpenAI published it: a program with one method for images and one for sentences."""
    inputs = {
        "encode_image": torch.ones(1, 3, 224, 224),
        "encode_text": torch.zeros(1, clip.context_length, dtype=torch.int64),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace_module(clip, inputs, check_trace=False), path)


@pytest.mark.parametrize("backbone", ["clip-rn50", "clip-vit-b-16"])
def test_clip_as_openai_publishes_it_gives_a_backbone_its_weights(tmp_path, backbone):
    with shrunken():
        torch.manual_seed(3)
        clip = random_clip(SHRUNKEN[backbone]).eval()
        traced(clip, tmp_path / "clip.pt")
        torch.save(clip.state_dict(), tmp_path / "plain.pt")
        own, expected = (
            build_model(ModelConfig(backbone=backbone, weights=str(tmp_path / name)), BINS)
            for name in ("clip.pt", "plain.pt")
        )
    assert torch.equal(own.text_features, expected.text_features)
    tensors = expected.encoder.state_dict()
    assert own.encoder.state_dict().keys() == tensors.keys()
    for name, tensor in own.encoder.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_what_else_its_pickle_names_is_not_trusted_and_not_run(tmp_path):
    trace = tmp_path / "trace"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    net = scripted(Net(), tmp_path / "net.pt")
    hostile = with_pickle(net, tmp_path / "bad.pt", pickle.dumps({"x": Hostile()}, protocol=2))
    with pytest.raises(UntrustedFileError, match="could run code") as caught:
        read_tensors(hostile)
    assert caught.value.exit_code == 8
    assert not trace.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "exec"])
def test_functions_of_python_are_not_trusted(tmp_path, name):
    content = b"cbuiltins\n" + name.encode() + b"\n(S'1'\ntR."
    net = scripted(Net(), tmp_path / "net.pt")
    with pytest.raises(UntrustedFileError):
        read_tensors(with_pickle(net, tmp_path / "bad.pt", content))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02."])
def test_a_damaged_archive_is_bad_input(tmp_path, content):
    net = scripted(Net(), tmp_path / "net.pt")
    with pytest.raises((BadInputError, UntrustedFileError)):
        read_tensors(with_pickle(net, tmp_path / "bad.pt", content))


def test_a_tensor_beyond_its_storage_is_bad_input(tmp_path):
    net = scripted(Net(), tmp_path / "net.pt")
    with zipfile.ZipFile(net) as source, zipfile.ZipFile(tmp_path / "bad.pt", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[:2] if "/data/" in name else content)
    with pytest.raises(BadInputError, match="damaged"):
        read_tensors(tmp_path / "bad.pt")

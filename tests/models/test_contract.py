"""What every backbone must do with every head, run over the tables and a sample of timm."""

import copy
import functools
import itertools
import math
import socket

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.core.image import WorkingSize
from crowdcount.core.precision import predict_blocks
from crowdcount.core.types import pad_to_multiple
from crowdcount.models.backbones import BACKBONES
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints.card import Card
from crowdcount.models.checkpoints.format import load_checkpoint, save_checkpoint
from crowdcount.models.config import ModelConfig
from crowdcount.models.deploy import winograd
from crowdcount.models.deploy.fuse_batch_norm import fuse_batch_norm
from tests.models.small_backbones import CLIP, SLIM, TRANSFORMERS, shrunken

CARD = Card(name="toy", working_size=WorkingSize(short_side_min=64, long_side_max=512))
VALUES = (0.0, 1.0, 2.5, 5.1)
TIMM = (
    *("timm:test_resnet", "timm:test_efficientnet", "timm:test_convnext", "timm:test_vit"),
    "timm:test_mambaout",  # gives its features with channels last
    "timm:tf_efficientnet_lite0",
)
SIZES = [(37, 91), (5, 3)]
MORE_SIZES = [(130, 64), (64, 96), (1, 1)]
"""Sizes for one model of each family: whole blocks, whole strides, a single pixel."""


@pytest.fixture(scope="module", autouse=True)
def _small_and_alone():
    """Backbones of the table in small, and no network: nothing here may download."""

    def refuse(*address):
        raise AssertionError(f"a connection to {address}")

    with shrunken(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def fresh(backbone, head="ebc", decoder="paper", block=8):
    torch.manual_seed(0)
    bins = Bins(block=block, starts=(0, 1, 2, 4), values=VALUES)
    config = ModelConfig(
        backbone=backbone, head=head, decoder=decoder, pretrained="none", block=block
    )
    return build_model(config, bins)


ONE_OF_EACH_FAMILY = (
    *("clip-rn50", "clip-vit-b-16", "clip-convnext-base-w", "mobileclip-s1", "siglip-b-16"),
    *("vgg11_bn", "csrnet", "cannet", "resnet50", "timm:test_resnet"),
)
# Heads do not know their backbone: the others are tried on one of each family.
MODELS = [
    (backbone, head, decoder)
    for backbone, head, decoder in itertools.product(
        [*BACKBONES, *TIMM], ("ebc", "zip", "regression"), ("paper", "slim")
    )
    if head == "ebc" or (backbone in ONE_OF_EACH_FAMILY and decoder == "paper")
    if not (backbone in CLIP and head == "regression")
    if backbone in SLIM or decoder == "paper"
]
# The convolutions of a network are the same under every head.
NORMALISED = [
    (backbone, head, decoder)
    for backbone, head, decoder in MODELS
    if head == "ebc" and backbone not in ("vgg11", "vgg13", "vgg16", "vgg19", "csrnet", "cannet")
]
"""Models with batch normalisation."""

CONVOLVED = [
    (backbone, head, decoder)
    for backbone, head, decoder in MODELS
    if head == "ebc" and backbone not in TIMM[2:]
    if decoder == "paper" or backbone not in TRANSFORMERS
]
"""Models with ordinary 3x3 convolutions."""


def of(models):
    """Run a test over these models instead of all."""
    return pytest.mark.parametrize("model", models, ids="-".join, indirect=True)


def seen(prediction):
    """All that a model says of each block: logits, then heads."""
    return torch.cat([prediction.logits, prediction.counts], dim=1)


@pytest.fixture(scope="module")
def built():
    """Build each model once."""
    return functools.cache(lambda description: fresh(*description).eval())


@pytest.fixture(params=MODELS, ids="-".join)
def model(request, built):
    """A model in evaluation mode. Tests leave it as it is."""
    return built(request.param)


def check_blocks(model, height, width):
    with torch.no_grad():
        prediction = model(torch.rand(2, 3, height, width))
    rows, cols = math.ceil(height / 8), math.ceil(width / 8)
    bins = 0 if model.config.head == "regression" else 4
    assert prediction.logits.shape == (2, bins, rows, cols)
    assert prediction.counts.shape == (2, 1, rows, cols)
    assert prediction.logits.isfinite().all()
    assert prediction.counts.isfinite().all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_image_gets_its_blocks(model, height, width):
    check_blocks(model, height, width)


@of([(backbone, "ebc", "paper") for backbone in ONE_OF_EACH_FAMILY])
@pytest.mark.parametrize(("height", "width"), MORE_SIZES)
def test_an_image_of_any_other_size_gets_its_blocks(model, height, width):
    check_blocks(model, height, width)


def test_counts_are_expectations(model):
    with torch.no_grad():
        prediction = model(torch.rand(1, 3, 24, 40))
    if model.config.head == "regression":
        assert (prediction.counts >= 0).all()
        return
    probabilities = prediction.logits.softmax(dim=1)
    expected = sum(value * probabilities[:, k] for k, value in enumerate(VALUES))
    assert_close(prediction.counts[:, 0], expected)


def test_padding_is_the_mean_colour_and_nothing_else(model):
    images = torch.rand(1, 3, 37, 50)
    with torch.no_grad():
        by_model = seen(model.from_normalised(images))
        padded = pad_to_multiple(images, math.lcm(model.stride, 8))
        by_hand = seen(model.from_normalised(padded))
    assert_close(by_model, by_hand[..., :5, :7])


def test_what_stands_in_the_batch_beside_an_image_does_not_matter(model):
    images = torch.rand(3, 3, 40, 64)
    with torch.no_grad():
        together, alone = seen(model(images)), seen(model(images[1:2]))
    assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


def test_channels_last_computes_the_same(model):
    images = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        contiguous = seen(model(images))
        model.to(memory_format=torch.channels_last)
        last = seen(model(images.contiguous(memory_format=torch.channels_last)))
    model.to(memory_format=torch.contiguous_format)
    assert_close(last, contiguous, atol=1e-4, rtol=1e-4)


def batch_norms(model):
    return [each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)]


@of(NORMALISED)
def test_folded_batch_normalisation_computes_the_same(model):
    images = torch.rand(1, 3, 40, 64)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for norm in batch_norms(model):
            for values in (norm.weight, norm.running_var):
                values.uniform_(0.7, 1.4)
            for values in (norm.bias, norm.running_mean):
                values.uniform_(-0.3, 0.3)
        apart = seen(model(images))
        before = len(batch_norms(model))
        fuse_batch_norm(model)
        assert_close(seen(model(images)), apart, atol=1e-4, rtol=1e-4)
    assert len(batch_norms(model)) < before


@of(CONVOLVED)
def test_winograd_computes_the_same(model, monkeypatch):
    monkeypatch.setattr(winograd, "WIDE", 1)
    quicker = copy.deepcopy(model)
    winograd.use_winograd(quicker)
    assert any(isinstance(each, winograd.WinogradConv2d) for each in quicker.modules())
    images = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        assert_close(seen(quicker(images)), seen(model(images)), atol=1e-4, rtol=1e-4)


def test_no_batch_normalisation_is_left_of_efficientnet():
    model = fresh("timm:tf_efficientnet_lite0").eval()
    fuse_batch_norm(model)
    assert not batch_norms(model)


def test_networks_without_padding_are_fused():
    # On 64 pixels and less there is nothing left for the last kernels of Inception.
    model = fresh("timm:inception_v3").eval()
    fuse_batch_norm(model)
    assert not batch_norms(model)


def test_bfloat16_computes_nearly_the_same(model):
    images = torch.rand(2, 3, 40, 64)
    with torch.no_grad():
        exact = seen(model(images))
        rough = seen(predict_blocks(model, images, precision="bf16"))
    # Logits are compared with the largest of them; plain heads have no larger ones beside them.
    share = 0.1 if model.config.head == "regression" else 0.02
    assert_close(rough, exact, atol=share * exact.abs().max().item(), rtol=0.05)


def test_gradients_reach_every_parameter_that_is_not_frozen(model):
    model = copy.deepcopy(model).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # a residual branch that starts closed
                parameter.fill_(0.3)
    prediction = model(torch.rand(2, 3, 64, 64))
    weights = torch.rand(prediction.logits.shape[1], 1, 1)
    (prediction.counts.sum() + (prediction.logits * weights).sum()).backward()
    assert model.frozen == (("encoder",) if model.config.backbone in TRANSFORMERS else ())
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.") and model.frozen:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 3)])
def test_one_tiny_image_can_be_trained_on(model, height, width):
    model = copy.deepcopy(model).train()
    assert model(torch.rand(1, 3, height, width)).counts.isfinite().all()


def test_a_checkpoint_gives_back_the_same_model_without_a_text_encoder(model, tmp_path):
    save_checkpoint(tmp_path / "best", model, card=CARD)
    state = torch.get_rng_state()
    loaded = load_checkpoint(tmp_path / "best")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.card == CARD
    assert not loaded.model.training
    assert (loaded.model.config, loaded.model.bins) == (model.config, model.bins)
    assert (loaded.model.normalisation, loaded.model.prompts) == (
        model.normalisation,
        model.prompts,
    )
    images = torch.rand(1, 3, 37, 50)
    with torch.no_grad():
        expected, prediction = model(images), loaded.model(images)
    assert torch.equal(prediction.logits, expected.logits)
    assert torch.equal(prediction.counts, expected.counts)
    parts = {name.partition(".")[0] for name in load_file(tmp_path / "best" / "model.safetensors")}
    of_clip = {"decoder", "projection", "logit_scale", "text_features", "prompt_tokens"}
    of_clip |= {"occupancy_projection", "occupancy_scale", "occupancy_features"}
    known = of_clip if model.config.backbone in CLIP else {"neck", "context", "decoder", "head"}
    assert parts <= {"encoder", "mean", "std", "bin_values", *known}


@pytest.mark.parametrize(
    ("backbone", "block", "decoder"),
    [
        *itertools.product([*BACKBONES, *TIMM], [16, 32], ["paper"]),
        *itertools.product([name for name in SLIM if "-14" not in name], [16, 32], ["slim"]),
        *itertools.product([name for name in CLIP if "-14" in name], [14, 28], ("paper", "slim")),
    ],
)
def test_larger_blocks(backbone, block, decoder):
    counter = fresh(backbone, decoder=decoder, block=block).eval()
    with torch.no_grad():
        logits = counter(torch.rand(1, 3, 37, 91)).logits
    assert logits.shape == (1, 4, math.ceil(37 / block), math.ceil(91 / block))

"""What of an encoder learns, and that all the rest stays as it is, whatever else goes on."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from crowdcount.core.bins import Bins
from crowdcount.core.types import Batch, block_target
from crowdcount.errors import ConfigError
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.config import ModelConfig
from crowdcount.training.optimiser import OptimConfig
from crowdcount.training.step import take_step
from tests.models.small_backbones import CLIP, LAYERS, TRANSFORMERS, shrunken
from tests.toy_training import learner, squared

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))
HEAD = {"decoder", "projection", "logit_scale"}
OPTIM = OptimConfig(name="adamw", lr=0.01)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with shrunken():
        yield


def fresh(backbone="clip-vit-b-16", **settings):
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, pretrained="none", **settings), BINS)


def some_batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(5, 2, generator=generator) * 32, torch.zeros(0, 2))
    return Batch(
        images=torch.rand(2, 3, 32, 32, generator=generator),
        target=block_target(points, height=32, width=32, block=8),
        names=("a", "b"),
    )


def train(learning, *seeds):
    for seed in seeds:
        learning.model.train()
        take_step(learning, squared, some_batch(seed), lr=OPTIM.lr)


def changed(model, **settings):
    """The parts that three steps of training change, parameters and statistics, by first names."""
    before = copy.deepcopy(model.state_dict())
    train(learner(model, optim=OPTIM, **settings), 1, 2, 3)
    names = [n for n, tensor in model.state_dict().items() if not torch.equal(before[n], tensor)]
    return {".".join(name.split(".")[: 2 if name.startswith("encoder") else 1]) for name in names}


def parts(model):
    """First names of what an encoder is made of."""
    names = {name.split(".")[0] for name in model.encoder.state_dict()}
    return {f"encoder.{name}" for name in names}


def test_transformers_learn_their_prompts_and_nothing_else_unless_told_so():
    assert changed(fresh()) == {*HEAD, "prompt_tokens"}
    assert changed(fresh(tuning="frozen")) == HEAD
    model = fresh(tuning="full")
    assert model.prompt_tokens is None
    assert changed(model) == HEAD | parts(model)


@pytest.mark.parametrize("backbone", [name for name in CLIP if name not in TRANSFORMERS])
def test_other_encoders_learn_as_a_whole_unless_told_so(backbone):
    model = fresh(backbone)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert changed(fresh(backbone, tuning="frozen")) == HEAD


def test_a_timm_backbone_can_be_frozen_as_a_whole():
    model = fresh("timm:test_resnet", tuning="frozen", neck_width=8)
    assert changed(model) == {"neck", "head"}


@pytest.mark.parametrize("backbone", ["clip-rn50", "timm:test_resnet", "vgg11_bn", "resnet18"])
def test_statistics_can_stay_while_all_parameters_learn(backbone):
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    model = fresh(backbone, frozen_statistics=True)
    before = copy.deepcopy(model.state_dict())
    train(learner(model, optim=OPTIM), 1, 2)
    same = {n for n, tensor in model.state_dict().items() if torch.equal(before[n], tensor)}
    moved = {name for name, _ in model.named_parameters() if name not in same}
    assert any(name.startswith("encoder.") for name in moved)
    kept = {name for name in before if name.startswith("encoder.") and name.endswith(statistics)}
    assert kept <= same
    assert all(parameter.requires_grad for parameter in model.parameters())
    # A copy, as the average of the weights is, and a model read again keep to it.
    again = empty_model(model.config, BINS).train()
    for each in (copy.deepcopy(model).train(), again):
        assert not any(m.training for n, m in each.named_modules() if n in model.fixed_statistics)


def test_statistics_of_an_encoder_without_any_cannot_stay():
    with pytest.raises(ConfigError, match="no batch normalisation"):
        fresh("clip-vit-b-16", frozen_statistics=True)


@pytest.mark.parametrize("backbone", ["clip-rn50", "timm:test_resnet", "resnet18"])
def test_statistics_of_the_head_can_stay_so_that_training_sees_what_will_count(backbone):
    moving = fresh(backbone, frozen_statistics=True)
    train(learner(moving, optim=OPTIM), 1, 2, 3)
    still = empty_model(replace(moving.config, frozen_head_statistics=True), BINS)
    still.load_state_dict(moving.state_dict())
    counts = []
    for model in (moving, still):
        before = copy.deepcopy(model.state_dict())
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            counts.append([model.train()(images).counts, model.eval()(images).counts])
        after = model.state_dict()
        means = [name for name in before if name.endswith("running_mean")]
        same = all(torch.equal(before[name], after[name]) for name in means)
        assert same is (model is still)
    assert not torch.allclose(counts[0][0], counts[0][1])
    torch.testing.assert_close(counts[1][0], counts[1][1])
    train(learner(still, optim=OPTIM), 1)
    assert all(parameter.requires_grad for parameter in still.parameters())


def test_statistics_of_a_head_without_any_cannot_stay():
    settings = ModelConfig(backbone="vgg11_bn", pretrained="none", frozen_head_statistics=True)
    with pytest.raises(ConfigError, match="no batch normalisation"):
        empty_model(settings, BINS)


@pytest.mark.parametrize("frozen", range(6))
def test_the_first_stages_of_a_resnet_stay_with_their_statistics(frozen):
    stem = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"}
    stages = [stem, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
    model = fresh("clip-rn50", frozen_stages=frozen)
    with torch.no_grad():  # residual branches start closed
        for name, parameter in model.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(1.0)
    learning = {f"encoder.{name}" for names in stages[frozen:] for name in names}
    assert changed(model) == HEAD | learning


@pytest.mark.parametrize("frozen", range(LAYERS + 1))
def test_the_first_blocks_of_a_transformer_stay_with_what_is_before_them(frozen):
    model = fresh(tuning="full", frozen_stages=frozen)
    learning = {name for name, each in model.encoder.named_parameters() if each.requires_grad}
    first = {name for name in learning if not name.startswith(("blocks.", "ln_post."))}
    blocks = {int(name.split(".")[1]) for name in learning if name.startswith("blocks.")}
    assert blocks == set(range(frozen, LAYERS))
    assert bool(first) == (frozen == 0)
    assert any(name.startswith("ln_post.") for name in learning) == (frozen < LAYERS)


@pytest.mark.parametrize(
    ("backbone", "frozen", "still"),
    [
        ("timm:resnet18", 1, {"layer1", "layer2", "layer3", "layer4"}),
        ("timm:resnet18", 3, {"layer3", "layer4"}),
        ("timm:tf_efficientnet_lite0", 2, {f"blocks.{number}" for number in range(2, 7)}),
    ],
)
def test_the_first_stages_of_a_timm_model_stay_with_what_is_before_them(backbone, frozen, still):
    model = fresh(backbone, frozen_stages=frozen)
    before = {name: each.clone() for name, each in model.encoder.named_buffers()}
    model.train()(torch.rand(2, 3, 64, 64))
    learning = {name for name, each in model.encoder.named_parameters() if each.requires_grad}
    moved = {
        name
        for name, each in model.encoder.named_buffers()
        if "running" in name and not torch.equal(each, before[name])
    }
    for names in (learning, moved):
        stages = {re.match(r"(layer|blocks\.)\d|\w+", name)[0] for name in names}
        assert stages == still


def test_what_is_frozen_behaves_as_in_evaluation_and_the_rest_does_not():
    model = fresh("clip-rn50", frozen_stages=2)
    model.encoder.layer1.append(nn.Dropout(0.5))
    model.encoder.layer2.append(nn.Dropout(0.5))
    model.eval().train()
    assert not any(module.training for module in model.encoder.layer1.modules())
    assert not model.encoder.bn1.training
    assert all(module.training for module in model.encoder.layer2.modules())
    assert all(module.training for module in model.decoder.modules())
    copied = copy.deepcopy(model).train()
    assert not any(module.training for module in copied.encoder.layer1.modules())


@pytest.mark.parametrize("settings", [{}, {"prompt_depth": "shallow"}, {"tuning": "frozen"}])
def test_what_is_frozen_costs_no_optimiser_state(settings):
    model = fresh(**settings)
    learning = learner(model, optim=OPTIM)
    train(learning, 1)
    held = {id(each) for group in learning.optimiser.param_groups for each in group["params"]}
    assert held == {id(each) for each in model.parameters() if each.requires_grad}
    assert len(learning.optimiser.state) == len(held)
    assert not held & {id(each) for each in model.encoder.parameters()}


def test_prompts_neither_decay_nor_learn_at_the_rate_of_the_encoder():
    optim = OptimConfig(name="adamw", lr=0.01, encoder_lr=0.001, weight_decay=0.1)
    learning = learner(fresh(), optim=optim)
    tokens = {id(each) for each in learning.model.prompt_tokens.parameters()}
    (group,) = (
        group
        for group in learning.optimiser.param_groups
        if tokens & {id(each) for each in group["params"]}
    )
    assert (group["weight_decay"], group["lr_scale"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("clip-vit-b-16", {"prompt_dropout": 0.3}),
        ("clip-vit-l-14", {"prompt_depth": "shallow", "prompt_tokens": 5}),
        ("clip-rn50", {"frozen_stages": 3}),
    ],
)
def test_training_goes_on_exactly_and_averages_go_along(backbone, settings):
    whole = learner(fresh(backbone, **settings), optim=OPTIM, ema_decay=0.9)
    train(whole, 1)
    saved = copy.deepcopy(whole.state_dict())
    train(whole, 2, 3)
    config = whole.model.config
    resumed = learner(empty_model(config, BINS), optim=OPTIM, ema_decay=0.9)
    resumed.load_state_dict(saved)
    train(resumed, 2, 3)
    for one, other in (
        (whole.model, resumed.model),
        (whole.validated_model, resumed.validated_model),
    ):
        others = other.state_dict()
        assert all(torch.equal(tensor, others[name]) for name, tensor in one.state_dict().items())
    frozen = tuple(f"{name}." for name in whole.model.frozen)
    kept, first = whole.validated_model.state_dict(), saved["model"]
    assert all(torch.equal(kept[n], first[n]) for n in kept if f"{n}.".startswith(frozen))


def test_the_number_of_prompt_tokens_and_their_depth_are_settings():
    deep, shallow = fresh(), fresh(prompt_tokens=7, prompt_depth="shallow")
    assert [tuple(each.shape) for each in deep.prompt_tokens.tokens] == [(32, 48)] * LAYERS
    assert [tuple(each.shape) for each in shallow.prompt_tokens.tokens] == [(7, 48)]


@pytest.mark.parametrize(
    ("backbone", "settings", "message"),
    [
        ("clip-rn50", {"tuning": "prompts"}, r"model\.tuning: clip-rn50 is no transformer"),
        ("timm:test_vit", {"tuning": "prompts"}, r"model\.tuning: prompt tokens enter CLIP's"),
        (
            "timm:test_vit",
            {"frozen_stages": 9},
            r"model\.frozen_stages: the backbone has \d",
        ),
        ("clip-vit-b-16", {"frozen_stages": 1}, r"model\.frozen_stages: with model\.tuning=prompt"),
        ("clip-rn50", {"frozen_stages": 6}, r"model\.frozen_stages: clip-rn50 has 5 stages, got 6"),
    ],
)
def test_what_cannot_be_tuned_like_this_is_refused(backbone, settings, message):
    with pytest.raises(ConfigError, match=message):
        fresh(backbone, **settings)

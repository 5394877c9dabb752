"""The loop takes the steps it is told to, reports them, and says when to save."""

import copy
import dataclasses

import pytest
import torch

from crowdcount.training.optimiser import OptimConfig
from tests.toy_training import ConvModel, FewBatches, MeanModel, learner, run

TIMES = {"seconds", "waiting", "images_per_second", "peak_memory"}


def without_times(report):
    return {key: value for key, value in dataclasses.asdict(report).items() if key not in TIMES}


def test_learns_the_mean():
    learning = learner(MeanModel())
    reports = run(learning, FewBatches(), epochs=60)
    assert learning.model.level.item() == pytest.approx(1.0, abs=0.05)
    assert reports[-1].loss < reports[0].loss / 100


def test_reports_every_epoch_in_order():
    losses, batches = [], FewBatches()
    reports = run(learner(MeanModel()), batches, epochs=3, options={"on_step": losses.append})
    assert [report.epoch for report in reports] == batches.asked == [1, 2, 3]
    assert [report.steps for report in reports] == [2, 4, 6]
    assert all(report.complete and report.images == 4 for report in reports)
    assert len(losses) == 6
    assert reports[0].loss == pytest.approx(sum(losses[:2]) / 2)


def test_reports_say_how_fast_and_how_large():
    optim = OptimConfig(lr=0.04, encoder_lr=0.01)
    reports = run(learner(ConvModel(), optim=optim), FewBatches(), optim=optim, epochs=3)
    for report in reports:
        assert report.images_per_second == pytest.approx(report.images / report.seconds)
        assert report.encoder_lr == pytest.approx(report.lr / 4)
        assert 0 <= report.waiting < 1
    assert 2**20 < reports[0].peak_memory <= reports[-1].peak_memory < 2**40


def test_reports_name_what_no_gradient_reaches():
    healthy, saturated = learner(ConvModel(norm=False)), learner(ConvModel(norm=False))
    with torch.no_grad():
        saturated.model.encoder[0].bias.fill_(-100.0)  # its ReLU gives 0 for every image
    (report,) = run(healthy, FewBatches(), epochs=1)
    assert report.without_gradient == ()
    (report,) = run(saturated, FewBatches(), epochs=1)
    assert report.without_gradient == ("encoder.0.weight", "encoder.0.bias")


def test_untrained_parameters_are_not_reported_as_without_gradient():
    learning = learner(ConvModel(norm=False))
    learning.model.encoder.requires_grad_(False)
    (report,) = run(learning, FewBatches(), epochs=1)
    assert report.without_gradient == ()


def test_a_request_to_stop_ends_the_run_after_the_step_and_saves_it():
    steps, saved = [], []
    learning = learner(MeanModel())
    options = {
        "on_step": steps.append,
        "should_stop": lambda: len(steps) == 3,
        "on_checkpoint": lambda: saved.append(learning.progress.steps),
    }
    reports = run(learning, FewBatches(), epochs=3, checkpoint_every_steps=100, options=options)
    assert len(steps) == 3
    assert [report.complete for report in reports] == [True, False]
    assert saved == [3]


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({}, [(2, 0), (3, 0)]),
        ({"checkpoint_every_steps": 2}, [(1, 2), (2, 1), (3, 0), (3, 2)]),
        ({"checkpoint_every_steps": 3}, [(2, 0), (3, 0)]),
        ({"checkpoint_every_steps": 9}, []),
        ({"checkpoint_every_minutes": 1e-9}, [(e, s) for e in (1, 2, 3) for s in (0, 1, 2)][1:]),
        ({"checkpoint_every_minutes": 60.0}, []),
    ],
)
def test_states_are_saved_when_they_are_due(settings, saved):
    found = []
    learning = learner(MeanModel())

    def save():
        found.append((learning.progress.epoch, learning.progress.step))

    run(learning, FewBatches(3), epochs=3, options={"on_checkpoint": save}, **settings)
    assert found == saved


@pytest.mark.parametrize("stop", range(1, 9))
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_goes_on_from_a_state_as_if_it_had_not_stopped(stop, precision):
    settings = {"epochs": 3, "ema_decay": 0.9, "precision": precision}
    optim = OptimConfig(name="adamw", lr=0.05, encoder_lr=0.01, clip_norm=0.5)
    torch.manual_seed(4)
    first = ConvModel()
    whole = learner(copy.deepcopy(first), optim=optim, **settings)
    torch.manual_seed(5)
    reports = run(whole, FewBatches(3), optim=optim, **settings)

    begun, states = learner(copy.deepcopy(first), optim=optim, **settings), []
    torch.manual_seed(5)
    steps = []
    options = {
        "on_step": steps.append,
        "should_stop": lambda: len(steps) == stop,
        "on_checkpoint": lambda: states.append(copy.deepcopy(begun.state_dict())),
    }
    before = run(begun, FewBatches(3), optim=optim, options=options, **settings)
    torch.manual_seed(6)  # what another process would have drawn
    resumed = learner(ConvModel(), optim=optim, **settings)
    resumed.load_state_dict(states[-1])
    after = run(resumed, FewBatches(3), optim=optim, **settings)

    kept = [report for report in before if report.complete]
    assert list(map(without_times, kept + after)) == list(map(without_times, reports))
    for one, other in (
        (whole.model, resumed.model),
        (whole.validated_model, resumed.validated_model),
    ):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name

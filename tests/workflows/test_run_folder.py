"""What a run tells people while it goes on."""

from dataclasses import replace

import pytest

from crowdcount.training.loop import EpochReport
from crowdcount.workflows.run_folder import epoch_in_words

REPORT = EpochReport(
    epoch=3,
    steps=30,
    loss=335.851,
    classification=300.0,
    count=35.851,
    gradient_norm=2.0,
    skipped=0,
    lr=1e-3,
    encoder_lr=1e-3,
    seconds=10.0,
    waiting=0.0,
    images=51,
    images_per_second=5.1,
    peak_memory=1,
    complete=True,
)


def words(report, **changes):
    return epoch_in_words(
        report, None, **{"epochs": 80, "better": False, "seconds_left": None, **changes}
    )


def test_the_line_of_an_epoch_says_how_long_it_will_go_on():
    assert words(REPORT) == "epoch 3/80  loss 335.85  5.1 images/s"
    assert words(REPORT, better=True, seconds_left=15_130.0).endswith("  best  4 h 12 min left")
    # Nothing is left after the last epoch.
    assert words(REPORT, seconds_left=0.0) == words(REPORT)


@pytest.mark.parametrize(
    ("share", "named"), [(0.0, ""), (0.05, ""), (0.062, "6% waiting for data"), (1.0, "100%")]
)
def test_the_wait_for_data_is_named_where_there_is_much_of_it(share, named):
    said = words(replace(REPORT, waiting=share))
    assert ("waiting" in said) == bool(named)
    assert named in said

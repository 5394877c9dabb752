"""The bar of a training run says truly when it will end."""

import io

import pytest
from rich.console import Console

from crowdcount.cli.console import Settings
from crowdcount.cli.train import TrainingBar


class Screen:
    """A terminal with a clock of its own."""

    def __init__(self):
        self.now = 0.0
        console = Console(
            file=io.StringIO(), force_terminal=True, width=200, get_time=lambda: self.now
        )
        self.bar = TrainingBar(Settings(console=console, bars=True))

    def text(self):
        """What the bar says, with each run of spaces as one."""
        # Asked long enough after the last time to be drawn anew.
        self.now += 1
        shown = self.bar._progress.get_renderable()
        console = Console(file=io.StringIO(), width=200, get_time=lambda: self.now)
        console.print(shown)
        return " ".join(console.file.getvalue().split())


@pytest.fixture
def screen():
    screen = Screen()
    with screen.bar:
        yield screen


def test_the_rate_is_that_of_steps_done_here_with_the_validations_between_them(screen):
    screen.bar.started(epochs=100, steps=10, done=500)
    assert "-:--:--" in screen.text()
    for step in range(100):
        # Two seconds a step, and twenty for a validation after every ten steps: four a step.
        screen.now += 2 + 20 * (step % 10 == 9)
        screen.bar.stepped(3.0)
    # The first of the hundred began before anything was measured.
    text = screen.text()
    assert "600/1000 4.0 s each 0:26:4" in text
    assert text.endswith("loss 3.00")


def test_steps_that_take_minutes_have_a_rate(screen):
    screen.bar.started(epochs=1, steps=10)
    for _ in range(3):
        screen.now += 120
        screen.bar.stepped(3.0)
    assert "3/10 120.0 s each 0:14:00" in screen.text()


def test_nothing_is_drawn_where_there_is_no_terminal():
    console = Console(file=io.StringIO())
    with TrainingBar(Settings(console=console, bars=False)) as bar:
        bar.started(epochs=1, steps=2)
        bar.stepped(1.0)
    assert console.file.getvalue() == ""

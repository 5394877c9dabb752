"""Pieces of messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.wording import counted, did_you_mean, duration, natural_key, shorten


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_that_of_the_numbers(numbers):
    names = [f"IMG_{n}.jpg" for n in numbers]
    assert sorted(names, key=natural_key) == [f"IMG_{n}.jpg" for n in sorted(numbers)]


def test_natural_order_has_no_longest_number():
    names = ["2.jpg", "1" * 5000, "0" * 5000 + "1", "a.jpg"]
    assert sorted(names, key=natural_key) == [names[2], names[0], names[1], names[3]]


@given(st.lists(st.text(max_size=8)))
def test_natural_order_does_not_depend_on_the_first_order(names):
    shuffled = np.random.default_rng(3).permutation(np.array(names, dtype=object)).tolist()
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


def test_long_lists_are_shortened():
    assert shorten(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert shorten(["a"]) == "a"


def test_only_a_close_name_is_suggested():
    assert did_you_mean("cuont", ["weight", "count"]) == "; did you mean 'count'?"
    assert did_you_mean("xyz", iter(["weight", "count"])) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3570.0, "1 h 0 min"),
        (15_120.0, "4 h 12 min"),
        (86_390.0, "1 d 0 h"),
        (273_600.0, "3 d 4 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 heads"), (1, "1 head"), (2, "2 heads"), (1200, "1,200 heads")]
)
def test_a_number_stands_with_its_noun(number, text):
    assert counted(number, "head") == text

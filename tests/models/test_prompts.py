import json
from pathlib import Path
from typing import get_args

import open_clip
import pytest

from crowdcount.core.bins import Bins, bin_ranges
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.models.clip_ebc import bin_prompts
from crowdcount.models.config import ModelConfig
from crowdcount.models.prompts import Style, number_in_words, occupied_prompt, prompt

TOKENS = json.loads((Path(__file__).parents[1] / "golden" / "prompts_tokens.json").read_text())


def test_sentences_are_the_published_ones():
    last_bins = (2, 4, 7, 8, 11, 18, 19)
    ours = {
        prompt(low, high, style=style)
        for style in get_args(Style)
        for low, high in [*((n, n) for n in range(20)), *((n, None) for n in last_bins)]
    }
    assert ours == set(TOKENS)


def test_the_tokeniser_reads_them_as_the_published_code_did():
    tokens = open_clip.get_tokenizer("RN50-quickgelu")(list(TOKENS))
    for row, published in zip(tokens.tolist(), TOKENS.values(), strict=True):
        assert row == published + [0] * (77 - len(published))


def test_a_finite_range_has_a_sentence():
    assert prompt(2, 3) == "There are between two and three people."
    assert prompt(4, 5, style="digits") == "There are between 4 and 5 people."


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0, 0, "Here: no person!"),
        (1, 1, "Here: one person!"),
        (2, 3, "Here: between two and three people!"),
        (4, None, "Here: more than four people!"),
    ],
)
def test_a_template_has_the_people_where_it_says(low, high, sentence):
    assert prompt(low, high, template="Here: {people}!") == sentence


def test_the_people_of_a_template_are_counted_in_its_style():
    assert prompt(3, 3, style="digits", template="{people}") == "3 people"
    assert occupied_prompt(style="digits", template="See {people}") == "See at least 1 person"
    assert occupied_prompt() == "There is at least one person."


@pytest.mark.parametrize("style", get_args(Style))
@pytest.mark.parametrize("name", PUBLISHED_BINS)
def test_the_bins_of_every_published_table_have_sentences_of_their_own(name, style):
    table = PUBLISHED_BINS[name]
    sentences = [prompt(low, high, style=style) for low, high in bin_ranges(table.starts)]
    assert len(set(sentences)) == len(table.starts)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (21, "twenty-one"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (700, "seven hundred"),
        (1000, "one thousand"),
        (101, "101"),
        (1100, "1100"),
        (2000, "2000"),
    ],
)
def test_numbers_in_words(number, words):
    assert number_in_words(number) == words


def test_no_two_numbers_share_their_words():
    assert len({number_in_words(number) for number in range(1201)}) == 1201


def test_every_bin_of_a_model_has_its_own_sentence():
    bins = Bins(block=8, starts=(0, 1, 2, 4), values=(0.0, 1.0, 2.5, 5.0))
    assert bin_prompts(ModelConfig(), bins) == (
        "There is no person.",
        "There is one person.",
        "There are between two and three people.",
        "There are more than four people.",
    )

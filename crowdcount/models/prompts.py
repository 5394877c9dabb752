"""The sentence that describes the number of people of a bin."""

from typing import Literal

from crowdcount.errors import ConfigError

Style = Literal["words", "digits"]

PLACE = "{people}"
"""The placeholder for the people in a template."""

# fmt: off
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on


def check_template(template: str) -> None:
    """Raise ConfigError for a template that does not have :data:`PLACE` as its only placeholder."""
    before, place, after = template.partition(PLACE)
    if not place or any(brace in before + after for brace in "{}"):
        raise ConfigError(
            f"model.prompt_template: needs {PLACE} once and no other braces, got {template!r}",
            next_step='such as "A photo of {people} in a crowd."',
        )


def prompt(low: int, high: int | None, *, style: str = "words", template: str | None = None) -> str:
    """Return the sentence for a bin from ``low`` to ``high`` heads, itself included.

    A ``high`` of None is no upper end. The sentence is the published one, or a template with
    :data:`PLACE` for :func:`people`.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281.
    """
    who = people(low, high, style=style)
    if template is not None:
        return template.replace(PLACE, who)
    return f"There {'is' if high == low < 2 else 'are'} {who}."


def occupied_prompt(*, style: str = "words", template: str | None = None) -> str:
    """Return ZIP's sentence for an occupied block. The wording is ours."""
    who = f"at least {number_in_words(1) if style == 'words' else 1} person"
    return f"There is {who}." if template is None else template.replace(PLACE, who)


def people(low: int, high: int | None, *, style: str = "words") -> str:
    """Word a number of people: ``two people``, ``between two and three people``.

    A bin without an upper end is "more than ``low``", although it includes ``low``: the published
    weights were trained with this wording. The published code has no wording for a range such as 2
    to 3; this one is ours.
    """
    number = number_in_words if style == "words" else str
    if high is None:
        return f"more than {number(low)} people"
    if low != high:
        return f"between {number(low)} and {number(high)} people"
    if low == 0 and style == "words":
        return "no person"
    return f"{number(low)} {'person' if low < 2 else 'people'}"


def number_in_words(number: int) -> str:
    """Spell a number: ``twenty-one``; up to ninety-nine, round hundreds below 1000, and 1000.

    Other numbers stay in digits.
    """
    if 0 <= number < 20:
        return _SMALL[number]
    if 20 <= number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")
    if number % 100 == 0 and 100 <= number < 1000:
        return f"{_SMALL[number // 100]} hundred"
    return "one thousand" if number == 1000 else str(number)

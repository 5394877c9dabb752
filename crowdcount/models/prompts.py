"""A bin -> the sentence that says so many people are there."""

STYLES = ("words", "digits")

# fmt: off
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on


def prompt(low: int, high: int | None, *, style: str = "words") -> str:
    """The sentence for a bin, worded as in the published code.

    Args:
        low: Smallest head count of the bin.
        high: Largest head count of the bin, itself included; None: no upper end. The sentence of
            such a bin says "more than ``low``", although ``low`` itself belongs to it: this is
            the published wording, and the published weights have learnt it.
        style: ``words`` or ``digits``.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281. The published code has no sentence
        for a range such as 2 to 3; this one is ours.
    """
    number = number_in_words if style == "words" else str
    if high is None:
        return f"There are more than {number(low)} people."
    if low != high:
        return f"There are between {number(low)} and {number(high)} people."
    if low == 0 and style == "words":
        return "There is no person."
    return f"There {'is' if low < 2 else 'are'} {number(low)} {'person' if low < 2 else 'people'}."


def occupied_prompt(*, style: str = "words") -> str:
    """The sentence that stands against an empty block: somebody is there. The wording is ours."""
    return f"There is at least {number_in_words(1) if style == 'words' else 1} person."


def number_in_words(number: int) -> str:
    """``twenty-one`` for 21: up to ninety-nine, round hundreds below 1000, and one thousand.

    Any other number stays in digits, which CLIP reads as well as it reads long words.
    """
    if 0 <= number < 20:
        return _SMALL[number]
    if 20 <= number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")
    if number % 100 == 0 and 100 <= number < 1000:
        return f"{_SMALL[number // 100]} hundred"
    return "one thousand" if number == 1000 else str(number)

"""Pieces of messages for people: suggestions, lists, natural order, durations."""

import difflib
import re
from collections.abc import Iterable, Sequence


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ``; did you mean 'count'?`` for the choice closest to ``name``, else nothing."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shorten(names: Sequence[str], *, show: int = 5) -> str:
    """Join the first names of a list and say how many more there are."""
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return ", ".join(names[:show]) + more


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 head``, ``1,200 heads``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def number_key(digits: str) -> tuple[int, str]:
    """Return a key that sorts runs of digits by value; ``int`` would refuse long ones."""
    significant = digits.lstrip("0")
    return len(significant), significant


def natural_key(name: str) -> list[tuple[bool, tuple[int, str], str]]:
    """Return a key that sorts ``IMG_9`` before ``IMG_10``, and numbers before other text."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", name)
    # The digits themselves come last, so that the order of 01 and 1 is fixed.
    return [(not digits, number_key(digits), digits or text) for digits, text in parts]


def one_line(text: str) -> str:
    """Escape line ends, so that the name of a file cannot fake a line of output."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def duration(seconds: float) -> str:
    """Write a time as ``3 d 4 h``, ``4 h 12 min``, ``12 min`` or ``40 s``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

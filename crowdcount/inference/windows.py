"""Where windows go along a side."""


def window_starts(length: int, *, window: int, stride: int) -> list[int]:
    """Place windows along a side so that together they cover all of it.

    Windows advance by ``stride``; the last is pulled back to end at the border. Starts are
    multiples of whatever divides all three numbers.

    Args:
        length: Length of the side, at least that of one window.
        window: Length of a window.
        stride: Distance from one window to the next, no longer than a window.

    Raises:
        ValueError: If no window fits, or the stride would leave gaps.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"the stride must be 1 to the window, {window}, got {stride}")
    if length < window:
        raise ValueError(f"a window of {window} does not fit into {length}; pad to one window")
    last = length - window
    return [*range(0, last, stride), last]

"""How large an input may be before it is refused."""

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded: above the largest sensors of cameras."""

MAX_SIDE = 1_000_000
"""No setting of a size asks for more pixels in a row."""

MAX_BLOCK = 1024
"""No block of which the heads are counted has a longer side, in pixels."""

MAX_COUNT = 2**24
"""Above it float32, in which models count, no longer tells one head from the next."""

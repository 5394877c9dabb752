"""How large an input may be before it is refused."""

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded: above the largest sensors of cameras."""

"""Upper limits of inputs and settings."""

MAX_PIXELS = 200_000_000
"""Largest image that is decoded, more than the largest sensors of cameras have."""

MAX_SIDE = 1_000_000
"""Largest setting of a size, in pixels."""

MAX_BLOCK = 1024
"""Largest block side in pixels."""

MAX_COUNT = 2**24
"""Largest count. Above it float32, in which models count, cannot represent every integer."""

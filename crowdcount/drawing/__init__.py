"""Numbers and points -> pictures as PNG bytes, the same bytes for the same input."""

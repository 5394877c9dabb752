"""Numbers -> pictures: charts as PNG bytes, the same bytes for the same numbers."""

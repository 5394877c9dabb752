"""Rendered crowds with exact head points, for the demo and the tests."""

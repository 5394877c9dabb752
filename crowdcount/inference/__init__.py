"""Whole images through a model: sizes, windows and counts."""

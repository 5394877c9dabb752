"""Whole images through a model: sizes, counts and what is drawn of them."""

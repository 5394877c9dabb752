"""Counting whole images: working size and sliding windows."""

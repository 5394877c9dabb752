"""Data sets: sources as people bring them, prepared folders, and batches for training."""

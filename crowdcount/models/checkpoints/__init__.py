"""Checkpoints on disk and on the model hub: format, names, downloads, files of other programs."""

"""A training run on disk: folder and lock, checkpoints, log, TensorBoard events, resuming."""

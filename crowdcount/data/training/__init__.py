"""Training data: augmented crops, batches, cached samples."""

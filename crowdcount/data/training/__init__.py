"""What a network sees in training: crops, batches, cached samples."""

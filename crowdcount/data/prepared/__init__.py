"""What is kept: prepared data sets on disk."""

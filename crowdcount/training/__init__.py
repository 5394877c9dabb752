"""The loop, told what to run."""

"""Raw archive to prepared folder to batches."""

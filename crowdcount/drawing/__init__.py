"""Pictures of numbers and points, the same bytes for the same input."""

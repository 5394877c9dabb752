"""Changes to a trained model that make counting faster."""

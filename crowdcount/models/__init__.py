"""Images to block predictions: the networks, their weights and their checkpoints."""

"""The terms of the training loss: block predictions against block targets."""

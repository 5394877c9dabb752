"""Count people in photographs of crowds, and train the models that do it."""

__version__ = "0.1.0"

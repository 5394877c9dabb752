"""Block predictions against block targets: the terms that training minimises."""

"""The vocabulary of crowd counting: types and pure functions, without files or network."""

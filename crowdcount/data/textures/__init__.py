"""Pictures of what is no person, kind by kind."""

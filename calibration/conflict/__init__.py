"""When the model does not describe a tower: what conflicts, what could be reached at best, and what would change it."""

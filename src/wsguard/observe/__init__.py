"""Floor 2: what the operator sees."""

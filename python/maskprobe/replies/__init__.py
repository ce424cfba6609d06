"""What a model's text holds: reasoning, an answer, and calls of tools."""

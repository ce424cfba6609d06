"""Messages as prompts, and answers to them."""

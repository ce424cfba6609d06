"""One generation: sampling, the prompt loop, text, and the object's life around it."""

"""Endpoints that llama-server has beside OpenAI's."""

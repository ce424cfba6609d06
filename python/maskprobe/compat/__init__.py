"""The methods and dictionaries of llama-cpp-python and the OpenAI API."""

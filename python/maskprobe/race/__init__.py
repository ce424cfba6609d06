"""The same prompts answered twice, by stock llama.cpp and by maskprobe, for people to watch."""

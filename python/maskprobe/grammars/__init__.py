"""What an answer must look like: GBNF and JSON schemas as a sampler."""

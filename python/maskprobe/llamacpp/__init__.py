"""The llama.cpp of the installed llama-cpp-python: functions, models, vocabularies, devices, log. Knows no drafts."""

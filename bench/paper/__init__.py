"""The paper measured again: its tables and its figure 2. [ESP]"""

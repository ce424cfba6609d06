"""How replies are written: grammars of calls, by their format and the schemas of their arguments."""

"""Texts that formats for data escape, or forget to."""

STRANGE = [
    "a\nb",
    'say "hi"',
    "back\\slash",
    "tab\there",
    "😀",
    "\u0000",
    "\u2028",
    "é",
    "/",
    "",
    "'",
    "\\u0041",
    "\x7f",
]

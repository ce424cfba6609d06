"""``python -m maskprobe`` is ``maskprobe``."""

from .cli import main

main()

"""``python -m maskprobe.cli`` is ``maskprobe``."""

from . import main

main()

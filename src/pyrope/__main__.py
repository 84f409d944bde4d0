"""``python -m pyrope`` is ``pyrope``."""

from pyrope.cli import main

main()

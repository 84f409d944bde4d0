"""``python -m pyrope.commands`` prints the command reference."""

from pyrope.commands.reference import main

main()

"""``python -m qtorch`` is the command line."""

from qtorch.cli import main

main()

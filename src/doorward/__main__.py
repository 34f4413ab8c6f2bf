"""``python -m doorward``."""

from doorward.cli.app import main

main()

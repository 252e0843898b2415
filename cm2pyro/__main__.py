"""`python -m cm2pyro`."""

from cm2pyro.cli import main

main()

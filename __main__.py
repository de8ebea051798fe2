"""`python -m edgesmith` is the `edgesmith` command."""

from .cli import main

main()

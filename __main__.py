"""`python -m edgesmith` is the `edgesmith` command."""

from .runtime.common.child_process import forget_working_directory

forget_working_directory()

from .cli import main  # noqa: E402  what it imports must not come from the working directory

main()

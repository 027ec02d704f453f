"""`python -m driftloop`: the same as the `driftloop` command."""

from .cli import main

if __name__ == "__main__":
    main()

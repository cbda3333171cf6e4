"""``python -m palette`` is the command ``palette``."""

from palette.cli import main

if __name__ == "__main__":
    main()

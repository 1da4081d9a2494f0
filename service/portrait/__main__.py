"""`python -m portrait` is the command `portrait`."""

import sys

from portrait.cli import main

if __name__ == "__main__":
    sys.exit(main())

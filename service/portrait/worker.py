"""`python -m portrait.worker`: the former name of `portrait.workers.main`, kept for one release."""

import sys

from portrait.workers.main import main

if __name__ == "__main__":
    sys.exit(main())

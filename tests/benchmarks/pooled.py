"""The service that keeps so many idle segmenters for stills: `python -m tests.benchmarks.pooled 0 serve ...`."""

import sys
from functools import partial

from portrait.cli import main
from portrait.core.segmenters.pool import SegmenterPool
from portrait.sessions import registry

if __name__ == "__main__":
    registry.SegmenterPool = partial(SegmenterPool, idle=int(sys.argv[1]))  # type: ignore[assignment, misc]
    sys.exit(main(sys.argv[2:]))

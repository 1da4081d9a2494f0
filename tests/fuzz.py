"""`python -m tests.fuzz NAME`: look for bytes that a target of tests/targets.py cannot bear, led by what they reach.

libFuzzer, by way of Atheris, keeps what reaches new code. An input that raises anything but a refusal, or takes too
much time or memory, ends the search with status 77 and is written down: put it into tests/corpus/NAME.
"""

import argparse
import logging
import platform
import sys
from pathlib import Path

INSTRUMENTED = [
    "portrait",
    "aiortc.codecs",
    "aiortc.rtcsctptransport",
    "aiortc.rtp",
    "aiortc.sdp",
    "aiohttp.multipart",
    "aiohttp.helpers",
    "tomllib",
    "jwt",
    "PIL",
    "tests.targets",
]
"""What is Python and reads the bytes; NumPy, FFmpeg and OpenCV are native, and are looked at from outside."""

HAS_WHEEL = platform.machine() == "x86_64" and sys.version_info < (3, 14)
"""Where the extra `fuzz` of pyproject.toml has Atheris."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(".fuzz"), help="folder of what is found")
    parsed = parser.parse_args()
    if parsed.list:
        from tests.targets import TARGETS

        print(*TARGETS, sep="\n")
        return 0
    try:
        import atheris
    except ImportError:
        if HAS_WHEEL:
            parser.error("Atheris is not installed: run make .venv/fuzz")
        print("Atheris has no wheel for this machine: only tests/test_corpus.py searches")
        return 0
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.targets import CORPUS, TARGETS, model
    logging.disable()
    model()  # loaded before the first input is looked at
    target, kept = TARGETS[parsed.name], parsed.keep / parsed.name
    kept.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={parsed.seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=65536"]
    options = [f"-seed={parsed.seed}", f"-artifact_prefix={kept}-", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, *options, str(kept), str(CORPUS / parsed.name)], target.takes)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

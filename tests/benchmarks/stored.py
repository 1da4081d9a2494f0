"""Where figures are kept: `results/NAME.json`, one file per benchmark, with the machine and the day it was run on."""

import argparse
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """`--json [FILE]`: keep the figures, in `results/NAME.json` unless told otherwise."""
    default = RESULTS / f"{name}.json"
    parser.add_argument("--json", type=Path, nargs="?", const=default, help=f"write here (default {default.name})")


def report(figures: Mapping[str, Any], file: Path | None) -> None:
    """Print the figures, and keep them where a file is given."""
    from training.speed import machine  # not before: it brings NumPy, and the launcher's benchmark measures just that

    found = {"machine": machine() | {"python": platform.python_version()}, **figures}
    text = json.dumps(found, indent=1, default=float)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    print(text)

"""What a 720p frame costs here and at MediaPipe: `python -m tests.benchmarks.frame [--json FILE]`.

Both in processes of their own, called in turns within one run; CPU of the whole process, threads included. MediaPipe
gets its frames as RGB, as it wants them, and pays for no conversion; ours come as I420. `make .venv-mediapipe/ready`
first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portrait.workers.environment import missing_variables
from tests import people
from tests.benchmarks.stored import add_option, report

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 1280, 720

OURS = ("mask", "blur", "color", "image")
THEIRS = ("landscape-mask", "general-mask", "landscape-blend", "general-docs", "general-docsblur")

GOALS = [
    ("mask", "landscape-mask", 0.33),
    ("mask", "general-mask", 0.24),
    ("image", "landscape-blend", 0.33),
    ("image", "general-docs", 0.08),
    ("blur", "general-docsblur", 0.08),
]
"""(ours, theirs, the ratio wanted)"""


@dataclass
class Contestant:
    """A process that runs frames when told to."""

    process: subprocess.Popen[str]

    def run(self, name: str, count: int) -> list[float]:
        """CPU seconds of `count` frames by the way called `name`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(name, count, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()} at {name!r}")
        return list(json.loads(line))


@contextmanager
def started(*command: str, **environment: str) -> Iterator[Contestant]:
    """A contestant, ended at the end."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    ) as process:
        yield Contestant(process)
        process.terminate()


def measure(rounds: int, count: int) -> dict[str, float]:
    """Median CPU milliseconds per frame of every way."""
    shown = people.clip(WIDTH, HEIGHT, 8)
    times: dict[str, list[float]] = {name: [] for name in OURS + THEIRS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        frames = f"{folder}/frames.npy"
        np.save(frames, np.stack([picture[..., ::-1] for picture in shown.frames]))
        peer = str(ROOT / ".venv-mediapipe/bin/python")
        theirs = stack.enter_context(started(peer, "tests/benchmarks/mediapipe_peer.py", frames))
        ours = stack.enter_context(
            started(sys.executable, "-m", "tests.benchmarks.portrait_peer", frames, **missing_variables(os.environ))
        )
        for turn in range(rounds + 1):
            for name in times:
                found = (ours if name in OURS else theirs).run(name, count)
                if turn:  # the first turn fills caches and buffers
                    times[name] += found
    return {name: round(1000 * float(np.median(found)), 3) for name, found in times.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--frames", type=int, default=20, help="of each way in each round")
    add_option(parser, "frame")
    arguments = parser.parse_args()
    times = measure(arguments.rounds, arguments.frames)
    ratios = [
        {"ours": ours, "theirs": theirs, "ratio": round(times[ours] / times[theirs], 3), "goal": goal}
        for ours, theirs, goal in GOALS
    ]
    report({"cpu_ms": times, "ratios": ratios}, arguments.json)


if __name__ == "__main__":
    main()

"""Every benchmark against the peers, one after the other: `python -m tests.benchmarks [NAME ...]`, by `make bench`.

Each keeps its figures in `results/`; then docs/develop/benchmarks.md has its tables and plots made anew. Nothing else
may run on the machine. All of them take an hour, of which `box-overload` takes a quarter.
"""

import argparse
import subprocess
import sys
import time

from tests.benchmarks import docs

BENCHMARKS = {
    "frame": ("frame",),
    "network": ("network",),
    "results": ("results",),
    "talking": ("talking",),
    "viewers": ("viewers",),
    "packets": ("packets",),
    "stills": ("stills",),
    "latency": ("latency",),
    "streams": ("streams",),
    "slow": ("slow",),
    "bombs": ("bombs",),
    "ports": ("ports",),
    "forged": ("forged",),
    "launcher": ("launcher",),
    "box-scaling": ("box", "scaling"),
    "box-linear": ("box", "linear"),
    "box-overload": ("box", "overload"),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; default: all")
    names = parser.parse_args().names or [*BENCHMARKS]
    if unknown := set(names) - BENCHMARKS.keys():
        parser.error(f"{', '.join(sorted(unknown))} came; expected some of {', '.join(BENCHMARKS)}")
    failed = []
    for name in names:
        module, *arguments = BENCHMARKS[name]
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", f"tests.benchmarks.{module}", *arguments, "--json"], check=False)
        print(
            f"{name}: {'done' if not done.returncode else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True
        )
        failed += [name] * bool(done.returncode)
    docs.write()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

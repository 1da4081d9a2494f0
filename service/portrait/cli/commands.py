"""The commands that load the native libraries, besides process: bench, doctor, models. Their flags are in cli.py."""

import argparse
import asyncio
import dataclasses
import json
import sys
from typing import Any

from portrait.bench import box as load
from portrait.bench import report as levels
from portrait.bench.frame import bench, table
from portrait.core.segmenters import load_models
from portrait.doctor import examine
from portrait.errors import BadOption
from portrait.settings import Settings


def measure(parsed: argparse.Namespace, settings: Settings) -> int:
    """What a frame costs on this box, and what a box of streams does; the exit status."""
    if parsed.plot and not parsed.load:
        raise BadOption("plot", f"{parsed.plot} came without a load to draw; expected --load beside it")
    if parsed.streams or parsed.load:
        return asyncio.run(_measure_box(parsed, settings))
    model = load_models(settings.model, settings.runtime).pick(None)
    rows = list(bench(model, parsed.frames))
    print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) if parsed.json else table(rows))
    return 0


async def _measure_box(parsed: argparse.Namespace, settings: Settings) -> int:
    arguments = ["--model", settings.model, "--runtime", settings.runtime, "--workers", str(settings.workers)]
    arguments += ["--max-sessions", str(settings.max_sessions), *(["--pin-workers"] if settings.pin_workers else [])]
    document: dict[str, list[dict[str, Any]]] = {}
    if parsed.streams:
        found = [level async for level in load.measure_kinds(arguments, parsed.seconds)]
        document["streams"] = [level.as_document() for level in found]
        if not parsed.json:
            print(levels.table(found))
    if parsed.load:
        kind = levels.Kind(*parsed.load.split(","))
        limits = ["--cpu-share", str(settings.cpu_share), "--quality-steps", str(settings.quality_steps)]
        found = [level async for level in load.measure_load([*arguments, *limits], kind, parsed.seconds)]
        document["load"] = [level.as_document() for level in found]
        if not parsed.json:
            print(levels.table(found))
        if parsed.plot and not levels.plot(found, parsed.plot):
            print("portrait: no plot: matplotlib is not installed", file=sys.stderr)
    if parsed.json:
        print(json.dumps(document, indent=2))
    return 0


def doctor(parsed: argparse.Namespace, settings: Settings) -> int:
    """Whether this box can serve; the exit status."""
    checks = []
    for check in examine(settings):
        checks.append(check)
        if not parsed.json:  # one by one: a silent server is waited for
            mark = "ok  " if check.ok else ("FAIL" if check.fatal else "note")
            print(f"{mark} {check.name:<24} {check.finding}", flush=True)
    if parsed.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    return 0 if all(check.ok or not check.fatal for check in checks) else 1


def models(parsed: argparse.Namespace, settings: Settings) -> int:
    """The models, listed."""
    models = load_models(settings.model, settings.runtime)
    rows = [
        {"name": model.name, "path": model.path, "default": model.name == models.default, "width": model.width,
         "height": model.height, "stateful": model.stateful, "runtime": model.runtime}
        for model in models.by_name.values()
    ]  # fmt: skip
    if parsed.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            mark = "*" if row["default"] else " "
            print(f"{mark} {row['name']:<20} {row['width']}x{row['height']}  {row['path']}")
    return 0

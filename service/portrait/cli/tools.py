"""The commands that look at a box: bench, doctor, models. They load the native libraries."""

import argparse
import asyncio
import dataclasses
import json
import sys
from typing import Any

from portrait.bench import box
from portrait.bench import frame as frames
from portrait.bench.report import Kind, table
from portrait.core.segmenters import choose_models
from portrait.core.segmenters.catalog import PUBLISHED
from portrait.doctor import examine
from portrait.errors import BadOption
from portrait.server.calibration import load_costs
from portrait.server.model_fetch import fetch
from portrait.settings import Settings


def bench(parsed: argparse.Namespace, settings: Settings) -> int:
    """Print what a frame costs on this box, or what a box of streams does; returns the exit status."""
    if parsed.streams or parsed.load:
        return asyncio.run(_bench_box(parsed, settings))
    model = choose_models(settings).pick(None)
    rows = list(frames.bench(model, parsed.frames))
    print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) if parsed.json else frames.table(rows))
    return 0


async def _bench_box(parsed: argparse.Namespace, settings: Settings) -> int:
    arguments = ["--model", settings.model, "--runtime", settings.runtime, "--workers", str(settings.workers)]
    arguments += [f"--model-low={settings.model_low}", f"--model-person={settings.model_person}"]
    arguments += ["--model-logits"] if settings.model_logits else []
    arguments += ["--max-sessions", str(settings.max_sessions), *(["--pin-workers"] if settings.pin_workers else [])]
    document: dict[str, list[dict[str, Any]]] = {}
    if parsed.streams:
        levels = [level async for level in box.measure_kinds(arguments, parsed.seconds)]
        document["streams"] = [level.as_document() for level in levels]
        if not parsed.json:
            print(table(levels))
    if parsed.load:
        kind = Kind(*parsed.load.split(","))
        limits = ["--cpu-share", str(settings.cpu_share), "--quality-steps", str(settings.quality_steps)]
        levels = [level async for level in box.measure_load([*arguments, *limits], kind, parsed.seconds)]
        document["load"] = [level.as_document() for level in levels]
        if not parsed.json:
            print(table(levels))
    if parsed.json:
        print(json.dumps(document, indent=2))
    return 0


def doctor(parsed: argparse.Namespace, settings: Settings) -> int:
    """Print whether this box can serve; returns the exit status."""
    checks = []
    for check in examine(settings):
        checks.append(check)
        if not parsed.json:  # one by one, since a STUN or TURN server that does not answer takes seconds
            mark = "ok  " if check.ok else ("FAIL" if check.fatal else "note")
            print(f"{mark} {check.name:<24} {check.finding}", flush=True)
    if parsed.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    return 0 if all(check.ok or not check.fatal for check in checks) else 1


def models(parsed: argparse.Namespace, settings: Settings) -> int:
    """Print the models, or fetch one; returns the exit status."""
    if parsed.action == "fetch":
        return _fetch(parsed, settings)
    found = choose_models(settings)
    costs = load_costs(found, store=False)  # the user who looks may not be the one that serves
    rows = [
        {"name": model.name, "path": model.path, "default": model.name == found.default,
         "still_default": model.name == found.pick_still(None).name, "width": model.width, "height": model.height,
         "stateful": model.stateful, "runtime": model.runtime,
         "milliseconds": round(costs.milliseconds(model.name) or 0.0, 2)}
        for model in found.by_name.values()
    ]  # fmt: skip
    if parsed.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            mark = "*" if row["default"] else "+" if row["still_default"] else " "
            print(
                f"{mark} {row['name']:<20} {row['width']}x{row['height']}  {row['milliseconds']:6.2f} ms  {row['path']}"
            )
        print("milliseconds of CPU for a frame of 640x480 on this processor", file=sys.stderr)
        print(
            "* streams, + stills and files" if found.still is not None else "* streams, stills and files",
            file=sys.stderr,
        )
    return 0


def _fetch(parsed: argparse.Namespace, settings: Settings) -> int:
    if parsed.name is None:
        raise BadOption("NAME", f"got none, expected one of {sorted(PUBLISHED)}")
    model, is_new = fetch(parsed.name, settings.model_registry, settings.models_folder)
    place = model.place(settings.models_folder)
    if parsed.json:
        told = {"name": model.name, "path": str(place), "bytes": model.size, "sha256": model.sha256, "fetched": is_new}
        print(json.dumps(told, indent=2))
    else:
        print(
            f"{place}: {'fetched and checked' if is_new else 'is there already'}, {model.size} bytes, {model.licence}"
        )
        print(f"use it by --model {model.name}")
    return 0

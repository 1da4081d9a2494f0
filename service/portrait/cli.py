"""The command `portrait`: serve, process, bench, doctor, models."""

import argparse
import asyncio
import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from portrait import __version__
from portrait.app import Running, run_service, wait_for_signal
from portrait.backgrounds import Backgrounds, load_background
from portrait.bench import bench, table
from portrait.client import Client, ClientError, Tls
from portrait.compositors import MODES, Options, open_compositor
from portrait.doctor import examine
from portrait.errors import PortraitError
from portrait.launch import relaunch_tuned
from portrait.logs import configure_logs, log_event
from portrait.segmenters import load_models
from portrait.settings import Settings, load_settings
from portrait.transports.files import Job, Work, is_done, local_work, plan, remote_work, run

logger = logging.getLogger(__name__)

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except (PortraitError, ClientError) as error:
        print(f"portrait: {error}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        print(f"portrait: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="portrait", description="Real-time person segmentation on ordinary CPUs.")
    parser.add_argument("--version", action="version", version=f"portrait {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="print JSON, for programs")
        _add_settings(sub)
        return sub

    add("serve", _serve, "Serve WebRTC, gRPC, stills and the page until SIGTERM.")
    process = add("process", _process, "Process pictures and videos: files, folders, pipes, cameras.")
    process.add_argument("sources", nargs="+", metavar="IN", help="files, folders, - or one camera or address")
    process.add_argument("target", metavar="OUT", help="a file, a folder for several results, - or an address")
    process.add_argument("--mode", default="blur", choices=list(MODES))
    process.add_argument("--color", default=Options().color, help="background of mode color, #rrggbb")
    process.add_argument("--background", help="background of mode image: a name or a picture file")
    process.add_argument("--resume", action="store_true", help="leave results that are there already as they are")
    process.add_argument("--server", metavar="HOST:PORT", help="let a running service do the work, over gRPC")
    process.add_argument("--server-token", metavar="FILE", type=Path, help="file of the token that service asks for")
    process.add_argument("--server-ca", metavar="FILE", type=Path, help="PEM file to trust that service by: TLS")
    bench_command = add("bench", _bench, "Measure what a frame costs on this box.")
    bench_command.add_argument("--frames", type=int, default=200, help="frames per row")
    add("doctor", _doctor, "Look whether this box can serve.")
    add("models", _models, "List the models.")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """One flag per setting; the environment and the file come after them."""
    group = parser.add_argument_group("settings", "also PORTRAIT_NAME in the environment, or name = value in a file")
    group.add_argument("--config", metavar="FILE", help="settings file (TOML)")
    for name, setting in Settings.model_fields.items():
        text = f"{setting.description} (default: {setting.default})"
        flag = f"--{name.replace('_', '-')}"
        if setting.annotation is bool:
            group.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(flag, dest=name, metavar="VALUE", help=text)


def _settings(parsed: argparse.Namespace) -> Settings:
    return load_settings(vars(parsed))


def _serve(parsed: argparse.Namespace) -> int:
    settings = _settings(parsed)
    relaunch_tuned()
    configure_logs(settings.log_level, settings.log_format)
    log_event(logger, logging.INFO, "settings", **settings.model_dump(mode="json"))
    asyncio.run(_serve_until_signal(settings, parsed.json))
    return 0


async def _serve_until_signal(settings: Settings, as_json: bool) -> None:
    async with run_service(settings) as running:
        _announce(running, as_json)
        await wait_for_signal()


def _announce(running: Running, as_json: bool) -> None:
    host = running.settings.host
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if running.settings.encrypted else "http"
    page, grpc_address = f"{scheme}://{shown}:{running.http_port}/", f"{shown}:{running.grpc_port}"
    if as_json:
        document = {"page": page, "grpc": grpc_address, "model": running.models.default}
        print(json.dumps(document), flush=True)
    else:
        print(f"page {page}   gRPC {grpc_address}   model {running.models.default}", flush=True)


def _process(parsed: argparse.Namespace) -> int:
    settings = _settings(parsed)
    jobs = plan(parsed.sources, parsed.target, parsed.mode)
    opening = _opening(parsed, settings)
    # Standard output may carry pictures.
    report = sys.stderr if parsed.target == "-" else sys.stdout
    if len(jobs) == 1 and not Path(parsed.sources[0]).is_dir():
        row = _run_job(jobs[0], opening, parsed)
        if parsed.json:
            print(json.dumps({"frames": row["frames"], "out": row["out"]}), file=report)
        return 0
    rows = []
    for job in jobs:
        try:
            rows.append(_run_job(job, opening, parsed))
        except (PortraitError, ClientError) as error:  # one bad file of many costs itself only
            print(f"portrait: {job.source}: {error}", file=sys.stderr)
            rows.append({"in": job.source, "out": job.target, "frames": 0, "error": str(error)})
    if parsed.json:
        print(json.dumps({"frames": sum(row["frames"] for row in rows), "out": parsed.target, "files": rows}))
    return 1 if any("error" in row for row in rows) else 0


def _run_job(
    job: Job, opening: Callable[[], AbstractContextManager[Work]], parsed: argparse.Namespace
) -> dict[str, Any]:
    row: dict[str, Any] = {"in": job.source, "out": job.target}
    if parsed.resume and is_done(job):
        return row | {"frames": 0, "skipped": True}
    with tqdm(desc=Path(job.source).name, unit="frame", disable=parsed.json or job.still or None) as bar:

        def progress(done: int, expected: int) -> None:
            bar.total = max(done, expected)
            bar.update(done - bar.n)

        return row | {"frames": run(job, opening, progress)}


def _opening(parsed: argparse.Namespace, settings: Settings) -> Callable[[], AbstractContextManager[Work]]:
    """What opens the work of one job."""
    background = _read_background(parsed.background, settings)
    if parsed.server:
        output: dict[str, Any] = {"mode": parsed.mode, "color": parsed.color}
        if background is not None:
            output["background_picture"] = background
        token = parsed.server_token.read_text().strip() if parsed.server_token else None
        tls = Tls(parsed.server_ca.read_bytes()) if parsed.server_ca else None
        return lambda: remote_work(Client(parsed.server, token=token, tls=tls), parsed.model or "", **output)
    picture = None if background is None else load_background(background)
    options = Options(parsed.mode, parsed.color, picture)
    open_compositor(options)  # a mode that lacks something is refused before anything is opened
    model = load_models(settings.model, settings.runtime).pick(None)
    return lambda: local_work(model, options)


def _read_background(name: str | None, settings: Settings) -> bytes | None:
    if name is None:
        return None
    path = Path(name)
    return (path if path.is_file() else Backgrounds(settings.backgrounds).path(name)).read_bytes()


def _bench(parsed: argparse.Namespace) -> int:
    settings = _settings(parsed)
    model = load_models(settings.model, settings.runtime).pick(None)
    rows = list(bench(model, parsed.frames))
    print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) if parsed.json else table(rows))
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    checks = list(examine(_settings(parsed)))
    if parsed.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        for check in checks:
            mark = "ok  " if check.ok else ("FAIL" if check.fatal else "note")
            print(f"{mark} {check.name:<24} {check.finding}")
    return 0 if all(check.ok or not check.fatal for check in checks) else 1


def _models(parsed: argparse.Namespace) -> int:
    settings = _settings(parsed)
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

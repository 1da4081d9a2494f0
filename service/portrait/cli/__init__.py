"""The command `portrait`: serve, process, bench, doctor, models."""

import argparse
import asyncio
import importlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TypeAlias

from portrait import __version__
from portrait.admission.cgroup import cpu_budget
from portrait.errors import BadSettings, PortraitError
from portrait.logs import configure_logs, give_up_unwritten, log_event
from portrait.server.signals import RELOAD, REPLACE, answer_signals, catch_signals
from portrait.settings import Settings, load_settings
from portrait.workers.environment import default_workers, relaunch_tuned
from portrait.workers.supervisor import WorkerFailed, run_workers

Command: TypeAlias = Callable[[argparse.Namespace, Settings], int]

logger = logging.getLogger(__name__)

USAGE_ERROR = 2

OUTPUT_CLOSED = 141
"""What a shell shows for a command that SIGPIPE ended."""

BENCH_MODES = ("mask only", "composite")

LONGEST_SECONDS = 86_400.0
"""Of one row of a benchmark."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    if arguments is None:  # the command line is this process's own
        relaunch_tuned()
    parsed = _parser().parse_args(arguments)
    command: Command = parsed.command
    try:
        status = command(parsed, load_settings(vars(parsed)))
        if sys.stdout is not None:  # closed by whoever started the command (`>&-`)
            sys.stdout.flush()
        return status
    except PortraitError as error:
        print(f"portrait: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # who read the output wants no more of it (`| head`)
        return OUTPUT_CLOSED
    except OSError as error:
        print(f"portrait: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        give_up_unwritten()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="portrait", description="Real-time person segmentation on ordinary CPUs.")
    parser.add_argument("--version", action="version", version=f"portrait {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str, operands: str = "") -> argparse.ArgumentParser:
        # Of one line: with every setting's flag in it the usage would push what is wrong off the screen.
        usage = f"%(prog)s [OPTIONS] {operands}".rstrip()
        sub = commands.add_parser(name, help=text, description=text, usage=usage)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="print JSON, for programs")
        _add_settings(sub)
        return sub

    add("serve", _serve, "Serve WebRTC, gRPC, stills and the page until SIGTERM.")
    process_text = "Process pictures and videos: files, folders, pipes, cameras."
    process = add("process", _later("process", "process"), process_text, "IN [IN ...] OUT")
    process.add_argument("sources", nargs="+", metavar="IN", help="files, folders, cameras, addresses, or - alone")
    process.add_argument("target", metavar="OUT", help="a file, a folder for several results, - or an address")
    process.add_argument("--jobs", type=_count, help="how many of several IN at once (default: one per core)")
    process.add_argument("--mode", default="blur", help="mask, alpha, blur, color, image or cutout (default: blur)")
    process.add_argument("--color", help="background of mode color, #rrggbb (default: #00b140)")
    process.add_argument("--background", help="background of mode image: a name, or a picture or film (.mp4, .webm)")
    process.add_argument("--threshold", type=float, help="probability at which a pixel is half the person's (0.5)")
    process.add_argument("--feather", type=float, help="how far around it edges are soft (default: 0.25)")
    process.add_argument("--framing", action="store_true", help="show the part of the picture where the person is")
    process.add_argument("--decontaminate", action="store_true", help="free the person's edge of the old room's colour")
    process.add_argument("--resume", action="store_true", help="leave results that are there already as they are")
    process.add_argument("--server", metavar="HOST:PORT", help="let a running service do the work, over gRPC")
    process.add_argument("--server-token", metavar="FILE", type=Path, help="file of the token that service asks for")
    process.add_argument("--server-ca", metavar="FILE", type=Path, help="PEM file to trust that service by: TLS")
    bench_command = add("bench", _later("measure"), "Measure what a frame costs on this box.")
    bench_command.add_argument("--frames", type=_count, default=200, help="frames per row")
    bench_command.add_argument(
        "--streams", action="store_true", help="measure a whole box: a stream of every size, mode and transport"
    )
    bench_command.add_argument(
        "--load", metavar="KIND", nargs="?", const="grpc,360p,mask only", type=_kind,
        help="load a whole box up to refusal and beyond with streams of a kind (default: grpc,360p,mask only)",
    )  # fmt: skip
    bench_command.add_argument("--seconds", type=_seconds, default=5.0, help="how long each row of these is measured")
    bench_command.add_argument("--plot", metavar="FILE", help="draw that load as a picture; needs matplotlib")
    add("doctor", _later("doctor"), "Look whether this box can serve.")
    add("models", _later("models"), "List the models.")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} came; expected a number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) <= LONGEST_SECONDS:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} came; expected seconds, more than 0 and at most {LONGEST_SECONDS:g}")


def _kind(text: str) -> str:
    possible = [",".join(kind) for kind in product(("grpc", "webrtc"), ("360p", "480p", "720p"), BENCH_MODES)]
    if text not in possible:
        raise argparse.ArgumentTypeError(f"{text!r} came; expected one of {'; '.join(possible)}")
    return text


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


def _later(name: str, module: str = "commands") -> Command:
    """A command of a module beside this one, loaded when it runs: a supervisor has no use for what it brings along."""

    def run(parsed: argparse.Namespace, settings: Settings) -> int:
        command: Command = getattr(importlib.import_module(f"portrait.cli.{module}"), name)
        return command(parsed, settings)

    return run


def _serve(parsed: argparse.Namespace, settings: Settings) -> int:
    count = settings.workers or default_workers(cpu_budget())
    configure_logs(settings.log_level, settings.log_format)
    log_event(logger, logging.INFO, "settings", **settings.model_dump(mode="json"))

    def reread() -> Settings:
        changed = load_settings(vars(parsed))
        log_event(logger, logging.INFO, "settings", **changed.model_dump(mode="json"))
        return changed

    try:
        asyncio.run((_serve_alone if count == 1 else _serve_with_workers)(settings, count, parsed.json, reread))
    except WorkerFailed as error:
        return error.status if error.status > 0 else 1
    return 0


async def _serve_alone(settings: Settings, count: int, as_json: bool, reread: Callable[[], Settings]) -> None:
    from portrait.server.app import run_service  # with the libraries that a supervisor does not load

    stop = catch_signals()
    async with run_service(settings) as running:

        async def reload() -> None:
            await running.reload(reread())

        async def replace() -> None:
            raise BadSettings(f"{REPLACE.name}: there is one worker and nobody to start another; see PORTRAIT_WORKERS")

        def announce() -> None:
            _announce(settings, running.http_port, running.grpc_port, running.models.default, as_json)

        await answer_signals(stop, {RELOAD: reload, REPLACE: replace}, announce)


async def _serve_with_workers(settings: Settings, count: int, as_json: bool, reread: Callable[[], Settings]) -> None:
    stop = catch_signals()
    async with run_workers(settings, count) as box:

        async def reload() -> None:
            await box.fleet.reload(reread())

        async def replace() -> None:
            await box.fleet.replace(reread())

        def announce() -> None:
            _announce(settings, box.http_port, box.grpc_port, box.model, as_json)

        await answer_signals(stop, {RELOAD: reload, REPLACE: replace}, announce)


def _announce(settings: Settings, http_port: int, grpc_port: int, model: str, as_json: bool) -> None:
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.encrypted else "http"
    page, grpc_address = f"{scheme}://{shown}:{http_port}/", f"{shown}:{grpc_port}"
    if as_json:
        print(json.dumps({"page": page, "grpc": grpc_address, "model": model}), flush=True)
    else:
        print(f"page {page}   gRPC {grpc_address}   model {model}", flush=True)

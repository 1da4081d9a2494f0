"""The command `portrait`: parse a command line and call one function. Each command is a function of a module here."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from portrait import __version__
from portrait.errors import PortraitError
from portrait.logs import discard_unwritten
from portrait.settings import Settings, load_settings
from portrait.workers.environment import relaunch_tuned

Command: TypeAlias = Callable[[argparse.Namespace, Settings], int]

USAGE_ERROR = 2

OUTPUT_CLOSED = 141
"""The status of a command that SIGPIPE ended, as shells show it: 128 and the signal's number."""

BENCH_MODES = ("mask only", "composite")

LONGEST_SECONDS = 86_400.0
"""The most that one row of a benchmark may take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    if arguments is None:  # not called by a test: this process is the command's own
        relaunch_tuned()
    parsed = _parser().parse_args(arguments)
    command: Command = parsed.command
    try:
        status = command(parsed, load_settings(vars(parsed)))
        if sys.stdout is not None:  # closed by the shell (`>&-`)
            sys.stdout.flush()
        return status
    except PortraitError as error:
        print(f"portrait: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # the reader of the output has closed it (`| head`)
        return OUTPUT_CLOSED
    except OSError as error:
        print(f"portrait: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        discard_unwritten()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="portrait", description="Real-time person segmentation on ordinary CPUs.")
    parser.add_argument("--version", action="version", version=f"portrait {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str, operands: str = "") -> argparse.ArgumentParser:
        # One line: a usage with every setting's flag would push the error message off the screen.
        usage = f"%(prog)s [OPTIONS] {operands}".rstrip()
        sub = commands.add_parser(name, help=text, description=text, usage=usage)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="print JSON, for programs")
        _add_settings(sub)
        return sub

    add("serve", _later("serve"), "Serve WebRTC, gRPC, stills and the page until SIGTERM.")
    text = "Process pictures and videos: files, folders, pipes, cameras."
    _add_process_options(add("process", _later("process"), text, "IN [IN ...] OUT"))
    _add_bench_options(add("bench", _later("bench", "tools"), "Measure what a frame costs on this box."))
    add("doctor", _later("doctor", "tools"), "Check whether this box can serve.")
    fetching = add("models", _later("models", "tools"), "List the models, or fetch one.", "[fetch NAME]")
    fetching.add_argument("action", nargs="?", choices=("fetch",), help="download a model that is not in the package")
    fetching.add_argument("name", nargs="?", metavar="NAME", help="which one: max")
    return parser


def _add_process_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", metavar="IN", help="files, folders, cameras, addresses, or - alone")
    add("target", metavar="OUT", help="a file, a folder for several results, - or an address")
    add("--jobs", type=_count, help="how many of several IN at once (default: one per core)")
    modes = "mask, alpha, blur, color, image, cutout, silhouette, pixelate or blur-person (default: blur)"
    add("--mode", default="blur", help=modes)
    add("--color", help="background of mode color, or the silhouette, #rrggbb (default: #00b140)")
    add("--background", help="background of mode image: a name, or a picture or clip (.mp4, .webm)")
    add("--threshold", type=float, help="probability at which a pixel is half person (default: 0.5)")
    add("--feather", type=float, help="width of soft edges around that probability (default: 0.25)")
    add("--framing", action="store_true", help="crop the picture to the person")
    add("--decontaminate", action="store_true", help="remove the old background from the person's edge")
    add("--margin", type=float, help="how far the modes that hide the person reach beyond them (default: 0.03)")
    add("--people", default="all", help="which persons count: all, largest or nearest-centre (default: all)")
    add("--resume", action="store_true", help="keep results that exist already")
    add("--server", metavar="HOST:PORT", help="have a running service do the work, over gRPC")
    add("--server-token", metavar="FILE", type=Path, help="file with the token for that service")
    add("--server-ca", metavar="FILE", type=Path, help="PEM file to verify that service by: TLS")


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--frames", type=_count, default=200, help="frames per row")
    add("--streams", action="store_true", help="measure a whole box with one stream of each size, mode and transport")
    load = "load a whole box with streams of one kind until it refuses more (default: grpc,360p,mask only)"
    add("--load", metavar="KIND", nargs="?", const="grpc,360p,mask only", type=_kind, help=load)
    add("--seconds", type=_seconds, default=5.0, help="how long each row of these two is measured")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) <= LONGEST_SECONDS:
            return seconds
    raise argparse.ArgumentTypeError(f"got {text!r}, expected seconds above 0 and up to {LONGEST_SECONDS:g}")


def _kind(text: str) -> str:
    possible = [",".join(kind) for kind in product(("grpc", "webrtc"), ("360p", "480p", "720p"), BENCH_MODES)]
    if text not in possible:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected one of {'; '.join(possible)}")
    return text


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add one flag per setting; flags win over the environment and the file."""
    group = parser.add_argument_group("settings", "also PORTRAIT_NAME in the environment, or name = value in a file")
    group.add_argument("--config", metavar="FILE", help="settings file (TOML)")
    for name, setting in Settings.model_fields.items():
        text = f"{setting.description} (default: {setting.default})"
        flag = f"--{name.replace('_', '-')}"
        if setting.annotation is bool:
            group.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif name == "camera":
            text = "a camera; may be given several times. A shell keeps what is typed: passwords go into --cameras"
            group.add_argument(flag, dest=name, metavar="NAME=URL", action=_Joined, help=text)
        else:
            group.add_argument(flag, dest=name, metavar="VALUE", help=text)


class _Joined(argparse.Action):
    """Joins the values of a flag that is given several times by spaces, as its variable has them."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before} {values}" if before else values)


def _later(name: str, module: str = "") -> Command:
    """Return a command that imports its module when it runs: a supervisor must not load the others' libraries."""

    def run(parsed: argparse.Namespace, settings: Settings) -> int:
        command: Command = getattr(importlib.import_module(f"portrait.cli.{module or name}"), name)
        return command(parsed, settings)

    return run

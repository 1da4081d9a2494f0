"""`portrait process`: stills and videos, here or through a running service."""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cv2
from cryptography import x509
from tqdm import tqdm

from portrait.admission.cgroup import cpu_budget
from portrait.client import Client, ClientError, Tls
from portrait.core.compositors import Options, open_compositor
from portrait.core.segmenters import AUTO, Model, Models, choose_models
from portrait.errors import BadOption
from portrait.image.backgrounds import Backgrounds, load_background
from portrait.image.clip import Clip, is_clip, load_clip
from portrait.image.frame import Frame
from portrait.metrics import Metrics
from portrait.settings import Settings
from portrait.transports.files import (
    PIPE,
    Batch,
    Done,
    Job,
    Opening,
    Progress,
    Work,
    is_folder,
    keep_recordings,
    local_work,
    passed_over,
    plan,
    remote_still,
    remote_work,
    run,
    without_secrets,
)
from portrait.workers.environment import tune_interpreter

INTERRUPTED = 130
"""The exit status after an interrupt, as shells have it: 128 and the signal's number."""

MOST_NAMED = 5
"""Files that are named when some are passed over; more are counted."""


def process(parsed: argparse.Namespace, settings: Settings) -> int:
    """Process stills and videos, here or by a running service; the exit status."""
    try:
        with _terminated_as_interrupted():
            return _process(parsed, settings)
    except ClientError as error:
        print(f"portrait: {error}", file=sys.stderr)
        return 2


def _process(parsed: argparse.Namespace, settings: Settings) -> int:
    jobs = plan(parsed.sources, parsed.target, parsed.mode)
    if parsed.resume:
        jobs = keep_recordings(jobs)
    opening = _opening(parsed, settings)
    if len(jobs) == 1 and not is_folder(parsed.sources[0]):
        return _process_one(jobs[0], opening, parsed)
    return _process_all(jobs, opening, parsed)


def _process_one(job: Job, opening: Opening, parsed: argparse.Namespace) -> int:
    done = Done(0)
    if not (parsed.resume and job.done):
        with _bar(job, parsed) as progress:
            done = run(job, opening, progress)
    _tell(job.source, done.notes)
    if parsed.json:  # standard output may carry pictures
        told = {"frames": done.frames, "out": without_secrets(job.target)}
        told |= {"notes": list(done.notes)} if done.notes else {}
        print(json.dumps(told), file=sys.stderr if job.target == PIPE else sys.stdout)
    return 0


def _process_all(jobs: list[Job], opening: Opening, parsed: argparse.Namespace) -> int:
    tune_interpreter()
    cv2.setNumThreads(1)  # the jobs are the threads
    with tqdm(total=len(jobs), unit="file", disable=parsed.json or None) as files:

        @contextmanager
        def watching(job: Job) -> Iterator[Progress]:
            with _bar(job, parsed, leave=False) as progress:
                yield progress
            files.update()

        batch = Batch(opening, watching, at_once=parsed.jobs or max(1, int(cpu_budget())), resume=parsed.resume)
        outcomes = batch.run(jobs)
    for outcome in outcomes:
        _tell(outcome.job.source, [*outcome.notes, *([outcome.error] if outcome.error else [])])
    passed = passed_over(parsed.sources)
    if passed:
        more = f" and {len(passed) - MOST_NAMED} more" if len(passed) > MOST_NAMED else ""
        print(f"portrait: passed over, no still and no video: {', '.join(passed[:MOST_NAMED])}{more}", file=sys.stderr)
    if parsed.json:
        frames, rows = sum(outcome.frames for outcome in outcomes), [outcome.as_document() for outcome in outcomes]
        told: dict[str, Any] = {"frames": frames, "out": without_secrets(parsed.target), "files": rows}
        print(json.dumps(told | ({"passed_over": passed} if passed else {})))
    if any(outcome.interrupted for outcome in outcomes):
        return INTERRUPTED
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _tell(source: str, sentences: Iterable[str]) -> None:
    """Say what a user should know of a source."""
    name = without_secrets(source)
    for sentence in sentences:
        print(f"portrait: {sentence if name in sentence else f'{name}: {sentence}'}", file=sys.stderr)


@contextmanager
def _bar(job: Job, parsed: argparse.Namespace, leave: bool = True) -> Iterator[Progress]:
    name = Path(job.target if job.endless else job.source).name
    with tqdm(desc=name, unit="frame", leave=leave, disable=parsed.json or job.still or None) as bar:

        def progress(done: int, expected: int) -> None:
            bar.total = max(done, expected) or None
            bar.update(done - bar.n)

        yield progress


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, as service managers send it, end a recording whole, too."""
    if threading.current_thread() is not threading.main_thread():  # no signal comes there
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _client(parsed: argparse.Namespace) -> Client:
    """A client of the service that is to do the work."""
    token = _read_token(parsed.server_token) if parsed.server_token else None
    tls = Tls(_read_certificates(parsed.server_ca)) if parsed.server_ca else None
    try:
        return Client(parsed.server, token=token, tls=tls)
    except ValueError as error:
        raise BadOption("server", str(error)) from error


def _opening(parsed: argparse.Namespace, settings: Settings) -> Opening:
    """What opens the work of one job."""
    if parsed.server:
        asked = {name: getattr(parsed, name) for name in ("color", "threshold", "feather", "margin")}
        output = {name: value for name, value in asked.items() if value is not None}
        output |= {name: getattr(parsed, name) for name in ("mode", "framing", "decontaminate", "people")}
        output |= _sent_background(parsed.background)
        _client(parsed)  # so that what is wrong with it is said before any job begins
        model = "" if parsed.model in (None, AUTO) else parsed.model

        def opening(job: Job) -> AbstractContextManager[Work]:
            if job.still:
                return remote_still(_client(parsed), model, **output)
            return remote_work(_client(parsed), model, live=job.endless, **output)

        return opening
    defaults = Options()
    options = Options(
        parsed.mode,
        parsed.color or defaults.color,
        _read_background(parsed.background, settings),
        defaults.threshold if parsed.threshold is None else parsed.threshold,
        defaults.feather if parsed.feather is None else parsed.feather,
        parsed.framing,
        parsed.decontaminate,
        defaults.margin if parsed.margin is None else parsed.margin,
        parsed.people,
    )
    open_compositor(options)  # a mode that lacks something is refused before anything is opened
    models = choose_models(settings)
    metrics = Metrics()  # one for all files
    return lambda job: local_work(_pick(models, job), options, metrics)


def _pick(models: Models, job: Job) -> Model:
    if job.still:
        return models.pick_still(None)
    return models.pick_stream(None) if job.endless else models.pick_video()


def _read_token(path: Path) -> str:
    token = path.read_bytes().strip()
    if not token.isascii() or len(token.split()) != 1:  # what came is not repeated: it is a secret
        raise BadOption("server-token", f"{path} holds no token; expected one word of ASCII")
    return token.decode()


def _read_certificates(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise BadOption("server-ca", f"{path} holds no certificate; expected PEM") from error
    return data


def _read_background(name: str | None, settings: Settings) -> Frame | Clip | None:
    if name is None:
        return None
    path = Path(name)
    if not path.is_file():
        path = Backgrounds(settings.backgrounds).path(name)
    return load_clip(path) if is_clip(path) else load_background(path.read_bytes())


def _sent_background(name: str | None) -> dict[str, Any]:
    """A file as it is, or a name for the service to know."""
    if name is None or not (path := Path(name)).is_file():
        return {"background_name": name or ""}
    if is_clip(path):
        raise BadOption("background", f"{name} is a clip, which is not sent; expected a name that the service knows")
    return {"background_picture": path.read_bytes()}

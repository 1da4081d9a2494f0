"""The log: one line for each event of a session's life, with its id and the reason; none for a frame."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
from asyncio import timeout
from typing import Any

import aiohttp
import cv2
import pytest

from portrait.client import Client, ClientError, Picture
from portrait.errors import Idle, TooManySessions
from portrait.logs import JsonFormatter, TextFormatter, log_event, tell_failure
from portrait.metrics import Metrics
from portrait.sessions.registry import Sessions
from tests.boxes import ended, serving
from tests.calls import fake_service, jpeg
from tests.fakes import FakeModel, failing, full_mask, only
from tests.frames import GREEN, FrameCodec, make_frame
from tests.people import clip
from tests.snippets import ROOT, blocks
from tests.timing import at_most


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "portrait")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    """(event, fields) of every line of the service."""
    ours = [record for record in caplog.records if record.name.startswith("portrait.")]
    return [(record.getMessage(), getattr(record, "fields", {})) for record in ours]


@pytest.fixture
def record() -> logging.LogRecord:
    logger = logging.getLogger("portrait.test")
    caught: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = caught.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    log_event(logger, logging.WARNING, "session closed", session="a1b2c3", reason='it said "no"', frames_done=3)
    logger.removeHandler(handler)
    return caught[0]


def test_a_line_for_programs_has_the_fields_as_keys(record: logging.LogRecord) -> None:
    document = json.loads(JsonFormatter().format(record))
    assert document.pop("time")
    assert document == {
        "level": "warning",
        "logger": "portrait.test",
        "message": "session closed",
        "session": "a1b2c3",
        "reason": 'it said "no"',
        "frames_done": 3,
    }


def test_a_line_for_people_has_them_as_words(record: logging.LogRecord) -> None:
    line = TextFormatter().format(record)
    assert line.endswith(r'portrait.test: session closed session=a1b2c3 reason="it said \"no\"" frames_done=3')


async def test_a_task_that_nobody_awaits_says_what_it_has_died_of(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("injected")

    failing = asyncio.create_task(fail(), name="http-watch")
    cancelled = asyncio.create_task(asyncio.sleep(60), name="http-door")
    for task in (failing, cancelled):
        task.add_done_callback(tell_failure)
    cancelled.cancel()
    await asyncio.wait({failing, cancelled})
    await asyncio.sleep(0)
    ours = [record for record in caplog.records if record.name != "asyncio"]  # which warns of slow steps
    assert [record.getMessage() for record in ours] == ["http-watch has failed: injected"]
    assert "Traceback" in caplog.text


PAUSED = """
import asyncio, logging, sys, time
from portrait.logs import dropped_lines, log_event, logging_to_stderr

async def main(lines):
    worst = 0.0
    async def tick():
        nonlocal worst
        while True:
            due = time.monotonic() + 0.01
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - due)
    task = asyncio.create_task(tick())
    for number in range(lines):
        log_event(logging.getLogger("portrait.test"), logging.INFO, "session opened", number=number, mode="blur")
        if number % 10 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    print(worst, dropped_lines(), flush=True)
    sys.stdin.readline()

with logging_to_stderr("info", "json"):
    asyncio.run(main(int(sys.argv[1])))
"""


@pytest.mark.timing
def test_a_log_reader_that_pauses_does_not_stop_the_event_loop_and_what_is_dropped_is_counted() -> None:
    lines = 20_000
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSED, str(lines)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        told: list[str] = []
        waiting = threading.Thread(target=lambda: told.append(process.stdout.readline()))  # type: ignore[union-attr]
        waiting.start()
        waiting.join(60)
        assert told, "the loop waits for a reader of the log"
        worst, dropped = map(float, told[0].split())
        at_most("longest pause of the event loop, seconds", worst, 5)
        assert 0 < dropped < lines
        process.stdin.write("go on\n")
        _, log = process.communicate(timeout=60)  # reads again
    finally:
        process.kill()
        process.communicate()
    documents = [json.loads(line) for line in log.splitlines()]
    reports = [document for document in documents if "dropped" in document["message"]]
    assert sum(document["count"] for document in reports) == dropped
    assert len(documents) - len(reports) == lines - dropped


def test_the_last_lines_are_written_before_the_process_ends() -> None:
    code = """import logging
from portrait.logs import logging_to_stderr
with logging_to_stderr("info", "text"):
    for number in range(3000):
        logging.getLogger("portrait.test").error("line %d", number)
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=60, check=True)
    assert [line.rpartition(" ")[2] for line in done.stderr.splitlines()] == [str(number) for number in range(3000)]


def test_a_log_that_cannot_be_written_ends_no_process() -> None:
    for redirection in ("2>&-", "2>/dev/full"):
        code = """import logging
from portrait.logs import logging_to_stderr
with logging_to_stderr("info", "text"):
    logging.getLogger("portrait.test").error("lost")
print("done")
"""
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code],
            stdout=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == "done\n"


async def test_a_session_that_fails_says_so_once_and_not_once_per_frame(caplog: pytest.LogCaptureFixture) -> None:
    async with Sessions(only(FakeModel(failing)), 1, Metrics()).open("grpc", FrameCodec(), GREEN) as session:
        for _ in range(20):
            await session.process(make_frame(), 0.0)
    name = session.id[:6]
    assert told(caplog) == [
        ("session opened", {"session": name, "transport": "grpc", "mode": "color", "model": "fake"}),
        ("segmentation failed", {"session": name, "reason": "injected"}),
        (
            "session closed",
            {"session": name, "reason": "finished", "frames_done": 0, "frames_dropped": 0, "frames_failed": 20,
             "frames_refused": 0, "frames_carried": 0},
        ),
    ]  # fmt: skip
    assert session.id not in caplog.text, "who knows a whole id may end the session"


async def test_a_refused_session_says_why(caplog: pytest.LogCaptureFixture) -> None:
    held = Sessions(only(FakeModel(full_mask)), 1, Metrics())
    async with held.open("grpc", FrameCodec(), GREEN):
        with pytest.raises(TooManySessions):
            async with held.open("http", FrameCodec(), GREEN):
                pass
    assert ("session refused", {"transport": "http", "reason": "1 of 1 sessions are open"}) in told(caplog)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Idle("no frame for 15 s"), "no frame for 15 s"),
        (asyncio.CancelledError(), "the client went away"),
        (ZeroDivisionError("oh"), "ZeroDivisionError: oh"),
    ],
)
async def test_the_end_is_told_with_what_ended_it(
    error: BaseException, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(type(error)):
        async with Sessions(only(FakeModel(full_mask)), 1, Metrics()).open("grpc", FrameCodec(), GREEN):
            raise error
    event, fields = told(caplog)[-1]
    assert (event, fields["reason"]) == ("session closed", reason)


async def test_the_reasons_of_grpc(caplog: pytest.LogCaptureFixture) -> None:
    """Its client finishes, hurries away, stays silent."""

    def reasons() -> list[str]:
        return [fields["reason"] for event, fields in told(caplog) if event == "session closed"]

    async with fake_service(FakeModel(full_mask), idle_seconds=1.0) as (client, sessions):
        async with client.open_stream() as stream:
            await stream.finish()
            assert await stream.receive() is None
        async with client.open_stream():
            pass
        async with client.open_stream() as stream:
            with pytest.raises(ClientError, match="no frame for"):
                await stream.receive()
        async with timeout(60):
            while len(sessions):
                await asyncio.sleep(0.01)
    assert reasons() == ["finished", "the client went away", "got no frame for 1 s"]


async def test_a_service_tells_its_life_as_json_and_nothing_of_frames() -> None:
    """A real one: a stream of many frames, one session too many, a still, an end by DELETE, a drain."""
    frames = [jpeg(frame) for frame in clip(160, 120, 4).frames]
    with serving("--log-format", "json", "--max-sessions", "1", "--drain-seconds", "0.2") as (process, announced):
        async with Client(announced["grpc"]) as client, aiohttp.ClientSession(announced["page"]) as http:
            async with client.open_stream(every_frame=True) as stream:
                for i in range(60):
                    await stream.send(frames[i % 4], i)
                    await stream.receive()
                with pytest.raises(ClientError):
                    await client.segment(frames[0])
                async with http.delete(f"/v1/sessions/{stream.info.session_id}") as response:
                    assert response.status == 200
                with pytest.raises(ClientError):
                    await stream.receive()
            await client.segment(Picture.jpeg(cv2.imencode(".jpg", clip(64, 64, 1).frames[0])[1].tobytes()))
            async with client.open_stream(every_frame=True) as stream:
                process.send_signal(signal.SIGTERM)
                with pytest.raises(ClientError):
                    await stream.receive()
        _, log = await asyncio.to_thread(ended, process)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    life = [line for line in lines if "session" in line["message"]]
    assert [(line["message"], line.get("reason")) for line in life] == [
        ("session opened", None),
        ("session refused", "1 of 1 sessions are open"),
        ("session closed", "ended by DELETE"),
        ("session opened", None),
        ("session closed", "finished"),
        ("session opened", None),
        ("session asked to leave", None),
        ("session closed", "the service stops"),
    ]
    assert all(line["session"] for line in life if line["message"] != "session refused")
    assert life[2]["frames_done"] == 60
    [shown] = blocks(ROOT / "docs" / "operate" / "deployment.md", "json")
    assert list(json.loads(shown)) == list(life[2]), "docs/operate/deployment.md shows another line"
    rest = [line["message"] for line in lines if line not in life]
    assert rest == ["settings", "serving", "stopping", "drained"]

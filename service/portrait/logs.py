"""The log: one line per event in a service's life, for people or for programs. Frames are counted, not logged."""

import asyncio
import json
import logging
import os
import queue
import re
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

logger = logging.getLogger(__name__)

FIELDS = "fields"
"""The attribute of a record that holds the fields of `log_event`."""

PLAIN = re.compile(r"[^\s\"=]+")

QUEUED_LINES = 4096
"""Lines that wait for a slow reader, about a megabyte; further ones are dropped and counted."""

FLUSH_SECONDS = 2.0
"""How long the end of a process waits for a slow reader."""


def log_event(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
    """Log an event by its name with its fields: keys of the JSON object, or `key=value` words."""
    logger.log(level, event, extra={FIELDS: fields})


def tell_failure(task: asyncio.Task[Any]) -> None:
    """Log the error that ended a task. For tasks that run as long as the service, which are not awaited before."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s has failed: %s", task.get_name(), error, exc_info=error)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        document = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class TextFormatter(logging.Formatter):
    """One line for people, which `grep` can split as well."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        """Return the line that comes before a traceback."""
        words = [f"{key}={_quoted(value)}" for key, value in getattr(record, FIELDS, {}).items()]
        return " ".join([super().formatMessage(record), *words])


def _quoted(value: Any) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class QueuedHandler(logging.Handler):
    """Writes lines to a file descriptor from a thread of its own: a slow reader never stops an event loop.

    At most `lines` wait. What does not fit or cannot be written is dropped and counted in `dropped`, and a line says so
    as soon as the reader is back.
    """

    def __init__(self, descriptor: int, formatter: logging.Formatter, lines: int = QUEUED_LINES) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.dropped = 0
        self._descriptor, self._reported, self._ended = descriptor, 0, False
        self._queue = queue.Queue[str | None](lines)
        # A daemon, and no writer to `sys.stderr`: Python could not exit while a thread waits inside of that.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line. Formatted here, since what the record refers to may change."""
        try:
            self._queue.put_nowait(self.format(record))
        except queue.Full:
            self._drop()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, for at most FLUSH_SECONDS, and end the thread. Idempotent."""
        super().close()
        if not self._ended:
            self._ended = True
            with suppress(queue.Full):
                self._queue.put(None, timeout=FLUSH_SECONDS)
                self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._write(line)
                if (dropped := self.dropped) > self._reported:
                    self._write(self._report(dropped - self._reported))
                    self._reported = dropped
            except OSError:  # a full disk, or a reader that has closed the pipe
                self._drop()

    def _drop(self) -> None:
        self.acquire()  # both threads count
        try:
            self.dropped += 1
        finally:
            self.release()

    def _report(self, count: int) -> str:
        text = "log lines dropped: they were not read or written in time"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None)
        setattr(record, FIELDS, {"count": count})
        return self.format(record)

    def _write(self, line: str) -> None:
        data = memoryview(f"{line}\n".encode("utf-8", "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # the parent has made the pipe non-blocking
                select.select([], [self._descriptor], [])


@contextmanager
def logging_to_stderr(level: str, form: Literal["text", "json"]) -> Iterator[None]:
    """Log to standard error for the length of the block; what was logged in it is written at its end."""
    if sys.stderr is None:  # closed by the parent process (`2>&-`)
        handler: logging.Handler = logging.NullHandler()
    else:
        handler = QueuedHandler(sys.stderr.fileno(), JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def dropped_lines() -> int:
    """Return how many lines this process could not log."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, QueuedHandler))


def set_level(level: str) -> None:
    """Log what has at least this severity."""
    logging.getLogger().setLevel(level.upper())
    # At their lower levels aiortc and aioice log every packet and candidate.
    for name in ("aiortc", "aioice", "aiohttp.access"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def discard_unwritten() -> None:
    """Drop what a full disk or a closed pipe did not take. To be called last.

    Python tries to write it once more when it ends, and would exit with status 120 or print a complaint.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed by the parent process (`>&-`)
            continue
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

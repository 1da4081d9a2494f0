"""One line per life event, for people or for programs. Frames are counted, not logged."""

import asyncio
import json
import logging
import os
import re
import sys
from contextlib import suppress
from typing import Any, Literal

logger = logging.getLogger(__name__)

FIELDS = "fields"
"""What `log_event` has to tell besides the event's name, as an attribute of the record."""

PLAIN = re.compile(r"[^\s\"=]+")


def log_event(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
    """Log an event by its name, with what there is to tell of it: keys of the JSON object, or `key=value` words."""
    logger.log(level, event, extra={FIELDS: fields})


def tell_failure(task: asyncio.Task[Any]) -> None:
    """Log what a task has died of. To be added to one that runs as long as the service: nobody awaits it before."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s has failed: %s", task.get_name(), error, exc_info=error)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        document = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


class TextFormatter(logging.Formatter):
    """One line for people, which `grep` takes apart as well."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        """The line before a traceback, if there is one."""
        words = [f"{key}={_quoted(value)}" for key, value in getattr(record, FIELDS, {}).items()]
        return " ".join([super().formatMessage(record), *words])


def _quoted(value: Any) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def configure_logs(level: str, form: Literal["text", "json"]) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Log what is of this severity or more."""
    logging.getLogger().setLevel(level.upper())
    # aiortc and aioice narrate every packet and candidate at their lower levels.
    for name in ("aiortc", "aioice", "aiohttp.access"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def give_up_unwritten() -> None:
    """Let go of what a full disk or a reader that has gone did not take. To be called last.

    Python tries once more when it ends, and would make a failure of it, status 120, or a complaint.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed by whoever started the process (`>&-`)
            continue
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

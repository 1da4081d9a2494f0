"""Every error that the service raises on purpose.

    PortraitError
    ├── BadInput            the sender's fault; says what it got and what it expected
    │   ├── BadPicture      not a picture, truncated, or of a wrong size or byte count
    │   ├── BadOption       an unknown mode, model, colour, background or delivery
    │   ├── BadMessage      bytes that are not a message of the protocol
    │   │   └── MessageTooLarge  more bytes than the largest valid message has
    │   ├── BadOffer        not a valid SDP offer
    │   │   └── UnsupportedOffer  valid, but asks for media that the service does not have
    │   └── NotConfigured   a frame before the configuration
    ├── Unauthenticated     no credentials, or unknown ones
    ├── NoSuchSession       no session of that id, or it has ended
    ├── SessionEnded        a request ended the session
    ├── Idle                no frame for too long
    ├── Refused             the request is valid: try again later
    │   ├── TooManySessions
    │   │   └── OutOfCpu
    │   ├── TooManyPixels  one more picture would exceed the bound on pixels in memory
    │   ├── WorkerLost
    │   ├── PodLost        the pod that has to answer cannot be reached
    │   ├── NoMediaPort
    │   ├── OutOfResources  no file descriptor, thread or memory is left
    │   ├── TooManyViewers
    │   ├── NotPublished  the stream has no publisher now
    │   ├── StreamTaken   the stream has a publisher already
    │   ├── TooManyRequests
    │   ├── TooManyBytes  the messages in memory leave no room for one more
    │   └── Draining
    │       └── SessionDrained  an open session ends because the service stops
    ├── SegmentationFailed  the network returned no usable mask
    ├── SegmentationHangs   the network did not return in time
    ├── BadModel            a model file that cannot be used
    └── BadSettings         a setting of an unknown name or a value out of range

Each transport maps this tree to its own codes in one table.
"""

import errno

MOST_BYTES = 800
"""Length of a BadInput's message in UTF-8. It quotes input that may have megabytes, and a gRPC status holds it three
times in headers of 8 KB."""


class PortraitError(Exception):
    """Base of the tree. `reason` is its machine-readable name, upper snake case, which never changes."""

    reason = "PORTRAIT_ERROR"


class BadInput(PortraitError):
    """The sender's fault. `field` names the part of the request. A long message is shortened in the middle."""

    reason = "BAD_INPUT"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(_shortened(f"{field}: {message}"))
        self.field = field


def _shortened(sentence: str) -> str:
    data = sentence.encode("utf-8", "backslashreplace")
    if len(data) <= MOST_BYTES:
        return sentence
    first, last = data[: MOST_BYTES // 2], data[-MOST_BYTES // 2 :]
    return f"{first.decode('utf-8', 'ignore')} … {last.decode('utf-8', 'ignore')}"


class BadPicture(BadInput):
    """Bytes that are not a picture, or not of the announced kind or size.

    `size` is its (width, height) where known: a picture that was decoded and then refused has cost its pixels.
    """

    reason = "BAD_PICTURE"

    def __init__(self, field: str, message: str, size: tuple[int, int] | None = None) -> None:
        super().__init__(field, message)
        self.size = size


class BadOption(BadInput):
    """An option of a session with an unknown name or value."""

    reason = "BAD_OPTION"


class BadMessage(BadInput):
    """Bytes that are not a message of the protocol."""

    reason = "BAD_MESSAGE"


class MessageTooLarge(BadMessage):
    """A message with more bytes than the largest valid one."""

    reason = "MESSAGE_TOO_LARGE"


class BadOffer(BadInput):
    """A session description that cannot be answered."""

    reason = "BAD_OFFER"


class UnsupportedOffer(BadOffer):
    """A valid session description that asks for media which the service does not have."""

    reason = "UNSUPPORTED_OFFER"


class NotConfigured(BadInput):
    """A stream whose first message is not its configuration."""

    reason = "NOT_CONFIGURED"


class NoSuchSession(PortraitError):
    """No session has this id, or it has ended."""

    reason = "NO_SUCH_SESSION"


class Unauthenticated(PortraitError):
    """No credentials, or unknown ones. The message says which kind is expected and never repeats a credential."""

    reason = "UNAUTHENTICATED"


class SessionEnded(PortraitError):
    """A request ended the session, which had no fault."""

    reason = "SESSION_ENDED"


class Idle(PortraitError):
    """The client has sent no frame for too long."""

    reason = "IDLE"


class Refused(PortraitError):
    """The service accepts no more work now. `retry_after` is in seconds."""

    reason = "REFUSED"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManySessions(Refused):
    """The limit on sessions is reached."""

    reason = "TOO_MANY_SESSIONS"


class OutOfCpu(TooManySessions):
    """One more session would need more CPU than the box has left, even at the lowest quality level."""

    reason = "OUT_OF_CPU"


class TooManyPixels(Refused):
    """One more still or background would exceed the bound on pixels in memory."""

    reason = "TOO_MANY_PIXELS"


class TooManyBytes(Refused):
    """The requests in memory leave no room for one more."""

    reason = "TOO_MANY_BYTES"


class WorkerLost(Refused):
    """The worker that should have answered has ended; another one will answer."""

    reason = "WORKER_LOST"


class PodLost(Refused):
    """The pod that has to answer cannot be reached now."""

    reason = "POD_LOST"


class TooManyViewers(Refused):
    """The limit on viewers is reached."""

    reason = "TOO_MANY_VIEWERS"


class TooManyListeners(Refused):
    """The limit on listeners to events is reached."""

    reason = "TOO_MANY_LISTENERS"


class NotPublished(Refused):
    """No client publishes a stream of this name now."""

    reason = "NOT_PUBLISHED"


class StreamTaken(Refused):
    """Another client publishes a stream of this name."""

    reason = "STREAM_TAKEN"


class NoMediaPort(Refused):
    """Every UDP port for media is in use."""

    reason = "NO_MEDIA_PORT"


class OutOfResources(Refused):
    """The process has no file descriptor, thread or memory left for it."""

    reason = "OUT_OF_RESOURCES"


EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""Errors of the system that say so."""

NO_THREAD = "can't start new thread"
"""The message of the RuntimeError with which Python says that the system gave it none."""


def refusal_of(error: Exception) -> OutOfResources | None:
    """The refusal for an error of the system that only says that something has run out; None for any other error."""
    out = (isinstance(error, OSError) and error.errno in EXHAUSTED) or isinstance(error, MemoryError)
    if out or (isinstance(error, RuntimeError) and str(error) == NO_THREAD):
        return OutOfResources("no file descriptor, thread or memory is left; try again later", 5.0)
    return None


class TooManyRequests(Refused):
    """One address sends too many requests."""

    reason = "TOO_MANY_REQUESTS"


class Draining(Refused):
    """The service is stopping."""

    reason = "DRAINING"


class SessionDrained(Draining):
    """An open session was ended because the service stops: told as `Draining`, and not counted as a refusal."""


class SegmentationFailed(PortraitError):
    """The network returned no usable mask for a frame."""

    reason = "SEGMENTATION_FAILED"


class SegmentationHangs(PortraitError):
    """A session's thread did not return from a frame in time. The session has ended; a new one may work."""

    reason = "SEGMENTATION_HANGS"


class BadModel(PortraitError):
    """A model file that is not TFLite or has other tensors than the service expects."""

    reason = "BAD_MODEL"


class BadSettings(PortraitError):
    """A setting with an unknown name or a value out of range."""

    reason = "BAD_SETTINGS"

"""Every error the service raises on purpose.

    PortraitError
    ├── BadInput            the sender's fault; says what came and what is expected
    │   ├── BadPicture      not a picture, cut short, of a wrong size or byte count
    │   ├── BadOption       an unknown mode, model, colour, background or delivery
    │   ├── BadMessage      bytes that are no message of the contract
    │   │   └── MessageTooLarge  more of them than the largest legal message has
    │   ├── BadOffer        an SDP offer that is not one
    │   │   └── UnsupportedOffer  one that asks for what is not to be had
    │   └── NotConfigured   a frame before the configuration
    ├── Unauthenticated     no credentials, or none that are known
    ├── NoSuchSession       no session of that id, or it has ended
    ├── SessionEnded        somebody ended the session
    ├── Idle                no frame came for too long
    ├── Refused             nothing wrong with the request: try again later
    │   ├── TooManySessions
    │   │   └── OutOfCpu
    │   ├── WorkerLost
    │   ├── NoMediaPort
    │   ├── TooManyViewers
    │   ├── NotPublished  nobody publishes the stream now
    │   ├── StreamTaken   somebody publishes it already
    │   ├── TooManyRequests
    │   └── Draining
    ├── SegmentationFailed  the network gave no usable mask
    ├── SegmentationHangs   the network gave nothing for too long
    ├── BadModel            a model file that cannot be used
    └── BadSettings         a setting of an unknown name or a value out of range

Each transport maps this tree to its own codes in one table.
"""

MOST_BYTES = 800
"""Of a BadInput's sentence, in UTF-8. What came may be megabytes; a gRPC status, which has the sentence three times, is
sent in headers of 8 KB."""


class PortraitError(Exception):
    """Base of the tree. `reason` is the machine-readable name: upper snake case, stable."""

    reason = "PORTRAIT_ERROR"


class BadInput(PortraitError):
    """The sender's fault. `field` names the part of the request. A sentence too long to send lacks its middle."""

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
    """Bytes that are no picture, or not the one they were announced as.

    `size` is the (width, height) that came, where it is known: what was decoded has cost its pixels.
    """

    reason = "BAD_PICTURE"

    def __init__(self, field: str, message: str, size: tuple[int, int] | None = None) -> None:
        super().__init__(field, message)
        self.size = size


class BadOption(BadInput):
    """A session option of an unknown name or value."""

    reason = "BAD_OPTION"


class BadMessage(BadInput):
    """Bytes that are no message of the contract."""

    reason = "BAD_MESSAGE"


class MessageTooLarge(BadMessage):
    """More bytes than the largest legal message has."""

    reason = "MESSAGE_TOO_LARGE"


class BadOffer(BadInput):
    """A session description that cannot be answered."""

    reason = "BAD_OFFER"


class UnsupportedOffer(BadOffer):
    """A session description that is one, and asks for media that cannot be had."""

    reason = "UNSUPPORTED_OFFER"


class NotConfigured(BadInput):
    """A stream's first message was not its configuration."""

    reason = "NOT_CONFIGURED"


class NoSuchSession(PortraitError):
    """No session of that id, or it has ended."""

    reason = "NO_SUCH_SESSION"


class Unauthenticated(PortraitError):
    """No credentials came, or none that are known. Says which kind is expected, never what came."""

    reason = "UNAUTHENTICATED"


class SessionEnded(PortraitError):
    """Somebody ended the session; nothing was wrong with it."""

    reason = "SESSION_ENDED"


class Idle(PortraitError):
    """No frame came for too long."""

    reason = "IDLE"


class Refused(PortraitError):
    """The service takes no more work now. `retry_after` is in seconds."""

    reason = "REFUSED"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManySessions(Refused):
    """The limit on sessions is reached."""

    reason = "TOO_MANY_SESSIONS"


class OutOfCpu(TooManySessions):
    """One more session would cost more CPU than the box has to give, with quality as low as it may go."""

    reason = "OUT_OF_CPU"


class WorkerLost(Refused):
    """The worker that was to answer has ended; another one will."""

    reason = "WORKER_LOST"


class TooManyViewers(Refused):
    """The limit on viewers is reached."""

    reason = "TOO_MANY_VIEWERS"


class NotPublished(Refused):
    """Nobody publishes a stream of that name now."""

    reason = "NOT_PUBLISHED"


class StreamTaken(Refused):
    """Somebody publishes a stream of that name already."""

    reason = "STREAM_TAKEN"


class NoMediaPort(Refused):
    """Every UDP port for media is taken."""

    reason = "NO_MEDIA_PORT"


class TooManyRequests(Refused):
    """One address asks too often."""

    reason = "TOO_MANY_REQUESTS"


class Draining(Refused):
    """The service is about to stop."""

    reason = "DRAINING"


class SegmentationFailed(PortraitError):
    """The network gave no usable mask for a frame."""

    reason = "SEGMENTATION_FAILED"


class SegmentationHangs(PortraitError):
    """A session's thread did not come back from a frame. The session has ended; another one may fare better."""

    reason = "SEGMENTATION_HANGS"


class BadModel(PortraitError):
    """A model file that is not TFLite or has other tensors than the service feeds."""

    reason = "BAD_MODEL"


class BadSettings(PortraitError):
    """A setting of an unknown name or a value out of its range."""

    reason = "BAD_SETTINGS"

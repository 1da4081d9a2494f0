"""Addresses of cameras: which are taken, what FFmpeg may open for each, and what its errors mean."""

import base64
import errno
import ipaddress
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

import av
import ifaddr

from portrait.errors import BadSettings
from portrait.transports.files.reader import TIMEOUT

Transport: TypeAlias = Literal["tcp", "udp"]

PROTOCOLS: Mapping[str, str] = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsps,tls,rtp,srtp,tcp,udp",
    "http": "http,tcp,crypto",
    "https": "https,tls,tcp,crypto",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "srt": "srt",
}
"""By scheme: the protocols that FFmpeg may use for it. A redirect or a playlist that names another one, `file` above
all, is refused."""

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}

WHEP, WHIP = "whep+", "whip+"
"""Before `https` or `http`: another server's WHEP endpoint, or WHIP endpoint."""

DEVICE = re.compile(r"v4l2:(/dev/video[0-9]{1,3})")

SCHEMES = (*PROTOCOLS, f"{WHEP}https", f"{WHEP}http")

TARGETS = ("rtsp", "rtmp", "rtmps", f"{WHIP}https", f"{WHIP}http")
"""Where results may be pushed to."""

EXPECTED = f"expected {', '.join(f'{scheme}://' for scheme in SCHEMES)} or v4l2:/dev/videoN"


@dataclass(frozen=True)
class Address:
    """Where a camera is. Only `url` has its credentials, and nothing shows it."""

    url: str = field(repr=False)
    """What FFmpeg opens."""
    scheme: str
    shown: str
    """The address without user, password and query, for people."""
    transport: Transport = "tcp"
    """What RTSP carries media by."""
    authorization: str = field(default="", repr=False)
    """What a WHEP server is told in this header; empty: nothing."""

    @classmethod
    def parse(cls, text: str, transport: Transport = "tcp") -> "Address":
        """An address that may be opened.

        Raises:
            ValueError: another scheme, or nothing that names a host or a device; the message has no credentials.
        """
        if (device := DEVICE.fullmatch(text)) is not None:
            return cls(device[1], "v4l2", text)
        scheme, separator, _ = text.partition("://")
        if not separator or scheme.lower() not in SCHEMES:
            raise ValueError(f"got {_scheme(text)}, {EXPECTED}")
        return cls._parse(text, transport)

    @classmethod
    def parse_target(cls, text: str) -> "Address":
        """An address that results may be pushed to.

        Raises:
            ValueError: another scheme, or nothing that names a host; the message has no credentials.
        """
        if text.partition("://")[0].lower() not in TARGETS:
            raise ValueError(f"push: got {_scheme(text)}, expected {', '.join(f'{each}://' for each in TARGETS)}")
        return cls._parse(text, "tcp")

    @classmethod
    def _parse(cls, text: str, transport: Transport) -> "Address":
        scheme = text.partition("://")[0]
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host:
            raise ValueError(f"got {scheme}:// without a host, or with a port that is none")
        shown = f"[{host}]" if ":" in host else host
        shown = f"{scheme}://{shown}{f':{port}' if port else ''}{parts.path}"
        _, plus, rest = scheme.lower().rpartition("+")
        if not plus:
            return cls(text, scheme.lower(), shown, transport)
        # The user and the password, or the token alone, go into a header.
        bare = urlunsplit((rest, parts.netloc.rpartition("@")[2], *parts[2:]))
        return cls(bare, scheme.lower(), shown, transport, _authorization(parts.username, parts.password))

    @property
    def target(self) -> tuple[str, int] | None:
        """(host, port); None of a device."""
        if self.scheme == "v4l2":
            return None
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or PORTS.get(self.scheme.rpartition("+")[2], 0)

    @property
    def headers(self) -> dict[str, str]:
        """What a WHEP server is told of who asks."""
        return {"Authorization": self.authorization} if self.authorization else {}

    @property
    def is_webrtc(self) -> bool:
        """Whether it is a WHEP or a WHIP endpoint."""
        return self.scheme.startswith((WHEP, WHIP))

    @property
    def options(self) -> dict[str, str]:
        """What FFmpeg is told for it."""
        if self.scheme == "v4l2":
            return {}
        options = {
            "protocol_whitelist": PROTOCOLS[self.scheme],
            "fflags": "nobuffer",
            "analyzeduration": "2000000",  # microseconds, of which half would do; the default is 5 s
        }
        if self.scheme.startswith("http"):
            options["max_redirects"] = "0"
        if self.scheme.startswith("rtsp"):
            options["rtsp_transport"] = self.transport
        return options

    def check_supported(self) -> None:
        """Refuse what the installed FFmpeg was built without.

        Raises:
            BadSettings: says which protocol is missing.
        """
        if self.scheme == "srt" and not _has_srt():
            raise BadSettings("got srt://, but the FFmpeg of this installation (the package av) was built without SRT")


def _scheme(text: str) -> str:
    """What stands where a scheme should; not more, since an address may hold a password."""
    known = re.match(r"[A-Za-z0-9.+-]{1,20}:", text)
    return f"the scheme {known[0]}" if known else "no scheme"


def _authorization(user: str | None, password: str | None) -> str:
    """The header for a user and a password, or for a token in place of the user."""
    if user is None:
        return ""
    if password is None:
        return f"Bearer {unquote(user)}"
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


@cache
def _has_srt() -> bool:
    try:
        av.open("srt://127.0.0.1:1?timeout=1", timeout=0.1).close()
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, OSError):
        return True
    return True


def is_own(target: tuple[str, int], ports: frozenset[int]) -> bool:
    """Whether a host and port are this machine's, and the port one that the service itself answers on."""
    host, port = target
    if port not in ports:
        return False
    own = {
        str(each.ip if isinstance(each.ip, str) else each.ip[0]) for card in ifaddr.get_adapters() for each in card.ips
    }
    found = set()
    with suppress(OSError, UnicodeError):
        found = {
            str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        }
    parsed = map(ipaddress.ip_address, found)
    return any(str(each) in own or each.is_loopback or each.is_unspecified for each in parsed)


DEVICE_ERRORS = {
    errno.ENOENT: "there is no such device",
    errno.EACCES: "this user may not open the device; those of the group video may",
    errno.EBUSY: "another program uses the device",
    errno.ENODEV: "the device has been unplugged",
    errno.ENOTTY: "the device is no camera",
}


def say(error: Exception) -> str:
    """What a failure of FFmpeg means for whoever looks after the camera. It never holds an address."""
    match error:
        case av.error.HTTPUnauthorizedError() | av.error.HTTPForbiddenError():
            return "the camera refused the user name or the password"
        case av.error.HTTPNotFoundError():
            return "the camera has nothing at this path"
        case av.error.HTTPServerError():
            return "the camera answered that it cannot serve this path"
        case av.error.ConnectionRefusedError() | ConnectionRefusedError():
            return "nothing listens at this address"
        case av.error.ExitError() | TimeoutError():
            return f"nothing came for {TIMEOUT[1]:g} s"
        case av.error.EOFError():
            return "the camera ended the stream"
        case av.error.InvalidDataError():
            return "what the address answers is no media that FFmpeg can read"
        case av.error.DecoderNotFoundError() | av.codec.codec.UnknownCodecError():
            return "the video has a codec that cannot be decoded"
        case av.error.ProtocolNotFoundError():
            return "the address leads to a protocol that is not allowed for it"
    if isinstance(error, OSError) and error.errno in DEVICE_ERRORS:
        return DEVICE_ERRORS[error.errno]
    if isinstance(error, OSError) and error.errno == errno.EIO:  # a name that is not found, a redirect, a broken stream
        return "the address cannot be read, or leads elsewhere, which is not followed"
    return getattr(error, "strerror", None) or type(error).__name__

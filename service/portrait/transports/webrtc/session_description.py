"""Session descriptions: an offer reduced to what aiortc reads, and its answer completed by what was left out.

aiortc parses every line it knows and raises when one has an optional part it does not know; it cannot reject a section,
and answers every offer with a bundle of all sections.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from portrait.errors import BadOffer, UnsupportedOffer

MEDIA = re.compile(r"m=(\S+) (\d{1,5})(?:/\d+)? (\S+) (\S.*)")
"""RFC 8866 section 5.14."""

PROTOCOL = re.compile("[A-Z/]+")

VIDEO_CODECS = ("VP8", "H264")
AUDIO_CODECS = ("OPUS", "G722", "PCMU", "PCMA")
"""What aiortc can negotiate, in upper case. Sound that is not passed on is declined within an answered section."""

STATIC_TYPES = {0: "PCMU/8000", 8: "PCMA/8000", 9: "G722/8000"}
"""Payload types that need no a=rtpmap (RFC 3551 section 6)."""

RTCP_TYPES = range(72, 77)
"""Payload types that look like RTCP when both share a port (RFC 5761 section 4)."""

INTEGERS = ("apt", "max-fr", "max-fs", "maxplaybackrate", "minptime", "stereo", "useinbandfec")
"""Format parameters that aiortc reads as integers."""

START_KBPS = 1500
"""What the answer asks Chrome to begin with; it would ramp up from 300."""

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")

CANDIDATE = re.compile(r"(\S+ 1) udp (\d{1,10}) (\S+) (\d{1,5}) typ (host|srflx|prflx|relay)\b", re.IGNORECASE)
"""A UDP candidate of the first component (RFC 8839 section 5.1); there is no second one, RTCP shares the port."""


def _pattern(pattern: str) -> Callable[[str], str | None]:
    """Keeps the groups of a match, joined by spaces; None when nothing matches."""
    compiled = re.compile(pattern)

    def keep(value: str) -> str | None:
        found = compiled.match(value)
        return None if found is None else " ".join(group for group in found.groups() if group is not None)

    return keep


def _candidate(value: str) -> str | None:
    found = CANDIDATE.match(value)
    if found is None:
        return None
    start, priority, host, port, kind = found.groups()
    try:
        # Names are not looked up: aioice would wait a second for an mDNS name, and a browser that hides its address
        # behind one is found by its own requests.
        ip_address(host)
    except ValueError:
        return None
    return None if "%" in host else f"{start} udp {priority} {host} {port} typ {kind.lower()}"


ATTRIBUTES: Mapping[str, Callable[[str], str | None]] = {
    "candidate": _candidate,
    "extmap": _pattern(r"(\d{1,3})(?:/[a-z]+)? (\S+)"),
    "fingerprint": _pattern(r"(\S+) (\S+)"),
    "ice-options": _pattern(r"(\S.*)"),
    "ice-pwd": _pattern(r"(\S+)"),
    "ice-ufrag": _pattern(r"(\S+)"),
    "max-message-size": _pattern(r"(\d{1,18})$"),
    "mid": _pattern(r"(\S+)"),
    "msid": _pattern(r"(\S.*)"),
    "msid-semantic": _pattern(r"\s*(\S.*)"),
    "rtcp-fb": _pattern(r"(\*|\d{1,3}) (\S+)(?: (\S+))?"),
    "rtpmap": _pattern(r"(\d{1,3}) ([^/\s]+/\d{1,7}(?:/\d{1,3})?)"),
    "fmtp": _pattern(r"(\d{1,3}) (\S.*)"),
    "sctp-port": _pattern(r"(\d{1,5})$"),
    "sctpmap": _pattern(r"(\d{1,5} \S.*)"),
    "setup": _pattern(r"(actpass|active|passive)$"),
    "ssrc": _pattern(r"(\d{1,10}) ((?:cname|msid|mslabel|label):.*)"),
    "ssrc-group": _pattern(r"([A-Z]+(?: \d{1,10})+)$"),
}
"""What is kept of the attributes that aiortc reads; all others are left out, and so are values that do not parse."""

FLAGS = ("end-of-candidates", "ice-lite", "rtcp-mux", *DIRECTIONS)


@dataclass
class Section:
    """A media section of an offer, or with an empty `kind` the part before the first."""

    kind: str = ""
    port: int = 0
    protocol: str = ""
    formats: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str | None]] = field(default_factory=list)
    is_bundle_only: bool = False

    def all(self, name: str) -> list[str]:
        """The values of an attribute."""
        return [value or "" for attribute, value in self.attributes if attribute == name]

    @property
    def mid(self) -> str:
        """Its identification; empty where it has none."""
        return next(iter(self.all("mid")), "")

    @property
    def codecs(self) -> list[str]:
        """Names of the codecs that are mapped, in upper case."""
        return [value.split(" ", 1)[1].split("/")[0].upper() for value in self.all("rtpmap")]

    @property
    def is_rejected(self) -> bool:
        """Whether the answer must have it rejected: it is in the offer, or is of a kind or codec that is not taken."""
        if (self.port == 0 and not self.is_bundle_only) or PROTOCOL.fullmatch(self.protocol) is None:
            return True
        if self.kind == "application":
            return "SCTP" not in self.protocol
        known = {"video": VIDEO_CODECS, "audio": AUDIO_CODECS}.get(self.kind, ())
        return not (self.protocol.endswith("RTP/SAVPF") and any(name in known for name in self.codecs))

    def lines(self) -> list[str]:
        """The section as aiortc reads it."""
        attributes = [f"a={name}" if value is None else f"a={name}:{value}" for name, value in self.attributes]
        if not self.kind:
            return attributes
        return [f"m={self.kind} {self.port or 9} {self.protocol} {' '.join(self.formats)}", *attributes]


@dataclass(frozen=True)
class Offer:
    """An offer that aiortc can read."""

    text: str
    """What aiortc is given: neither rejected sections nor lines it does not read."""
    rejected: Mapping[int, Section]
    """The rejected sections by their place in the offer."""
    bundle: tuple[str, ...]
    """The identifications that the offer bundles, those of sections that it has."""
    unnamed: frozenset[str]
    """Identifications that aiortc was given for sections without one."""

    def complete(self, answer: str) -> str:
        """Aiortc's answer to `text` with the rejected sections in their places, bundled as it was offered."""
        head, *sections = re.split(r"^(?=m=)", answer, flags=re.MULTILINE)
        first = sections[0] if sections else ""
        transport = re.findall(r"^a=(?:candidate|end-of-candidates|ice-|fingerprint|setup).*\r\n", first, re.MULTILINE)
        for place, section in sorted(self.rejected.items()):
            sections.insert(place, _rejection(section, transport if section.mid in self.bundle else []))
        # The others come first: the transport of the first section in the group is that of all.
        rejected = {section.mid for section in self.rejected.values()}
        group = sorted(self.bundle, key=lambda name: name in rejected)
        line = f"a=group:BUNDLE {' '.join(group)}\r\n" if group else ""
        head = re.sub(r"^a=group:BUNDLE.*\r\n", lambda _: line, head, flags=re.MULTILINE)
        whole = head + "".join(sections)
        for name in self.unnamed:
            whole = whole.replace(f"a=mid:{name}\r\n", "")
        return whole


def parse_offer(text: str) -> Offer:
    """Read an offer.

    Raises:
        BadOffer: it is no session description, or lacks what WebRTC needs.
        UnsupportedOffer: it has no section that is taken; says which codecs came.
    """
    if not text.startswith("v=0"):
        raise BadOffer("sdp", f"got a body that starts with {text[:20]!r}, expected an SDP offer, v=0")
    head, *sections = _sections(text)
    origin = re.search(r"^o=\S+ \S+ \S+ \S+ \S+ \S+", text, re.MULTILINE)
    rejected = {place: section for place, section in enumerate(sections) if section.is_rejected}
    kept = [section for section in sections if not section.is_rejected]
    if not any(section.kind == "video" for section in kept):
        codecs = [name for section in sections if section.kind == "video" for name in section.codecs]
        came = f"got {', '.join(dict.fromkeys(codecs))[:200]}" if codecs else "got an offer without video"
        raise UnsupportedOffer("sdp", f"{came}, expected a video section with {' or '.join(VIDEO_CODECS)}")
    unnamed = set()
    for place, section in enumerate(kept):
        if not section.mid:
            section.attributes.append(("mid", f"unnamed-{place}"))
            unnamed.add(section.mid)
        _check(section, head)
    names = {section.mid for section in sections}
    bundle = _bundle(text, names)
    group = [name for name in bundle if name in {section.mid for section in kept}]
    lines = ["v=0", origin[0] if origin else "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    if group:
        lines.append(f"a=group:BUNDLE {' '.join(group)}")
    lines += [line for section in (head, *kept) for line in section.lines()]
    return Offer("".join(f"{line}\r\n" for line in lines), rejected, bundle, frozenset(unnamed))


def _sections(text: str) -> list[Section]:
    """The head and the media sections, with the attributes that aiortc reads."""
    sections, has_lost_candidates = [Section()], False
    for line in text.splitlines():
        section = sections[-1]
        if line.startswith("m="):
            found = MEDIA.fullmatch(line.rstrip())
            if found is None:
                raise BadOffer("sdp", f"got {line[:60]!r}, expected m=KIND PORT PROTOCOL FORMATS")
            kind, port, protocol, formats = found.groups()
            sections.append(Section(kind, int(port), protocol, formats.split()))
        elif line.startswith("a="):
            name, colon, value = line[2:].strip().partition(":")
            if name == "bundle-only":
                section.is_bundle_only = True
            elif not colon and name in FLAGS:
                section.attributes.append((name, None))
            elif colon and name in ATTRIBUTES:
                if (kept := ATTRIBUTES[name](value.strip())) is not None:
                    section.attributes.append((name, kept))
                has_lost_candidates |= name == "candidate" and kept is None
    for section in sections[1:]:
        _complete(section, sections[0])
    if has_lost_candidates:
        # They may still be found, by trickling or by the peer's own requests.
        for section in sections:
            section.attributes = [each for each in section.attributes if each[0] != "end-of-candidates"]
    return sections


def _complete(section: Section, head: Section) -> None:
    """Fill in defaults, and leave out what refers to formats that are not there."""
    if section.kind not in ("audio", "video"):
        section.attributes = [each for each in section.attributes if _is_usable(each, set())]
    else:
        section.formats = [each for each in section.formats if each.isdecimal() and _is_format(int(each))]
        mapped = {value.split(" ")[0] for value in section.all("rtpmap")}
        section.attributes += [
            ("rtpmap", f"{number} {name}")
            for number, name in STATIC_TYPES.items()
            if section.kind == "audio" and str(number) in section.formats and str(number) not in mapped
        ]
        usable = {value.split(" ")[0] for value in section.all("rtpmap")} & set(section.formats) | {"*"}
        section.attributes = [each for each in map(_format_parameters, section.attributes) if _is_usable(each, usable)]
    if not any(name in DIRECTIONS for name, _ in section.attributes):
        direction = next((name for name, _ in head.attributes if name in DIRECTIONS), "sendrecv")
        section.attributes.append((direction, None))
    if not section.all("setup") and not head.all("setup"):
        section.attributes.append(("setup", "actpass"))


def _is_format(number: int) -> bool:
    return number < 128 and number not in RTCP_TYPES


def _is_usable(attribute: tuple[str, str | None], formats: set[str]) -> bool:
    """Whether an attribute of a format, if it is one, is of a format that can be used."""
    name, value = attribute
    return name not in ("rtpmap", "fmtp", "rtcp-fb") or (value or "").split(" ")[0] in formats


def _format_parameters(attribute: tuple[str, str | None]) -> tuple[str, str | None]:
    """An a=fmtp without spaces between its parameters, and without those that are no integers but should be."""
    name, value = attribute
    if name != "fmtp" or value is None:
        return attribute
    number, _, parameters = value.partition(" ")
    kept = []
    for parameter in filter(None, map(str.strip, parameters.split(";"))):
        key, _, text = parameter.partition("=")
        if key not in INTEGERS or re.fullmatch(r"\d{1,9}", text):
            kept.append(parameter)
    return name, f"{number} {';'.join(kept)}"


def _check(section: Section, head: Section) -> None:
    """Refuse a section that lacks what WebRTC needs.

    Raises:
        BadOffer: says what is missing.
    """
    for needed in ("ice-ufrag", "ice-pwd", "fingerprint"):
        if not section.all(needed) and not head.all(needed):
            raise BadOffer("sdp", f"got a section m={section.kind} without a={needed}, expected one")
    if section.kind != "application" and ("rtcp-mux", None) not in section.attributes:
        raise BadOffer("sdp", f"got a section m={section.kind} without a=rtcp-mux, expected it (RFC 9143 section 9.3)")


def _bundle(text: str, names: set[str]) -> tuple[str, ...]:
    """The identifications of the first BUNDLE group (RFC 9143), without those that no section has."""
    found = re.search(r"^a=group:BUNDLE((?: \S+)*)", text, re.MULTILINE)
    return tuple(dict.fromkeys(name for name in found[1].split() if name in names)) if found else ()


def _rejection(section: Section, transport: list[str]) -> str:
    """A rejected section of an answer (RFC 3264 section 6): port 0, its formats ignored.

    `transport` has the lines of the section it is bundled with. Browsers ignore them; aiortc as a client, which knows
    no rejected sections, needs them, and a codec that it has.
    """
    formats = "0" if section.kind == "audio" and transport else " ".join(section.formats) or "0"
    lines = [f"m={section.kind} 0 {section.protocol} {formats}\r\n", "c=IN IP4 0.0.0.0\r\n", "a=inactive\r\n"]
    if section.mid:
        lines.append(f"a=mid:{section.mid}\r\n")
    if transport:
        lines += ["a=rtcp-mux\r\n", *(["a=rtpmap:0 PCMU/8000\r\n"] if formats == "0" else []), *transport]
    return "".join(lines)


def start_high(answer: str) -> str:
    """An SDP answer that asks for START_KBPS from the first second, for every VP8 and H.264 payload type."""
    lines = answer.split("\r\n")
    wanted = f"x-google-start-bitrate={START_KBPS}"
    for payload in re.findall(r"^a=rtpmap:(\d+) (?:VP8|H264)/", answer, re.MULTILINE):
        prefix = f"a=fmtp:{payload} "
        for number, line in enumerate(lines):
            if line.startswith(prefix):
                lines[number] = f"{line};{wanted}"
                break
        else:
            place = next(i for i, line in enumerate(lines) if line.startswith(f"a=rtpmap:{payload} "))
            lines.insert(place + 1, prefix + wanted)
    return "\r\n".join(lines)

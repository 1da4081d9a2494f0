"""POST /v1/segment: a still picture in, its result out, at the picture's size."""

import re
import time
from dataclasses import dataclass
from fractions import Fraction

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.multipart import BodyPartReader

from portrait.admission.pixel_budget import WEBP_CHARGE, WEBP_PIXELS, PixelBudget, decode_background, result_pixels
from portrait.admission.quality import Delivery
from portrait.core.compositors import MODES, Options
from portrait.core.pipeline import Result
from portrait.errors import BadOption, BadPicture
from portrait.image.backgrounds import Backgrounds
from portrait.image.clip import Clip
from portrait.image.compressed import PictureFormat, decode_frame, encode
from portrait.image.frame import Frame, Timestamp
from portrait.sessions.registry import Sessions
from portrait.transports.http.connection_limits import send

WEBP = "image/webp"
SUFFIXES: dict[str, PictureFormat] = {"image/png": ".png", "image/webp": ".webp", "image/jpeg": ".jpg"}
"""The types that Accept can ask for, the preferred one first."""

QUALITY = re.compile(r"q=[01](\.[0-9]{0,3})?")

CHECKBOXES = ("framing", "decontaminate")
FIELDS = (
    "image", "mode", "color", "background", "threshold", "feather", "framing", "decontaminate", "margin", "people",
    "model",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StillRequest:
    """The fields of a request. Those of a form take precedence over those of the query."""

    image: bytes
    background_picture: bytes | None
    texts: dict[str, str]


class StillCodec:
    """Bytes of a picture to Frame, result to bytes of a picture."""

    modes = tuple(MODES)

    def __init__(self, max_pixels: int, suffix: PictureFormat) -> None:
        self._max_pixels, self._suffix = max_pixels, suffix

    def decode(self, picture: bytes, arrived: float, options: Options) -> Frame:
        """A Frame of a JPEG, PNG or WebP file.

        Raises:
            BadPicture: not one of these, cut short, or too large.
        """
        return decode_frame(picture, self._max_pixels, "image", Timestamp(0, Fraction(1)), arrived)

    def encode(self, result: Result, picture: bytes) -> bytes:
        """The result as a picture of the input's size: grey for mask and alpha, with alpha for cutout."""
        made = [result.picture()]
        with result.metrics.stage("encode"):
            return encode(made.pop(), self._suffix)  # not kept: its planes are freed while their pixels are encoded


class StillRoutes:
    """The handler of the route."""

    def __init__(self, sessions: Sessions, backgrounds: Backgrounds, budget: PixelBudget, max_pixels: int) -> None:
        self._sessions, self._backgrounds, self._budget = sessions, backgrounds, budget
        self._max_pixels = max_pixels

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the HTTP server."""
        return [web.post("/v1/segment", self._post)]

    async def _post(self, request: web.Request) -> web.Response:
        """A picture through a session of its own."""
        asked = await _read_request(request)
        options = await self._options(asked)
        accept = ",".join(request.headers.getall("Accept", ["*/*"]))
        content_type = _negotiate(accept, options.mode)

        def charge(pixels: int) -> int:
            nonlocal content_type
            content_type = _negotiate(accept, options.mode, pixels)
            return pixels * (WEBP_CHARGE if content_type == WEBP else 1)

        model, caller = asked.texts.get("model"), request.headers.get("traceparent")
        with self._sessions.metrics.counting_refused("http"):
            share = await self._budget.take_picture(asked.image, self._max_pixels, "image", charge=charge)
        codec = StillCodec(self._max_pixels, SUFFIXES[content_type])
        with share:
            if request.transport is None:
                raise ConnectionResetError("the client has disconnected")
            opening = self._sessions.open(
                "http",
                codec,
                options,
                model,
                delivery=Delivery.STILL,
                pixels=share.pixels,
                traceparent=caller,
            )
            async with opening as session:
                processed = await session.process(asked.image, time.monotonic())
            if processed.failure is not None:
                raise processed.failure
            sending = share.split(result_pixels(len(processed.wire)))
        timing = f"work;dur={processed.worked * 1000:.1f}"
        response = web.Response(body=processed.wire, content_type=content_type, headers={"Server-Timing": timing})
        with sending:
            await send(request, response)
        return response

    async def _options(self, asked: StillRequest) -> Options:
        background: Frame | Clip | None = None
        if asked.background_picture is not None:
            background = await decode_background(asked.background_picture, self._backgrounds, self._budget)
        elif name := asked.texts.get("background"):
            background = await self._backgrounds.pick(name)
        return Options("cutout", background=background).changed(asked.texts)


async def _read_request(request: web.Request) -> StillRequest:
    texts = dict(request.query)
    files: dict[str, bytes] = {}
    if request.content_type.startswith("image/"):
        files["image"] = await request.read()
    elif request.content_type == "multipart/form-data":
        try:
            await _read_parts(request, texts, files)
        except (ValueError, HttpProcessingError) as error:  # what aiohttp raises for a body that is not multipart
            raise BadOption("body", f"not a multipart form: {error}") from error
    else:
        raise web.HTTPUnsupportedMediaType(
            text=f"got {request.content_type}, expected multipart/form-data with a field image, or image/*"
        )
    if unknown := (texts.keys() | files.keys()) - set(FIELDS):
        raise BadOption(min(unknown), f"unknown field, expected one of {', '.join(FIELDS)}")
    if "image" not in files:
        raise BadPicture("image", "the field is missing, expected the bytes of a JPEG, PNG or WebP file")
    return StillRequest(files["image"], files.get("background"), _without_empty(texts))


def _without_empty(texts: dict[str, str]) -> dict[str, str]:
    """The fields that a user has filled in: browsers send the others empty, and `on` for a checkbox that is ticked."""
    filled = {name: text for name, text in texts.items() if text}
    return filled | {name: "true" for name in CHECKBOXES if filled.get(name) == "on"}


async def _read_parts(request: web.Request, texts: dict[str, str], files: dict[str, bytes]) -> None:
    total, seen = 0, set[str]()
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise BadOption("body", "got a part without a name, expected form fields")
        # Checked for each part: parts without a body cost nothing to send, and a request can have any number of them.
        if part.name not in FIELDS:
            raise BadOption(part.name[:80], f"unknown field, expected one of {', '.join(FIELDS)}")
        if part.name in seen:
            raise BadOption(part.name, "got the field twice, expected it once")
        seen.add(part.name)
        data = bytearray()
        while chunk := await part.read_chunk():
            total += len(chunk)
            if total > request.client_max_size:
                raise web.HTTPRequestEntityTooLarge(max_size=request.client_max_size, actual_size=total)
            data += chunk
        if part.filename == "" and not data:
            continue  # a browser's file field in which no file was chosen
        # `background` is a name or a file: a file comes with a filename.
        if part.name == "image" or (part.name == "background" and part.filename is not None):
            files[part.name] = bytes(data)
        else:
            texts[part.name] = data.decode("utf-8", "replace")


def _negotiate(accept: str, mode: str, pixels: int = 0) -> str:
    """The content type of the answer. Cutouts are never JPEG, which has no alpha; large pictures are never WebP."""
    qualities = _qualities(accept)
    possible = [kind for kind in SUFFIXES if mode != "cutout" or kind != "image/jpeg"]
    size = ""
    if pixels > WEBP_PIXELS:
        possible.remove(WEBP)
        size = f" and {pixels} pixels (WebP: at most {WEBP_PIXELS})"
    allowed = [kind for kind in possible if qualities.get(kind) != 0]
    for kind in sorted(qualities, key=lambda kind: -qualities[kind]):
        if kind in allowed:
            return kind
        if allowed and qualities[kind] and kind in ("*/*", "image/*", ""):
            return allowed[0]
    raise web.HTTPNotAcceptable(
        text=f"got Accept: {accept!r}, expected one of {', '.join(possible)} for mode {mode}{size}"
    )


def _qualities(accept: str) -> dict[str, float]:
    """The media types of an Accept header in its order, each with its quality from 0 to 1 (RFC 9110, 12.5.1)."""
    qualities: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        given = [each[2:] for each in parameters if QUALITY.fullmatch(each)]
        qualities[kind] = float(given[0]) if given else 1.0
    return qualities

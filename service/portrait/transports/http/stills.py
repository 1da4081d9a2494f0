"""POST /v1/segment: one picture in, its result out, at the picture's size."""

import time
from dataclasses import dataclass
from fractions import Fraction

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.multipart import BodyPartReader

from portrait.admission.quality import Delivery
from portrait.core.compositors import MODES, Options
from portrait.core.compositors.blend import alpha, resize
from portrait.core.pipeline import Result
from portrait.errors import BadOption, BadPicture
from portrait.image.backgrounds import Backgrounds
from portrait.image.clip import Clip
from portrait.image.compressed import PictureFormat, decode_bgr, encode
from portrait.image.convert import bgr_from_frame, bgra_from_frame, frame_from_bgr
from portrait.image.frame import Frame, Timestamp
from portrait.sessions.registry import Sessions

SUFFIXES: dict[str, PictureFormat] = {"image/png": ".png", "image/webp": ".webp", "image/jpeg": ".jpg"}
"""What can be asked for by Accept, the preferred one first."""

FIELDS = ("image", "mode", "color", "background", "threshold", "feather", "framing", "decontaminate", "model")


@dataclass(frozen=True, slots=True)
class Form:
    """A request's parts: form fields win over query parameters."""

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
        return frame_from_bgr(decode_bgr(picture, self._max_pixels), Timestamp(0, Fraction(1)), arrived)

    def encode(self, result: Result, picture: bytes) -> bytes:
        """The result as a picture of the input's size: grey for mask and alpha, with alpha for cutout."""
        width, height = result.frame.width, result.frame.height
        if result.options.mode == "mask":
            pixels = resize(result.mask.values, width, height)
        elif result.options.mode == "alpha":
            pixels = alpha(result.mask, width, height, result.options.steep)
        else:
            frame = result.compose()
            pixels = bgr_from_frame(frame) if frame.alpha is None else bgra_from_frame(frame)
        with result.recorder.stage("encode"):
            return encode(pixels, self._suffix)


class Stills:
    """The route."""

    def __init__(self, sessions: Sessions, backgrounds: Backgrounds, max_pixels: int) -> None:
        self._sessions, self._backgrounds, self._max_pixels = sessions, backgrounds, max_pixels

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server shall serve."""
        return [web.post("/v1/segment", self._post)]

    async def _post(self, request: web.Request) -> web.Response:
        """A picture through a session of its own."""
        form = await _read_form(request)
        options = await self._options(form)
        content_type = _negotiate(request.headers.get("Accept", "*/*"), options.mode)
        codec = StillCodec(self._max_pixels, SUFFIXES[content_type])
        model, caller = form.texts.get("model"), request.headers.get("traceparent")
        opening = self._sessions.open("http", codec, options, model, delivery=Delivery.STILL, traceparent=caller)
        async with opening as session:
            processed = await session.process(form.image, time.monotonic())
        if processed.failure is not None:
            raise processed.failure
        timing = f"work;dur={processed.worked * 1000:.1f}"
        return web.Response(body=processed.wire, content_type=content_type, headers={"Server-Timing": timing})

    async def _options(self, form: Form) -> Options:
        background: Frame | Clip | None = None
        if form.background_picture is not None:
            background = await self._backgrounds.decode(form.background_picture)
        elif name := form.texts.get("background"):
            background = await self._backgrounds.pick(name)
        return Options("cutout", background=background).changed(form.texts)


async def _read_form(request: web.Request) -> Form:
    texts = dict(request.query)
    files: dict[str, bytes] = {}
    if request.content_type.startswith("image/"):
        files["image"] = await request.read()
    elif request.content_type == "multipart/form-data":
        try:
            await _read_parts(request, texts, files)
        except (ValueError, HttpProcessingError) as error:  # aiohttp's words for a body that is no multipart
            raise BadOption("body", f"no multipart form: {error}") from error
    else:
        raise web.HTTPUnsupportedMediaType(
            text=f"{request.content_type} came; expected multipart/form-data with a field image, or image/*"
        )
    if unknown := (texts.keys() | files.keys()) - set(FIELDS):
        raise BadOption(min(unknown), f"unknown field; expected {', '.join(FIELDS)}")
    if "image" not in files:
        raise BadPicture("image", "the field is missing; expected the bytes of a JPEG, PNG or WebP file")
    return Form(files["image"], files.get("background"), texts)


async def _read_parts(request: web.Request, texts: dict[str, str], files: dict[str, bytes]) -> None:
    total, seen = 0, set[str]()
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise BadOption("body", "a part without a name")
        # Here and not at the end: parts without a body cost nothing to send, and there may be any number of them.
        if part.name not in FIELDS:
            raise BadOption(part.name[:80], f"unknown field; expected {', '.join(FIELDS)}")
        if part.name in seen:
            raise BadOption(part.name, "the field came twice; expected it once")
        seen.add(part.name)
        data = bytearray()
        while chunk := await part.read_chunk():
            total += len(chunk)
            if total > request.client_max_size:
                raise web.HTTPRequestEntityTooLarge(max_size=request.client_max_size, actual_size=total)
            data += chunk
        # `background` is a name or a file: a file comes with a filename.
        if part.name == "image" or (part.name == "background" and part.filename is not None):
            files[part.name] = bytes(data)
        else:
            texts[part.name] = data.decode("utf-8", "replace")


def _negotiate(accept: str, mode: str) -> str:
    """The content type to answer with. JPEG has no alpha, so it is never a cutout."""
    possible = [kind for kind in SUFFIXES if mode != "cutout" or kind != "image/jpeg"]
    wanted = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    for kind in wanted:
        if kind in possible:
            return kind
        if kind in ("*/*", "image/*", ""):
            return possible[0]
    raise web.HTTPNotAcceptable(text=f"{accept} was asked for; mode {mode} can be {', '.join(possible)}")

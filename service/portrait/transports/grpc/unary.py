"""What the calls for one picture share: Segment of portrait.v1 and ModelInfer of KServe."""

from typing import Any

import grpc.aio

from portrait.admission.pixel_budget import WEBP_CHARGE, WEBP_PIXELS, PixelBudget, Share, result_pixels
from portrait.errors import BadOption
from portrait.image.frame import check_size
from portrait.transports.grpc.codec import COMPRESSED, EncodedPicture, PictureFields
from portrait.transports.grpc.stream import duration
from portrait.transports.grpc.validation import LENGTH, encode_varint
from portrait.v1 import segmentation_pb2 as pb


async def still_share(
    picture: PictureFields, budget: PixelBudget, max_pixels: int, field: str, *, webp: bool = False
) -> Share:
    """Take a picture's pixels from the budget, by its header or by the size that came with it.

    With `webp` the result is a WebP file.

    Raises:
        BadOption: the picture is too large for a WebP file.
        BadPicture: not a picture, or one of more than `max_pixels`; names `field`.
        TooManyPixels: its pixels do not become free in time.
    """
    charge = _webp_charge if webp else _charge
    if picture.format in COMPRESSED:
        return await budget.take_picture(picture.data, max_pixels, field, charge=charge)
    check_size(picture.width, picture.height, max_pixels, field)
    return await budget.take(charge(picture.width * picture.height))


def _charge(pixels: int) -> int:
    return pixels


def _webp_charge(pixels: int) -> int:
    if pixels > WEBP_PIXELS:
        raise BadOption(
            "format", f"got WEBP for a picture of {pixels} pixels, expected at most {WEBP_PIXELS}; ask for PNG or JPEG"
        )
    return WEBP_CHARGE * pixels


def pack_response(picture: EncodedPicture, worked: float) -> bytes:
    """A SegmentResponse on the wire (protobuf.dev, Encoding).

    Its bytes are joined once: a message would be filled in, serialized and copied, with 100 MB each time for the
    largest pictures.
    """
    fields = pb.Picture(format=picture.format, width=picture.width, height=picture.height).SerializeToString()
    fields += _head(pb.Picture.DATA_FIELD_NUMBER, len(picture.data))
    head = _head(pb.SegmentResponse.PICTURE_FIELD_NUMBER, len(fields) + len(picture.data))
    rest = pb.SegmentResponse(work_time=duration(worked)).SerializeToString()
    return b"".join((head, fields, picture.data, rest))


def _head(number: int, length: int) -> bytes:
    """What comes before a member of so many bytes."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(length)


def keep_until_sent(share: Share, length: int, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Keep as much of a share as a result of `length` bytes stands for until the call is over.

    gRPC holds a response until the client has read it or is gone, and has no way to cut a call on the server before.
    """
    kept = share.split(result_pixels(length))
    context.add_done_callback(lambda _: kept.release())  # type: ignore[arg-type]  # its stub wants a named argument


def traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """The caller's place in a trace (W3C Trace Context), if the metadata tell one."""
    value = dict(context.invocation_metadata() or ()).get("traceparent")
    return value if isinstance(value, str) else None

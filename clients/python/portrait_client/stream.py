"""Stream: frames and replies of one SegmentStream call."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from portrait_client.grpc_call import StreamCall
from portrait_client.types import Array, ClientError, OutputFields, Picture, Presence, Reply, described, is_array
from portrait_client.v1 import segmentation_pb2 as pb


class Stream:
    """One live stream with a prior of its own. Opened by `Client.open_stream`."""

    def __init__(self, call: StreamCall, info: pb.StreamInfo) -> None:
        self.info = info
        """The session, its limits and its output, as the server has accepted them."""
        self.leaving = False
        """Whether the server has announced that it will stop."""
        self._call = call

    async def send(self, frame: Picture | Array, frame_id: int, timestamp_us: int = 0) -> None:
        """Send a frame: a picture, or pixels (H, W, 3) uint8 RGB.

        Raises:
            ClientError: the stream has ended.
        """
        message = pb.Frame(id=frame_id, timestamp_us=timestamp_us, picture=Picture.of(frame).message)
        await self._call.write(pb.SegmentStreamRequest(frame=message))

    async def change(
        self, output: Mapping[str, Any] | None = None, reset_prior: bool = False, send_prior: bool = False
    ) -> None:
        """Change the output of the frames that follow, forget the prior, or ask for it with the next result.

        `output` are the fields of portrait.v1.Output; they replace all current ones.
        """
        control = pb.Control(reset_prior=reset_prior, send_prior=send_prior)
        if output is not None:
            control.output.CopyFrom(make_output(output))
        await self._call.write(pb.SegmentStreamRequest(control=control))

    async def finish(self) -> None:
        """Say that no frame follows; the replies to the ones sent still come."""
        await self._call.done_writing()

    async def receive(self) -> Reply | None:
        """The next reply; None after the last. Cancelling ends the stream.

        Raises:
            ClientError: the stream was refused or cut.
        """
        while (message := await self._call.read()) is not None:
            if message.HasField("result"):
                return make_reply(message.result)
            self.leaving = self.leaving or message.HasField("goaway")
        return None

    async def __aiter__(self) -> AsyncIterator[Reply]:
        while (reply := await self.receive()) is not None:
            yield reply


def make_output(fields: OutputFields | Mapping[str, Any]) -> pb.Output:
    """An Output message.

    Raises:
        TypeError: an unknown field, or a value of the wrong type.
    """
    try:
        return pb.Output(**fields)
    except (TypeError, ValueError) as error:
        expected = ", ".join(pb.Output.DESCRIPTOR.fields_by_name)
        raise TypeError(f"output: {error}, expected the fields of portrait.v1.Output: {expected}") from error


def make_prior(prior: Array | pb.Picture) -> pb.Picture:
    """The message of a mask, (H, W) uint8.

    Raises:
        TypeError: something else.
    """
    if isinstance(prior, pb.Picture):
        return prior
    if not is_array(prior, (None, None)):
        raise TypeError(f"prior: got {described(prior)}, expected a mask, (H, W) uint8, or Reply.prior_picture")
    height, width = prior.shape
    return pb.Picture(format=pb.PICTURE_FORMAT_GRAY8, width=width, height=height, data=prior.tobytes())


def make_reply(result: pb.FrameResult) -> Reply:
    """A Reply of a message."""
    return Reply(
        id=result.id,
        timestamp_us=result.timestamp_us,
        picture=result.picture,
        error=ClientError.from_status(result.error) if result.HasField("error") else None,
        dropped=result.dropped,
        wait_seconds=result.wait_time.ToMicroseconds() / 1e6,
        work_seconds=result.work_time.ToMicroseconds() / 1e6,
        quality=pb.Quality.Name(result.quality or pb.QUALITY_FULL).removeprefix("QUALITY_").lower(),
        carried=result.carried,
        prior_picture=result.prior if result.HasField("prior") else None,
        presence=Presence.of(result.presence) if result.HasField("presence") else None,
    )

"""What the Python client says to a program that calls it wrongly: before anything is sent, where it can know."""

from typing import Any

import numpy as np
import pytest

from portrait.client import Client, ClientError, Picture, Tls
from portrait.v1 import segmentation_pb2 as pb
from portrait_client.stream import make_prior
from tests.calls import client, received
from tests.people import room

__all__ = ["client"]  # fixture

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (None, "got NoneType"),
        (b"\xff\xd8", "got bytes"),
        ("me.jpg", "got str"),
        (np.zeros((48, 64), np.uint8), r"got uint8 \(48, 64\)"),
        (np.zeros((48, 64, 4), np.uint8), r"got uint8 \(48, 64, 4\)"),
        (np.zeros((1, 48, 64, 3), np.uint8), r"got uint8 \(1, 48, 64, 3\)"),
        (np.zeros((48, 64, 3), np.float32), r"got float32 \(48, 64, 3\)"),
    ],
)
async def test_a_frame_that_is_none_is_refused_here(client: Client, given: Any, came: str) -> None:
    """None among them: what cv2.imread gives for a file that is not there would look like the end of the frames."""
    expected = rf"{came}, expected a Picture, .* or pixels, \(H, W, 3\) uint8 RGB"
    with pytest.raises(TypeError, match=expected):
        await client.segment(given)
    with pytest.raises(TypeError, match=expected):
        async for _ in client.stream([room(64, 48), given]):
            pass


@pytest.mark.parametrize("given", [np.zeros((48, 64), np.float32), np.zeros((48, 64, 1), np.uint8)])
def test_a_prior_that_is_none_is_refused_here(given: Any) -> None:
    with pytest.raises(TypeError, match=r"prior: got \w+ \(48, .*, expected a mask, \(H, W\) uint8"):
        make_prior(given)


@pytest.mark.parametrize("wrong", [{"colour": "#ff0000"}, {"threshold": "half"}, {"format": "TIFF"}])
async def test_an_option_that_is_none_is_refused_with_those_that_are(client: Client, wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"expected the fields of portrait\.v1\.Output: mode, color, "):
        await client.segment(room(64, 48), **wrong)


async def test_a_frame_that_was_refused_has_an_error_and_no_array(client: Client) -> None:
    async with client.open_stream(every_frame=True) as stream:
        await stream.send(Picture.jpeg(b"no picture"), 1)
        reply = await received(stream)
        assert isinstance(reply.error, ClientError)
        with pytest.raises(ClientError, match="got 10 bytes that are no picture"):
            reply.array  # noqa: B018
        await stream.send(room(64, 48), 2)
        assert (await received(stream)).array.size


@pytest.mark.parametrize(
    ("target", "error"),
    [("localhost", ValueError), ("http://localhost:50051", ValueError), (50051, TypeError), (["a:1"], TypeError)],
)
def test_a_target_of_another_form_is_refused(target: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"target: got .*, expected host:port"):
        Client(target)


@pytest.mark.parametrize("token", ["secret-secret\n", "schlüssel"])
def test_a_token_that_no_header_carries_is_refused_and_not_told(token: str) -> None:
    with pytest.raises(ValueError, match="expected printable ASCII") as refused:
        Client("localhost:50051", token=token)
    assert token.strip() not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"roots": "ca.crt"}, "roots: got str"),
        ({"roots": b"\x30\x82"}, "roots: got bytes without"),
        ({"certificate": CERTIFICATE}, "key: got None"),
        ({"key": CERTIFICATE}, "certificate: got None"),
    ],
)
def test_credentials_that_are_none_are_refused(given: dict[str, Any], said: str) -> None:
    """By itself gRPC ends the process for a certificate without its key."""
    with pytest.raises(ValueError, match=said):
        Tls(**given)


async def test_no_frame_in_flight_is_no_stream(client: Client) -> None:
    with pytest.raises(ValueError, match="max_in_flight: got 0, expected 1 or more"):
        async for _ in client.stream([room(64, 48)], max_in_flight=0):
            pass


def test_pictures_of_the_contract_pass_as_priors() -> None:
    picture = pb.Picture(format=pb.PICTURE_FORMAT_GRAY8_ZLIB)
    assert make_prior(picture) is picture

"""Which model answers a still, and how often it looks at it."""

import asyncio
import json
from fractions import Fraction
from pathlib import Path

import aiohttp
import cv2
import grpc.aio
import numpy as np
import pytest

from portrait.cli import main
from portrait.client import Client, Picture
from portrait.core.segmenters import Models
from portrait.core.segmenters.stills import StillModel
from portrait.image.frame import Frame, Mask, Timestamp
from portrait.kserve import inference_pb2 as kserve
from portrait.kserve import inference_pb2_grpc as kserve_grpc
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.calls import client, jpeg
from tests.embedded import FINE, SIDE
from tests.fakes import FakeModel
from tests.films import read_video, write_video
from tests.people import Array, iou
from tests.posts import SHOWN, encoded, form, http, picture_of

__all__ = ["client", "http"]  # fixtures


async def mask_of(http: aiohttp.ClientSession, **fields: str) -> Array:
    async with http.post("/v1/segment?mode=mask", data=form(encoded(SHOWN.frames[0]), **fields)) as response:
        return await picture_of(response)


async def infer(service: RunningService, picture: Picture, model: str) -> kserve.ModelInferResponse:
    contents = kserve.InferTensorContents(bytes_contents=[picture.message.data])
    tensor = kserve.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1], contents=contents)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        request = kserve.ModelInferRequest(model_name=model, inputs=[tensor])
        answer = await kserve_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert isinstance(answer, kserve.ModelInferResponse)
    return answer


async def test_a_still_that_names_no_model_gets_more_than_a_stream(http: aiohttp.ClientSession) -> None:
    unnamed = await mask_of(http)
    live, fine = await mask_of(http, model="portrait"), await mask_of(http, model="portrait-fine")
    assert not np.array_equal(unnamed, live)
    assert not np.array_equal(unnamed, fine), "one look is no mean of several"
    assert np.array_equal(await mask_of(http), unnamed)
    assert min(iou(SHOWN.masks[0], mask) for mask in (unnamed, live, fine)) > 0.9


async def test_grpc_and_kserve_answer_alike(service: RunningService, client: Client) -> None:
    picture = jpeg(SHOWN.frames[0])
    for name, answering, side in (
        ("", "portrait-fine", FINE),
        ("portrait-fine", "portrait-fine", FINE),
        ("portrait", "portrait", SIDE),
    ):
        reply, answer = await client.segment(picture, model=name), await infer(service, picture, name)
        assert reply.array.shape == (side, side)
        assert answer.model_name == answering
        assert answer.raw_output_contents[0] == reply.array.tobytes()
    unnamed, fine = await client.segment(picture), await client.segment(picture, model="portrait-fine")
    assert not np.array_equal(unnamed.array, fine.array)


async def test_streams_keep_the_fast_model(client: Client) -> None:
    for every_frame in (False, True):
        async with client.open_stream(every_frame=every_frame) as stream:
            assert stream.info.model.name == "portrait"
            assert not stream.info.model.still_default


async def test_what_an_operator_names_answers_everything(settings: Settings) -> None:
    named = settings.model_copy(update={"model": "portrait"})
    async with run_service(named) as service, Client(f"127.0.0.1:{service.grpc_port}") as client:
        picture = jpeg(SHOWN.frames[0])
        unnamed, live = await client.segment(picture), await client.segment(picture, model="portrait")
        assert unnamed.array.tobytes() == live.array.tobytes()
        models = {model.name: (model.default, model.still_default) for model in await client.models()}
    assert models["portrait"] == (True, True)
    assert models["portrait-fine"] == (False, False)


async def test_models_tell_what_they_are_used_for(service: RunningService, http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models") as response:
        listed = {row["name"]: (row["default"], row["still_default"]) for row in await response.json()}
    assert [name for name, (default, _) in listed.items() if default] == ["portrait"]
    assert [name for name, (_, still) in listed.items() if still] == ["portrait-fine"]
    async with http.get("/metrics") as response:
        text = await response.text()
    for name, use in (("portrait", "streams"), ("portrait-fine", "stills")):
        assert any(f'model="{name}"' in line and f'use="{use}"' in line for line in text.splitlines())


def test_the_command_tells_it_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    marked = {line.split()[1]: line[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "}
    assert marked == {"portrait": "*", "portrait-fine": "+"}
    assert main(["models", "--model", "portrait-wide", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["default"] and row["still_default"]] == ["portrait-wide"]


def process(folder: Path, source: Path, *arguments: str) -> list[Array]:
    """The pictures of the result, which no codec has changed: x264 with threads gives now one thing, now another."""
    target = folder / ("out.png" if source.suffix == ".png" else "out.y4m")
    assert main(["process", str(source), str(target), "--mode", "mask", *arguments]) == 0
    if source.suffix == ".png":
        return [np.asarray(cv2.imread(str(target), cv2.IMREAD_UNCHANGED), np.uint8)]
    return read_video(target)


def same(one: list[Array], other: list[Array]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["still", "video"])
def test_files_take_the_fine_model_unless_another_is_named(tmp_path: Path, kind: str) -> None:
    if kind == "still":
        source = tmp_path / "in.png"
        cv2.imwrite(str(source), SHOWN.frames[0])
    else:
        source = tmp_path / "in.mkv"
        write_video(source)
    unnamed = process(tmp_path, source)
    live, fine = (process(tmp_path, source, "--model", name) for name in ("portrait", "portrait-fine"))
    assert not same(unnamed, live)
    # The pictures of a video have their priors: one look is enough.
    assert same(unnamed, fine) == (kind == "video")


async def test_a_service_works_on_files_with_the_fine_model(service: RunningService, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    write_video(source)
    address = f"127.0.0.1:{service.grpc_port}"
    unnamed = await asyncio.to_thread(process, tmp_path, source, "--server", address)
    named = [
        await asyncio.to_thread(process, tmp_path, source, "--server", address, "--model", name)
        for name in ("portrait-fine", "portrait")
    ]
    assert same(unnamed, named[0])
    assert not same(unnamed, named[1])


@pytest.mark.parametrize("mode", ["mask", "alpha", "cutout", "color"])
async def test_a_still_is_the_same_here_and_there(service: RunningService, tmp_path: Path, mode: str) -> None:
    source = tmp_path / "in.png"
    cv2.imwrite(str(source), SHOWN.frames[0])
    found = []
    for name, arguments in (("here", []), ("there", ["--server", f"127.0.0.1:{service.grpc_port}"])):
        target = tmp_path / f"{name}.png"
        assert await asyncio.to_thread(main, ["process", str(source), str(target), "--mode", mode, *arguments]) == 0
        found.append(np.asarray(cv2.imread(str(target), cv2.IMREAD_UNCHANGED), np.int16))
    here, there = found
    assert here.shape == there.shape
    # A second conversion to RGB and back moves a level of colour here and there.
    assert np.abs(here - there).mean() < 1
    if mode == "cutout":
        assert np.array_equal(here[..., 3], there[..., 3])


# What a StillModel does with its network.


def grey(values: Array) -> Frame:
    """A frame of that luma, without colour."""
    chroma = np.full((values.shape[0] // 2, values.shape[1] // 2), 128, np.uint8)
    return Frame(values, chroma, chroma, Timestamp(0, Fraction(1)), 0.0)


def test_picture_and_mirror_image_are_averaged() -> None:
    seen: list[Array] = []

    def leaning(frame: Frame) -> Mask:
        """It takes the left half for the person, wherever that is."""
        seen.append(frame.y.copy())
        values = np.zeros((32, 32), np.uint8)
        values[:, :16] = 200
        return Mask(values)

    picture = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    model = FakeModel(leaning)
    mask = StillModel(model).open().segment(grey(picture))
    assert np.all(mask.values == 100)
    assert len(seen) == 2
    assert np.array_equal(seen[0], seen[1][:, ::-1])
    assert model.resets == 2, "neither look may be the prior of the other"


def bright(frame: Frame) -> Mask:
    """What is bright is the person."""
    return Mask(np.where(cv2.resize(frame.y, (32, 32), interpolation=cv2.INTER_AREA) > 127, 255, 0).astype(np.uint8))


@pytest.mark.parametrize(("side", "looks"), [(64, 4), (300, 2), (0, 2)])
def test_a_small_person_is_looked_at_more_closely(side: int, looks: int) -> None:
    shares: list[float] = []

    def watching(frame: Frame) -> Mask:
        shares.append(float((frame.y > 127).mean()))
        return bright(frame)

    picture = np.zeros((320, 320), np.uint8)
    left = min(200, 310 - side)
    picture[10 : 10 + side, left : left + side] = 255
    mask = StillModel(FakeModel(watching)).open().segment(grey(picture))
    assert len(shares) == looks
    if looks == 4:
        assert shares[2] > 4 * shares[0], "the part around the person shows them larger"
    truth = np.asarray(cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA), np.uint8)
    assert np.count_nonzero((truth > 127) != (mask.values > 127)) <= side // 10


def test_a_prior_is_continued_from() -> None:
    model = FakeModel(bright)
    segmenter = StillModel(model).open()
    prior = Mask(np.full((32, 32), 7, np.uint8))
    segmenter.resume(prior)
    segmenter.segment(grey(np.zeros((64, 64), np.uint8)))
    assert (model.priors, model.resets) == ([prior], 0)
    segmenter.reset()
    segmenter.segment(grey(np.zeros((64, 64), np.uint8)))
    assert model.resets == 3
    segmenter.close()
    assert model.open_count == 0


def test_a_picture_and_its_mirror_image_have_the_same_mask(models: Models) -> None:
    segmenter = models.pick_still(None).open()
    picture = cv2.cvtColor(SHOWN.frames[0], cv2.COLOR_BGR2GRAY)
    plain = segmenter.segment(grey(np.asarray(picture, np.uint8))).values.astype(int)
    mirrored = segmenter.segment(grey(np.ascontiguousarray(picture[:, ::-1]))).values.astype(int)
    assert np.abs(plain - mirrored[:, ::-1]).max() <= 2
    segmenter.close()

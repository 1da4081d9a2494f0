"""Several pods as one service: each answers for the sessions and streams of all, and believes its own kind only."""

import asyncio
import json
import os
import socket
import ssl
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc.aio
import pytest
from yarl import URL

from portrait.client import Client, ClientError
from portrait.cluster.config import ClusterConfig
from portrait.cluster.pod_ids import PodIds
from portrait.cluster.trust import ClusterTls
from portrait.errors import BadSettings
from portrait.settings import Settings, load_settings
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc
from tests.boxes import serving
from tests.people import Clip
from tests.rtc import Camera, viewer
from tests.test_worker_proxy import ask_raw
from tests.whip import publisher, shown, watcher

__all__ = ["shown"]  # a fixture

SECRET = "a secret of the tests, long enough to be one"
PORT = 8444
NETWORK = f"127.{1 + os.getpid() % 250}.{1 + os.getpid() // 250 % 250}"
"""Addresses of the loopback that no other test uses at this moment."""


@dataclass(frozen=True)
class Pod:
    """A real service of its own process, which takes the others for the same service."""

    address: str
    url: str
    grpc: str


@pytest.fixture(scope="module")
def pods() -> Iterator[tuple[Pod, Pod]]:
    """One with a single worker and one with two."""
    addresses = [f"{NETWORK}.1", f"{NETWORK}.2"]
    found = []
    with ExitStack() as stack:
        for address, workers in zip(addresses, "12", strict=True):
            _, told = stack.enter_context(
                serving(
                    "--workers", workers, "--drain-seconds", "0", "--cluster-peers", ",".join(addresses),
                    "--cluster-address", address, PORTRAIT_CLUSTER_SECRET=SECRET,
                )
            )  # fmt: skip
            found.append(Pod(address, told["page"].rstrip("/"), told["grpc"]))
        yield found[0], found[1]


@pytest.fixture
async def inside() -> AsyncIterator[aiohttp.ClientSession]:
    """What a pod calls others with."""
    context = ClusterTls.of(SECRET, "127.0.0.1").client_context()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        yield http


async def title(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and reason of a refusal."""
    return response.status, (await response.json(content_type=None))["title"]


async def test_a_session_is_found_from_any_pod(pods: tuple[Pod, Pod], shown: Clip) -> None:
    for home, other in (pods, pods[::-1]):
        async with viewer(home.url, Camera(shown)) as one:
            await one.connect(mode="color", color="#ff0000")
            await one.frame()
            there = one.location.replace(home.url, other.url)
            for _ in range(4):  # of two workers each takes some
                async with aiohttp.ClientSession() as http, http.patch(there, json={"mode": "blur"}) as response:
                    assert (response.status, (await response.json())["mode"]) == (200, "blur")
            assert (await one.numbers())["mode"] == "blur"
            async with one.http.patch(there, json={"mode": "nonsense"}) as response:
                assert await title(response) == (400, "BAD_OPTION")
            async with one.http.delete(there) as response:
                assert response.status == 200
            async with timeout(30):
                while (await one.http.get(there)).status != 404:
                    await asyncio.sleep(0.02)


async def test_a_grpc_stream_is_known_everywhere_by_its_id(pods: tuple[Pod, Pod]) -> None:
    async with (
        Client(pods[0].grpc) as client,
        client.open_stream() as stream,
        aiohttp.ClientSession() as http,
        http.get(f"{pods[1].url}/v1/sessions/{stream.info.session_id}") as response,
    ):
        assert (response.status, (await response.json())["transport"]) == (200, "grpc")


async def test_a_stream_is_watched_from_any_pod_and_published_once(pods: tuple[Pod, Pod], shown: Clip) -> None:
    for name, home, other in (("hall", *pods), ("desk", *pods[::-1])):
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(publisher(home.url, shown))
            await one.connect(f"/whip/{name}")
            again = await stack.enter_async_context(publisher(other.url, shown))
            assert await title(await again.post(await again.offer(), f"/whip/{name}")) == (409, "STREAM_TAKEN")
            two = await stack.enter_async_context(watcher(other.url))
            await two.connect(f"/whep/{name}")
            await two.frame()
            for url in (home.url, other.url):
                async with two.http.get(two.location.replace(other.url, url)) as response:
                    assert (await response.json())["stream"] == name
            client = await stack.enter_async_context(Client(other.grpc))
            async with timeout(60), aclosing(client.watch(name)) as results:
                assert (await anext(results)).array.any()
            async with one.http.delete(one.location.replace(home.url, other.url)) as response:
                assert response.status == 200
            async with timeout(30):
                while (await again.post(again.pc.localDescription.sdp, f"/whip/{name}")).status != 201:
                    await asyncio.sleep(0.1)


async def test_a_stream_that_no_pod_has_is_refused_as_on_one(pods: tuple[Pod, Pod]) -> None:
    for pod in pods:
        async with watcher(pod.url) as one:
            assert await title(await one.post(await one.offer(), "/whep/nobody")) == (409, "NOT_PUBLISHED")
        async with Client(pod.grpc) as client:
            with pytest.raises(ClientError) as refused:
                await anext(client.watch("nobody"))
            assert refused.value.reason == "NOT_PUBLISHED"


async def test_who_listens_at_one_pod_hears_of_the_streams_of_all(pods: tuple[Pod, Pod], shown: Clip) -> None:
    async with (
        timeout(120),
        aiohttp.ClientSession() as http,
        http.get(f"{pods[0].url}/v1/events") as response,
        publisher(pods[1].url, shown) as one,
    ):
        await one.connect("/whip/door")
        seen: dict[str, Any] = {}
        while not (seen.get("stream") == "door" and seen["present"]):
            line = await response.content.readline()
            if line.startswith(b"data: "):
                seen = json.loads(line[6:])


async def test_only_a_signed_address_is_called(pods: tuple[Pod, Pod]) -> None:
    """The box would call any address otherwise that a client writes into an id."""
    with socket.create_server((f"{NETWORK}.9", PORT)) as foreign:
        foreign.settimeout(0.3)
        forged = PodIds("another secret that is long enough to be one", f"{NETWORK}.9").sign("0-x")
        genuine = PodIds(SECRET, pods[1].address).sign("0-x")
        async with aiohttp.ClientSession() as http:
            for name in (forged, genuine[:-1], f"1-x.{genuine.partition('.')[2]}", "0-x.", "0-x.\u00e9", "0-x"):
                async with http.get(f"{pods[0].url}/v1/sessions/{name}") as response:
                    assert await title(response) == (404, "NO_SUCH_SESSION"), name
        with pytest.raises(TimeoutError):
            foreign.accept()


async def test_a_target_that_names_a_host_is_asked_of_the_pod_and_not_of_that_host(
    pods: tuple[Pod, Pod], shown: Clip
) -> None:
    """A target with a host of its own (RFC 9112 section 3.2.2) made a pod call that host, with the client's headers."""
    called: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(await reader.readline())
        writer.close()

    home, other = pods
    async with viewer(home.url, Camera(shown)) as one, publisher(home.url, shown) as two, timeout(120):
        await one.connect()
        await two.connect("/whip/named")
        inner = await asyncio.start_server(take, "127.0.0.1", 0)
        host, path = f"http://127.0.0.1:{inner.sockets[0].getsockname()[1]}", one.location.removeprefix(home.url)
        answers = [await ask_raw(URL(other.url), f"{line} HTTP/1.1") for line in (
            f"GET {host}{path}", f"GET {host}/{path}", f"DELETE {host}{path}?x=1", f"POST {host}/whep/named",
        )]  # fmt: skip
        assert [answer.split(maxsplit=2)[1] for answer in answers] == [b"200", b"404", b"200", b"400"]
        inner.close()
    assert called == []


async def test_a_pod_that_is_not_reached_is_lost_or_gone(pods: tuple[Pod, Pod]) -> None:
    """Gone: its address is none of the service's any more, so the session has ended. Otherwise it may come back."""
    gone = PodIds(SECRET, f"{NETWORK}.8").sign("0-x")
    async with aiohttp.ClientSession() as http, http.delete(f"{pods[0].url}/v1/sessions/{gone}") as response:
        assert await title(response) == (404, "NO_SUCH_SESSION")
    silent = f"{NETWORK}.7"
    settings = ("--cluster-peers", f"{silent},{pods[0].address}", "--cluster-address", f"{NETWORK}.3")
    with serving(*settings, "--workers", "1", PORTRAIT_CLUSTER_SECRET=SECRET) as (_, told):
        lost = f"{told['page']}v1/sessions/{PodIds(SECRET, silent).sign('0-x')}"
        async with aiohttp.ClientSession() as http, http.delete(lost) as response:
            assert await title(response) == (503, "POD_LOST")
            assert int(response.headers["Retry-After"]) >= 1
        async with aiohttp.ClientSession() as http, http.get(f"{told['page']}metrics") as response:
            assert 'portrait_cluster_forwarded_total{kind="session",result="failed"} 1.0' in await response.text()


async def test_what_another_pod_asks_goes_no_further(pods: tuple[Pod, Pod], inside: aiohttp.ClientSession) -> None:
    """Two pods that disagree about an address would pass a request to and fro otherwise."""
    elsewhere = PodIds(SECRET, pods[1].address).sign("0-x")
    async with inside.get(f"https://{pods[0].address}:{PORT}/v1/sessions/{elsewhere}") as response:
        assert await title(response) == (404, "NO_SUCH_SESSION")
    async with inside.get(f"https://{pods[0].address}:{PORT}/cluster/streams?name=nobody") as response:
        assert response.status == 404


async def test_strangers_get_no_answer_at_the_port_for_pods(pods: tuple[Pod, Pod]) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    other = ClusterTls.of("another secret that is long enough to be one", pods[0].address).client_context()
    other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession() as http:
        for pod in pods:
            for scheme, context in (("https", stranger), ("https", other), ("http", False)):
                with pytest.raises((aiohttp.ClientError, ConnectionError)):
                    await http.get(f"{scheme}://{pod.address}:{PORT}/v1/sessions", ssl=context)
            async with http.get(f"{pod.url}/cluster/streams?name=hall") as response:
                assert response.status == 404, "clients must not ask which streams there are"
    async with grpc.aio.insecure_channel(f"{pods[0].address}:{PORT + 1}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await pb_grpc.SegmentationServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=5)


async def test_a_pod_is_called_only_where_its_certificate_says(pods: tuple[Pod, Pod]) -> None:
    """A pod, or whoever took it over, cannot answer for another's address."""
    impostor = ClusterTls.of(SECRET, pods[0].address).server_context()
    server = await asyncio.start_server(lambda _, writer: writer.close(), f"{NETWORK}.6", PORT, ssl=impostor)
    async with server, aiohttp.ClientSession() as http:
        name = PodIds(SECRET, f"{NETWORK}.6").sign("0-x")
        async with http.get(f"{pods[0].url}/v1/sessions/{name}") as response:
            assert await title(response) == (404, "NO_SUCH_SESSION")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cluster_peers": "pods"}, "PORTRAIT_CLUSTER_ADDRESS: got nothing"),
        ({"cluster_secret": SECRET}, "PORTRAIT_CLUSTER_PEERS: got nothing"),
        ({"cluster_peers": "pods", "cluster_address": "10.0.0.1", "cluster_secret": "short"}, "got 5 characters"),
        ({"cluster_peers": "pods", "cluster_address": "0.0.0.0", "cluster_secret": SECRET}, "this pod alone"),
    ],
)
def test_half_a_cluster_is_refused_at_the_start(given: dict[str, str], said: str) -> None:
    with pytest.raises(BadSettings, match=said) as refused:
        ClusterConfig.of(Settings.model_validate(given))
    assert "short" not in str(refused.value).replace("shorter", "")
    with pytest.raises(BadSettings, match="PORTRAIT_CLUSTER_ADDRESS='pod-1'"):
        load_settings({}, {"PORTRAIT_CLUSTER_ADDRESS": "pod-1"})


def test_one_pod_alone_needs_no_cluster() -> None:
    assert ClusterConfig.of(Settings()) is None


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::7"])
def test_an_id_leads_to_its_pod_and_only_its_makers_can_change_it(address: str) -> None:
    ids = PodIds(SECRET, address)
    name = ids.sign("0-abc")
    assert name.startswith("0-abc.")
    assert PodIds(SECRET, "10.9.9.9").address(name) == address
    assert {ids.address(name[:i] + chr(ord(name[i]) ^ 1) + name[i + 1 :]) for i in range(len(name) - 1)} == {None}

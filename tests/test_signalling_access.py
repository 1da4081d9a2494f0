"""Who may use the signalling, how often, from which pages, and which ICE servers they are told of."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCSessionDescription

from portrait.errors import BadSettings, TooManyRequests
from portrait.server.app import run_service
from portrait.settings import Settings, load_settings
from portrait.transports.webrtc import offer_limits as rate
from portrait.transports.webrtc.turn import IceServers
from tests.fakes import FakeModel, full_mask
from tests.people import Clip
from tests.rtc import fake_service
from tests.whip import ENDPOINTS, published, publisher, shown

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")
PAGE = "https://page.example"
SECRET = "a secret that TURN shares"
SERVERS = ("stun:turn.example:3478", "turn:turn.example:3478?transport=udp", "turns:[2001:db8::1]:5349?transport=tcp")
TOKEN = "0123456789abcdef-camera"


@asynccontextmanager
async def guarded(tmp_path: Path, **changes: object) -> AsyncIterator[str]:
    """The whole service, which asks for a token."""
    (tmp_path / "tokens").write_text(f"camera {TOKEN}\n")
    settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, tokens=tmp_path / "tokens")
    async with run_service(settings.model_copy(update=changes)) as running:
        yield f"http://127.0.0.1:{running.http_port}"


def preflight(method: str = "POST", origin: str = PAGE) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,if-match",
    }


async def test_an_address_that_asks_too_often_is_429_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "BURST", 3)
    monkeypatch.setattr(rate, "PER_SECOND", 1e-6)
    headers = {"Content-Type": "application/sdp"}
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        paths = ("/webrtc", "/whip/desk", "/webrtc", "/whep/desk")
        answers = [await http.post(url + path, data="hello", headers=headers) for path in paths]
        assert [answer.status for answer in answers] == [400, 400, 400, 429]
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert (await http.get(f"{url}/v1/sessions")).status == 200


def test_the_rate_is_each_addresss_own_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    limit = rate.Rate(lambda: now)
    for _ in range(rate.BURST):
        limit.take("one")
    with pytest.raises(TooManyRequests):
        limit.take("one")
    limit.take("two")
    now += 1.0
    for _ in range(int(rate.PER_SECOND)):
        limit.take("one")
    with pytest.raises(TooManyRequests):
        limit.take("one")
    monkeypatch.setattr(rate, "MOST_ADDRESSES", 5)
    for number in range(100):
        limit.take(str(number))
    assert len(limit._buckets) <= 5


def test_an_address_that_is_quiet_is_forgotten() -> None:
    now = 0.0
    limit = rate.Rate(lambda: now)
    for number in range(1000):
        limit.take(str(number))
    now += rate.FULL_SECONDS + 1
    limit.take("late")
    assert len(limit._buckets) == 1


# Credentials


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_without_a_bearer_token_it_is_401_with_www_authenticate(path: str, tmp_path: Path) -> None:
    headers = {"Content-Type": "application/sdp"}
    async with guarded(tmp_path) as url, aiohttp.ClientSession() as http:
        for method in ("POST", "GET", "OPTIONS"):
            refused = await http.request(method, url + path, headers=headers)
            assert refused.status == 401
            assert 'Bearer realm="portrait"' in refused.headers.getall("WWW-Authenticate")
        taken = await http.post(url + path, data="x", headers={**headers, "Authorization": f"Bearer {TOKEN}"})
        assert taken.status == (409 if "whep" in path else 400)


async def test_preflights_need_no_token_and_get_no_turn_credentials(tmp_path: Path) -> None:
    changes = {"origins": PAGE, "ice_urls": SERVERS[1], "turn_secret": Settings(turn_secret=SECRET).turn_secret}
    async with guarded(tmp_path, **changes) as url, aiohttp.ClientSession() as http:
        for path, method in ((*ENDPOINTS[1:2], "POST"), ("/v1/sessions/abc", "PATCH"), ("/v1/viewers/abc", "DELETE")):
            async with http.options(url + path, headers=preflight(method)) as response:
                assert response.status == 200
                assert response.headers["Access-Control-Allow-Origin"] == PAGE
                assert method in response.headers["Access-Control-Allow-Methods"]
                assert "Link" not in response.headers
        with_token = {"Authorization": f"Bearer {TOKEN}", "Origin": PAGE}
        async with http.options(url + "/whip/desk", headers=with_token) as response:
            assert "Link" in response.headers


# Other origins


async def test_pages_of_named_origins_may_read_every_header_they_need(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask), origins=[PAGE]) as (url, _), publisher(url, shown) as one:
        headers = {"Content-Type": "application/sdp", "Origin": PAGE}
        for body in (await one.offer(), "hello"):
            response = await one.http.post(f"{url}/whip/desk", data=body, headers=headers)
            assert response.headers["Access-Control-Allow-Origin"] == PAGE
            assert response.headers["Vary"] == "Origin"
            exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"Location", "ETag", "Link", "Accept-Patch", "Retry-After", "WWW-Authenticate"} <= set(exposed)


@pytest.mark.parametrize("path", [*ENDPOINTS, "/v1/sessions/abc", "/v1/segment", "/nowhere"])
async def test_a_preflight_is_answered_for_every_path(path: str) -> None:
    async with fake_service(FakeModel(full_mask), origins=[PAGE]) as (url, _), aiohttp.ClientSession() as http:
        async with http.options(url + path, headers=preflight()) as response:
            assert response.status == 200
            assert "If-Match" in response.headers["Access-Control-Allow-Headers"]
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        private = {**preflight(), "Access-Control-Request-Private-Network": "true"}
        async with http.options(url + path, headers=private) as response:
            assert response.headers["Access-Control-Allow-Private-Network"] == "true"


@pytest.mark.parametrize(("origins", "allowed"), [([], None), ([PAGE], None), (["*"], "*")])
async def test_pages_of_other_origins_may_read_nothing_unless_all_may(origins: list[str], allowed: str | None) -> None:
    async with fake_service(FakeModel(full_mask), origins=origins) as (url, _), aiohttp.ClientSession() as http:
        for method in ("OPTIONS", "GET"):
            async with http.request(method, f"{url}/whip/desk", headers=preflight(origin="https://else")) as response:
                assert response.status == 200
                assert response.headers.get("Access-Control-Allow-Origin") == allowed


@pytest.mark.parametrize("origins", ["page.example", "https://page.example/path", "*,nonsense"])
def test_origins_of_another_form_are_refused(origins: str) -> None:
    with pytest.raises(BadSettings, match="PORTRAIT_ORIGINS"):
        load_settings({"origins": origins}, {})


# ICE servers


async def test_ice_servers_come_as_links_with_credentials_that_turn_accepts_and_that_expire(shown: Clip) -> None:
    ice = IceServers(SERVERS, SECRET, seconds=600)
    async with fake_service(FakeModel(full_mask), ice=ice) as (url, _), publisher(url, shown) as one:
        response = await one.post(await one.offer(), "/whip/desk")
        asked = await one.http.options(f"{url}/whip/desk")
        for links in (response.headers.getall("Link"), asked.headers.getall("Link")):
            assert links[0] == f'<{SERVERS[0]}>; rel="ice-server"'
            for link, server in zip(links[1:], SERVERS[1:], strict=True):
                found = re.fullmatch(
                    r'<([^>]+)>; rel="ice-server"; username="(\d+):portrait"; credential="([^"]+)"; '
                    r'credential-type="password"',
                    link,
                )
                assert found is not None
                assert found[1] == server
                assert 500 < int(found[2]) - time.time() <= 600.5
                digest = hmac.new(SECRET.encode(), f"{found[2]}:portrait".encode(), hashlib.sha1).digest()
                assert found[3] == base64.b64encode(digest).decode()
        await one.pc.setRemoteDescription(RTCSessionDescription(await response.text(), "answer"))


async def test_without_ice_servers_none_are_told(shown: Clip) -> None:
    async with published(shown) as (url, one, _), one.http.options(f"{url}/whip/desk") as response:
        assert "Link" not in response.headers


def test_no_foreign_server_is_ever_named() -> None:
    package = Path(__file__).parents[1] / "service" / "portrait"
    sources = [path for path in package.rglob("*") if path.suffix in (".py", ".js", ".html")]
    assert len(sources) > 50
    for path in sources:
        assert not re.search(r"(stun|turns?):[a-z0-9.-]+\.[a-z]{2,}", path.read_text()), f"{path} names a server"


@pytest.mark.parametrize(
    ("urls", "secret", "message"),
    [
        ("http://turn.example", "", "expected stun:HOST"),
        ("stun:turn.example?transport=udp", "", "expected stun:HOST"),
        ("turn:turn.example", "", "go together"),
        ("stun:turn.example", SECRET, "go together"),
        ('turn:a";b', SECRET, "expected stun:HOST"),
    ],
)
def test_ice_settings_that_make_no_sense_are_refused_without_telling_the_secret(
    urls: str, secret: str, message: str
) -> None:
    with pytest.raises(BadSettings, match=message) as refused:
        IceServers([urls], secret)
    assert SECRET not in str(refused.value)


def test_the_secret_is_in_no_log() -> None:
    settings = load_settings({"turn_secret": SECRET, "ice_urls": SERVERS[1]}, {})
    assert settings.turn_secret.get_secret_value() == SECRET
    assert SECRET not in settings.model_dump_json()
    assert SECRET not in repr(settings)

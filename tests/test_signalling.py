"""The signalling, rule by rule: WHIP (RFC 9725), WHEP (draft-ietf-wish-whep-03) and, in the same shape, the loopback.

Each test is one rule of one table; media itself is in test_whip.py and test_webrtc.py.
"""

import asyncio
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
from aiortc.mediastreams import AudioStreamTrack

from portrait.app import run_service
from portrait.errors import BadSettings, TooManyRequests
from portrait.settings import Settings, load_settings
from portrait.transports.webrtc import rate
from portrait.transports.webrtc.ice import IceServers
from tests.fakes import FakeModel, full_mask
from tests.people import Clip, clip
from tests.rtc import SIZE, Camera, Viewer, fake_service, viewer
from tests.test_whip import FRAGMENT, publisher, trickled, watcher

pytestmark = pytest.mark.usefixtures("no_sockets_left")

ENDPOINTS = ("/webrtc", "/whip/desk", "/whep/desk", "/whep/desk/mask")
PAGE = "https://page.example"
SECRET = "a secret that TURN shares"
SERVERS = ("stun:turn.example:3478", "turn:turn.example:3478?transport=udp", "turns:[2001:db8::1]:5349?transport=tcp")
TOKEN = "0123456789abcdef-camera"


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 30)


@asynccontextmanager
async def published(shown: Clip, **options: object) -> AsyncIterator[tuple[str, Viewer, Viewer]]:
    """A service, one that publishes and one that watches; both are connected."""
    async with (
        fake_service(FakeModel(full_mask), **options) as (url, _),  # type: ignore[arg-type]
        publisher(url, shown) as one,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        await two.connect("/whep/desk")
        yield url, one, two


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


# Create


async def test_a_post_is_answered_201_with_sdp_location_and_a_strong_etag(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), publisher(url, shown) as one, watcher(url) as two:
        for each, path in ((one, "/whip/desk"), (two, "/whep/desk")):
            response = await each.post(await each.offer(), path)
            assert (response.status, response.content_type) == (201, "application/sdp")
            assert re.fullmatch(r'"[^"]+"', response.headers["ETag"])
            assert response.headers["Location"].startswith("/v1/")
            assert response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
            await each.take(await response.text())


async def test_the_answer_is_bundled_muxed_and_has_all_its_candidates(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(full_mask)) as (url, _),
        publisher(url, shown, AudioStreamTrack()) as one,
    ):
        await one.connect("/whip/desk")
        answer = one.pc.remoteDescription.sdp
        sections = answer.split("m=")[1:]
        assert re.search(r"a=group:BUNDLE 0 1\r", answer)
        assert all("a=rtcp-mux\r" in section for section in sections)
        assert "a=end-of-candidates" in sections[0]
        # No section is refused alone: sound is taken along, and inactive.
        assert all(int(section.split()[1]) != 0 for section in sections)


async def test_the_answer_to_whip_receives_only_whatever_was_offered(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as both:
        await both.connect("/whip/desk")
        assert "a=sendrecv" in both.pc.localDescription.sdp
        assert "a=recvonly" in both.pc.remoteDescription.sdp


async def test_the_answer_to_whep_sends_only(shown: Clip) -> None:
    async with published(shown) as (_, _, two):
        assert "a=sendonly" in two.pc.remoteDescription.sdp


async def test_an_offer_that_comes_in_pieces_is_read_whole(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), publisher(url, shown) as one:
        offer = (await one.offer()).encode()

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(offer), 1000):
                yield offer[start : start + 1000]
                await asyncio.sleep(0.01)

        response = await one.http.post(f"{url}/whip/desk", data=pieces(), headers={"Content-Type": "application/sdp"})
        assert response.status == 201, await response.text()
        await one.take(await response.text())


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_another_content_type_is_415_and_says_which_one(path: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        response = await http.post(url + path, json={"sdp": "v=0"})
        assert (response.status, response.headers["Accept-Post"]) == (415, "application/sdp")
        assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_client_that_takes_no_sdp_gets_406(path: str) -> None:
    headers = {"Content-Type": "application/sdp", "Accept": "application/json"}
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        assert (await http.post(url + path, data="v=0", headers=headers)).status == 406


async def test_malformed_sdp_is_400_and_media_that_cannot_be_had_422(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(full_mask)) as (url, sessions),
        publisher(url, shown, Camera(shown)) as two_videos,
        watcher(url) as wants,
        publisher(url, shown) as sends,
    ):
        malformed = await sends.post("hello", "/whip/desk")
        assert (malformed.status, (await malformed.json())["title"]) == (400, "BAD_OFFER")
        unknown = (await sends.offer()).replace("VP8/90000", "H265/90000").replace("H264/90000", "AV1/90000")
        for client, offer in (
            (two_videos, await two_videos.offer()),
            (wants, await wants.offer()),
            (sends, unknown),
        ):
            response = await client.post(offer, "/whip/desk")
            assert (response.status, (await response.json())["title"]) == (422, "UNSUPPORTED_OFFER")
        await sends.connect("/whip/desk")
        assert (await sends.post(sends.pc.localDescription.sdp, "/whep/desk")).status == 422
        assert len(sessions) == 1


# Other methods


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_looking_at_an_endpoint_is_200_without_content(path: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        for method in ("GET", "HEAD"):
            async with http.request(method, url + path) as response:
                assert (response.status, response.content_type) == (200, "application/sdp")
                assert await response.read() == b""


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_methods_an_endpoint_has_not_are_405_and_named(path: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        for method in ("PUT", "PATCH", "DELETE"):
            response = await http.request(method, url + path)
            assert (response.status, response.content_type) == (405, "application/problem+json")
            assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_options_name_what_can_be_posted(path: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        response = await http.options(url + path)
        assert (response.status, response.headers["Accept-Post"]) == (200, "application/sdp")
        assert await response.read() == b""


async def test_nothing_is_redirected(shown: Clip) -> None:
    """A redirect would have to be 307, since 301 and 302 turn a POST into a GET; there is none."""
    async with fake_service(FakeModel(full_mask)) as (url, _), publisher(url, shown) as one:
        offer, headers = await one.offer(), {"Content-Type": "application/sdp"}
        response = await one.http.post(f"{url}/whip/desk", data=offer, headers=headers, allow_redirects=False)
        assert response.status == 201
        slash = await one.http.post(f"{url}/whip/desk/", data=offer, headers=headers, allow_redirects=False)
        assert slash.status == 404


# Trickle and restart


async def test_trickled_candidates_are_204_without_body_or_etag_and_unusable_ones_are_dropped(shown: Clip) -> None:
    async with published(shown) as (_, one, two):
        for each in (one, two):
            headers = {**FRAGMENT, "If-Match": each.etag}
            response = await each.http.patch(each.location, data=trickled(each), headers=headers)
            assert (response.status, await response.text(), "ETag" in response.headers) == (204, "", False)


async def test_a_patch_without_if_match_is_428_and_with_another_etag_412(shown: Clip) -> None:
    async with published(shown) as (_, one, two):
        for each in (one, two):
            patch, fragment = each.http.patch, trickled(each)
            assert (await patch(each.location, data=fragment, headers=FRAGMENT)).status == 428
            for stale in ('"other"', f"W/{each.etag}"):
                response = await patch(each.location, data=fragment, headers={**FRAGMENT, "If-Match": stale})
                assert response.status == 412


async def test_an_ice_restart_is_422_and_the_session_goes_on(shown: Clip) -> None:
    async with published(shown) as (_, one, two):
        for each in (one, two):
            fresh = re.sub("a=ice-ufrag:.*", "a=ice-ufrag:fresh", trickled(each))
            response = await each.http.patch(each.location, data=fresh, headers={**FRAGMENT, "If-Match": "*"})
            assert (response.status, response.content_type) == (422, "application/problem+json")
        await two.frame()


async def test_another_patch_is_415_and_a_fragment_of_nobody_400(shown: Clip) -> None:
    async with published(shown) as (_, one, two):
        text = {"Content-Type": "text/plain"}
        for each, accepted in ((one, "application/json"), (two, FRAGMENT["Content-Type"])):
            response = await each.http.patch(each.location, data="x", headers=text)
            assert response.status == 415
            assert accepted in response.headers["Accept-Patch"]
            foreign = re.sub("a=ice-ufrag:.*", "a=ice-ufrag:someone", trickled(each))
            headers = {**FRAGMENT, "If-Match": each.etag}
            assert (await each.http.patch(each.location, data=foreign, headers=headers)).status == 400


# End


async def test_delete_is_200_whatever_the_etag_and_404_afterwards(shown: Clip) -> None:
    async with published(shown) as (_, one, two):
        for each in (two, one):
            async with each.http.delete(each.location, headers={"If-Match": '"other"'}) as response:
                assert response.status == 200
            async with asyncio.timeout(20):
                while (await each.http.delete(each.location)).status != 404:
                    await asyncio.sleep(0.02)


async def test_a_location_cannot_be_guessed_and_no_list_tells_it(shown: Clip) -> None:
    async with published(shown) as (url, one, two):
        ids = [each.location.rpartition("/")[2] for each in (one, two)]
        assert all(len(name) >= 24 for name in ids), "less than 144 random bits"
        assert len(set(ids)) == 2
        async with one.http.get(f"{url}/v1/sessions") as response:
            listed = await response.text()
        assert not any(name in listed for name in ids)


# Refusals


async def test_a_full_service_is_503_with_retry_after(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), publisher(url, shown) as one:
        sessions.limit = 0
        for path in ("/webrtc", "/whip/desk"):
            response = await one.post(
                one.pc.localDescription.sdp if one.pc.localDescription else await one.offer(), path
            )
            assert (response.status, response.content_type) == (503, "application/problem+json")
            assert int(response.headers["Retry-After"]) > 0


async def test_a_stream_nobody_publishes_is_409_with_retry_after() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), watcher(url) as two:
        response = await two.post(await two.offer(), "/whep/desk")
        assert (response.status, int(response.headers["Retry-After"]) > 0) == (409, True)


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


async def test_every_error_is_a_problem_document(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        for method, path in (("POST", "/whip/desk"), ("PATCH", "/v1/viewers/nobody"), ("GET", "/v1/sessions/nobody")):
            async with http.request(method, url + path) as response:
                document = await response.json(content_type="application/problem+json")
                assert {"type", "title", "status", "detail"} <= document.keys()
                assert document["status"] == response.status


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


def test_nobody_elses_server_is_ever_named() -> None:
    for path in Path("service").rglob("*"):
        if path.suffix in (".py", ".js", ".html"):
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

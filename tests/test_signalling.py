"""The signalling, rule by rule: WHIP (RFC 9725), WHEP (draft-ietf-wish-whep-03) and, in the same shape, the loopback.

Each test is one rule of one table; media itself is in test_whip.py and test_webrtc.py.
"""

import asyncio
import re
from asyncio import timeout
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiortc.mediastreams import AudioStreamTrack

from tests.fakes import FakeModel, full_mask
from tests.people import Clip
from tests.rtc import Camera, fake_service, viewer
from tests.whip import ENDPOINTS, FRAGMENT, published, publisher, shown, trickled, watcher

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")


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


async def test_a_peer_with_another_certificate_than_it_announced_is_refused_with_the_reason(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(shown)) as one:
        offer = await one.offer()
        other = re.sub(r"(a=fingerprint:\S+ )(..):(\S+)", r"\1\3:\2", offer)
        assert other != offer
        response = await one.post(other)
        assert response.status == 201
        [session] = sessions._open.values()
        await one.take(await response.text())
        async with timeout(60):
            assert "DTLS handshake failed" in await session.wait_ended()


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


async def test_another_patch_is_415_and_a_foreign_fragment_400(shown: Clip) -> None:
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
            async with timeout(60):
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


async def test_a_stream_that_is_not_published_is_409_with_retry_after() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), watcher(url) as two:
        response = await two.post(await two.offer(), "/whep/desk")
        assert (response.status, int(response.headers["Retry-After"]) > 0) == (409, True)


async def test_every_error_is_a_problem_document(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), aiohttp.ClientSession() as http:
        for method, path in (("POST", "/whip/desk"), ("PATCH", "/v1/viewers/nobody"), ("GET", "/v1/sessions/nobody")):
            async with http.request(method, url + path) as response:
                document = await response.json(content_type="application/problem+json")
                assert {"type", "title", "status", "detail"} <= document.keys()
                assert document["status"] == response.status

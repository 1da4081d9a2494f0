"""What goes wrong on the page, said in words with what to do: the camera, the box."""

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import expect

from portrait import errors
from portrait.admission.quality import Quality
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.browser import open_page
from tests.pages import browsers, browsing, choose, nothing_left, person_is_kept, says, service, start, until

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]

HTTP = {"NOT_FOUND", "METHOD_NOT_ALLOWED", "UNSUPPORTED_MEDIA_TYPE", "REQUEST_ENTITY_TOO_LARGE", "INTERNAL"}
"""What the HTTP transport itself answers."""

SETTINGS = Settings(http_port=0, grpc_port=0, drain_seconds=0.0)


def reasons() -> set[str]:
    """Of what a client may be answered; `portrait bench` has an error of its own, elsewhere."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {kind.reason for kind in kinds if issubclass(kind, errors.PortraitError)}


async def test_every_error_of_the_service_and_every_quality_has_its_words(
    service: RunningService, tmp_path: Path
) -> None:
    async with browsing(service, tmp_path) as page:
        words = await page.evaluate("import('/web/page/words.js').then(({ REASONS, QUALITY }) => [REASONS, QUALITY])")
        assert words[0].keys() == reasons() | HTTP
        assert words[1].keys() == {step.name.lower() for step in Quality}
        for title, advice in words[0].values():
            assert title
            assert advice
        refused = """import("/web/page/words.js").then(async ({ inWords }) => {
          const { PortraitError } = await import("/portrait.js");
          return [502, 401, 413, 418].map((status) => inWords(new PortraitError({ status })).title);
        })"""
        assert await page.evaluate(refused) == [
            "The box cannot be reached",
            "The box asks you to sign in",
            "That is too large for the box",
            "Something went wrong on the box",
        ]


async def test_the_page_says_why_it_asks_for_the_camera_before_it_does(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await expect(page.locator("#why")).to_contain_text("Your browser will ask whether this page may use the camera")
        await expect(page.locator("#why")).to_contain_text("It goes to this box, 127.0.0.1, and nowhere else")
        await page.select_option("#way", "browser")
        await expect(page.locator("#why")).to_contain_text("It stays in this browser; nothing is stored.")
        await expect(page.locator("#problem")).to_be_hidden()
        await start(page)
        await expect(page.locator("#welcome")).to_be_hidden()


async def test_a_refused_camera_is_explained(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path, allow=False) as page:
        await page.click("#toggle")
        await says(page, "The camera was refused", "Allow it: press the camera or lock symbol in the address bar")
        await expect(page.locator("#state")).to_have_text("Stopped")
        await expect(page.locator("#toggle")).to_have_text("Start camera")


async def test_a_missing_camera_is_explained(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path, camera=False) as page:
        await page.click("#toggle")
        await says(page, "No camera was found", "Connect one, or switch on the one you have, then start again.")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("NotReadableError", "The camera cannot be opened"),
        ("AbortError", "The camera cannot be opened"),
        ("OverconstrainedError", "The camera cannot do this"),
        ("SecurityError", "This page may not use the camera"),
        ("OddError", "The camera cannot be opened"),
    ],
)
async def test_every_other_trouble_of_a_camera_is_explained(
    service: RunningService, tmp_path: Path, name: str, title: str
) -> None:
    """Injected: a camera of the tests cannot be broken."""
    async with browsing(service, tmp_path) as page:
        thrown = f"new DOMException('injected', '{name}')"
        await page.evaluate(f"navigator.mediaDevices.getUserMedia = () => Promise.reject({thrown}), true")
        await page.click("#toggle")
        await expect(page.locator("#problem strong")).to_have_text(title)
        await expect(page.locator("#problem small")).to_have_text("injected")
        await expect(page.locator("#state")).to_have_text("Stopped")


async def test_a_camera_that_is_unplugged_ends_the_call_with_words(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.select_option("#way", "browser")
        await start(page)
        gone = "document.getElementById('preview').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))"
        await page.evaluate(gone)
        await says(page, "The camera is gone", "It was unplugged, switched off or taken over by another program.")
        await expect(page.locator("#welcome")).to_be_visible()


async def test_an_insecure_page_is_explained_before_anybody_starts(tmp_path: Path) -> None:
    """By a name that is not localhost, plain http is not a secure context, and browsers hide the camera there."""
    settings = SETTINGS.model_copy(update={"host": "0.0.0.0", "insecure": True})
    async with run_service(settings) as running:
        url = f"http://portrait.test:{running.http_port}/"
        resolver = ["--host-resolver-rules=MAP portrait.test 127.0.0.1"]
        async with open_page(url, tmp_path / "profile", None, extra=resolver) as page:
            for _ in range(2):
                advice = f"On the box itself, open http://localhost:{running.http_port} instead."
                await says(page, "Browsers allow the camera on secure pages only", advice)
                await says(page, "Browsers allow the camera on secure pages only", "“--tls auto”")
                await page.click("#toggle")


async def test_a_box_that_stops_or_is_full_is_explained(tmp_path: Path) -> None:
    async with (
        run_service(SETTINGS.model_copy(update={"max_sessions": 1})) as running,
        browsing(running, tmp_path) as page,
    ):
        await start(page)
        await page.select_option("#beside", "mode:mask")
        await says(page, "The box is full", "Or let this browser do the work")
        await expect(page.locator("#problem small")).to_contain_text("1 session")
        await expect(page.locator("#beside")).to_have_value("camera")
        await expect(page.locator("#state")).to_have_text("Live")
        await until(page, "the person still", person_is_kept)

        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Camera off")
        await running.sessions.drain(0)
        await page.click("#toggle")
        await says(page, "The box is about to stop", "Try again when it has restarted.")


async def test_a_size_that_the_box_refuses_is_explained(tmp_path: Path) -> None:
    """The picture stood still, and nothing said why."""
    async with (
        run_service(SETTINGS.model_copy(update={"max_frame_pixels": 1000})) as running,
        browsing(running, tmp_path) as page,
    ):
        await page.click("#toggle")
        await says(page, "The box refuses the camera's pictures", "Choose a smaller size")


async def test_a_box_that_is_gone_is_explained(tmp_path: Path) -> None:
    """While nobody calls, and in a call, which goes on trying."""
    async with run_service(SETTINGS) as first:
        fixed = SETTINGS.model_copy(update={"http_port": first.http_port})
    async with run_service(fixed) as running:
        page_of = browsing(running, tmp_path)
        page = await page_of.__aenter__()
        await start(page)
    try:
        await says(page, "The box does not answer", "This page will try again by itself.")
        await expect(page.locator("#state")).to_have_text("Reconnecting")
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Camera off")
        await page.click("#toggle")
        await says(page, "The box does not answer", "Check that it is running and that this device is on its network")
        async with run_service(fixed):
            await start(page)
            await expect(page.locator("#problem")).to_be_hidden()
            await page.click("#toggle")
            await expect(page.locator("#state")).to_have_text("Camera off")
    finally:
        await page_of.__aexit__(None, None, None)


async def test_what_the_box_refuses_stays_as_it_was(service: RunningService, tmp_path: Path) -> None:
    """A background that an operator took away since the page was loaded."""
    async with browsing(service, tmp_path) as page:
        await choose(page, "color")
        await start(page)
        await page.evaluate(
            """(window.real = fetch, window.fetch = (url, request) => {
              const { body } = request ?? {};
              return real(url, body?.replace ? { ...request, body: body.replace("studio", "gone") } : request);
            }, true)"""
        )
        await choose(page, "image")
        await until(page, "before a picture", person_is_kept)
        await page.click("[data-name=studio]")
        await says(page, "The box does not know this choice", "reload the page and choose again")
        await expect(page.locator("[data-name=office] input")).to_be_checked()
        await page.click("[data-name=paper]")
        await expect(page.locator("[data-name=paper] input")).to_be_checked()
        await until(page, "the person", person_is_kept)


async def test_quality_that_goes_down_is_told_in_words(service: RunningService, tmp_path: Path) -> None:
    """The box's answer is changed on its way: how quality goes down is tested elsewhere."""
    async with browsing(service, tmp_path) as page:
        for step, name, note in (("still", "Economical", "still scenes"), ("slower", "Half the frames", "very busy")):
            await page.evaluate(
                f"""(window.real ??= fetch, window.fetch = async (url, request) => {{
                  const answer = await real(url, request);
                  if (request?.method || !String(url).includes("/v1/sessions/")) return answer;
                  return Response.json({{ ...(await answer.json()), quality: {json.dumps(step)} }});
                }}, true)"""
            )
            await start(page)
            await expect(page.locator("#quality")).to_have_text(name)
            await expect(page.locator("#quality-note")).to_contain_text(note)
            await page.click("#toggle")
            await expect(page.locator("#quality")).to_have_text("–")


async def test_the_page_and_its_parts_ask_no_other_host(service: RunningService, tmp_path: Path) -> None:
    asked = set[str]()
    async with browsing(service, tmp_path) as page:
        page.on("request", lambda request: asked.add(request.url))
        await page.reload()
        await page.select_option("#way", "browser")
        await start(page)
        await page.click("#show-code")
        await asyncio.sleep(1)
    origin = f"http://127.0.0.1:{service.http_port}/"
    assert len(asked) > 20
    assert not [url for url in asked if not url.startswith((origin, "blob:", "data:"))]

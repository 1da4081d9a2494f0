"""TLS by an authority of the box's own: made once, renewed in time, trusted by clients that look closely."""

import asyncio
import shutil
import ssl
import stat
import subprocess
from asyncio import timeout
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from playwright.async_api import Error as PlaywrightError

from portrait.errors import BadSettings
from portrait.security import authority, certificates, open_security
from portrait.security.authority import LIFE, MOST_NAMES, RENEWED_BEFORE, Authority, box_names, names_of
from portrait.server.app import run_service
from portrait.settings import Settings
from tests.browser import open_page

NAMES = frozenset({"box", "box.local", "192.0.2.7", "2001:db8::7"})
needs_certutil = pytest.mark.skipif(
    shutil.which("certutil") is None, reason="certutil is not installed: run make system-packages"
)
TOKEN = "0123456789abcdef-camera"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def make_authority(
    folder: Path, names: Callable[[], frozenset[str]], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Authority:
    """An authority whose files are there."""
    authority = Authority(folder, names, clock)
    authority.renew()
    return authority


def served(made: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made.certificate.read_bytes())


def test_it_is_made_once_and_keys_are_their_owners_only(tmp_path: Path) -> None:
    first = make_authority(tmp_path / "authority", lambda: NAMES)
    fingerprint, certificate = first.fingerprint, first.certificate.read_bytes()
    again = make_authority(tmp_path / "authority", lambda: NAMES)
    assert (again.fingerprint, again.certificate.read_bytes()) == (fingerprint, certificate)
    for key in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / "authority" / key).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "authority").stat().st_mode) == 0o700
    assert names_of(served(first)) == NAMES
    assert len(fingerprint) == 32 * 3 - 1


def test_reading_it_makes_nothing(tmp_path: Path) -> None:
    unmade = Authority(tmp_path / "authority", lambda: NAMES)
    assert not unmade.read()
    assert list(tmp_path.iterdir()) == []
    assert unmade.renew()
    before = {path: path.stat().st_mtime_ns for path in unmade.folder.iterdir()}
    elsewhere = Authority(tmp_path / "authority", lambda: frozenset({"another.name"}))
    assert elsewhere.read()
    assert {path: path.stat().st_mtime_ns for path in unmade.folder.iterdir()} == before


def test_it_is_renewed_before_it_ends_by_the_same_authority(tmp_path: Path) -> None:
    clock = Clock()
    made = make_authority(tmp_path, lambda: NAMES, clock)
    first, fingerprint = served(made), made.fingerprint
    clock.now += LIFE - RENEWED_BEFORE - timedelta(days=1)
    assert not made.renew()
    clock.now += timedelta(days=2)
    assert made.renew()
    assert served(made).serial_number != first.serial_number
    assert served(made).not_valid_after_utc > first.not_valid_after_utc
    assert made.fingerprint == fingerprint


def test_another_name_makes_another_certificate_and_old_names_stay(tmp_path: Path) -> None:
    names = NAMES
    made = make_authority(tmp_path, lambda: names)
    names = frozenset({"box", "192.0.2.99"})
    assert made.renew()
    assert names_of(served(made)) == NAMES | {"192.0.2.99"}
    assert not made.renew()


def test_old_names_are_let_go_when_there_are_too_many(tmp_path: Path) -> None:
    names = NAMES
    made = make_authority(tmp_path, lambda: names)
    for day in range(200):
        names = NAMES | {f"2001:db8::a:{day:x}"}
        assert made.renew()
        assert names <= names_of(served(made))
        assert len(names_of(served(made))) <= MOST_NAMES
    assert f"2001:db8::a:{198:x}" in names_of(served(made))


def test_phones_and_strict_verifiers_find_what_they_ask_for(tmp_path: Path) -> None:
    made = make_authority(tmp_path, lambda: NAMES)
    one, root = served(made), x509.load_pem_x509_certificate(made.authority.read_bytes())
    assert one.not_valid_after_utc - one.not_valid_before_utc < timedelta(days=825)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert root.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    one.verify_directly_issued_by(root)


def test_workers_that_start_together_make_one_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_authority(tmp_path, lambda: NAMES).fingerprint, range(8)))
    assert len(set(made)) == 1


def test_the_box_knows_its_names() -> None:
    names = box_names("further.example", "192.0.2.1")
    assert {"localhost", "127.0.0.1", "further.example", "192.0.2.1"} <= names
    assert not any(name.startswith("fe80") for name in names)


def test_settings_that_do_not_fit_and_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings, match="PORTRAIT_DATA"):
        open_security(Settings(tls="auto", data=tmp_path / "file"))
    with pytest.raises(BadSettings, match="makes its own certificate"):
        open_security(Settings(tls="auto", data=tmp_path, tls_certificate=tmp_path / "file"))
    (tmp_path / "authority").mkdir()
    (tmp_path / "authority" / "ca.crt").write_text("nonsense")
    (tmp_path / "authority" / "ca.key").write_text("nonsense")
    with pytest.raises(BadSettings, match="holds no authority"):
        open_security(Settings(tls="auto", data=tmp_path))


def trusting(file: Path) -> ssl.SSLContext:
    """A client that trusts that authority alone, and is strict."""
    context = ssl.create_default_context(cafile=str(file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def test_whoever_trusts_the_authority_gets_in_by_every_name_and_renewals_are_served_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokens").write_text(f"camera {TOKEN}\n")
    settings = Settings(
        http_port=0, grpc_port=0, drain_seconds=0.0, tls="auto", data=tmp_path / "data", tokens=tmp_path / "tokens",
    )  # fmt: skip
    async with run_service(settings) as running:
        roots = tmp_path / "ca.crt"
        async with aiohttp.ClientSession() as http:
            # Nothing is trusted yet, and no token is there: that is how a new device comes.
            async with http.get(f"https://127.0.0.1:{running.http_port}/ca.crt", ssl=False) as response:
                assert (response.status, response.content_type) == (200, "application/x-x509-ca-cert")
                assert "attachment" in response.headers["Content-Disposition"]
                roots.write_bytes(await response.read())
            for page, status in (("/trust", 200), ("/web/page.css", 200), ("/web/page/theme.js", 200), ("/", 401)):
                async with http.get(f"https://localhost:{running.http_port}{page}", ssl=trusting(roots)) as response:
                    assert response.status == status
            async with http.get(f"https://127.0.0.1:{running.http_port}/healthz", ssl=trusting(roots)) as response:
                assert response.status == 200
        credentials = grpc.ssl_channel_credentials(roots.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{running.grpc_port}", credentials) as channel:
            asked = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=""))
            assert asked.status == health_pb2.HealthCheckResponse.SERVING
        before = await asyncio.to_thread(ssl.get_server_certificate, ("localhost", running.http_port))
        monkeypatch.setattr(certificates, "CHECK_SECONDS", 0.0)
        monkeypatch.setattr(authority, "RENEWED_BEFORE", LIFE + timedelta(days=1))
        async with timeout(60):
            while before == await asyncio.to_thread(ssl.get_server_certificate, ("localhost", running.http_port)):
                await asyncio.sleep(0.05)
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"https://localhost:{running.http_port}/healthz", ssl=trusting(roots)) as response,
        ):
            assert response.status == 200


@needs_certutil
async def test_a_browser_that_does_as_the_page_says_is_not_warned_any_more(tmp_path: Path) -> None:
    settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, tls="auto", data=tmp_path / "data")
    home, roots = tmp_path / "home", tmp_path / "ca.crt"
    async with run_service(settings) as running:
        url = f"https://localhost:{running.http_port}/"
        with pytest.raises(PlaywrightError, match="ERR_CERT_AUTHORITY_INVALID"):
            async with open_page(url, tmp_path / "strange", None):
                pass
        async with open_page(url, tmp_path / "anyway", None, extra=["--ignore-certificate-errors"]) as page:
            await page.click("#trust a")
            async with page.expect_download() as download:
                await page.click("a[download]")
            await (await download.value).save_as(roots)
        database = home / ".pki" / "nssdb"
        database.mkdir(parents=True)
        certutil = ("certutil", "-d", f"sql:{database}")
        await asyncio.to_thread(subprocess.run, [*certutil, "-N", "--empty-password"], check=True)
        take = ["-A", "-t", "C,,", "-n", "portrait", "-i", str(roots)]
        await asyncio.to_thread(subprocess.run, [*certutil, *take], check=True)
        async with open_page(url, tmp_path / "trusting", None, home=home) as page:
            assert await page.evaluate("isSecureContext")


async def test_a_box_without_an_authority_of_its_own_says_so(settings: Settings) -> None:
    async with run_service(settings) as running, aiohttp.ClientSession() as http:
        response = await http.get(f"http://127.0.0.1:{running.http_port}/ca.crt")
        assert (response.status, response.content_type) == (404, "application/problem+json")
        assert "PORTRAIT_TLS=auto" in (await response.json())["detail"]

"""Security: tokens, the same for gRPC and HTTP, files replaced while it runs, and who is served without any."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from portrait.client import Client, ClientError, SyncClient, Tls
from portrait.errors import BadSettings
from portrait.security import bearers, open_security
from portrait.settings import Settings, load_settings
from tests.credentials import OTHER, TOKEN, Authority, authority, basic, http_status, replace, serving, tokens

__all__ = ["authority", "tokens"]  # fixtures


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        ("Bearer ", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer camera", 401),
        ("Bearer " + "x" * 5000, 401),
        ("Basic %%%", 401),
        (basic(TOKEN, "camera"), 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {OTHER}", 200),
        (basic("anybody", TOKEN), 200),
    ],
)
async def test_http_lets_known_tokens_pass_only(
    settings: Settings, tokens: Path, authorization: str | None, status: int
) -> None:
    async with serving(settings, tokens=tokens) as running:
        for path in ("/", "/web/page.js", "/v1/models", "/v1/sessions"):
            assert await http_status(running, path, authorization) == status
        for path in ("/healthz", "/readyz", "/metrics"):
            assert await http_status(running, path, authorization) == 200


async def test_nothing_is_worked_on_for_a_stranger(settings: Settings, tokens: Path) -> None:
    async with serving(settings, tokens=tokens) as running, aiohttp.ClientSession() as http:
        base = f"http://localhost:{running.http_port}"
        for method, path in [
            ("POST", "/v1/segment"),
            ("POST", "/webrtc"),
            ("POST", "/whip/room"),
            ("POST", "/whep/room"),
            ("DELETE", "/v1/sessions/x"),
            ("GET", "/no"),
        ]:
            async with http.request(method, base + path, data=b"") as response:
                assert response.status == 401
                assert response.headers.getall("WWW-Authenticate") == [
                    'Bearer realm="portrait"',
                    'Basic realm="portrait"',
                ]
                assert (await response.json())["type"] == "urn:portrait:UNAUTHENTICATED"
        async with http.get(base + "/metrics") as response:
            text = await response.text()
        for transport in ("http", "webrtc"):
            assert f'portrait_admission_refused_total{{reason="unauthenticated",transport="{transport}"}} 3.0' in text


async def test_grpc_lets_known_tokens_pass_only(settings: Settings, tokens: Path) -> None:
    async with serving(settings, tokens=tokens) as running:
        target = f"localhost:{running.grpc_port}"
        async with Client(target, token=TOKEN) as client, client.open_stream() as stream:
            assert stream.info.session_id
            assert await client.models()
        for token in (None, "unknown-unknown-unknown"):
            async with Client(target, token=token) as client:
                for call in (client.models(), client.stream([]).__anext__()):
                    with pytest.raises(ClientError) as refused:
                        await call
                    assert (refused.value.code, refused.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        async with grpc.aio.insecure_channel(target) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_tokens_are_read_anew_and_a_broken_file_changes_nothing(
    settings: Settings, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(settings, tokens=tokens) as running:
        replace(tokens, b"camera a-new-token-0123456789\n")
        assert await http_status(running, "/v1/models", f"Bearer {TOKEN}") == 401
        assert await http_status(running, "/v1/models", "Bearer a-new-token-0123456789") == 200
        replace(tokens, b"camera short\n")
        assert await http_status(running, "/v1/models", "Bearer a-new-token-0123456789") == 200
        tokens.unlink()
        assert await http_status(running, "/v1/models", "Bearer a-new-token-0123456789") == 200
    assert "line 1: expected a new name" in caplog.text
    assert "the old content stays in use" in caplog.text


def test_a_file_at_which_a_library_stumbles_changes_nothing_either(
    settings: Settings, tokens: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(_: Path) -> Any:
        raise RecursionError("what the file holds")

    security = open_security(settings.model_copy(update={"tokens": tokens}))
    monkeypatch.setattr(bearers, "_read_tokens", stumble)
    replace(tokens, b"camera a-new-token-0123456789\n")
    security.check(f"Bearer {TOKEN}", has_certificate=False)
    assert "the old content stays in use: RecursionError" in caplog.text
    assert "what the file holds" not in caplog.text


async def test_no_token_is_ever_logged(settings: Settings, tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(settings, tokens=tokens) as running:
        async with Client(f"localhost:{running.grpc_port}", token=TOKEN) as client:
            await client.models()
        await http_status(running, "/v1/models", f"Bearer {TOKEN}")
        await http_status(running, "/v1/models", "Bearer a-wrong-token-for-all")
        replace(tokens, f"camera {TOKEN} {OTHER}\n".encode())
        await http_status(running, "/v1/models", f"Bearer {TOKEN}")
    for secret in (TOKEN, OTHER, "a-wrong-token-for-all"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camera\n", "line 1: expected a new name"),
        ("a 0123456789abcdef\na 0123456789abcdeg\n", "line 2: expected a new name"),
        ("# none\n", "holds no token"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(BadSettings, match=message) as refused:
        open_security(Settings(tokens=file))
    assert "0123456789" not in str(refused.value)


@pytest.fixture
def files(tmp_path: Path, tokens: Path, authority: Authority) -> dict[str, Any]:
    certificate, key = authority.issue(tmp_path, "server")
    return {"tls": {"tls_certificate": certificate, "tls_key": key}, "tokens": {"tokens": tokens}}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.test"])
def test_other_machines_are_served_securely_or_on_request_only(
    files: dict[str, Any], host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BadSettings, match="without authentication and TLS; set PORTRAIT_TOKENS"):
        open_security(Settings(host=host))
    with pytest.raises(BadSettings, match="without authentication;"):
        open_security(Settings(host=host, **files["tls"]))
    with pytest.raises(BadSettings, match="without TLS;"):
        open_security(Settings(host=host, **files["tokens"]))
    open_security(Settings(host=host, **files["tls"], **files["tokens"]))
    assert caplog.text == ""
    open_security(Settings(host=host, insecure=True))
    assert "other machines are served without authentication and TLS; anyone who reaches it can use it" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_is_served_without_asking(host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert open_security(Settings(host=host)).open
    assert caplog.text == ""


def test_settings_that_do_not_fit_together_are_refused(
    tmp_path: Path, files: dict[str, Any], authority: Authority
) -> None:
    certificate, key = files["tls"].values()
    with pytest.raises(BadSettings, match="go together"):
        open_security(Settings(tls_certificate=certificate))
    with pytest.raises(BadSettings, match="PORTRAIT_TLS_CLIENT_CA needs both"):
        open_security(Settings(tls_client_ca=certificate))
    with pytest.raises(BadSettings, match="need PORTRAIT_JWT_KEYS"):
        open_security(Settings(jwt_audience="portrait"))
    with pytest.raises(BadSettings, match="cannot be used"):
        open_security(Settings(tls_certificate=key, tls_key=certificate))
    with pytest.raises(BadSettings, match="PORTRAIT_TOKENS='/nowhere'"):
        load_settings({"tokens": "/nowhere"}, {})


def test_files_are_not_readable_secrets_in_the_settings(files: dict[str, Any]) -> None:
    """What is logged at the start are names of files."""
    logged = Settings(**files["tls"], **files["tokens"]).model_dump_json()
    assert TOKEN not in logged
    assert "PRIVATE KEY" not in logged


async def test_the_sync_client_takes_the_same_credentials(
    settings: Settings, tokens: Path, files: dict[str, Any], authority: Authority
) -> None:
    async with serving(settings, **files["tls"], tokens=tokens) as running:

        def models() -> int:
            with SyncClient(f"localhost:{running.grpc_port}", token=TOKEN, tls=Tls(authority.pem)) as client:
                return len(client.models())

        assert await asyncio.to_thread(models) >= 1

"""TLS and mutual TLS, the same for gRPC and HTTP, with certificates that are replaced while it runs."""

import asyncio
import contextlib
import ssl
import time
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from portrait.client import Client, ClientError, Tls
from portrait.server.app import RunningService
from portrait.settings import Settings
from tests.credentials import TOKEN, Authority, authority, http_status, replace, serving, tokens, trusting

__all__ = ["authority", "tokens"]  # fixtures


async def test_tls_serves_both_and_a_renewed_certificate_is_used_at_once(
    settings: Settings, tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue(tmp_path, "server", days=10)
    async with serving(settings, tls_certificate=certificate, tls_key=key) as running:
        target, context = f"localhost:{running.grpc_port}", trusting(authority)
        async with Client(target, tls=Tls(authority.pem)) as client, client.open_stream():
            assert await client.models()
        assert await http_status(running, "/", ssl=context) == 200
        shown = {await serial(port, authority) for port in (running.http_port, running.grpc_port)}
        assert shown == {x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number}
        assert await expiry(running, context) == pytest.approx(time.time() + 10 * 86400, abs=60)

        authority.issue(tmp_path, "server", days=20)
        renewed = {await serial(port, authority) for port in (running.http_port, running.grpc_port)}
        assert renewed == {x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number}
        assert renewed != shown
        assert await expiry(running, context) == pytest.approx(time.time() + 20 * 86400, abs=60)

        replace(certificate, Authority.new().pem)  # another key's: half of a pair has been replaced
        assert {await serial(port, authority) for port in (running.http_port, running.grpc_port)} == renewed
        async with Client(target, tls=Tls(Authority.new("stranger").pem)) as client:
            with pytest.raises(ClientError, match="UNAVAILABLE"):
                await client.models(timeout=60)


async def serial(port: int, authority: Authority) -> int:
    """The serial number of what a server shows."""
    context = trusting(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return x509.load_der_x509_certificate(shown).serial_number


async def expiry(running: RunningService, context: ssl.SSLContext) -> float:
    url = f"https://localhost:{running.http_port}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url, ssl=context) as response:
        name = 'portrait_certificate_expiry_timestamp_seconds{certificate="server"} '
        return next(float(line.removeprefix(name)) for line in (await response.text()).splitlines() if name in line)


async def test_mutual_tls_lets_clients_of_the_authority_pass_only(
    settings: Settings, tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue(tmp_path, "server")
    ca = tmp_path / "clients.pem"
    clients, strangers = Authority.new("clients"), Authority.new("strangers")
    ca.write_bytes(clients.pem)
    good, bad = clients.issue(tmp_path, "camera"), strangers.issue(tmp_path, "stranger")
    async with serving(settings, tls_certificate=certificate, tls_key=key, tls_client_ca=ca) as running:
        target = f"localhost:{running.grpc_port}"

        async def grpc_passes(own: tuple[Path, Path] | None) -> bool:
            pair = [path.read_bytes() for path in own] if own else []
            async with Client(target, tls=Tls(authority.pem, *pair)) as client:
                try:
                    return bool(await client.models(timeout=60))
                except ClientError:
                    return False

        assert await grpc_passes(good)
        assert not await grpc_passes(bad)
        assert not await grpc_passes(None)
        assert await http_status(running, "/", ssl=trusting(authority, *good)) == 200
        assert await http_status(running, "/", ssl=trusting(authority)) == 401
        assert await http_status(running, "/metrics", ssl=trusting(authority)) == 200
        with pytest.raises(aiohttp.ClientError):
            await http_status(running, "/", ssl=trusting(authority, *bad))

        replace(ca, strangers.pem)
        assert await grpc_passes(bad)
        assert not await grpc_passes(good)
        assert await http_status(running, "/", ssl=trusting(authority, *bad)) == 200
        with pytest.raises(aiohttp.ClientError):
            await http_status(running, "/", ssl=trusting(authority, *good))


async def test_a_certificate_and_a_token_are_both_needed_where_both_are_asked_for(
    settings: Settings, tmp_path: Path, tokens: Path, authority: Authority
) -> None:
    certificate, key = authority.issue(tmp_path, "server")
    ca = tmp_path / "clients.pem"
    ca.write_bytes(authority.pem)
    own = trusting(authority, *authority.issue(tmp_path, "camera"))
    files = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": ca, "tokens": tokens}
    async with serving(settings, **files) as running:
        assert await http_status(running, "/", f"Bearer {TOKEN}", ssl=own) == 200
        assert await http_status(running, "/", ssl=own) == 401
        assert await http_status(running, "/", f"Bearer {TOKEN}", ssl=trusting(authority)) == 401

"""Security: tokens, signed tokens, TLS and mutual TLS, the same for gRPC and HTTP; files replaced while it runs."""

import asyncio
import base64
import contextlib
import datetime
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from portrait.app import Running, run_service
from portrait.client import Client, ClientError, SyncClient, Tls
from portrait.errors import BadSettings, Unauthenticated
from portrait.security import open_security
from portrait.settings import Settings, load_settings

TOKEN, OTHER = "0123456789abcdef-camera", "fedcba9876543210-office"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# who, and what they show\ncamera {TOKEN}\n\noffice  {OTHER}  # second floor\n")
    return file


@dataclass(frozen=True)
class Authority:
    """A CA of the tests."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str = "tests") -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _certificate(name, key.public_key(), name, key, ca=True))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, name: str, days: float = 30) -> tuple[Path, Path]:
        """The files of a certificate and its key, put there as one who renews it does."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.rfc4514_string().removeprefix("CN=")
        certificate = _certificate(name, key.public_key(), issuer, self.key, days=days)
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for path, data in zip(paths, (certificate.public_bytes(encoding), private), strict=True):
            replace(path, data)
        return paths


def replace(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.rename(path)


def _certificate(name: str, public: Any, issuer: str, key: Any, *, ca: bool = False, days: float = 30) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


@pytest.fixture
def authority() -> Authority:
    return Authority.new()


@asynccontextmanager
async def serving(settings: Settings, **changes: Any) -> AsyncIterator[Running]:
    async with run_service(settings.model_copy(update=changes)) as running:
        yield running


async def http_status(running: Running, path: str, authorization: str | None = None, **options: Any) -> int:
    scheme = "https" if "ssl" in options else "http"
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"{scheme}://localhost:{running.http_port}{path}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers, **options) as response:
        return response.status


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


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
            assert 'portrait_admission_refused_total{reason="unauthenticated"} 4.0' in await response.text()


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
        tokens.unlink()  # noqa: ASYNC240  a name in a directory
        assert await http_status(running, "/v1/models", "Bearer a-new-token-0123456789") == 200
    assert "line 1 is not a new name" in caplog.text
    assert "the old one stays in force" in caplog.text


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
        ("camera\n", "line 1 is not a new name"),
        ("a 0123456789abcdef\na 0123456789abcdeg\n", "line 2 is not a new name"),
        ("# none\n", "holds no token"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(BadSettings, match=message) as refused:
        open_security(Settings(tokens=file))
    assert "0123456789" not in str(refused.value)


def public_pem(key: Any) -> bytes:
    encoding = serialization.Encoding.PEM
    return bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))


KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def claims(**others: Any) -> dict[str, Any]:
    return {"sub": "camera", "exp": time.time() + 60, "aud": "portrait", "iss": "https://issuer.test", **others}


def passes(security: Any, token: str) -> bool:
    try:
        security.check(f"Bearer {token}", has_certificate=False)
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize("algorithm", KEYS)
def test_signed_tokens_of_the_files_key_pass_and_no_others(tmp_path: Path, algorithm: str) -> None:
    key, file = KEYS[algorithm], tmp_path / "key.pem"
    file.write_bytes(public_pem(key))
    security = open_security(Settings(jwt_keys=file, jwt_audience="portrait", jwt_issuer="https://issuer.test"))

    def signed(**others: Any) -> str:
        return jwt.encode(claims(**others), key, algorithm)

    assert passes(security, signed())
    assert not passes(security, signed(exp=time.time() - 60))
    assert not passes(security, signed(nbf=time.time() + 60))
    assert not passes(security, signed(aud="another"))
    assert not passes(security, signed(iss="https://another.test"))
    assert not passes(security, jwt.encode({"aud": "portrait", "iss": "https://issuer.test"}, key, algorithm))
    assert not passes(security, jwt.encode(claims(), None, "none"))
    assert not passes(security, signed()[:-8] + "AAAAAAAA")
    with pytest.raises(Unauthenticated):
        security.check(f"Bearer {'.' * 30}", has_certificate=False)


def test_a_public_key_is_no_shared_one(tmp_path: Path) -> None:
    """The classic forgery: a token signed with the public key's own bytes as if they were a secret."""
    file = tmp_path / "key.pem"
    file.write_bytes(public_pem(KEYS["RS256"]))
    security = open_security(Settings(jwt_keys=file))
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 60}).encode()).rstrip(b"=")
    signature = jwt.get_algorithm_by_name("HS256")
    secret = public_pem(KEYS["RS256"])
    forged = b".".join(
        [header, body, base64.urlsafe_b64encode(signature.sign(header + b"." + body, secret)).rstrip(b"=")]
    )
    assert not passes(security, forged.decode())


def test_a_set_of_keys_is_asked_by_id_and_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def write(**keys: Any) -> None:
        entries = [
            json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": kid} for kid, key in keys.items()
        ]
        secret = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("="), "kid": "shared"}
        replace(file, json.dumps({"keys": [*entries, secret]}).encode())

    def signed(key: Any, kid: str, algorithm: str = "ES256") -> str:
        return jwt.encode(claims(), key, algorithm, headers={"kid": kid})

    write(old=old)
    security = open_security(Settings(jwt_keys=file))
    assert passes(security, signed(old, "old"))
    assert passes(security, signed(b"s" * 32, "shared", "HS256"))
    assert not passes(security, signed(new, "new"))
    assert not passes(security, signed(old, "another"))
    write(old=old, new=new)
    assert passes(security, signed(new, "new"))
    assert passes(security, signed(old, "old"))
    write(new=new)
    assert not passes(security, signed(old, "old"))


@pytest.mark.parametrize(
    "text", ["{}", '{"keys": []}', "hello", '{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}', "-----BEGIN"]
)
def test_a_file_of_keys_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(BadSettings, match="PORTRAIT_JWT_KEYS"):
        open_security(Settings(jwt_keys=file))


def trusting(authority: Authority, *own: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if own:
        context.load_cert_chain(*own)
    return context


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
                await client.models(timeout=5)


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


async def expiry(running: Running, context: ssl.SSLContext) -> float:
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
                    return bool(await client.models(timeout=5))
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
    assert "other machines are served without authentication and TLS; whoever reaches it can use it" in caplog.text


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
    with pytest.raises(BadSettings, match="come before a client CA"):
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

"""Signed tokens (JWT): which pass, which are forged, and keys that are replaced while it runs."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from portrait.errors import BadSettings, Unauthenticated
from portrait.security import open_security
from portrait.settings import Settings
from tests.credentials import replace


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


@pytest.mark.parametrize("step", ["get_unverified_header", "decode"])
@pytest.mark.parametrize("error", [RecursionError, OverflowError, TypeError])
def test_whatever_a_library_stumbles_over_is_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[Exception]
) -> None:
    """PyJWT 2.10 raises these for headers and claims of another form; later ones say InvalidTokenError."""

    def stumble(*_: Any, **__: Any) -> Any:
        raise error("injected")

    (tmp_path / "key.pem").write_bytes(public_pem(KEYS["EdDSA"]))
    security = open_security(Settings(jwt_keys=tmp_path / "key.pem"))
    token = jwt.encode({"exp": time.time() + 60}, KEYS["EdDSA"], "EdDSA")
    assert passes(security, token)
    monkeypatch.setattr(jwt, step, stumble)
    assert not passes(security, token)


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

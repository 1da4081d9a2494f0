"""Bearer tokens: those listed in a file, and signed ones (JWT, RFC 7519)."""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from portrait.errors import BadSettings
from portrait.security.watched import Watched, read

SHORTEST = 16
"""Characters of a token, at least: a shorter one can be guessed."""

SHORTEST_SECRET = 32
"""Bytes of a shared JWT key, at least (RFC 7518 section 3.2)."""

LEEWAY = 10
"""Seconds by which clocks may differ."""

NO_TOKEN = (jwt.InvalidTokenError, RecursionError, ArithmeticError, TypeError, ValueError)
"""What PyJWT raises for an invalid token. Its older versions let Python's own errors through."""

CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


UNREADABLE = (
    ValueError, TypeError, KeyError, AttributeError, RecursionError, UnsupportedAlgorithm, jwt.PyJWTError,
)  # fmt: skip
"""What the libraries raise for a file without keys, or with keys of another kind."""


class Bearer(Protocol):
    """One kind of token."""

    def name_of(self, token: str) -> str | None:
        """Return the name that the token belongs to; None for an unknown token."""


class Tokens:
    """The tokens of a file: a name, white space and a token on each line; `#` starts a comment.

    Raises:
        BadSettings: the file cannot be read or has a line of another form.
    """

    def __init__(self, path: Path) -> None:
        self._known = Watched([path], lambda: _read_tokens(path))

    def name_of(self, token: str) -> str | None:
        """Return the name that the token belongs to. The time it takes does not depend on how much of it matches."""
        digest, found = _digest(token), None
        for name, known in self._known.get().items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


@dataclass(frozen=True, slots=True)
class Key:
    """A key that verifies signatures. It fixes the algorithms: a token cannot choose its own."""

    key: Any
    algorithms: tuple[str, ...]
    id: str | None


class SignedTokens:
    """JWTs signed with the keys of a file: a JWK set or a PEM public key. A token needs an expiry time.

    Raises:
        BadSettings: the file cannot be read or holds no key.
    """

    def __init__(self, path: Path, audience: str | None, issuer: str | None) -> None:
        self._keys = Watched([path], lambda: _read_keys(path))
        self._audience, self._issuer = audience, issuer

    def name_of(self, token: str) -> str | None:
        """Return the subject of a token that is valid now, else None."""
        try:
            wanted = jwt.get_unverified_header(token).get("kid")
        except NO_TOKEN:
            return None
        for key in self._keys.get():
            if wanted is not None and key.id is not None and key.id != wanted:
                continue
            try:
                claims = jwt.decode(
                    token, key.key, [*key.algorithms], audience=self._audience, issuer=self._issuer, leeway=LEEWAY,
                    options={"require": ["exp"], "verify_aud": self._audience is not None},
                )  # fmt: skip
            except NO_TOKEN:
                continue
            return str(claims.get("sub", "unnamed"))
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _read_tokens(path: Path) -> Mapping[str, bytes]:
    known: dict[str, bytes] = {}
    for number, line in enumerate(read("PORTRAIT_TOKENS", path).decode("utf-8", "replace").splitlines(), 1):
        words = re.sub("(^|\\s)#.*", "", line).split()
        if not words:
            continue
        # The line is not repeated in the message: it may hold a token.
        if len(words) != 2 or len(words[1]) < SHORTEST or words[0] in known:
            expected = f"a new name, white space, a token of {SHORTEST} characters or more"
            raise BadSettings(f"PORTRAIT_TOKENS={str(path)!r}: line {number}: expected {expected}")
        known[words[0]] = _digest(words[1])
    if not known:
        raise BadSettings(f"PORTRAIT_TOKENS={str(path)!r}: holds no token")
    return known


def _read_keys(path: Path) -> list[Key]:
    data = read("PORTRAIT_JWT_KEYS", path)
    try:
        keys = [_pem_key(data)] if data.lstrip().startswith(b"-----") else _jwk_keys(data)
    except UNREADABLE as error:
        raise BadSettings(f"PORTRAIT_JWT_KEYS={str(path)!r}: expected a JWK set or a PEM public key") from error
    if not keys:
        raise BadSettings(f"PORTRAIT_JWT_KEYS={str(path)!r}: holds no key")
    return keys


def _jwk_keys(data: bytes) -> list[Key]:
    keys = []
    for entry in json.loads(data)["keys"]:
        if entry.get("use", "sig") != "sig":
            continue
        key = jwt.PyJWK(entry)
        if isinstance(key.key, bytes) and len(key.key) < SHORTEST_SECRET:
            raise ValueError(f"expected a shared key of at least {SHORTEST_SECRET} bytes")
        keys.append(Key(key.key, (key.algorithm_name,), key.key_id))
    return keys


def _pem_key(data: bytes) -> Key:
    key = load_pem_public_key(data)
    if isinstance(key, rsa.RSAPublicKey):
        return Key(key, RSA, None)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return Key(key, (CURVES[key.curve.name],), None)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Key(key, ("EdDSA",), None)
    raise ValueError("expected an RSA, elliptic-curve or Ed25519 key")

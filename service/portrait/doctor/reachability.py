"""How a client on another machine reaches the box: addresses, media ports, certificate, STUN and TURN servers."""

import asyncio
import contextlib
import ipaddress
import socket
import time
from asyncio import timeout
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import ifaddr
from aioice import Connection
from cryptography import x509

from portrait.admission.cgroup import cpu_budget
from portrait.doctor.box import Check
from portrait.errors import PortraitError
from portrait.security import is_loopback, open_security, own_authority
from portrait.security.authority import box_names, names_of
from portrait.settings import Settings
from portrait.transports.webrtc.turn import URL, IceServers
from portrait.workers.environment import default_workers

CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")

KINDS = (("UDP", socket.SOCK_DGRAM), ("TCP", socket.SOCK_STREAM))

ANSWER_SECONDS = 6.0
"""How long a STUN or TURN server may take to answer."""

PORTS = {"stun": 3478, "turn": 3478, "stuns": 5349, "turns": 5349}
"""Default ports (RFC 7064 and RFC 7065, section 3.2 of each)."""


def examine_reachability(settings: Settings) -> Iterator[Check]:
    """Check everything between this box and a client on another machine."""
    addresses = host_addresses()
    yield _listening(settings)
    yield _candidates(settings, addresses)
    yield from _advertised(settings, addresses)
    yield _media_ports(settings, max(1, len(addresses)))
    yield _certificate(settings)
    yield from _ice_servers(settings)


def host_addresses() -> dict[str, str]:
    """Return the addresses that ICE gathers and offers for media (RFC 8445 section 5.1.1.1), with their interfaces."""
    found = {}
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            text = each.ip if isinstance(each.ip, str) else each.ip[0]
            address = ipaddress.ip_address(text)
            if not address.is_loopback and not (address.version == 6 and address.is_link_local):
                found[text] = adapter.nice_name
    return found


def _listening(settings: Settings) -> Check:
    if is_loopback(settings.host):
        finding = f"{settings.host}: reached from this machine only; --host 0.0.0.0 listens for other machines"
        return Check("listening", True, finding, fatal=False)
    if not settings.encrypted:
        finding = f"{settings.host} without TLS: elsewhere browsers open the camera for https pages only; --tls auto"
        return Check("listening", False, finding, fatal=False)
    return Check("listening", True, f"{settings.host} with TLS", fatal=False)


def _candidates(settings: Settings, addresses: dict[str, str]) -> Check:
    if not addresses and not settings.advertised:
        return Check(
            "candidates", False, "only the loopback address: no client on another machine can send media", fatal=False
        )
    shown = ", ".join(f"{address} ({interface})" for address, interface in addresses.items())
    bridged = any(Path(mark).exists() for mark in CONTAINER_MARKS) and len(addresses) == 1 and not settings.advertised
    if bridged:
        finding = f"{shown}: in a container on a bridge clients need PORTRAIT_ADVERTISED_ADDRESSES or TURN"
        return Check("candidates", False, finding, fatal=False)
    return Check("candidates", True, shown or "the advertised ones only", fatal=False)


def _advertised(settings: Settings, addresses: dict[str, str]) -> Iterator[Check]:
    for address in settings.advertised:
        parsed = ipaddress.ip_address(address)
        if parsed.is_unspecified or parsed.is_multicast:
            yield Check("advertised", False, f"{address} is not the address of a machine", fatal=False)
        elif parsed.is_loopback:
            yield Check("advertised", False, f"{address} is reached from this machine only", fatal=False)
        elif address in addresses:
            yield Check("advertised", True, f"{address} is this machine's own, which is offered anyway", fatal=False)
        else:
            reach = "its private network" if parsed.is_private else "the internet"
            ports = f"UDP {settings.media_ports}" if settings.media_ports else _shared(settings)
            finding = f"{address}, for clients in {reach}: {ports} there must be forwarded to the same ports here"
            yield Check("advertised", True, finding, fatal=False)


def _workers(settings: Settings) -> int:
    return settings.workers or default_workers(cpu_budget())


def _shared(settings: Settings) -> str:
    """The ports of all workers, and of one that starts while another drains."""
    first, workers = settings.media_port, _workers(settings)
    protocols = "UDP and TCP" if settings.media_tcp else "UDP"
    return f"{protocols} {first}-{first + workers}" if workers > 1 else f"{protocols} {first}"


def _media_ports(settings: Settings, addresses: int) -> Check:
    if not settings.media_ports and settings.media_port:
        own = range(settings.media_port, settings.media_port + _workers(settings))
        kinds = KINDS if settings.media_tcp else KINDS[:1]
        taken = [f"{name} {port} is taken" for port in own for name, kind in kinds if not _is_free(port, kind)]
        return Check("media ports", not taken, f"{_shared(settings)}: {taken[0] if taken else 'free'}")
    ports = settings.media_port_range
    if not ports:
        return Check("media ports", True, "any: no firewall or bridge can be set up for them", fatal=False)
    free = sum(map(_is_free, ports))
    connections, wanted = free // addresses, settings.max_sessions + settings.max_viewers
    finding = (
        f"UDP {settings.media_ports}: {free} of {len(ports)} free, {addresses} per connection: "
        f"enough for {connections} connections, expected {wanted}"
    )
    return Check("media ports", connections >= wanted, finding, fatal=not free)


def _certificate(settings: Settings) -> Check:
    try:
        certificates = open_security(settings, create=False).certificates
    except PortraitError as error:
        return Check("certificate", False, str(error), fatal=False)
    if certificates is None:
        folder = own_authority(settings).folder
        finding = f"none yet: the first start makes an authority in {folder}" if settings.encrypted else "none"
        return Check("certificate", True, finding, fatal=False)
    found = x509.load_pem_x509_certificate(certificates.pem().certificate)
    until = f"until {datetime.fromtimestamp(min(certificates.expiries().values()), UTC):%Y-%m-%d}"
    if certificates.authority is not None:
        finding = f"of the site's own authority, {until}; /trust says how devices trust it; its SHA-256 is "
        finding += certificates.authority.fingerprint
        return Check("certificate", True, finding, fatal=False)
    if min(certificates.expiries().values()) < time.time():
        return Check("certificate", False, "has expired", fatal=False)
    if found.issuer == found.subject:
        finding = f"self-signed, {until}: each client must be told to trust it; PORTRAIT_TLS=auto makes that easier"
        return Check("certificate", False, finding, fatal=False)
    with contextlib.suppress(x509.ExtensionNotFound):
        names = names_of(found)
        lacking = not names & box_names() and not any(name.startswith("*.") for name in names)
        finding = f"{until}, for {', '.join(sorted(names))}"
        hint = "; none of these is a name or address of this box" if lacking else ""
        return Check("certificate", True, finding + hint, fatal=False)
    return Check("certificate", False, "has no subjectAltName, so browsers reject it", fatal=False)


def _ice_servers(settings: Settings) -> Iterator[Check]:
    try:
        servers = IceServers(settings.ice_servers, settings.turn_secret.get_secret_value(), settings.turn_seconds)
    except PortraitError as error:
        yield Check("ice servers", False, str(error))
        return
    if not servers.urls:
        yield Check("ice servers", True, "none: clients must reach the media ports directly", fatal=False)
    for url in servers.urls:
        yield asyncio.run(_ask(url, servers))


async def _ask(url: str, servers: IceServers) -> Check:
    """Ask one server for an address, as clients do."""
    found = URL.fullmatch(url)
    assert found is not None
    scheme, host = found[1], found[2].strip("[]")
    place = host, int(found[3][1:]) if found[3] else PORTS[scheme]
    if scheme == "stuns":
        return Check(url, True, "is sent to clients; the doctor cannot ask it", fatal=False)
    username, credential = servers.credentials()
    connection = (
        Connection(ice_controlling=True, stun_server=place)
        if scheme == "stun"
        else Connection(
            ice_controlling=True,
            turn_server=place,
            turn_username=username,
            turn_password=credential,
            turn_transport=found[5] or ("tcp" if scheme == "turns" else "udp"),
            turn_ssl=scheme == "turns",
        )
    )
    wanted = "srflx" if scheme == "stun" else "relay"
    try:
        async with timeout(ANSWER_SECONDS):
            await connection.gather_candidates()
        for candidate in connection.local_candidates:
            if candidate.type == wanted:
                what = "relays at" if wanted == "relay" else "sees this box at"
                return Check(url, True, f"answers; {what} {candidate.host}:{candidate.port}", fatal=False)
        return Check(url, False, "does not answer, or rejects credentials of this secret", fatal=False)
    except (TimeoutError, OSError) as error:
        return Check(url, False, f"does not answer: {error or f'nothing within {ANSWER_SECONDS:g} s'}", fatal=False)
    finally:
        await connection.close()


def _is_free(port: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        # As the service: TCP connections that it had before may linger.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True

"""It connects: through a relay, from behind a bridge, over IPv6 and over a bad line. Every network is the kernel's."""

import asyncio
import json
import shlex
import shutil
import sys
from asyncio import timeout
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.network.namespaces import Namespace, Network, missing, network
from tests.snippets import ROOT, blocks
from tests.timing import at_least, at_most

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SECRET = "a-secret-of-the-tests"
SERVER_BESIDE = "10.77.1.9"
CLIENT, RELAY_OUTSIDE, RELAY_INSIDE, SERVER = "10.77.1.2", "10.77.1.1", "10.77.2.1", "10.77.2.2"
RELAY = (
    "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=tests", f"--listening-ip={RELAY_OUTSIDE}",
    f"--relay-ip={RELAY_INSIDE}", "--min-port=49200", "--max-port=49300", "--no-tls", "--no-dtls", "--no-cli",
)  # fmt: skip


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as built:
        yield built


@asynccontextmanager
async def running(command: list[str], ready: str | None = None) -> AsyncIterator[Process]:
    """A process for the length of the block; with `ready`, from the moment its output has that."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        if ready is not None:
            assert process.stdout is not None
            async with timeout(60):
                while ready not in (line := (await process.stdout.readline()).decode()):
                    assert line, f"{command} ended"
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@asynccontextmanager
async def serving(place: Namespace, host: str, *options: str, environ: Sequence[str] = ()) -> AsyncIterator[str]:
    """The service inside a namespace, with `NAME=value` in its environment; its address."""
    flags = ["--host", host, "--http-port", "8080", "--grpc-port", "50051", "--drain-seconds", "0", "--insecure"]
    command = place.command("env", *environ, sys.executable, "-m", "portrait", "serve", "--json", *flags, *options)
    async with running(command, ready='"page"'):
        yield f"http://[{host}]:8080" if ":" in host else f"http://{host}:8080"


async def call(place: Namespace, url: str, *options: str, frames: int = 30) -> dict[str, Any]:
    """What a client inside a namespace got."""
    command = place.command(sys.executable, "-m", "tests.rtc_client", url, "--frames", str(frames), *options)
    async with running(command) as process:
        async with timeout(120):
            out, _ = await process.communicate()
        lines = [json.loads(line) for line in out.decode().splitlines()]
        assert lines, "the client got no picture"
        done: dict[str, Any] = lines[-1]
        assert done["event"] == "done"
        return done


def firewalled(net: Network) -> tuple[Namespace, Namespace, Namespace]:
    """(client, relay, server): the relay's machine forwards HTTP between them and nothing else."""
    client, relay, server = net.add("client"), net.add("relay"), net.add("server")
    net.join(client, relay, (f"{CLIENT}/24", f"{RELAY_OUTSIDE}/24"))
    net.join(relay, server, (f"{RELAY_INSIDE}/24", f"{SERVER}/24"))
    client.run(f"ip route add default via {RELAY_OUTSIDE}")
    server.run(f"ip route add default via {RELAY_INSIDE}")
    relay.run("sysctl -qw net.ipv4.ip_forward=1")
    relay.run("iptables -P FORWARD DROP")
    relay.run("iptables -A FORWARD -p tcp --dport 8080 -j ACCEPT")
    relay.run("iptables -A FORWARD -p tcp --sport 8080 -j ACCEPT")
    return client, relay, server


@asynccontextmanager
async def relaying(place: Namespace, options: Sequence[str] = RELAY) -> AsyncIterator[None]:
    """Coturn; without other options it hands out addresses of the server's side."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn is not installed (make system-packages)")
    leaving_nothing = ("-n", "--log-file=stdout", "--simple-log", "--pidfile=/dev/null")
    async with running(place.command(program, *leaving_nothing, *options), ready="IO method"):
        async with timeout(60):  # it says so a moment before it listens
            while await listening(place, 3478) != {"udp", "tcp"}:
                await asyncio.sleep(0.05)
        yield


async def listening(place: Namespace, port: int) -> set[str]:
    """By which protocols a port is listened at inside a namespace."""
    async with running(place.command("ss", "-Hlntu", f"sport = :{port}")) as process:
        out, _ = await process.communicate()
    return {line.split()[0] for line in out.decode().splitlines()}


async def doctor(place: Namespace, *options: str) -> dict[str, dict[str, Any]]:
    """What the doctor finds inside a namespace, by name."""
    command = place.command(sys.executable, "-m", "portrait", "doctor", "--json", *options)
    async with running(command) as process:
        out, _ = await process.communicate()
    return {check["name"]: check for check in json.loads(out)}


async def test_the_doctor_asks_the_relay_for_an_address(net: Network) -> None:
    _, relay, server = firewalled(net)
    urls = [f"turn:{RELAY_OUTSIDE}:3478?transport={transport}" for transport in ("udp", "tcp")]
    urls.append(f"stun:{RELAY_OUTSIDE}:3478")
    async with relaying(relay):
        found = await doctor(server, "--ice-urls", ",".join(urls), "--turn-secret", SECRET)
        assert all(found[url]["ok"] for url in urls), found
        assert f"relays at {RELAY_INSIDE}:" in found[urls[0]]["finding"]
        assert f"sees this box at {SERVER}:" in found[urls[2]]["finding"]
        assert f"{SERVER} (c1b)" in found["candidates"]["finding"]
        wrong = await doctor(server, "--ice-urls", urls[0], "--turn-secret", "another")
        assert not wrong[urls[0]]["ok"]
    gone = await doctor(server, "--ice-urls", ",".join(urls), "--turn-secret", SECRET)
    assert not any(gone[url]["ok"] for url in urls)


async def test_a_client_behind_a_firewall_connects_through_turn(net: Network) -> None:
    """Over TCP, where UDP does not even reach the relay; over UDP with the relay of the docs."""
    client, relay, server = firewalled(net)
    relay.run(f"iptables -A INPUT -p udp -s {CLIENT} -j DROP")
    url = f"turn:{RELAY_OUTSIDE}:3478?transport=tcp"
    async with relaying(relay), serving(server, SERVER, "--ice-urls", url, "--turn-secret", SECRET) as page:
        done = await call(client, page)
    assert done["local"] == "relay"


async def test_the_relay_of_the_docs_and_the_box_of_the_docs_find_each_other(net: Network) -> None:
    [text] = [block for block in blocks(ROOT / "docs" / "reference" / "protocol.md") if block.startswith("turnserver")]
    turnserver, box = (shlex.split(line.replace("ADDRESS", RELAY_OUTSIDE)) for line in text.splitlines())
    assert box[-2:] == ["portrait", "serve"]
    client, relay, server = firewalled(net)
    async with relaying(relay, turnserver[1:]), serving(server, SERVER, environ=box[:-2]) as page:
        assert (await call(client, page))["local"] == "relay"


async def test_without_a_relay_the_firewall_is_not_passed(net: Network) -> None:
    """What the tests with one prove depends on this."""
    client, _, server = firewalled(net)
    async with serving(server, SERVER) as page:
        command = client.command(sys.executable, "-m", "tests.rtc_client", page)
        async with running(command) as process:
            assert process.stdout is not None
            with pytest.raises(TimeoutError):
                async with timeout(5):
                    await process.stdout.readline()


def without_udp(net: Network) -> tuple[Namespace, Namespace]:
    """(client, server) with a line between them that lets no UDP pass."""
    client, server = net.add("client"), net.add("server")
    net.join(client, server, (f"{CLIENT}/24", f"{SERVER_BESIDE}/24"))
    for rule in ("INPUT", "OUTPUT"):
        server.run(f"iptables -A {rule} -p udp -j DROP")
    return client, server


async def test_without_udp_media_goes_over_tcp_and_keeps_up(net: Network) -> None:
    client, server = without_udp(net)
    async with serving(server, SERVER_BESIDE, "--media-port", "50000") as page:
        done = await call(client, page, "--tcp", frames=90)
    assert (done["local"], done["transport"], done["remote"]) == ("host", "tcp", SERVER_BESIDE)
    assert done["frames"] == 90


async def test_over_tcp_a_narrow_line_has_pictures_dropped_and_does_not_make_them_late(net: Network) -> None:
    """TCP would deliver all of them, each later than the one before."""
    client, server = without_udp(net)
    async with serving(server, SERVER_BESIDE, "--media-port", "50000") as page:
        server.run("tc qdisc add dev c0b root tbf rate 150kbit burst 3kb latency 200ms")
        done = await call(client, page, "--tcp", frames=100)
    print(f"150 kbit/s: {done}")
    assert done["later"] < 2


async def test_a_service_behind_a_bridge_is_reached_by_its_advertised_address(net: Network) -> None:
    """A container as Docker publishes it: one port one to one, addresses translated both ways."""
    client, host, container = net.add("client"), net.add("host"), net.add("box")
    outside, inside = "192.0.2.1", "172.18.0.2"
    net.join(client, host, ("192.0.2.2/24", f"{outside}/24"))
    net.join(host, container, ("172.18.0.1/24", f"{inside}/24"))
    container.run("ip route add default via 172.18.0.1")
    host.run("sysctl -qw net.ipv4.ip_forward=1")
    nat = "iptables -t nat -A"
    host.run(f"{nat} PREROUTING -d {outside} -p udp --dport 50000 -j DNAT --to-destination {inside}")
    host.run(f"{nat} PREROUTING -d {outside} -p tcp --dport 50000 -j DNAT --to-destination {inside}")
    host.run(f"{nat} PREROUTING -d {outside} -p tcp --dport 8080 -j DNAT --to-destination {inside}")
    host.run(f"{nat} POSTROUTING -s {inside}/24 ! -d {inside}/24 -j MASQUERADE")
    # Otherwise the service's own checks would tell the client the address it has outside.
    host.run(f"iptables -A FORWARD -s {inside} -p udp -m conntrack --ctstate NEW -j DROP")
    flags = ("--media-port", "50000", "--advertised-addresses", outside)
    async with serving(container, "0.0.0.0", *flags):
        for options in ((), ("--tcp",)):
            done = await call(client, f"http://{outside}:8080", *options)
            assert (done["local"], done["remote"]) == ("host", outside)


async def test_ipv6_alone_is_enough(net: Network) -> None:
    client, server = net.add("client"), net.add("server")
    net.join(client, server, ("fd77::2/64", "fd77::1/64"))
    async with serving(server, "fd77::1") as page:
        done = await call(client, page)
    assert (done["local"], done["remote"]) == ("host", "fd77::1")


@asynccontextmanager
async def bad_line(net: Network, loss: float, delay: float) -> AsyncIterator[tuple[Namespace, Namespace]]:
    """(client, server) with a line between them that loses and delays."""
    client, line, server = net.add("client"), net.add("line"), net.add("server")
    _, one = net.join(client, line)
    other, _ = net.join(line, server)
    client.run(f"ip address add {CLIENT}/24 dev c0a")
    server.run("ip address add 10.77.1.9/24 dev c1b")
    for namespace, interface in ((client, "c0a"), (server, "c1b")):
        namespace.run(f"ip link set {interface} up")
        # A cable of the kernel's leaves checksums to be made, and packets to be cut, by whatever comes after it.
        namespace.run(f"ethtool -K {interface} tx off")
    words = (sys.executable, "-m", "tests.network.wire", one, other, "--loss", str(loss), "--delay", str(delay))
    async with running(line.command(*words), ready="carrying"):
        yield client, server


@pytest.mark.timing
async def test_loss_and_jitter_leave_the_picture_moving(net: Network) -> None:
    async with bad_line(net, loss=0.02, delay=0.05) as (client, server), serving(server, "10.77.1.9") as page:
        done = await call(client, page, frames=240)
    assert done["frames"] == 240, "the picture stood still"
    at_least("2 % lost, up to 50 ms late: frames per second", done["frames"] / done["seconds"], 5)
    at_most("longest gap, seconds", done["longest"], 2.0)

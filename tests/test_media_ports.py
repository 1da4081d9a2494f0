"""The UDP ports that media takes."""

import asyncio
from contextvars import copy_context

import pytest

from portrait.transports.webrtc.aiortc_patches.media_ports import PORTS, OwnPorts, media_ports
from tests.ports import free_ports

LOOPBACK = ("127.0.0.1", 0)


async def bind(ports: OwnPorts | None) -> asyncio.DatagramTransport:
    """A socket as a task of the service with these ports opens it."""
    context = copy_context()
    context.run(PORTS.set, ports)
    opening = asyncio.get_running_loop().create_datagram_endpoint
    return (await context.run(asyncio.create_task, opening(asyncio.DatagramProtocol, LOOPBACK)))[0]


def port_of(transport: asyncio.DatagramTransport) -> int:
    port: int = transport.get_extra_info("sockname")[1]
    return port


@pytest.mark.parametrize("first_out", [0, 1])
async def test_two_services_on_one_loop_keep_to_their_own_ports_and_leave_nothing(first_out: int) -> None:
    loop = asyncio.get_running_loop()
    both = free_ports(2)
    ranges = both[:1], both[1:]
    own = [OwnPorts(ports) for ports in ranges]
    blocks = [media_ports(loop, ports) for ports in own]
    for block in blocks:
        block.__enter__()
    opened = [await bind(ports) for ports in own]
    assert [port_of(each) for each in opened] == [ranges[0][0], ranges[1][0]]
    for each in opened:
        each.close()
    await asyncio.sleep(0)
    blocks[first_out].__exit__(None, None, None)
    opened = [await bind(own[1 - first_out]), await bind(None)]
    assert port_of(opened[0]) in ranges[1 - first_out]
    assert port_of(opened[1]) not in (*ranges[0], *ranges[1])
    blocks[1 - first_out].__exit__(None, None, None)
    opened.append(await bind(own[1 - first_out]))
    assert port_of(opened[2]) not in (*ranges[0], *ranges[1])
    for each in opened:
        each.close()
    await asyncio.sleep(0)


async def test_media_takes_ports_of_the_range_until_none_is_left() -> None:
    loop, ports = asyncio.get_running_loop(), free_ports(3)
    opened, own = [], OwnPorts(ports)
    with media_ports(loop, own):
        opened += [await bind(own) for _ in ports]
        assert {port_of(transport) for transport in opened} == set(ports)
        with pytest.raises(OSError, match="in use"):
            await bind(own)
        opened.pop().close()
        await asyncio.sleep(0)
        opened.append(await bind(own))
    opened.append(await bind(own))
    assert port_of(opened[-1]) not in ports
    for transport in opened:
        transport.close()
    await asyncio.sleep(0)

"""A bad line: `python -m tests.network.wire A B --loss 0.02 --delay 0.05`.

Carries Ethernet frames between two interfaces and loses or delays them, as the kernel's netem does, which not every
kernel has. Delays are drawn for each frame, so that frames overtake each other. On SIGTERM it prints what it did.
"""

import argparse
import asyncio
import json
import random
import signal
import socket
from typing import TypedDict

ETH_P_ALL = 3


class Counts(TypedDict):
    """What became of the frames."""

    carried: int
    lost: int


def open_end(interface: str) -> socket.socket:
    """Everything that comes in on an interface."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.bind((interface, ETH_P_ALL))
    end.setblocking(False)
    return end


async def carry(names: tuple[str, str], loss: float, delay: float, seed: int) -> Counts:
    """Carry frames until SIGTERM."""
    loop, stop, chance = asyncio.get_running_loop(), asyncio.Event(), random.Random(seed)
    counts = Counts(carried=0, lost=0)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    ends = open_end(names[0]), open_end(names[1])

    def receive(here: socket.socket, there: socket.socket) -> None:
        frame, (_, _, kind, _, _) = here.recvfrom(65536)
        if kind == socket.PACKET_OUTGOING:
            return
        if chance.random() < loss:
            counts["lost"] += 1
            return
        counts["carried"] += 1
        loop.call_later(chance.uniform(0, delay), there.send, frame)

    for here, there in (ends, ends[::-1]):
        loop.add_reader(here, receive, here, there)
    print("carrying", flush=True)
    await stop.wait()
    for end in ends:
        loop.remove_reader(end)
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interfaces", nargs=2)
    parser.add_argument("--loss", type=float, default=0.0, help="share of frames lost, each way")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds a frame is late at most, each way")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    one, other = arguments.interfaces
    print(json.dumps(asyncio.run(carry((one, other), arguments.loss, arguments.delay, arguments.seed))))


if __name__ == "__main__":
    main()

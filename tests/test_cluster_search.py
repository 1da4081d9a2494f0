"""How a pod finds the one that publishes a stream: by asking all, within bounds."""

import asyncio
import time

import aiohttp
import pytest

from portrait.cluster import peers as peers_module
from portrait.cluster import streams as streams_module
from portrait.cluster.config import ClusterConfig
from portrait.cluster.peers import Peers
from portrait.cluster.streams import Found, Streams
from portrait.errors import TooManyRequests


class Asked:
    """Pods that say what they publish, and who counts their questions."""

    def __init__(self, **pods: bool | float | None) -> None:
        """What each pod says: whether it drains, None, or after how many seconds it would answer."""
        self._pods = pods
        self.questions: list[str] = []
        self.at_once = self.most = 0

    async def addresses(self) -> tuple[str, ...]:
        return tuple(self._pods)

    async def ask(self, address: str, name: str) -> bool | None:
        self.questions.append(address)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            said = self._pods[address]
            await asyncio.sleep(said if isinstance(said, float) else 0)
            if address.startswith("dead"):
                raise aiohttp.ClientConnectionError
            return said if isinstance(said, bool) else None
        finally:
            self.at_once -= 1


def search(asked: Asked) -> Streams:
    return Streams(asked, asked.ask)  # type: ignore[arg-type]  # it has what is used of Peers


async def test_a_pod_that_drains_gives_way_to_the_one_that_took_over() -> None:
    streams = search(Asked(one=None, two=True, three=False))
    assert await streams.find("hall") == Found("three", draining=False)
    assert await search(Asked(one=None, two=True)).find("hall") == Found("two", draining=True)
    assert await search(Asked(one=None)).find("hall") is None
    assert await search(Asked()).find("hall") is None


async def test_an_answer_serves_all_who_ask_meanwhile_and_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(one=False)
    streams = search(asked)
    assert set(await asyncio.gather(*(streams.find("hall") for _ in range(100)))) == {Found("one", draining=False)}
    await streams.find("hall")
    assert len(asked.questions) == 1
    streams.forget("hall")
    await streams.find("hall")
    assert len(asked.questions) == 2
    monkeypatch.setattr(streams_module, "FOUND_SECONDS", 0.0)
    streams.forget("hall")
    for _ in range(3):
        await streams.find("hall")
    assert len(asked.questions) == 5


async def test_a_pod_that_does_not_answer_costs_its_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "ANSWER_SECONDS", 0.05)
    asked = Asked(silent=60.0, dead=None, one=None)
    streams = search(asked)
    assert await streams.find("hall") is None
    assert sorted(asked.questions) == ["dead", "one", "silent"]
    assert await streams.find("desk") is None
    assert sorted(asked.questions) == ["dead", "one", "one", "silent"]


async def test_searches_and_their_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(**{f"pod{i}": 0.002 for i in range(200)})
    streams = search(asked)
    searches = [asyncio.create_task(streams.find(str(i))) for i in range(streams_module.MOST_SEARCHES)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await streams.find("one more")
    for each in searches[3:]:
        each.cancel()
    await asyncio.gather(*searches, return_exceptions=True)
    assert asked.most <= streams_module.MOST_QUESTIONS
    await streams.close()
    monkeypatch.setattr(streams_module, "MOST_NAMES", 10)
    few = search(Asked())
    for i in range(100):
        await few.find(str(i))
    assert len(few._known) == 10


async def test_the_other_pods_are_those_of_the_name_without_this_one() -> None:
    config = ClusterConfig("127.0.0.1", 8444, ("127.0.0.1", "127.0.0.2", "0:0::1"), "x" * 32)
    assert await Peers(config).addresses() == ("127.0.0.2", "::1")


async def test_a_name_that_is_not_answered_leaves_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = Peers(ClusterConfig("127.0.0.1", 8444, ("127.0.0.2",), "x" * 32))
    assert await peers.addresses() == ("127.0.0.2",)
    peers._names, peers._until = ("no-such-name.invalid",), 0.0
    assert await peers.addresses() == ("127.0.0.2",)
    hangs = asyncio.Event()
    monkeypatch.setattr(peers, "_look_up", hangs.wait)
    monkeypatch.setattr(peers_module, "LOOKUP_SECONDS", 0.05)
    peers._until, began = 0.0, time.monotonic()
    assert await peers.addresses() == await peers.addresses() == ("127.0.0.2",)
    assert time.monotonic() - began < 5
    await peers.close()

"""Everything that reads somebody else's bytes takes them or refuses them by name: what is in tests/corpus, and near it.

`make fuzz` looks further, and longer. What it finds is put into the corpus.
"""

import logging
import time
from collections import Counter

import pytest

from tests.mutations import SECONDS, mutated_bytes, rounds
from tests.targets import CORPUS, TARGETS, Target, corpus, guarded, lets_nobody_in

LONGEST = 2.0
"""Seconds for one input: nothing of theirs takes a tenth of that on a machine that does nothing else."""

pytestmark = pytest.mark.filterwarnings(
    "ignore::aiohttp.BadContentDispositionHeader", "ignore::aiohttp.BadContentDispositionParam"
)


def told(target: Target, data: bytes) -> str:
    began = time.process_time()
    taken = target.takes(data)
    took = time.process_time() - began
    assert took < LONGEST, f"{took:.1f} s for {data[:200]!r}"
    return "taken" if taken else "refused"


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_does_anything_but_be_taken_or_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    target, kept = TARGETS[name], corpus(name)
    counts = Counter(told(target, data) for data in kept)
    assert counts["taken"] >= 1
    # A seventh of the time of the others: there are many of these.
    for dice in rounds(least=100, seconds=SECONDS / 7):
        data = mutated_bytes(dice.choice(kept), dice)
        counts[told(target, mutated_bytes(data, dice) if dice.random() < 0.3 else data)] += 1
    print(name, dict(counts))
    assert counts["taken"] >= 1
    assert target.lenient or counts["refused"] >= 1


def test_every_folder_of_the_corpus_is_used() -> None:
    assert sorted(TARGETS) == sorted(path.name for path in CORPUS.iterdir())
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 4 * 2**20


@pytest.mark.parametrize("defect", [ValueError("what"), MemoryError(), AssertionError()])
def test_whatever_is_no_refusal_is_a_defect(defect: Exception) -> None:
    def feed(data: bytes) -> None:
        raise defect

    with pytest.raises(type(defect)):
        Target(feed).takes(b"")


def test_who_is_let_in_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="was let in"):
        lets_nobody_in(guarded(), "Bearer 0123456789abcdef")

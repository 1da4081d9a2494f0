"""The short forms of churn and soak; the long ones are `make churn` and `make soak`."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import churn, soak, steady
from tests.benchmarks.soak import Sample, Verdict
from tests.timing import at_most


async def test_sessions_that_leave_in_every_ugly_way_leave_nothing() -> None:
    result = await churn.run(sessions=60, seed=1)
    print(json.dumps(result))
    assert result["left"] == [], result
    # A hundred sessions do not fill every arena: the long form holds it to 2 %.
    assert result["rss_grown"] < 0.15, result
    assert result["allocated"][-1] - result["allocated"][0] < 2**21, result
    assert len(result["ways"]) == 1 + len(churn.LEAVING)
    assert result["answers"]["webrtc 201"] > 10


@pytest.mark.timing
def test_a_loaded_box_grows_neither_old_nor_large(tmp_path: Path) -> None:
    out, picture = tmp_path / "soak.json", tmp_path / "soak.png"
    arguments = ["--seconds", "3", "--period", "1", "--loads", "100", "150", "--streams", "2", "--workers", "1"]
    soak.main([*arguments, "--out", str(out), "--plot", str(picture)])
    result = json.loads(out.read_text())
    assert {name: samples[-1]["streams"] for name, samples in result["samples"].items()} == {"100 %": 2, "150 %": 3}
    for samples in result["samples"].values():
        assert any(sample["frames_per_second"] > 0 for sample in samples)
        assert all(sample["rss"] > 2**26 for sample in samples)
    # In seconds nothing is flat; a second for a frame is more than any slot keeps.
    for load, verdict in result["verdicts"].items():
        at_most(f"age of a result at {load} of the capacity, p99, milliseconds", verdict["age_p99_after"], 1000)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_page_says_what_is_stored() -> None:
    assert steady.page(steady.PAGE.read_text()) == steady.PAGE.read_text(), "python -m tests.benchmarks.steady --write"
    result = json.loads((steady.STORED / "churn.json").read_text())
    assert result["sessions"] >= 5000
    assert result["left"] == []
    assert result["ok"]


def samples(ages: list[float], memory: list[float]) -> list[Sample]:
    return [
        Sample(10.0 * i, 4, 30.0, 0.0, 5.0, age, rss, 1.0, 0)
        for i, (age, rss) in enumerate(zip(ages, memory, strict=True))
    ]


@pytest.mark.parametrize(
    ("ages", "memory", "flat"),
    [
        ([20.0] * 30, [3e8] * 30, True),
        ([20.0, 24.0] * 15, [3e8, 3.01e8] * 15, True),
        ([20.0 + i for i in range(30)], [3e8] * 30, False),
        ([20.0] * 30, [3e8 + 1e6 * i for i in range(30)], False),
        ([20.0] * 30, [1e8] * 10 + [3e8] * 20, True),  # warming up
    ],
)
def test_what_grows_is_seen(ages: list[float], memory: list[float], flat: bool) -> None:
    assert Verdict.of(samples(ages, memory)).flat is flat

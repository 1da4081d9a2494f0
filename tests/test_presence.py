"""Whether a person is present: by area and time, without flicker."""

import numpy as np
import pytest

from portrait.core.presence import Box, PresenceRule, PresenceTracker
from portrait.image.frame import Mask

RULE = PresenceRule(area=0.1, enter_seconds=0.5, leave_seconds=2.0)


def covering(share: float) -> Mask:
    """A person who takes so much of the picture, from the left."""
    values = np.zeros((100, 100), np.uint8)
    values[:, : round(100 * share)] = 255
    return Mask(values)


def followed(*parts: tuple[float, float], rate: float = 10.0) -> list[tuple[float, bool]]:
    """The changes, as (second, whether a person is present), of (share, seconds) one after the other."""
    tracker, changes, frame = PresenceTracker(RULE), [(0.0, False)], 0
    for share, seconds in parts:
        for _ in range(round(seconds * rate)):
            present = tracker.follow(covering(share), frame / rate).present
            if present != changes[-1][1]:
                changes.append((round(frame / rate, 1), present))
            frame += 1
    return changes[1:]


@pytest.mark.parametrize(
    ("parts", "changes"),
    [
        ([(0.0, 1), (0.2, 3), (0.0, 3)], [(1.4, True), (5.9, False)]),
        ([(0.08, 5)], []),  # too small to come
        ([(0.2, 1), (0.08, 5)], [(0.4, True)]),  # large enough to stay
        ([(0.2, 0.4), (0.0, 0.1)] * 5, []),  # too short
        ([(0.2, 1), *[(0.0, 1.5), (0.2, 0.1)] * 3], [(0.4, True)]),  # away for a moment
    ],
    ids=["comes and leaves", "small", "smaller", "flickers", "is overlooked"],
)
def test_a_person_comes_and_leaves_by_area_and_time(
    parts: list[tuple[float, float]], changes: list[tuple[float, bool]]
) -> None:
    found = followed(*parts)
    assert [present for _, present in found] == [present for _, present in changes]
    for (when, _), (expected, _) in zip(found, changes, strict=True):
        assert when == pytest.approx(expected, abs=0.15)


def test_a_gap_or_a_clock_that_jumps_back_counts_for_a_second_at_most() -> None:
    tracker = PresenceTracker(RULE)
    tracker.follow(covering(0.2), 0.0)
    assert tracker.follow(covering(0.2), 100.0).present
    tracker.follow(covering(0.0), 50.0)
    assert tracker.follow(covering(0.0), 51.5).present
    assert not tracker.follow(covering(0.0), 53.0).present


def test_share_and_box_are_those_of_the_frame_and_specks_do_not_count() -> None:
    values = np.zeros((100, 200), np.uint8)
    values[20:70, 50:150] = 255
    values[5, 5] = values[95:97, 190:192] = 255
    presence = PresenceTracker(RULE).follow(Mask(values), 0.0)
    assert presence.share == pytest.approx(0.25)
    assert presence.box == Box(0.25, 0.2, 0.5, 0.5)
    empty = PresenceTracker(RULE).follow(Mask.empty(200, 100), 0.0)
    assert (empty.present, empty.share, empty.box) == (False, 0.0, None)

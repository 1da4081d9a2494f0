"""Nobody ever sees the room, nor a person who is to be hidden. The long form: `make search`."""

from unittest.mock import patch

import pytest

from portrait.core.hiding import HiddenArea
from portrait.image.frame import Mask
from tests.faults.search import Segment, search_all, search_killed
from tests.faults.troubles import ROUND
from tests.faults.ways import Found


def assert_closed(searches: list[Found]) -> None:
    for found in searches:
        assert found.frames >= found.wanted
        assert not found.leaks, found.report()
        assert found.opened > found.frames / 2, found.report()


@pytest.mark.parametrize(("segment", "frames"), [("always", 900), ("on_change", 675)])
async def test_not_one_frame_shows_the_room_whatever_the_network_does(segment: Segment, frames: int) -> None:
    """Nor the person, in the modes that hide them."""
    searches, troubles = await search_all(frames, segment)
    assert_closed(searches)
    assert set(troubles) == {*ROUND, "hangs"}
    # Each way to the room had a network that hung, and went on with another session.
    rooms = searches[:3]
    assert all(found.sessions > 1 and len(found.sizes) == 4 for found in rooms), [found.report() for found in rooms]
    assert rooms[-1].ends == {"SEGMENTATION_HANGS"}


async def test_not_one_frame_shows_the_room_when_workers_are_killed() -> None:
    searches, kills = await search_killed(300)
    assert_closed(searches)
    assert kills > 0


async def test_the_search_sees_the_room_of_a_service_that_fails_open() -> None:
    """On every way: what the tests above prove depends on this."""

    def open_wide(width: int, height: int) -> Mask:
        empty = empty_mask(width, height)
        return Mask(~empty.values)

    def hide_nothing(_: HiddenArea, mask: Mask, *__: object) -> Mask:
        return empty_mask(mask.width, mask.height)

    empty_mask = Mask.empty
    with (
        patch("portrait.core.pipeline.Mask.empty", open_wide),
        patch("portrait.core.pipeline.HiddenArea.follow", hide_nothing),
    ):
        searches, _ = await search_all(90)
    for found in searches:
        assert found.leaks > 0, found.report()
        assert found.strongest > 0.5, found.report()

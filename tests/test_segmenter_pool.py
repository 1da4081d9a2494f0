"""A pool of segmenters: reused, never with another picture's prior, never after a failure."""

from threading import Barrier, Thread

import numpy as np
import pytest

from portrait.core.segmenters import load_models
from portrait.core.segmenters.pool import SegmenterPool
from portrait.errors import SegmentationFailed
from portrait.image.frame import Mask
from tests.fakes import FakeModel, failing, full_mask
from tests.frames import make_frame


def test_a_segmenter_is_opened_once_for_pictures_one_after_the_other() -> None:
    model = FakeModel(full_mask)
    pool = SegmenterPool(model)
    for _ in range(5):
        segmenter = pool.open()
        segmenter.segment(make_frame())
        segmenter.close()
        segmenter.close()
    assert (model.open_count, model.resets) == (1, 5)
    pool.close()
    pool.close()
    assert model.open_count == 0


def test_a_picture_never_gets_the_prior_of_another() -> None:
    model = load_models().pick(None)
    pool, first, second = SegmenterPool(model), make_frame(size=(320, 240)), make_frame(size=(64, 48))
    alone = model.open()
    expected = alone.segment(second).values
    alone.close()
    for use in (lambda lent: lent.segment(first), lambda lent: lent.resume(Mask(np.full_like(expected, 255)))):
        segmenter = pool.open()
        use(segmenter)
        segmenter.close()
        segmenter = pool.open()
        assert (segmenter.segment(second).values == expected).all()
        segmenter.close()
    pool.close()


def test_a_segmenter_that_failed_is_not_lent_again() -> None:
    work = [failing, full_mask]
    model = FakeModel(lambda frame: work.pop(0)(frame))
    pool = SegmenterPool(model)
    segmenter = pool.open()
    with pytest.raises(SegmentationFailed):
        segmenter.segment(make_frame())
    segmenter.close()
    assert model.open_count == 0
    pool.open().segment(make_frame())
    assert model.open_count == 1


def test_no_more_are_kept_than_was_said() -> None:
    model = FakeModel(full_mask)
    pool = SegmenterPool(model, idle=2)
    lent = [pool.open() for _ in range(5)]
    assert model.open_count == 5
    for segmenter in lent:
        segmenter.close()
    assert model.open_count == 2
    pool.close()
    late = SegmenterPool(model)
    segmenter = late.open()
    late.close()
    segmenter.close()
    assert model.open_count == 0


def test_threads_never_share_a_segmenter() -> None:
    together, busy, shared = Barrier(4), set[int](), list[int]()

    pool = SegmenterPool(FakeModel(full_mask), idle=4)

    def work() -> None:
        together.wait(timeout=60)
        for _ in range(200):
            segmenter = pool.open()
            inner = id(segmenter._segmenter)  # type: ignore[attr-defined]
            if inner in busy:
                shared.append(inner)
            busy.add(inner)
            segmenter.segment(make_frame())
            busy.discard(inner)
            segmenter.close()

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not shared

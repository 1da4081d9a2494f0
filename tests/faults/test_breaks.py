"""The breaks of `make breaks` still break what is there, and none of the promised tests is without one."""

import re

import pytest

from tests.faults.breaks import ROOT, Break, load_breaks

BREAKS = load_breaks()


@pytest.mark.parametrize("each", BREAKS, ids=lambda each: each.what)
def test_a_break_still_finds_its_line_and_its_tests(each: Break) -> None:
    broken = each.made_in((ROOT / each.file).read_text())
    if each.file.endswith(".py"):
        compile(broken, each.file, "exec")  # what cannot be read is caught by everything, and proves nothing
    assert each.caught_by
    for test in each.caught_by:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / file).read_text(), test


def test_every_promised_test_has_a_break_that_it_catches() -> None:
    page = (ROOT / "docs" / "behaviour.md").read_text()
    promised = re.findall(r"`([\w/]+\.py::test_\w+)`", page)
    assert len(promised) > 100
    assert f"makes {len(BREAKS)} places of the service wrong" in page
    caught = {test.partition("[")[0] for each in BREAKS for test in each.caught_by}
    assert set(promised) - caught == set()


@pytest.mark.parametrize("text", ["", "x = 2", "x = 1; x = 1"])
def test_a_break_that_finds_nothing_to_break_says_so(text: str) -> None:
    with pytest.raises(AssertionError, match="expected once"):
        Break("one is two", "a.py", "x = 1", "x = 2", ()).made_in(text)

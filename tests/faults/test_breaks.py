"""The breaks of `make breaks` still break what is there."""

import pytest

from tests.faults.breaks import BREAKS, ROOT, Break


@pytest.mark.parametrize("each", BREAKS, ids=lambda each: each.what)
def test_a_break_still_finds_its_line_and_its_tests(each: Break) -> None:
    assert (ROOT / "service" / "portrait" / each.file).read_text().count(each.right) == 1
    assert each.right != each.wrong
    for test in each.caught_by:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test

"""Every mutant still has a place to change and tests to notice it. That they do: `make mutants`."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_has_its_place_and_its_tests(mutant: Mutant) -> None:
    spec = find_spec(mutant.change.module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_bytes()
    assert compile(mutant.change.applied(source), spec.origin, "exec")
    for name in mutant.tests:
        file, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / "tests" / file).read_text()

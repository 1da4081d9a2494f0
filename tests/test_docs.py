"""The docs say what the code does: settings, metrics, promises and links."""

import re
from pathlib import Path

import pytest

from portrait.admission.cgroup import CpuGrants
from portrait.metrics import DroppedLines, Metrics
from portrait.settings import PREFIX, Settings
from tests.benchmarks.docs import filled
from training import table

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "service").rglob("*.md"),
        *(ROOT / "clients").rglob("*.md"),
    )
    if "node_modules" not in page.parts
]


def headings(page: Path) -> set[str]:
    """What a page's headings are linked by, as GitHub makes it."""
    texts = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def first_column(page: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)


def test_every_setting_is_documented_with_its_default() -> None:
    assert first_column("reference/settings.md") == [PREFIX + name.upper() for name in Settings.model_fields]
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        default = (
            "none"
            if field.default is None
            else f"`{field.default:g}`"
            if isinstance(field.default, float)
            else f"`{field.default}`"
        )
        assert f"| `{PREFIX}{name.upper()}` | {default} |" in text, f"{name}: the default is {default}"


def test_every_metric_is_documented() -> None:
    metrics = Metrics()
    metrics.registry.register(CpuGrants())
    metrics.registry.register(DroppedLines())
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in metrics.registry.collect()
        if family.name.startswith("portrait_")
    }
    assert set(first_column("reference/metrics.md")) == names


def test_every_shipped_model_has_a_card() -> None:
    for path in table.embedded():
        assert path.with_suffix(".md").exists(), path.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_of_figures_are_the_stored_ones(page: Path) -> None:
    assert page.read_text() == table.filled(page.read_text()), "run: python -m training.table --into docs/*/*.md"


def test_benchmarks_show_the_stored_figures() -> None:
    page = (ROOT / "docs" / "develop" / "benchmarks.md").read_text()
    assert page == filled(page), "run: python -m tests.benchmarks.docs"


NAMED_TEST = r"`((?:\w+/)?test_\w+\.py)::(test_\w+)`"


def test_every_feature_compared_is_proved_where_it_says_so() -> None:
    text = (ROOT / "docs" / "reference" / "comparison.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \d", line)]
    assert rows
    for row in rows:
        assert row[2].startswith(("yes", "partly", "no")), row
        if row[2].startswith("yes"):
            assert re.search(NAMED_TEST, row[3]) or "](" in row[3], f"{row[1]}: neither a page nor a test"


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("reference/behaviour.md", 15),
        ("reference/comparison.md", 15),
        ("operate/threat-model.md", 6),
        ("develop/steady.md", 2),
    ],
)
def test_every_promise_names_a_test_that_exists(page: str, least: int) -> None:
    named = re.findall(NAMED_TEST, (ROOT / "docs" / page).read_text())
    assert len(named) >= least
    for file, name in named:
        assert re.search(rf"def {name}\(", (ROOT / "tests" / file).read_text()), f"{file} has no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, part in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        if not target.startswith("http"):
            led = page.parent / target if target else page
            assert led.exists(), f"{page.name} links to {target}"
            if part:
                assert part in headings(led), f"{page.name} links to {target}#{part}"

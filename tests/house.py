"""The house: its rooms, their floors, and which looks into which; the table of docs/architecture.md is made of it.

`python -m tests.house --write`
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "service" / "portrait"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- made by `python -m tests.house --write`: -->\n", "<!-- end -->\n"

# A module belongs to the first prefix it starts with; it may import from lower floors and from its own package.
FLOORS = {
    "portrait.__main__": 11,
    "portrait.cli": 10,
    "portrait.commands": 10,
    "portrait.worker": 10,
    "portrait.app": 9,
    "portrait.running": 8,
    "portrait.trial": 7,
    "portrait.calibration": 7,
    "portrait.doctor": 7,
    "portrait.supervisor": 6,
    "portrait.load": 7,
    "portrait.transports": 6,
    "portrait.bench": 5,
    "portrait.levels": 6,
    "portrait.scrape": 0,
    "portrait.sessions": 5,
    "portrait.session": 4,
    "portrait.turn": 3,
    "portrait.pipeline": 2,
    "portrait.capacity": 2,
    "portrait.numbers": 2,
    "portrait.terms": 2,
    "portrait.latest": 2,
    "portrait.ownthread": 2,
    "portrait.client": 2,
    "portrait.edges": 1,
    "portrait.segmenters": 1,
    "portrait.compositors": 1,
    "portrait.backgrounds": 3,
    "portrait.films": 2,
    "portrait.film": 0,
    "portrait.framing": 1,
    "portrait.metrics": 1,
    "portrait.security": 1,
    "portrait.tracing": 1,
    "portrait.video": 1,
    "portrait.pictures": 0,
    "portrait.mask": 0,
    "portrait.reuse": 1,
    "portrait.governor": 0,
    "portrait.costs": 0,
    "portrait.settings": 0,
    "portrait.board": 0,
    "portrait.meeting": 1,
    "portrait.child": 5,
    "portrait.signals": 1,
    "portrait.cgroup": 0,
    "portrait.launch": 0,
    "portrait.logs": 0,
    "portrait.v1": 0,
    "portrait.kserve": 0,
    "portrait.frame": -1,
    "portrait.errors": -1,
    "portrait.quality": -1,
    "portrait.python310": -1,
    "portrait": -2,
}

GENERATED = {"v1", "kserve"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not GENERATED & set(path.parts))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module: str) -> tuple[str, int]:
    return next(
        (prefix, level) for prefix, level in FLOORS.items() if module == prefix or module.startswith(prefix + ".")
    )


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            source = node.module or ""
            folder = PACKAGE.parent / Path(*source.split("."))
            found |= {source} | {
                f"{source}.{alias.name}" for alias in node.names if (folder / f"{alias.name}.py").exists()
            }
    return found


def drawn() -> str:
    """The house as Markdown: every room, what it is, and the rooms it looks into."""
    inside: dict[str, set[str]] = {room: set() for room in FLOORS}
    for path in MODULES:
        room = floor(module_name(path))[0]
        inside[room] |= {floor(other)[0] for other in imports(path) if other.startswith("portrait.")} - {room}
    lines = ["| floor | room | what it is | looks into |", "| --- | --- | --- | --- |"]
    for room, level in sorted(FLOORS.items(), key=lambda pair: (-pair[1], pair[0])):
        if room == "portrait":
            continue
        seen = ", ".join(f"`{short(other)}`" for other in sorted(inside[room] - {"portrait"}))
        lines.append(f"| {level} | `{short(room)}` | {purpose(room)} | {seen} |")
    return "\n".join(lines) + "\n"


def short(room: str) -> str:
    return room.removeprefix("portrait.")


def purpose(room: str) -> str:
    """The first sentence of the room's docstring."""
    place = PACKAGE.joinpath(*room.split(".")[1:])
    if place.name in GENERATED:
        return "Made from `protos/`."
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def updated() -> str:
    """The page with the house as it stands."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + drawn() + END + rest.partition(END)[2]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(updated())
    else:
        print(drawn(), end="")

"""Several scrapes as one."""

from collections.abc import Iterable

END = "# EOF"
"""The last line of OpenMetrics."""


def merge(scrapes: Iterable[bytes]) -> bytes:
    """One scrape of several in the same format, whose samples a label tells apart: each family once, with all samples.

    Lines are moved, not read: a family is what stands between two lines `# HELP`.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    ended = False
    for scrape in scrapes:
        head: list[str] = []
        samples: list[str] = []
        fresh = False
        for line in scrape.decode().splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                fresh = name not in families
                head, samples = families.setdefault(name, ([], []))
            if line == END:
                ended = True
            elif not line.startswith("#"):
                samples.append(line)
            elif fresh:
                head.append(line)
    lines = [line for head, samples in families.values() for line in (*head, *samples)]
    return "\n".join([*lines, *([END] if ended else []), ""]).encode()

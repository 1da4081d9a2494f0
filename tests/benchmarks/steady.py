"""`python -m tests.benchmarks.steady --write`: write docs/develop/steady.md from what is stored in docs/soak."""

import argparse
import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
PAGE, STORED = DOCS / "develop" / "steady.md", DOCS / "soak"
BEGIN, END = "<!-- made by `make {}`: -->\n", "<!-- end -->\n"


def churn_table(result: dict[str, Any]) -> str:
    """What a churn has left, and how its sessions came and went."""
    before, after, memory = result["before"], result["after"], result["rss"]
    plain = [name for name in before if name not in ("rss", "allocated")]
    rows = [f"| {name.replace('_', ' ')} | {before[name]} | {after[name]} |" for name in plain]
    held = [counts["allocated"] / 2**20 for counts in (before, after)]
    rows.append(f"| allocated ({result['allocator']}), MB | {held[0]:.1f} | {held[1]:.1f} |")
    mb = [value / 2**20 for value in memory]
    rows.append(f"| RSS, MB | {mb[0]:.1f} | {mb[-1]:.1f} ({100 * result['rss_grown']:+.1f} %) |")
    ways = ", ".join(f"{count} {way}" for way, count in result["ways"].items())
    return "\n".join(
        [
            f"{result['sessions']} sessions in {result['seconds'] / 60:.0f} minutes: {ways}.",
            "",
            "| held | before | after |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"RSS on the way, MB: {', '.join(f'{value:.0f}' for value in mb)}.",
            f"Allocated, MB: {', '.join(f'{value / 2**20:.2f}' for value in result['allocated'])}.",
            "",
        ]
    )


def soak_table(result: dict[str, Any]) -> str:
    """Each load: how old results were and how much memory was held, in the second third of the time and in the last."""
    rows = []
    for load, samples in result["samples"].items():
        verdict, last = result["verdicts"][load], samples[-1]
        rate = sum(sample["frames_per_second"] for sample in samples) / len(samples)
        rows.append(
            f"| {load} | {last['streams']} | {rate:.1f} | {verdict['age_p99_before']:.0f} | "
            f"{verdict['age_p99_after']:.0f} | {last['rss'] / 2**20:.0f} | {100 * verdict['rss_grown']:+.1f} % | "
            f"{'yes' if verdict['flat'] else 'no'} |"
        )
    return "\n".join(
        [
            f"{result['seconds'] / 60:g} minutes each of `{result['kind']}`; the box admits {result['capacity']}.",
            "",
            "| load | streams | frames per second, each | age p99 before, ms | and after | RSS, MB | grown | flat |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def cameras_table(result: dict[str, Any]) -> str:
    """What the service held while it watched two cameras, and what the viewers got."""
    rows = [
        f"| {name} | {', '.join(f'{value:g}' for value in result[key])} |"
        for name, key in (("memory, MB", "megabytes"), ("descriptors", "descriptors"), ("mean age, ms", "age_ms"))
    ]
    got = "; ".join(f"{viewer}: {count}" for viewer, count in sorted(result["got"].items()))
    return "\n".join(
        [
            f"{result['seconds'] / 60:.0f} minutes; the second camera was cut every {result['cut']:g} s.",
            "",
            "| held | in each tenth of the time |",
            "| --- | --- |",
            *rows,
            "",
            f"Failed connections: {result['failures']}. Viewers ended: {len(result['lost'])}. Recorded segments: "
            f"{result['segments']}. Pictures and results that the viewers got: {got}.",
            "",
        ]
    )


TABLES = {"churn": churn_table, "soak": soak_table, "cameras": cameras_table}


def page(text: str) -> str:
    """The page with the tables of what is stored."""
    for name, table in TABLES.items():
        head, begin, rest = text.partition(BEGIN.format(name))
        _, end, tail = rest.partition(END)
        text = head + begin + table(json.loads((STORED / f"{name}.json").read_text())) + end + tail
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into the page, not to standard output")
    text = page(PAGE.read_text())
    if parser.parse_args().write:
        PAGE.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()

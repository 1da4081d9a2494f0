"""The tables and plots of docs/develop/benchmarks.md, made of the stored figures: `python -m tests.benchmarks.docs`."""

import json
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks.stored import RESULTS

DOCS = Path(__file__).parents[2] / "docs"
MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->)\n.*?(<!-- end -->)", re.DOTALL)

WANTED = {"composite": 1.0, "data": 0.65}
"""Of aiortc's echo."""

Stored = dict[str, Any]


def write() -> None:
    """Bring the page and its plots up to date."""
    page = DOCS / "develop" / "benchmarks.md"
    page.write_text(filled(page.read_text()))
    plot_ratios(DOCS / "plots" / "ratios.svg")
    plot_linear(DOCS / "plots" / "streams.svg")


def filled(page: str) -> str:
    """The text of a page with every table between `<!-- figures: NAME -->` and `<!-- end -->` as it is stored now."""

    def table(found: re.Match[str]) -> str:
        figures = stored(found[2])
        lines = [*TABLES[found[2]](figures), "", _machine(figures)] if figures else ["Not measured yet."]
        return "\n".join([found[1], *lines, found[3]])

    return MARKED.sub(table, page)


def stored(name: str) -> Stored:
    """What `results/NAME.json` holds, {} where it is missing."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def frame(figures: Stored) -> Iterable[str]:
    """A 720p frame, ours and MediaPipe's."""
    times = figures["cpu_ms"]
    rows = [
        (row["ours"], row["theirs"], times[row["ours"]], times[row["theirs"]], row["ratio"], row["goal"])
        for row in figures["ratios"]
    ]
    return _table(["ours", "MediaPipe", "ours, ms", "theirs, ms", "ratio", "wanted"], rows)


def network(figures: Stored) -> Iterable[str]:
    """The networks alone."""
    times, rates = figures["ms"], figures["gflops"]
    rows = [
        (row["ours"], row["theirs"], times[row["ours"]], times[row["theirs"]], row["ratio"], row["goal"])
        for row in figures["ratios"]
    ]
    yield from _table(["ours", "theirs", "ours, ms", "theirs, ms", "ratio", "wanted"], rows)
    yield ""
    share = figures["of_sgemm"]
    yield (
        f"`portrait` runs {rates['portrait']:g} GFLOP/s, of {rates['sgemm']:g} at which the core multiplies matrices: "
        f"{share['ratio']:.0%} (wanted: {share['goal']:.0%})."
    )


def results(figures: Stored) -> Iterable[str]:
    """The ways of a result, and aiortc's echo."""
    rows = [
        (way, milliseconds, figures["of_echo"][way], WANTED.get(way, ""))
        for way, milliseconds in figures["cpu_ms"].items()
    ]
    return _table(["way", "server CPU per frame, ms", "of echo", "wanted"], rows)


def talking(figures: Stored) -> Iterable[str]:
    """The network for every frame, and when the contour may have moved."""
    times, shares, echo = figures["cpu_ms"], figures["of_always"], figures["of_echo"]
    rows = [
        (name, times[f"{name}, always"], times[f"{name}, on_change"], share, TALKING.get(name, ""), *(
            echo[f"{name}, {each}"] for each in ("always", "on_change")
        ))
        for name, share in shares.items()
    ]  # fmt: skip
    heads = [
        "shown, way",
        "`always`, ms",
        "`on_change`, ms",
        "ratio",
        "wanted",
        "`always` of echo",
        "`on_change` of echo",
    ]
    return _table(heads, rows)


TALKING = {"talking, composite": "0.80", "swaying, composite": "0.97 to 1.03", "swaying, data": "0.97 to 1.03"}
"""Ratios wanted."""


def viewers(figures: Stored) -> Iterable[str]:
    """The viewers of one stream."""
    rows = [
        (name, viewers, row["cpu_ms"], figures["of_one"][viewers] if name == "portrait" else "",
         VIEWERS.get(viewers, "") if name == "portrait" else "", row["frames_per_second"])
        for name, found in figures["servers"].items()
        for viewers, row in found.items()
    ]  # fmt: skip
    heads = ["server", "viewers", "CPU per picture, ms", "of one viewer", "wanted", "frames per second, each"]
    return _table(heads, rows)


VIEWERS = {"8": "1.4", "32": "2.6"}
"""Ratios wanted."""


def packets(figures: Stored) -> Iterable[str]:
    """What packets cost."""
    rows = [*figures["microseconds"].items(), ("each further one", figures["per_packet"])]
    return _table(["packets of a picture", "CPU, out and in, microseconds"], rows)


def stills(figures: Stored) -> Iterable[str]:
    """Stills of a pool, and without it."""
    rows = [
        (asked, *(figures["cpu_ms"][f"{asked}, {server}"] for server in ("unpooled", "pooled")),
         figures["per_core"][f"{asked}, pooled"], times, "1.8")
        for asked, times in figures["times"].items()
    ]  # fmt: skip
    return _table(
        ["model", "without the pool, ms", "pooled, ms", "stills per second and core", "times", "wanted"], rows
    )


def latency(figures: Stored) -> Iterable[str]:
    """Glass to glass."""
    keys = ("contender", "median_ms", "p99_ms", "cpu_ms_per_frame", "frames_per_second", "freezes")
    rows = [[_rounded(turn[key]) for key in keys] for turn in figures["turns"]]
    shares = figures["of_aiortc_at_the_same_size"]
    rows.append(["of aiortc, size kept", *(shares[key] for key in ("median", "p99", "cpu_per_frame")), "", ""])
    return _table(["", "median, ms", "p99, ms", "server CPU per frame, ms", "frames per second", "freezes"], rows)


def streams(figures: Stored) -> Iterable[str]:
    """GRPC against a plain server, and streams per core."""
    rows = [
        (name, f"{load['streams']} x {load['rate']:g}", *(load[name][key] for key in ("cpu_ms_per_frame", "p99_ms")))
        for load in figures.get("against_plain", [])
        for name in load
        if isinstance(load[name], dict) and "p99_ms" in load[name] and not name.startswith("ours_to_")
    ]
    yield from _table(["server", "streams x frames per second", "CPU per frame, ms", "p99, ms"], rows)
    yield ""
    rows = [
        (
            row["model"], row.get("streams", 0), row["asked"], row.get("cpu_ms_per_frame", ""),
            *(row.get("least_ms", {}).get(part, "") for part in ("network", "grpc")),
        )
        for row in figures.get("streams_per_core", [])
    ]  # fmt: skip
    heads = ["model", "streams per core", "wanted", "CPU per frame, ms", "of it the network alone", "gRPC alone"]
    yield from _table(heads, rows)


def slow(figures: Stored) -> Iterable[str]:
    """A network of 50 ms a frame."""
    rows = [[_rounded(value) for value in figures[when].values()] for when in ("early", "late")]
    return _table(["after, s", "median age, ms", "p99, ms", "memory, MB", "frames", "given up"], rows)


def bombs(figures: Stored) -> Iterable[str]:
    """Live streams alone and beside large stills."""
    rows = [
        (beside, f"{told['answered']} of {told['of']}" if "of" in told else "", *(
            _rounded(told[key]) for key in ("p50_ms", "p99_ms", "p100_ms")
        ))
        for beside, told in ((name, figures[name]) for name in ("alone", "http", "grpc"))
    ]  # fmt: skip
    yield from _table(["beside", "stills answered", "median age, ms", "p99, ms", "most, ms"], rows)
    yield ""
    yield f"Memory at its peak: {figures['peak_mb']} MB, of {figures['memory_limit_mb']} that the manifest allows."


def ports(figures: Stored) -> Iterable[str]:
    """A shared port and TCP beside a port for every session."""
    turns = figures["turns"]

    def median(name: str, figure: str) -> float:
        return statistics.median(turn[name][figure] for turn in turns)

    ratios = {name: figures[f"{name}_of_range"] for name in ("shared", "tcp")}
    shown = {"range": "a port for every session", "shared": "one port", "tcp": "one port, over TCP"}
    rows = [
        (
            text, f"{median(name, 'cpu_ms_per_result'):.2f}", f"{median(name, 'median_ms'):.1f}",
            ratios.get(name, {}).get("cpu_ms_per_result", ""), ratios.get(name, {}).get("median_ms", ""),
        )
        for name, text in shown.items()
    ]  # fmt: skip
    return _table(["", "CPU of a result, ms", "its way, ms", "CPU, ratio", "way, ratio"], rows)


def forged(figures: Stored) -> Iterable[str]:
    """What packets of strangers cost."""
    rows = [
        (turn["kind"], turn["sent_per_second"], turn["cores"], turn["resident_mb"], turn["results_per_second"])
        for turn in figures["turns"]
    ]
    return _table(["forged packets", "a second", "cores", "memory, MB", "the session's results a second"], rows)


def launcher(figures: Stored) -> Iterable[str]:
    """What the launcher sets."""
    rows = [
        (name, ", ".join(f"{figure} {value:g}" for figure, value in found.items()))
        for name, found in figures["settings"].items()
    ]
    return _table(["setting", "median"], rows)


def scaling(figures: Stored) -> Iterable[str]:
    """One worker and two."""
    rows = [(workers, admitted) for workers, admitted in figures["admitted"].items()]
    rows.append(("ratio (wanted: 1.7)", figures["ratio"]))
    return _table(["workers, each with a core", "streams"], rows)


def linear(figures: Stored) -> Iterable[str]:
    """CPU per frame by streams."""
    return _table(["streams", "CPU per frame, ms"], figures["cpu_ms"].items())


def overload(figures: Stored) -> Iterable[str]:
    """80 % and 120 % of what is admitted."""
    ages, memory = figures["age_p99_ms"], figures["rss_mb"]
    rows = [
        ("age p99 at 80 %, ms", ages["at 80 %"]),
        (f"age p99 at 120 %, worst minute of {figures['seconds'] / 60:g}, ms", ages["at 120 %, worst minute"]),
        ("ratio (wanted: 1.5)", figures["ratio"]),
        ("streams refused", figures["refused"]),
        ("memory before and after, MB", f"{memory['before']} and {memory['after']}"),
    ]
    return _table(["", f"capacity {figures['capacity']} streams"], rows)


TABLES: dict[str, Callable[[Stored], Iterable[str]]] = {
    "frame": frame,
    "network": network,
    "results": results,
    "talking": talking,
    "viewers": viewers,
    "packets": packets,
    "stills": stills,
    "latency": latency,
    "streams": streams,
    "slow": slow,
    "bombs": bombs,
    "ports": ports,
    "forged": forged,
    "launcher": launcher,
    "box-scaling": scaling,
    "box-linear": linear,
    "box-overload": overload,
}


def plot_ratios(path: Path) -> None:
    """What we cost as a share of what the peers cost, beside what was wanted."""
    bars = [
        (f"{row['ours']} / {row['theirs']}", row["ratio"], row["goal"]) for row in stored("frame").get("ratios", [])
    ]
    shares = stored("results").get("of_echo", {})
    bars += [(f"{way} / aiortc's echo", shares[way], wanted) for way, wanted in WANTED.items() if way in shares]
    same = stored("latency").get("of_aiortc_at_the_same_size", {})
    bars += [(f"{name.replace('_', ' ')} / aiortc, size kept", share, 0.6) for name, share in same.items()]
    if not bars:
        return
    figure, axes = _figure(8, 0.4 * len(bars) + 1)
    names, ratios, wanted = zip(*reversed(bars), strict=True)
    axes.barh(names, ratios, height=0.6)
    axes.scatter(wanted, names, marker="|", s=260, color="black", label="wanted")
    axes.axvline(1.0, linewidth=0.8, color="grey")
    axes.set(xlabel="ours as a share of theirs")
    axes.legend(fontsize="x-small", loc="lower right")
    _save(figure, path)


def plot_linear(path: Path) -> None:
    """CPU of a box by its streams."""
    if not (cost := stored("box-linear").get("cpu_ms", {})):
        return
    figure, axes = _figure(6, 4)
    axes.plot([int(streams) for streams in cost], list(cost.values()), marker="o")
    axes.set(xlabel="streams", ylabel="CPU per frame, ms", ylim=(0, None))
    axes.grid(alpha=0.3)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # Here, because a test that compares pages with their figures draws nothing, and the import takes seconds.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "portrait"}):  # the same figures give the same file
        figure.savefig(path, metadata={"Date": None})


def _table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    heads = list(heads)
    cells = [heads, ["---"] * len(heads), *([str(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _rounded(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value


def _machine(figures: Stored) -> str:
    machine = figures["machine"]
    return f"{machine.get('date', '')}, {machine.get('cpu', '')}, {machine['cores']} cores."


if __name__ == "__main__":
    write()

"""The dashboards drawn from their own files: every panel at its place, with what Prometheus answers it.

No Grafana is asked: layout, expressions, units, legends, thresholds, stacks and annotations are the file's, the looks
are matplotlib's.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.deploy.dashboards import plain

COLUMNS = 24
"""The width of Grafana's grid, by its documentation."""

INCHES = (0.62, 0.36)
"""Of one column and one row."""

COLORS = {"red": "#d44a3a", "yellow": "#e5b13a", "green": "#4f9d4f", "orange": "#e08a2e", "blue": "#3b75af"}


@dataclass(frozen=True)
class Series:
    """One line: its labels, seconds of the epoch, values."""

    labels: dict[str, str]
    times: np.ndarray[Any, np.dtype[np.float64]]
    values: np.ndarray[Any, np.dtype[np.float64]]


class Source(Protocol):
    """What answers expressions over the time shown."""

    def __call__(self, expression: str) -> list[Series]:
        """Every series of the answer."""


def number(value: float, unit: str) -> str:
    """A value as its panel shows it."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.4g}{ {'cps': ' /s', 'cpm': ' /min'}.get(unit, '') }"


def legend(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern)


def draw(path: Path, source: Source, into: Path) -> list[str]:
    """Draw a dashboard's file as a PNG; the titles of the panels that had data."""
    board = json.loads(path.read_text())
    panels = [(panel, [source(plain(target["expr"])) for target in panel["targets"]]) for panel in board["panels"]]
    told = [series for annotation in board["annotations"]["list"] for series in source(plain(annotation["expr"]))]
    times = np.concatenate([series.times for _, answers in panels for answer in answers for series in answer])
    rows = 1 + max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = Figure(figsize=(COLUMNS * INCHES[0], rows * INCHES[1]), dpi=80)
    figure.text(0.01, 1 - 0.7 / rows, board["title"], fontsize=13, weight="bold", va="center")
    drawn = []
    for panel, answers in panels:
        axes = _place(figure, panel, rows)
        if any(answers):
            PANELS[panel["type"]](axes, panel, answers)
            drawn.append(panel["title"])
        else:
            axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes)
        if panel["type"] in ("timeseries", "heatmap"):
            _show_time(axes, times.min(), times.max())
        if panel["type"] == "timeseries":
            for moment in (moment for series in told for moment in series.times):
                axes.axvline(moment, color=COLORS["orange"], linestyle="--", linewidth=0.8)
    into.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(into)
    return drawn


def _place(figure: Figure, panel: dict[str, Any], rows: int) -> Axes:
    """Where the file puts a panel, below the board's title; with room for its own and for numbers beside it."""
    place = panel["gridPos"]
    left, below, above = (0.1, 0.1, 0.9) if panel["type"] == "stat" else (0.95, 1.0, 1.0)
    axes: Axes = figure.add_axes(
        (
            (place["x"] + left) / COLUMNS,
            1 - (1 + place["y"] + place["h"] - below) / rows,
            (place["w"] - left - 0.15) / COLUMNS,
            (place["h"] - below - above) / rows,
        )
    )
    axes.set_title(panel["title"], fontsize=9, loc="left", weight="bold")
    axes.tick_params(labelsize=7)
    return axes


def _show_time(axes: Axes, first: float, last: float) -> None:
    """The same span in every panel, in minutes before its end."""
    minutes = (last - first) / 60
    ticks = np.arange(0, minutes, max(1, round(minutes / 6)))
    axes.set_xlim(first, last)
    axes.set_xticks(last - 60 * ticks, [f"-{tick:g} min" if tick else "now" for tick in ticks])


def _draw_stat(axes: Axes, panel: dict[str, Any], answers: list[list[Series]]) -> None:
    """The last number, on the colour of its threshold."""
    defaults, value = panel["fieldConfig"]["defaults"], float(answers[0][0].values[-1])
    color = "green"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    axes.set(xticks=[], yticks=[], facecolor=COLORS[color])
    shown = number(value, defaults["unit"])
    axes.text(0.5, 0.5, shown, ha="center", va="center", fontsize=17, color="white", transform=axes.transAxes)


def _draw_lines(axes: Axes, panel: dict[str, Any], answers: list[list[Series]]) -> None:
    """Lines; stacked where the panel says so, but for those it excepts."""
    defaults = panel["fieldConfig"]["defaults"]
    alone = {rule["matcher"]["options"] for rule in panel["fieldConfig"].get("overrides", [])}
    stacked = defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal"
    named = [
        (legend(target["legendFormat"], series.labels), series)
        for target, answer in zip(panel["targets"], answers, strict=True)
        for series in answer
    ]
    pile = [(name, series) for name, series in named if stacked and name not in alone]
    if pile:
        times = np.unique(np.concatenate([series.times for _, series in pile]))
        heights = [np.interp(times, series.times, series.values, left=0, right=0) for _, series in pile]
        axes.stackplot(times, *heights, labels=[name for name, _ in pile], alpha=0.6)
    for name, series in named:
        if (name, series) not in pile:
            axes.plot(series.times, series.values, label=name, linewidth=1.2)
    axes.yaxis.set_major_formatter(lambda value, _: number(value, defaults["unit"]))
    low, high = min(0.0, axes.dataLim.ymin), axes.dataLim.ymax
    top = 1.3 * high if high > 0 else 1.0  # with room for the legend
    axes.set_ylim(low - 0.02 * top, top)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper left", ncols=3, framealpha=0.6)


def _draw_heatmap(axes: Axes, panel: dict[str, Any], answers: list[list[Series]]) -> None:
    """Events per bucket and moment: what Prometheus counts up to a bound, less what it counts up to the one before."""
    buckets = sorted(answers[0], key=lambda series: float(series.labels["le"]))
    times = np.unique(np.concatenate([series.times for series in buckets]))
    counts = np.array([np.interp(times, series.times, series.values) for series in buckets])
    cells = np.maximum(np.diff(counts, axis=0, prepend=0), 0)
    axes.pcolormesh(times, np.arange(len(buckets)), cells, cmap=panel["options"]["color"]["scheme"], shading="nearest")
    bounds = [float(series.labels["le"]) for series in buckets]
    names = ["more" if bound == np.inf else number(bound, panel["options"]["yAxis"]["unit"]) for bound in bounds]
    axes.set_yticks(np.arange(len(bounds))[::2], names[::2])


def _draw_table(axes: Axes, panel: dict[str, Any], answers: list[list[Series]]) -> None:
    """The labels of every series."""
    axes.axis("off")
    rows = [
        " ".join(f"{key}={value}" for key, value in series.labels.items()) for answer in answers for series in answer
    ]
    axes.text(0, 1, "\n".join(rows), va="top", fontsize=7, wrap=True, transform=axes.transAxes)


PANELS: dict[str, Callable[[Axes, dict[str, Any], list[list[Series]]], None]] = {
    "stat": _draw_stat,
    "timeseries": _draw_lines,
    "heatmap": _draw_heatmap,
    "table": _draw_table,
}

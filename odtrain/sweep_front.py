"""Which files nothing beats, when a training can hardly become one of them, and how both are shown."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One exported file of a finished training.

    Attributes:
        trial: number of the trial in the study.
        run_id: of the training.
        format: of the file.
        params: what the sampler chose, key -> value.
        metrics: `mAP`, `mAP_50`, `mAP_lo`, `mAP_hi`, `latency_ms_p50`, `size_mb`, ... of the file, on
            the validation split.
        file: its path among the run's artifacts.
        failed: why the file must not be promoted, or None.
    """

    trial: int
    run_id: str
    format: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    file: str
    failed: str | None = None


@dataclass(frozen=True)
class Finished:
    """A file of a training that went to its end.

    Attributes:
        curve: (share of the steps, validation mAP) of every evaluation of the training.
        best: mAP of the file.
        latency_ms: of the file.
    """

    curve: tuple[tuple[float, float], ...]
    best: float
    latency_ms: float


def dominates(
    first: Mapping[str, float], second: Mapping[str, float], directions: Mapping[str, str]
) -> bool:
    """Whether `first` is at least as good in everything and better in something."""
    signs = {key: 1 if way == "maximize" else -1 for key, way in directions.items()}
    gains = [sign * (first[key] - second[key]) for key, sign in signs.items()]
    return min(gains) >= 0 and max(gains) > 0


def front(points: Sequence[Point], directions: Mapping[str, str]) -> list[Point]:
    """The points that no other dominates, best first by the first direction."""
    usable = [point for point in points if point.failed is None]
    kept = [
        point
        for point in usable
        if not any(dominates(other.metrics, point.metrics, directions) for other in usable)
    ]
    key, way = next(iter(directions.items()))
    return sorted(kept, key=lambda point: point.metrics[key], reverse=way == "maximize")


def hopeless(
    share: float, score: float, latency_ms: float, finished: Sequence[Finished], margin: float
) -> str | None:
    """Why a training can hardly come to lie on the front of mAP and latency, or None.

    The optimistic end is the mAP so far, plus the largest gain that a finished training made from
    its evaluation nearest to `share` to one of its files, plus `margin`. If a file that is no
    slower has at least that already, going on would be in vain.

    Args:
        share: of the steps that are done, 0 to 1.
        score: validation mAP now.
        latency_ms: of the quickest file of this network.
        finished: files of the study; the mAP and the latency are of one and the same file.
        margin: mAP, 0 to 1.
    """
    gains = [one.best - _at(one.curve, share) for one in finished if one.curve]
    if not gains:
        return None
    optimistic = score + max(0.0, *gains) + margin
    better = [one for one in finished if one.latency_ms <= latency_ms and one.best >= optimistic]
    if not better:
        return None
    best = max(better, key=lambda one: one.best)
    return (
        f"at most {optimistic:.3f} mAP to be expected, and a network of {best.latency_ms:.1f} ms "
        f"has {best.best:.3f} already"
    )


def _at(curve: Sequence[tuple[float, float]], share: float) -> float:
    return min(curve, key=lambda place: abs(place[0] - share))[1]


def pick(
    points: Sequence[Point],
    max_latency_ms: float | None = None,
    min_map: float | None = None,
    max_size_mb: float | None = None,
) -> Point | None:
    """The point of highest mAP within the limits; with `min_map`, the quickest one that has it."""
    fitting = [
        point
        for point in points
        if (max_latency_ms is None or point.metrics["latency_ms_p50"] <= max_latency_ms)
        and (max_size_mb is None or point.metrics["size_mb"] <= max_size_mb)
        and (min_map is None or point.metrics["mAP"] >= min_map)
    ]
    if not fitting:
        return None
    if min_map is not None:
        return min(fitting, key=lambda point: point.metrics["latency_ms_p50"])
    return max(fitting, key=lambda point: point.metrics["mAP"])


# ---- showing


COLUMNS = ("mAP", "mAP_50", "latency_ms_p50", "size_mb")


def front_json(points: Sequence[Point]) -> str:
    """`front.json`: rows of trial, run_id, format, the metrics by name, params and file."""
    rows = [
        {
            "trial": point.trial,
            "run_id": point.run_id,
            "format": point.format,
            **point.metrics,
            "params": dict(point.params),
            "file": point.file,
        }
        for point in points
    ]
    return json.dumps(rows, indent=2) + "\n"


def read_front(text: str) -> list[Point]:
    """What `front_json` wrote."""
    fields = ("trial", "run_id", "format", "params", "file")
    return [
        Point(
            **{name: row[name] for name in fields},
            metrics={key: value for key, value in row.items() if key not in fields},
        )
        for row in json.loads(text)
    ]


def table(points: Sequence[Point]) -> str:
    """Points as a Markdown table."""
    rows = [
        "| trial | file | mAP | mAP_50 | latency p50 | size | chosen |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in points:
        values = point.metrics
        chosen = ", ".join(f"{key}={_short(value)}" for key, value in point.params.items())
        rows.append(
            f"| {point.trial} | {point.format} | {values['mAP']:.3f} | {values['mAP_50']:.3f} | "
            f"{values['latency_ms_p50']:.2f} ms | {values['size_mb']:.2f} MB | {chosen} |"
        )
    return "\n".join(rows)


def draw_front(points: Sequence[Point], best: Sequence[Point], file: Path) -> None:
    """A PNG of mAP over latency: all files, and the front as a line."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name in sorted({point.format for point in points}):
        own = [point for point in points if point.format == name]
        axes.scatter(
            [point.metrics["latency_ms_p50"] for point in own],
            [point.metrics["mAP"] for point in own],
            label=name,
            alpha=0.7,
        )
    line = sorted(best, key=lambda point: point.metrics["latency_ms_p50"])
    axes.plot(
        [point.metrics["latency_ms_p50"] for point in line],
        [point.metrics["mAP"] for point in line],
        color="black",
        linewidth=1,
        label="front",
    )
    axes.set_xlabel("latency, ms (p50)")
    axes.set_ylabel("mAP, validation split")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)


def page(
    title: str,
    points: Sequence[Point],
    best: Sequence[Point],
    others: Sequence[Mapping[str, str]],
) -> str:
    """A page that needs no network: plot with names under the pointer, table that sorts and filters.

    Args:
        title: of the page.
        points: of all files.
        best: those on the front.
        others: trials without a file: number, state, reason and choices, as text.
    """
    on_front = {(point.trial, point.format) for point in best}
    rows = [
        {
            "trial": point.trial,
            "file": point.format,
            **{key: point.metrics[key] for key in COLUMNS},
            "front": (point.trial, point.format) in on_front,
            "state": point.failed or "",
            "chosen": ", ".join(f"{key}={_short(value)}" for key, value in point.params.items()),
            "run": point.run_id[:8],
        }
        for point in points
    ]
    data = json.dumps({"rows": rows, "others": list(others)}).replace("</", "<\\/")
    return PAGE.replace("TITLE", html.escape(title)).replace("DATA", data)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>TITLE</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; color: #222; }
svg { width: 100%; height: 420px; border: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; margin-top: 1em; }
th, td { padding: .3em .6em; border-bottom: 1px solid #e4e4e4; text-align: left; }
th { cursor: pointer; user-select: none; } tr.front { background: #eef6ea; font-weight: 600; }
input { padding: .4em; width: 24em; } text { font-size: 12px; fill: #444; }
</style>
<h1>TITLE</h1>
<svg viewBox="0 0 1000 420" role="img" aria-label="mAP over latency"></svg>
<p><input placeholder="filter, for example int8 or input_size=96"> click a heading to sort; green: the front</p>
<table id="files"></table>
<h2>Without a file</h2><table id="others"></table>
<script>
const data = DATA, colours = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"];
const svg = document.querySelector("svg"), space = "http://www.w3.org/2000/svg";
function node(name, attributes, text) {
  const made = document.createElementNS(space, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}
function plot(rows) {
  if (!rows.length) return;
  const formats = [...new Set(rows.map(row => row.file))].sort();
  const slowest = Math.max(...rows.map(row => row.latency_ms_p50)) * 1.05;
  const best = Math.max(...rows.map(row => row.mAP), 0.01) * 1.05;
  const x = value => 70 + 890 * value / slowest, y = value => 370 - 340 * value / best;
  for (let i = 0; i <= 5; i++) {
    svg.append(node("line", {x1: 70, x2: 960, y1: y(best * i / 5), y2: y(best * i / 5), stroke: "#eee"}));
    svg.append(node("text", {x: 20, y: y(best * i / 5) + 4}, (best * i / 5).toFixed(2)));
    svg.append(node("text", {x: x(slowest * i / 5) - 10, y: 390}, (slowest * i / 5).toFixed(2)));
  }
  svg.append(node("text", {x: 480, y: 412}, "latency, ms (p50)"), node("text", {x: 20, y: 20}, "mAP"));
  const line = rows.filter(row => row.front).sort((a, b) => a.latency_ms_p50 - b.latency_ms_p50);
  const path = line.map(row => x(row.latency_ms_p50) + "," + y(row.mAP)).join(" ");
  svg.append(node("polyline", {points: path, fill: "none", stroke: "#222"}));
  for (const row of rows) {
    const circle = node("circle", {cx: x(row.latency_ms_p50), cy: y(row.mAP), r: row.front ? 7 : 5,
      fill: colours[formats.indexOf(row.file) % colours.length], opacity: 0.75});
    circle.append(node("title", {}, `trial ${row.trial}, ${row.file}: mAP ${row.mAP.toFixed(3)}, `
      + `${row.latency_ms_p50.toFixed(2)} ms, ${row.size_mb.toFixed(2)} MB\\n${row.chosen}`));
    svg.append(circle);
  }
  formats.forEach((name, i) => {
    svg.append(node("circle", {cx: 800, cy: 290 + 18 * i, r: 5, fill: colours[i % colours.length]}));
    svg.append(node("text", {x: 812, y: 294 + 18 * i}, name));
  });
}
function fill(table, rows, sorted, up) {
  table.replaceChildren();
  if (!rows.length) return;
  const keys = Object.keys(rows[0]).filter(key => key !== "front"), head = table.insertRow();
  for (const key of keys) {
    const cell = document.createElement("th");
    cell.textContent = key + (key === sorted ? (up ? " ▲" : " ▼") : "");
    cell.onclick = () => show(table, key, key === sorted ? !up : true);
    head.append(cell);
  }
  for (const row of rows) {
    const line = table.insertRow();
    line.className = row.front ? "front" : "";
    for (const key of keys) {
      const value = row[key];
      line.insertCell().textContent = typeof value === "number" && key !== "trial" ? value.toFixed(3) : value;
    }
  }
}
function show(table, key, up) {
  const wanted = document.querySelector("input").value.toLowerCase();
  const rows = data[table.id === "files" ? "rows" : "others"]
    .filter(row => JSON.stringify(row).toLowerCase().includes(wanted))
    .sort((a, b) => (a[key] < b[key] ? -1 : a[key] > b[key] ? 1 : 0) * (up ? 1 : -1));
  fill(table, rows, key, up);
}
const tables = document.querySelectorAll("table");
function refresh() { show(tables[0], "mAP", false); show(tables[1], "trial", true); }
document.querySelector("input").oninput = refresh;
plot(data.rows); refresh();
</script></html>
"""

"""How the figures look, and the few kinds that there are. Each is written as SVG and as PNG."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from report import Report, directory
from samples import Estimate

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

# Okabe and Ito's colours, which the colour-blind can tell apart too.
BLACK, ORANGE, SKY, GREEN, YELLOW = "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#777777"
COLOURS = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
# Who has which colour in every figure.
WHO = {"strowger": BLUE, "kamailio": VERMILION, "floor": GREY}
# How bars of published figures look beside ours; the second study's are hatched the other way.
PUBLISHED: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": "////", "linewidth": 1}
PUBLISHED_TOO = {**PUBLISHED, "hatch": "...."}

Points = Sequence[tuple[float, float]]

# Letters are to be read when the page shows a figure at half its size.
LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "svg.fonttype": "none",
    "svg.hashsalt": "strowger",
}
pyplot.rcParams.update(LOOK)


def figure(width: float = 7.2, height: float = 4.3, columns: int = 1, rows: int = 1, **how: Any) -> tuple[Any, Any]:
    """A figure and its axes, laid out so that nothing is cut off."""
    return pyplot.subplots(rows, columns, figsize=(width, height), constrained_layout=True, **how)


def log_axis(axes: Any) -> None:
    """For counts that grow by factors."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def legend_above(chart: Any, handles: Sequence[Any], columns: int = 4) -> None:
    """One legend for all axes, over them."""
    inches = 0.1 + 0.24 * -(-len(handles) // columns)
    chart.get_layout_engine().set(rect=(0, 0, 1, 1 - inches / chart.get_figheight()))
    chart.legend(handles=handles, loc="upper center", ncols=columns, fontsize=10)


def measured(axes: Any, points: Sequence[tuple[float, Estimate]], **style: Any) -> None:
    """Points with their intervals."""
    xs, ys = [x for x, _ in points], [each.value for _, each in points]
    bars = [[max(0, each.value - each.low) for _, each in points], [max(0, each.high - each.value) for _, each in points]]
    axes.errorbar(xs, ys, bars, elinewidth=1, **style)


def ours(axes: Any, number: int, points: Points, name: str, **how: Any) -> None:
    """A measured curve: solid, with markers. `number` chooses the colour, so that a published curve of the same thing has it
    too."""
    axes.plot(*zip(*points), color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], label=name, **how)


def theirs(axes: Any, number: int, points: Points, name: str, **how: Any) -> None:
    """A published curve: dashed, in the colour of ours, with hollow markers where there are few points."""
    style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "linestyle": (0, (4, 2)), "linewidth": 1.3, "alpha": 0.85}
    if len(points) <= 12:
        style |= {"marker": MARKERS[number % len(MARKERS)], "markerfacecolor": "white"}
    axes.plot(*zip(*points), label=name, **{**style, **how})


def bars(axes: Any, names: Sequence[str], groups: Sequence[tuple], digits: int = 2) -> None:
    """Groups of upright bars, one group for each name. `groups` are (label, values, style); None leaves a gap. Each bar says its
    height, a low one with a digit more. A fourth item has the heights up to which a bar would reach if something else did not bound
    it, None where nothing does."""
    width = 0.8 / len(groups)
    size = 8 if len(groups) * len(names) <= 12 else 6.5
    for index, (text, values, style, *reach) in enumerate(groups):
        xs = [place + width * (index - (len(groups) - 1) / 2) for place in range(len(names))]
        drawn = [(x, value) for x, value in zip(xs, values) if value is not None]
        if not drawn:
            continue
        axes.bar(*zip(*drawn), 0.92 * width, label=text, **style)
        for x, value, end in zip(xs, values, reach[0]) if reach else []:
            if end is not None and value is not None and end > value:
                edge = {"fill": False, "edgecolor": style["color"], "linestyle": (0, (2, 2)), "linewidth": 1}
                axes.bar([x], [end - value], 0.92 * width, bottom=[value], **edge)
        for x, value in drawn:
            place = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom"}
            axes.annotate(f"{value:.{digits + (value < 0.1)}f}", (x, value), fontsize=size, **place)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)


def lying(axes: Any, names: Sequence[str], groups: Sequence[tuple]) -> float:
    """Groups of lying bars from the top, for names that are long. `groups` are (label, values, texts, style); a value is a number,
    (value, low, high) with an interval, or None, which takes no room. Returns how high all is, in bars."""
    y, middles = 0.0, []
    for text, values, _, style in groups:
        if any(value is not None for value in values):
            # In the legend they stand in their order, whichever is drawn first.
            axes.barh([0], [0], label=text, **style)
    for place in range(len(names)):
        top = y
        for _, values, texts, style in groups:
            if values[place] is None:
                continue
            value = values[place]
            middle, low, high = value if isinstance(value, tuple) else (value, value, value)
            error = {"xerr": [[middle - low], [high - middle]], "ecolor": BLACK, "capsize": 2} if low < high else {}
            axes.barh([y], [middle], 0.86, **error, **style)
            where = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            axes.annotate(texts[place], (max(middle, high), y), **where)
            y += 1
        middles.append((top + y - 1) / 2)
        y += 0.7
    axes.set_yticks(middles, names)
    axes.set_ylim(y - 0.7, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    return y


def stacked(axes: Any, place: float, parts: Iterable[tuple[float, str]], height: float, room: float = 0, **how: Any) -> None:
    """A lying bar of parts (size, colour). With `room` each part that has so much says its size."""
    begin = 0.0
    for size, colour in parts:
        axes.barh(place, size, height, left=begin, color=colour, **{"linewidth": 0, **how})
        if room and size >= room:
            on = ink("#ffffff" if how.get("alpha", 1) < 1 else colour)
            axes.text(begin + size / 2, place, f"{size:.0f}", ha="center", va="center", fontsize=9.5, color=on)
        begin += size


def ink(colour: str) -> str:
    """For letters on it."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 125 else BLACK


def save(chart: Any, directory: str | Path, name: str) -> None:
    """Writes `name`.svg and `name`.png into the directory."""
    chart.savefig(Path(directory, f"{name}.svg"), metadata={"Date": None})
    chart.savefig(Path(directory, f"{name}.png"))
    pyplot.close(chart)


def add(report: Report, chart: Any, name: str, caption: str, drawn: bool = True) -> None:
    """A figure of a report, unless nothing has been drawn."""
    if drawn:
        save(chart, directory(), name)
        report.figure(name, caption)
    pyplot.close(chart)

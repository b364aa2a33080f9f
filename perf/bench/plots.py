"""How the figures look, and the few kinds that there are. Each is written as SVG and as PNG. Needs Debian's python3-matplotlib."""

import os

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

# Okabe and Ito's colours, which the colour-blind can tell apart too.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
COLOURS = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
GREY = "#777777"

pyplot.rcParams.update({
    "font.family": "DejaVu Sans", "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 12, "legend.fontsize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.7,
    "axes.axisbelow": True, "lines.linewidth": 1.8, "lines.markersize": 5, "legend.frameon": False, "figure.dpi": 110, "savefig.dpi": 160,
    "svg.fonttype": "none", "svg.hashsalt": "strowger",
})


def figure(width=7.2, height=4.3, columns=1, rows=1, **how):
    """A figure and its axes, laid out so that nothing is cut off."""
    return pyplot.subplots(rows, columns, figsize=(width, height), constrained_layout=True, **how)


def label(axes, x, y, title=None):
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title)


def ours(axes, number, points, name, **how):
    """A measured curve: solid, with markers. `number` chooses the colour, so that a published curve of the same thing can have it too."""
    xs, ys = zip(*points)
    axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], label=name, **how)


def theirs(axes, number, points, name, **how):
    """A published curve: dashed, in the colour of ours, with hollow markers where there are few points."""
    xs, ys = zip(*points)
    marker = {"marker": MARKERS[number % len(MARKERS)], "markerfacecolor": "white"} if len(points) <= 12 else {}
    axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], linestyle=(0, (4, 2)), linewidth=1.3, alpha=0.85, label=name, **marker, **how)


def save(chart, directory, name):
    """Writes `name`.svg and `name`.png into the directory; returns their common path."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    chart.savefig(path + ".svg", metadata={"Date": None})
    chart.savefig(path + ".png")
    pyplot.close(chart)
    return path

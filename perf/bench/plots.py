"""How the figures look, and the few kinds that there are. Each is written as SVG and as PNG. Needs Debian's python3-matplotlib."""

import os

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

# Okabe and Ito's colours, which the colour-blind can tell apart too.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
COLOURS = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
GREY = "#777777"

pyplot.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.labelsize": 12,
        "legend.fontsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
        "legend.frameon": False,
        "figure.dpi": 110,
        "savefig.dpi": 160,
        "svg.fonttype": "none",
        "svg.hashsalt": "strowger",
    }
)


def figure(width=7.2, height=4.3, columns=1, rows=1, **how):
    """A figure and its axes, laid out so that nothing is cut off."""
    return pyplot.subplots(rows, columns, figsize=(width, height), constrained_layout=True, **how)


def label(axes, x, y, title=None):
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title)


def legend_above(chart, handles, columns=4):
    """One legend for all axes, over them."""
    inches = 0.1 + 0.24 * -(-len(handles) // columns)
    chart.get_layout_engine().set(rect=(0, 0, 1, 1 - inches / chart.get_figheight()))
    chart.legend(handles=handles, loc="upper center", ncols=columns, fontsize=10)


def ours(axes, number, points, name, **how):
    """A measured curve: solid, with markers. `number` chooses the colour, so that a published curve of the same thing can have it
    too."""
    xs, ys = zip(*points)
    axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], label=name, **how)


def theirs(axes, number, points, name, **how):
    """A published curve: dashed, in the colour of ours, with hollow markers where there are few points."""
    xs, ys = zip(*points)
    marker = {"marker": MARKERS[number % len(MARKERS)], "markerfacecolor": "white"} if len(points) <= 12 else {}
    axes.plot(
        xs,
        ys,
        color=COLOURS[number % len(COLOURS)],
        linestyle=(0, (4, 2)),
        linewidth=1.3,
        alpha=0.85,
        label=name,
        **{**marker, **how},
    )


def ring(axes, points, name):
    """Marks points of a curve that are bounds rather than measurements: the generator's core was full, or something was not
    clean."""
    xs, ys = zip(*points)
    axes.plot(
        xs,
        ys,
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=GREY,
        markeredgewidth=1.1,
        label=name,
    )


def bars(axes, names, groups, digits=2, share=0.8):
    """Groups of upright bars, one group for each name. `groups` are (label, values, style); None leaves a gap. Each bar says its
    height, a low one with a digit more. A fourth item has the heights up to which a bar would reach if something else did not bound
    it, None where nothing does."""
    width = share / len(groups)
    for index, (text, values, style, *reach) in enumerate(groups):
        xs = [place + width * (index - (len(groups) - 1) / 2) for place in range(len(names))]
        drawn = [(x, value) for x, value in zip(xs, values) if value is not None]
        if not drawn:
            continue
        axes.bar([x for x, _ in drawn], [value for _, value in drawn], 0.92 * width, label=text, **style)
        for x, value, end in zip(xs, values, reach[0]) if reach else []:
            if end is not None and value is not None and end > value:
                axes.bar(
                    [x],
                    [end - value],
                    0.92 * width,
                    bottom=[value],
                    fill=False,
                    edgecolor=style["color"],
                    linestyle=(0, (2, 2)),
                    linewidth=1,
                )
        for x, value in drawn:
            axes.annotate(
                f"{value:.{digits + (value < 0.1)}f}",
                (x, value),
                (0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8 if len(groups) * len(names) <= 12 else 6.5,
            )
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)


# How bars of the published figures look beside ours.
PUBLISHED = {"facecolor": "white", "edgecolor": GREY, "hatch": "////", "linewidth": 1}


def save(chart, directory, name):
    """Writes `name`.svg and `name`.png into the directory; returns their common path."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    chart.savefig(path + ".svg", metadata={"Date": None})
    chart.savefig(path + ".png")
    pyplot.close(chart)
    return path

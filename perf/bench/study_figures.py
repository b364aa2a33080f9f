"""The figures of perf/reproduce: ours beside what the studies published, which is hollow or dashed, in the same colour. What was
not measured is left out, and a figure of which nothing was measured is not drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import plots
import published
from matplotlib.lines import Line2D
from report import Report
from samples import Estimate, Samples, ratio
from studies import BUSY, CONFIGURATIONS, FIXED, MODES, PROXY, REGISTRAR, WHO, Curves, related

# How a line and its points look, by whose they are.
STYLES: dict[str, dict[str, Any]] = {
    "strowger": {"linestyle": "-", "marker": "o"},
    "kamailio": {"linestyle": ":", "marker": "s"},
    "published": {"linestyle": (0, (4, 2)), "linewidth": 1.3},
}
RING = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": plots.GREY, "linestyle": "none"}
THESIS, REPORT = "thesis (OpenSIPS 1.6)", "report (OpenSIPS 1.4)"
# A group of bars: its name, a value for each place, its look, and how far it would go if the generator were not the limit.
Group = tuple[str, Sequence[float | None], dict[str, Any], Sequence[float | None]]


def rising(values: Sequence[float]) -> list[float]:
    """The nearest series that never falls: what falls by chance becomes level."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        number = 1
        while blocks and blocks[-1][0] > value:
            before, size = blocks.pop()
            value, number = (before * size + value * number) / (size + number), size + number
        blocks.append((value, number))
    return [value for value, number in blocks for _ in range(number)]


def draw(axes: Any, colour: str, series: Sequence[tuple[float, Estimate]], who: str, line: bool = True) -> None:
    """Medians with their intervals, and the line that fits them without falling."""
    if not series:
        return
    plots.measured(axes, series, color=colour, linestyle="none", marker=STYLES[who]["marker"])
    if line:
        axes.plot(
            [x for x, _ in series], rising([found.value for _, found in series]), color=colour, linestyle=STYLES[who]["linestyle"]
        )
    if bound := [(x, found.value) for x, found in series if found.marks]:
        axes.plot(*zip(*bound), **RING)


def above(chart: Any, colours: Mapping[str, str], whos: Sequence[str], columns: int = 4) -> None:
    """A legend over all: what the colours are, and then whose the lines are."""
    handles = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]
    handles += [Line2D([], [], color=plots.GREY, label=WHO[who], **STYLES[who]) for who in whos]
    handles.append(Line2D([], [], color=plots.GREY, label=THESIS, **STYLES["published"]))
    if any(line.get_markersize() == RING["markersize"] for axes in chart.axes for line in axes.lines):
        handles.append(Line2D([], [], label="the generator was the limit, or not clean", **RING))
    plots.legend_above(chart, handles, columns)


def curves(report: Report, samples: Samples, of: Curves) -> None:
    series = {(column, who): of.series(samples, column, who) for column in of.cases for who in WHO}
    whos = [who for who in WHO if any(series[column, who] for column in of.cases)]
    colours = dict(zip(of.cases, plots.COLOURS))
    rows = (len(of.panels) + 1) // 2
    chart, grid = plots.figure(11, 0.9 + 3.9 * rows, columns=2, rows=rows, sharey=True, squeeze=False)
    for axes, (title, columns) in zip(grid.flat, of.panels.items()):
        for column in columns:
            for who in whos:
                draw(axes, colours[column], series[column, who], who)
            axes.plot(*zip(*of.published(column)), color=colours[column], **STYLES["published"])
        axes.set(title=f"{of.name.capitalize()}: {title}", xlim=(0, None), ylim=(0, 104))
    above(chart, {of.labels[column]: colour for column, colour in colours.items()}, whos)
    for axes in grid[:, 0]:
        axes.set_ylabel("CPU of the server (% of one core)")
    for axes in grid[-1]:
        axes.set_xlabel(f"{of.what}/s ÷ own rate at a full core, {of.labels[of.base]}")
    plots.add(report, chart, f"reproduce-{of.name}", f"CPU of the {of.name} by {of.what}/s. {units(samples, of)}", bool(whos))


def units(samples: Samples, of: Curves) -> str:
    """What 1.0 on the x axis is, for each."""
    rates = [f"{WHO[who]} {rate:,.0f}" for who in WHO if (rate := of.unit(samples, who))]
    own = f"the thesis {of.peaks[of.base]:,}"
    return f"1.0 on the x axis is what fills one core, {of.labels[of.base]}: {', '.join([*rates, own])} {of.what}/s."


def factor(samples: Samples, via: str, who: str, share: float) -> Estimate | None:
    """CPU with digest ÷ CPU without, at one rate."""
    over, under = (REGISTRAR.point(f"{via}_{auth}", who, share) for auth in ("auth", "noauth"))
    return ratio(samples, over, under, BUSY)


def degradation(report: Report, samples: Samples) -> None:
    chart, axes = plots.figure(7.6, 4.6)
    colours, found = dict(zip(("UDP", "TCP"), plots.COLOURS)), set()
    for name, colour in colours.items():
        for who in WHO:
            factors = [(share, factor(samples, name.lower(), who, share)) for share in REGISTRAR.shares("udp_auth")]
            series = [(share, each) for share, each in factors if each]
            draw(axes, colour, series, who, line=False)
            found |= {who} if series else set()
        plain = dict(REGISTRAR.published(f"{name.lower()}_noauth"))
        points = [(rate, busy / plain[rate]) for rate, busy in REGISTRAR.published(f"{name.lower()}_auth") if plain.get(rate)]
        axes.plot(*zip(*points), color=colour, **STYLES["published"])
    axes.set(xlabel="registrations/s ÷ own rate at a full core, UDP, digest", ylabel="CPU with digest ÷ CPU without")
    axes.set(xlim=(0, None), ylim=(0, None))
    above(chart, colours, [who for who in WHO if who in found], 3)
    caption = f"What digest costs the registrar, at equal rate. {units(samples, REGISTRAR)}"
    plots.add(report, chart, "reproduce-registrar-degradation", caption, bool(found))


def peak_groups(samples: Samples, pairs: Sequence[tuple[str, str]]) -> list[Group]:
    """Peaks ÷ their bases: Kamailio's by its rate in a closed window, since not all its peaks are measured."""
    found: list[Group] = []
    for number, (who, what, label) in enumerate([("strowger", "peak", ""), ("kamailio", "carried", " (closed window)")]):
        estimates = [related(samples, *pair, who, what) for pair in pairs]
        costs = [related(samples, *pair, who, "by cost") for pair in pairs]
        reach = [cost.value if each and cost and "g" in each.marks else None for each, cost in zip(estimates, costs)]
        found.append((WHO[who] + label, values(estimates), {"color": plots.COLOURS[number]}, reach))
    return found


def values(estimates: Sequence[Estimate | None]) -> list[float | None]:
    return [None if each is None else each.value for each in estimates]


def draw_bars(axes: Any, names: Sequence[str], groups: Sequence[Group], digits: int = 2) -> bool:
    """Whether there is a bar of ours among them."""
    groups = [group for group in groups if any(value is not None for value in group[1])]
    plots.bars(axes, names, groups, digits)
    if any(end is not None for group in groups for end in group[3]):
        label = "a full core at that CPU of a call, where the generator was the limit"
        axes.bar([0], [0], fill=False, edgecolor=plots.GREY, linestyle=(0, (2, 2)), label=label)
    return len(groups) > 1


def thesis_peaks(report: Report, samples: Samples, pairs: Sequence[tuple[str, str]]) -> None:
    chart, axes = plots.figure(8.4, 4.4)
    names = [PROXY.labels[column].replace(", ", "\n") for column in PROXY.cases]
    told: Group = (THESIS, [PROXY.peaks[column] / PROXY.peaks["udp"] for column in PROXY.cases], plots.PUBLISHED, [])
    drawn = draw_bars(axes, names, [told, *peak_groups(samples, pairs)])
    axes.set_ylabel("peak ÷ own peak over UDP")
    axes.legend()
    plots.add(report, chart, "reproduce-proxy-peaks", "Peaks (at most 4 % of the calls fail) ÷ own peak over UDP.", drawn)


def modes(report: Report, samples: Samples) -> None:
    relative, unit, kinds = published.relative_peaks(), published.CYCLES["chain-udp"], ("fixed", "cost")

    def peaks(names: Sequence[str]) -> list[Group]:
        told: Group = (REPORT, [relative.get(name) for name in names], plots.PUBLISHED, [])
        return [told, *peak_groups(samples, [(name, published.matching_udp(name)) for name in names])]

    def costs(names: Sequence[str]) -> list[Group]:
        cycles = {name: published.CYCLES[name] / unit if name in published.CYCLES else None for name in names}
        found: list[Group] = [(f"{REPORT}, 50 calls/s", list(cycles.values()), plots.PUBLISHED, [])]
        for number, (who, what) in enumerate((who, what) for who in WHO for what in kinds):
            heights = values([related(samples, name, "chain-udp", who, what) for name in names])
            text = FIXED.name.removeprefix("fixed ") if what == "fixed" else "saturation"
            found.append((f"{WHO[who]}, {text}", heights, {"color": plots.COLOURS[(5, 0, 3, 1)[number]]}, []))
        return found

    what = "Peak throughput ÷ own peak over UDP in chain mode with the same setting of digest (the line)."
    panels(report, "reproduce-modes-peaks", peaks, "peak ÷ own peak over UDP", 2, what)
    what = "CPU of a call ÷ own over UDP in chain mode without digest (the line). The report's are before its fix of the client."
    panels(report, "reproduce-modes-cpu", costs, "CPU of a call ÷ own over UDP,\nchain mode, without digest", 1, what)
    ratios(report, samples)


def panels(report: Report, name: str, groups: Any, y: str, digits: int, caption: str) -> None:
    """Bars, a panel for each of the report's modes."""
    chart, grid = plots.figure(11, 8.4, columns=2, rows=2, gridspec_kw={"width_ratios": [1.35, 1]})
    drawn, labels = False, dict[str, Any]()
    for axes, (mode, title) in zip(grid.flat, MODES.items()):
        names = [each for each in CONFIGURATIONS if each.startswith(mode) and each != "local-udp"]
        drawn = draw_bars(axes, [short(each) for each in names], groups(names), digits) or drawn
        axes.axhline(1, color=plots.GREY, linewidth=1)
        axes.set_title(title)
        labels |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
    for axes in grid[:, 0]:
        axes.set_ylabel(y)
    plots.legend_above(chart, list(labels.values()), 3)
    plots.add(report, chart, name, caption, drawn)


def ratios(report: Report, samples: Samples) -> None:
    """Each published ratio of peaks and ours on one line."""
    rows = range(len(published.RATIOS))
    chart, axes = plots.figure(8.8, 7.6)
    kinds = {("strowger", "peak"): "o", ("strowger", "by cost"): "|", ("kamailio", "carried"): "s", ("kamailio", "by cost"): "|"}
    texts = {"peak": "peaks", "carried": "closed window", "by cost": "from CPU of a call"}
    drawn = False
    for (who, kind), marker in kinds.items():
        colour = plots.COLOURS[list(WHO).index(who)]
        found = [(related(samples, over, under, who, kind), row) for row, (over, under, _) in enumerate(published.RATIOS)]
        points = [(each, row) for each, row in found if each]
        if not points:
            continue
        drawn = True
        how = {"markersize": 12, "markeredgewidth": 1.8} if marker == "|" else {"markersize": 7}
        xs, ys = [each.value for each, _ in points], [row for _, row in points]
        axes.plot(xs, ys, linestyle="none", marker=marker, color=colour, label=f"{WHO[who]}, {texts[kind]}", **how)
        if marker != "|":
            axes.hlines(ys, [each.low for each, _ in points], [each.high for each, _ in points], colour, linewidth=1)
        if bound := [(each.value, row) for each, row in points if "g" in each.marks and kind == "peak"]:
            axes.plot(*zip(*bound), label="bound by the generator", **RING)
    hollow = {"marker": "D", "markersize": 6.5, "markerfacecolor": "white", "markeredgecolor": "black"}
    axes.plot([told for *_, told in published.RATIOS], rows, linestyle="none", label=REPORT, **hollow)
    axes.axvline(1, color=plots.GREY, linewidth=1)
    axes.set_yticks(rows, [f"{words_of(over)} ÷ {words_of(under, over)}" for over, under, _ in published.RATIOS], fontsize=9.5)
    axes.invert_yaxis()
    axes.set(xlim=(0, None), xlabel="ratio of peaks")
    axes.legend(loc="lower center", bbox_to_anchor=(0.35, 1.0), ncols=2, fontsize=9)
    plots.add(report, chart, "reproduce-modes-ratios", "The ratios of peaks that the report gives, and ours.", drawn)


def short(name: str) -> str:
    """Under a bar: what sets it apart in its mode."""
    mode, transport, *rest = name.replace("3des", "3DES").split("-")
    variant = [part for part in rest if part != "auth"]
    return "\n".join([transport.upper(), *variant, *(["digest"] if mode == "chain" and "auth" in rest else [])])


def words_of(name: str, beside: str = "") -> str:
    """In a line: local TLS mutual, digest; without what it shares with the one beside it."""
    mode, transport, *rest = name.replace("3des", "3DES").split("-")
    variant = [part for part in rest if part != "auth"]
    words = " ".join([*([] if beside.split("-")[0] == mode else [mode]), transport.upper(), *variant])
    return words + (", digest" if "auth" in rest and not beside else "")

"""The figures of perf/profile."""

import components
import plots

# One hue for all of libcrypto.
COLOURS = {
    components.KERNEL: "#9a9a9a",
    components.CORE: plots.BLUE,
    components.MODULES: plots.SKY,
    components.PUBLIC_KEY: "#a63a00",
    components.SYMMETRIC: "#e06a1b",
    components.MAC: "#f5a25d",
    components.CRYPTO: "#fbd3ad",
    components.UNNAMED: "#c9a68f",
    components.SSL: plots.PURPLE,
    components.LIBC: plots.GREEN,
    components.DATABASE: plots.BLACK,
    components.OTHER: plots.YELLOW,
}
THESIS_COLOURS = {
    "kernel and the rest": COLOURS[components.KERNEL],
    "server": COLOURS[components.CORE],
    "transaction module": COLOURS[components.MODULES],
    "libcrypto": COLOURS[components.SYMMETRIC],
    "libssl": COLOURS[components.SSL],
    "libc": COLOURS[components.LIBC],
}
THESIS_NAMES = {"kernel": "kernel and the rest", "transaction_module": "transaction module"}
# Narrower than this share of the axis, a part has no room for a number.
ROOM = 0.055


def costs(bars, unit, name, directory, file):
    """`bars`: (label, µs, shares). On the left what a call costs, on the right what it is made of."""
    chart, (left, right) = plots.figure(11.5, 1.9 + 0.34 * len(bars), columns=2, sharey=True, width_ratios=[1.15, 1])
    present = [one for one in components.COMPONENTS if any(shares[one] > 0.005 for _, _, shares in bars)]
    places = list(range(len(bars)))[::-1]
    most = max(cost for _, cost, _ in bars)
    for axes, scale in [(left, [cost for _, cost, _ in bars]), (right, [100] * len(bars))]:
        begin = [0.0] * len(bars)
        for one in present:
            sizes = [size * shares[one] for size, (_, _, shares) in zip(scale, bars)]
            axes.barh(places, sizes, 0.74, left=begin, color=COLOURS[one], label=one, linewidth=0)
            for place, at, size, whole in zip(places, begin, sizes, scale):
                if axes is right and size / whole >= ROOM:
                    axes.text(at + size / 2, place, f"{size:.0f}", ha="center", va="center", fontsize=9.5, color=ink(COLOURS[one]))
            begin = [at + size for at, size in zip(begin, sizes)]
        axes.grid(axis="y", visible=False)
        axes.set_yticks(places, [label for label, _, _ in bars])
        axes.tick_params(axis="y", length=0)
    for place, (label, cost, _) in zip(places, bars):
        times = f"  ({times_text(cost / unit)}×)" if unit and not label.startswith("registrar") else ""
        left.text(cost + 0.01 * most, place, f"{cost:.0f}{times}" if cost >= 10 else f"{cost:.1f}{times}", va="center", fontsize=10)
    left.set_xlim(0, 1.2 * most)
    right.set_xlim(0, 100)
    left.set_xlabel("CPU per call, µs  (× a call over UDP)" if unit else "CPU per call, µs")
    right.set_xlabel("share of the CPU, %")
    chart.suptitle(f"{name}: where the CPU goes", fontsize=13)
    legend_below(chart, *left.get_legend_handles_labels(), columns=6)
    return plots.save(chart, directory, file)


def times_text(times):
    return f"{times:.1f}" if times < 9.95 else f"{times:.0f}"


def beside_thesis(pairs, name, directory, file):
    """`pairs`: (label, the thesis' shares by its components, ours by the report's)."""
    chart, axes = plots.figure(9.4, 1.7 + 0.78 * len(pairs))
    order = ["kernel and the rest", "server", "transaction module", "libcrypto", "libssl", "libc"]
    for number, (_, theirs, ours) in enumerate(reversed(pairs)):
        theirs = {THESIS_NAMES.get(one, one): share for one, share in theirs.items()}
        mine = dict.fromkeys(order, 0.0)
        for one, share in ours.items():
            mine["transaction module" if one == components.MODULES else components.OURS_AS_THESIS[one]] += share
        for place, shares, alpha in [(number + 0.2, theirs, 0.5), (number - 0.2, mine, 1)]:
            at = 0.0
            for one in order:
                size = 100 * shares.get(one, 0.0)
                axes.barh(place, size, 0.37, left=at, color=THESIS_COLOURS[one], alpha=alpha, linewidth=0)
                if size >= 5:
                    axes.text(
                        at + size / 2,
                        place,
                        f"{size:.0f}",
                        ha="center",
                        va="center",
                        fontsize=9.5,
                        color="#000000" if alpha < 1 else ink(THESIS_COLOURS[one]),
                    )
                at += size
            axes.text(101, place, "thesis, 90 calls/s" if alpha < 1 else name, va="center", fontsize=10)
    axes.set_yticks(range(len(pairs)), [label for label, _, _ in reversed(pairs)])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the CPU, %")
    axes.set_title(f"Share of the CPU by component: the thesis' OpenSIPS 1.6 (pale) and {name}")
    handles = [plots.pyplot.Rectangle((0, 0), 1, 1, color=THESIS_COLOURS[one]) for one in order]
    words = [
        "kernel and what is not named",
        "server (core)",
        "transaction module (ours: all modules)",
        "libcrypto",
        "libssl",
        "libc",
    ]
    legend_below(chart, handles, words, columns=3)
    return plots.save(chart, directory, file)


def legend_below(chart, handles, words, columns):
    """A legend under everything else, with the room that it needs."""
    lines = -(-len(words) // columns)
    room = (0.15 + 0.21 * lines) / chart.get_figheight()
    chart.get_layout_engine().set(rect=(0, room, 1, 1 - room))
    chart.legend(
        handles, words, loc="lower center", ncols=columns, fontsize=10, borderaxespad=0.2, columnspacing=1.4, handlelength=1.3
    )


def ink(colour):
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 125 else "#000000"

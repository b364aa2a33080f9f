"""perf/profile: where the CPU goes, by the report's components, from samples of the server under load; bars and flame graphs."""

import argparse
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import components
import machine
import plots
import published
import report
import sampling
from bench import Bench, contestant, main
from cases import THESIS, Case, configuration, registrations, report_configurations
from components import COMPONENTS
from matplotlib.patches import Patch
from report import Report
from rows import LOCAL, PLAIN, SECURE, TLS_CHAIN
from samples import Estimate, Result, Samples, single
from study import HOST, Plan, Task
from tasks import Load, handshake_calls, key, served, window

# Seconds of load before the samples, and of samples, which take 8 MB each second; so long perf takes to begin.
BEFORE, SAMPLED, SLACK = 1.5, 3.0, 1.0
# What no rule knows is named in the report from this share of a case on.
UNKNOWN = 0.01
# Of the report, one of each kind: digest, and connections and handshakes on either side.
OF_THE_REPORT = [
    *(configuration("chain", transport, auth) for transport in ("udp", "tcp") for auth in (False, True)),
    configuration("chain", "tls"),
    configuration("outbound", "tls", True),
    configuration("inbound", "tls"),
    configuration("inbound", "tls", variant="mutual"),
    configuration("local", "tls", True, "reuse"),
    configuration("local", "tls", True, "mutual"),
]
UNIT = configuration("chain", "udp")
REGISTRAR = registrations("udp", "new")
# Evidence that the report's faults are absent: a function, with what it calls.
SWEEP = r"^strowger::net::(streams|wires)::\w+::sweep$"
USERS = r"^strowger::stack::auth::users::Users::find$"
INCLUSIVE = {"sweep": SWEEP, "handshake": "^SSL_do_handshake$", "users": USERS}

COLOURS = {
    components.KERNEL: "#9a9a9a",
    components.CORE: plots.BLUE,
    components.MODULES: plots.SKY,
    # One hue for all of libcrypto.
    components.PUBLIC_KEY: "#a63a00",
    components.SYMMETRIC: "#e06a1b",
    components.MAC: "#f5a25d",
    components.CRYPTO: "#fbd3ad",
    components.UNNAMED: "#c9a68f",
    components.SSL: plots.PURPLE,
    components.LIBC: plots.GREEN,
    # Letters on it must be read in a flame graph.
    components.DATABASE: "#8f8f5f",
    components.OTHER: plots.YELLOW,
}
IN_WORDS = (
    "grey kernel · blue core · light blue modules · browns libcrypto · purple libssl · green libc · olive database · yellow other"
)
# The thesis' components, as they are drawn.
THESIS_SHOWN = {
    "kernel and the rest": ("kernel and what is not named", COLOURS[components.KERNEL]),
    "server": ("server (core)", COLOURS[components.CORE]),
    "transaction module": ("transaction module (ours: all modules)", COLOURS[components.MODULES]),
    "libcrypto": ("libcrypto", COLOURS[components.SYMMETRIC]),
    "libssl": ("libssl", COLOURS[components.SSL]),
    "libc": ("libc", COLOURS[components.LIBC]),
}
AT_90 = "Beside the thesis' profile at 90 calls/s (its table 15), share of the CPU, %"
OTHER_RATES = "The thesis' profiles at other rates (its tables 3 to 14), share of the CPU, %"
THESIS_NAMES = {"kernel": "kernel and the rest", "transaction_module": "transaction module"}
# Narrower than this, of 100, a part has no room for a number.
ROOM = 5.5


class Profiles:
    """Which cases of one contestant, and what has been found of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.who = contestant(options)
        # Those of the default first; others, also with what is negotiated today, are there for who names one.
        today = [*PLAIN.values(), TLS_CHAIN, *SECURE.values(), *LOCAL.values()]
        others = [*report_configurations(), *today] if getattr(options, "cases", None) else []
        self.cases = list({case.name: case for case in [*THESIS.values(), *OF_THE_REPORT, *others, REGISTRAR]}.values())
        self.samples = Samples()

    def load(self, case: Case) -> Load:
        return window(mode="register" if case.auth.startswith("register") else "call")

    def key(self, case: Case) -> str:
        return key(case, self.who, f"profile, {self.load(case).name}")

    def tasks(self) -> list[Task]:
        return [*(served(case, self.who, [self.load(case)], least=1) for case in self.cases), *map(self.task, self.cases)]

    def task(self, case: Case) -> Task:
        """Samples are taken during one load."""
        load, kept, who = self.load(case), self.key(case), self.who

        def measure(bench: Bench) -> dict[str, Result]:
            with bench.server(who, case) as process:
                before = counters(bench, who)
                with sampling.recording(process, BEFORE, SAMPLED, bench.home) as path:
                    times = ("--settle", BEFORE, "--duration", SAMPLED + SLACK)
                    result = bench.run_load(who, case, process, load.mode, "--users", case.users, *load.options, *times)[0]
                after = counters(bench, who)
            # A peer's binary has no debug information, and files of its own for its parts.
            known = sampling.program(None if who == "kamailio" else bench.binary(who, case))
            result.update(taken(sampling.recorded(path), known, f"{who}: {case.label}", figure_name(case, who), bench.home))
            result["statistics"] = {name: after[name] - before.get(name, 0) for name in after}
            result["completed_in_all"] = result["completed_per_second"] * (BEFORE + SAMPLED + SLACK)
            return {kept: result}

        name = f"{case.name}, {who}, profile"
        # The profiler needs some of a core. How far a profile is to be trusted has a table.
        return Task(name, [kept], measure, "profiles", 9, 1, 3, who=who, prepare=lambda bench: bench.prepare(who, case), minds=HOST)

    # What has been found.

    def measured(self) -> list[Case]:
        return [case for case in self.cases if self.samples.of(self.key(case))]

    def shares(self, case: Case) -> dict[str, float]:
        """Of all runs together."""
        counts = self.total(case, "counted")
        return {one: counts[one] / sum(counts.values()) for one in COMPONENTS}

    def total(self, case: Case, what: str) -> Counter[str]:
        """Sums over the runs of what each has by name."""
        found: Counter[str] = Counter()
        for result in self.samples.of(self.key(case)):
            found.update(result[what])
        return found

    def mean(self, case: Case, path: str) -> float:
        values = self.samples.values(self.key(case), path)
        return float(values.mean()) if len(values) else 0.0

    def cost(self, case: Case, of: str = "server_cpu_us_each", scale: float = 1) -> Estimate | None:
        """What a call costs without the profiler; with it, if it was not measured without."""
        bare = single(self.samples, key(case, self.who, self.load(case)), of, scale)
        return bare or single(self.samples, self.key(case), of, scale)

    def value(self, case: Case) -> float:
        found = self.cost(case)
        return found.value if found else 0.0


def figure_name(case: Case, who: str) -> str:
    return f"flame-{case.name}" + ("" if who == "strowger" else f"-{who}")


def counters(bench: Bench, who: str) -> dict[str, float]:
    """The server's own counters of what the report found at fault."""
    if who == "kamailio":
        return {}
    return {**bench.counters("strowger_tls"), **bench.counters("strowger_idle_sweep")}


def taken(samples: list[sampling.Sample], known: sampling.Program, title: str, figure: str, home: str) -> Result:
    """What the samples say; the flame graph is drawn on the way."""
    known.learn(samples)
    counts, unknown = sampling.profile(samples, known)
    if not counts[components.KERNEL]:
        raise RuntimeError("no sample is of the kernel; perf may not see it (sysctl kernel.perf_event_paranoid=1, or be root)")
    stacks, cut = sampling.fold(samples, known)
    about = f"{sum(stacks.values()):,} samples of the CPU, one each millisecond; {machine.describe()} — {IN_WORDS}"
    sampling.flame_graph(stacks, COLOURS, title, about, report.directory() / figure, home)
    return {
        "counted": dict(counts),
        "unknown": dict(unknown.most_common(10)),
        # Both say how much of a core the server used; they must agree, or samples were lost.
        "sampled_busy": sum(counts.values()) / sampling.FREQUENCY / SAMPLED,
        "cut_off": cut / max(sum(stacks.values()), 1),
        "inclusive": {name: sampling.inclusive(stacks, pattern) for name, pattern in INCLUSIVE.items()},
    }


# What is told.


def tell(said: Report, found: Profiles) -> None:
    tell_shares(said, found)
    tell_trust(said, found)
    tell_thesis(said, found)
    if found.who == "strowger":
        tell_faults(said, found)
    draw_costs(said, found)
    draw_thesis(said, found)
    for case in found.measured():
        name = figure_name(case, found.who)
        if (report.directory() / f"{name}.svg").exists():
            said.figure(name, f"{found.who}: {case.label}, flame graph; stacks in {name}.folded")
    where = {name: "profile-costs" if name.startswith("figure") else OTHER_RATES for name, _, _ in published.TABLES_AND_FIGURES}
    where |= {name: AT_90 for name in where if name.startswith("Table 15")}
    published.reproduced(said, published.PROFILE, where)


def tell_shares(said: Report, found: Profiles) -> None:
    """Only a peer may have what has no name."""
    lines: list[list[Any]]
    cases = found.measured()
    shares = {case: found.shares(case) for case in cases}
    columns = [one for one in COMPONENTS if one != components.UNNAMED or any(each[one] for each in shares.values())]
    lines = [
        [case.name, f"{found.total(case, 'counted').total():,}", *(f"{100 * shares[case][one]:.1f}" for one in columns)]
        for case in cases
    ]
    said.table(f"{found.who}: share of the CPU by component, %", ["case", "samples", *columns], lines)
    unit, lines = found.value(UNIT), []
    for case in cases:
        value = found.value(case)
        times = f"{value / unit:.2f}" if unit and found.load(case).mode == "call" else None
        lines.append([case.name, found.cost(case), times, *(f"{value * shares[case][one]:.1f}" for one in columns)])
    said.table(
        f"{found.who}: CPU for each call (registration) by component, µs", ["case", "all", f"÷ {UNIT.name}", *columns], lines
    )


def tell_trust(said: Report, found: Profiles) -> None:
    lines = []
    for case in found.measured():
        bare = single(found.samples, key(case, found.who, found.load(case)))
        profiled = found.samples.median(found.key(case), "server_cpu_us_each") or 0.0
        total = found.total(case, "counted").total()
        unknown = [
            f"{symbol} {100 * count / total:.1f} %"
            for symbol, count in found.total(case, "unknown").most_common()
            if count > UNKNOWN * total
        ]
        busy = [f"{100 * found.mean(case, path):.0f}" for path in ("server_busy", "sampled_busy")]
        lines.append(
            [
                case.name,
                single(found.samples, found.key(case), "completed_per_second"),
                bare,
                f"{100 * (profiled / bare.value - 1):+.0f} %" if bare else None,
                " · ".join(busy),
                f"{100 * found.mean(case, 'cut_off'):.1f} %",
                ", ".join(unknown) or "none",
            ]
        )
    head = ["case", "each s", "µs without the profiler", "with it", "core busy, %: scheduler · samples", "stacks cut off"]
    said.table(f"{found.who}: how far to trust it", [*head, f"no rule knows, more than {100 * UNKNOWN:.0f} %"], lines)


def compared(found: Profiles) -> list[tuple[str, Case]]:
    """The thesis' cases that were measured, by its names."""
    return [(theirs, case) for theirs, case in THESIS.items() if case in found.measured()]


def shares_at_90(theirs: str) -> dict[str, float]:
    rows: Any = published.table("thesis-table15-profile-90cps.csv")
    total = sum(row[theirs] for row in rows)
    return {row["component"]: row[theirs] / total for row in rows}


def as_thesis(shares: dict[str, float], mapping: dict[str, str]) -> list[str]:
    found = components.as_thesis(shares, mapping)
    return [f"{100 * found[one]:.1f}" for one in components.THESIS_COMPONENTS]


def tell_thesis(said: Report, found: Profiles) -> None:
    lines: list[list[Any]] = []
    for theirs, case in compared(found):
        lines.append(["thesis", case.name, *as_thesis(shares_at_90(theirs), components.THESIS)])
        lines.append([found.who, case.name, *as_thesis(found.shares(case), components.OURS_AS_THESIS)])
    said.table(
        AT_90,
        ["", "case", *components.THESIS_COMPONENTS],
        lines,
        "The thesis' transaction module is in its server, and what it does not name is in its kernel.",
    )
    wanted = dict(compared(found))
    cells: dict[tuple[str, int], dict[str, float]] = {}
    rows: Any = published.table("thesis-tables3-14-profile-shares.csv")
    for row in rows:
        if row["case"] in wanted:
            cells.setdefault((row["case"], int(row["cps"])), {})[row["component"]] = row["share_percent"]
    names = ["server", "transaction_module", "libcrypto", "libssl", "libc"]
    lines = [
        [wanted[theirs].name, cps, *(f"{shares[one]:.1f}" if one in shares else None for one in names)]
        + [f"{100 - sum(shares.values()):.1f}"]
        for (theirs, cps), shares in cells.items()
    ]
    said.table(OTHER_RATES, ["case", "calls/s", *names, "the rest"], lines)


def tell_faults(said: Report, found: Profiles) -> None:
    """Evidence that the faults that show in a profile are absent."""
    lines = []
    for case in found.measured():
        statistics = found.total(case, "statistics")
        completed = sum(found.samples.values(found.key(case), "completed_in_all"))
        inclusive = {name: 100 * found.mean(case, f"inclusive.{name}") for name in INCLUSIVE}
        lines.append(
            [
                case.name,
                f"{inclusive['sweep']:.2f} %",
                f"{statistics['strowger_idle_sweep_visited_total'] / max(completed, 1):.4f}",
                f"{inclusive['handshake']:.1f} %",
                *(calls and f"{calls:.2f}" for calls in map(partial(handshake_calls, statistics), ("server", "client"))),
                f"{100 * found.shares(case)[components.DATABASE]:.2f} %",
                f"{inclusive['users']:.2f} %",
            ]
        )
    said.table(
        "The report's faults, in strowger: 1, the sweep for idle connections (50 % of the CPU of TCP, 20 % of TLS); 2, handshakes "
        "tried again on the wrong event (up to 44 calls for one); 4, a database asked for each authentication (two thirds of its "
        "cost)",
        [
            "case",
            "1: sweep, with what it calls",
            "connections looked at for each call",
            "2: SSL_do_handshake, with what it calls",
            "calls for each handshake as server",
            "as client",
            "4: database",
            "lookup of the user, in memory",
        ],
        lines,
    )


# The figures.


def draw_costs(said: Report, found: Profiles) -> None:
    """On the left what a call costs, on the right what it is made of."""
    bars = [(case, found.value(case), found.shares(case)) for case in found.measured()]
    if not bars:
        return
    unit = found.value(UNIT)
    chart, (left, right) = plots.figure(11.5, 1.9 + 0.34 * len(bars), columns=2, sharey=True, width_ratios=[1.15, 1])
    places = list(range(len(bars)))[::-1]
    most = max(cost for _, cost, _ in bars)
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        axes.set_yticks(places, [case.name for case, _, _ in bars])
        axes.tick_params(axis="y", length=0)
    for place, (case, cost, shares) in zip(places, bars):
        for axes, whole, room in ((left, cost, 0), (right, 100, ROOM)):
            plots.stacked(axes, place, [(whole * shares[one], COLOURS[one]) for one in COMPONENTS], 0.74, room)
        times = cost / unit if unit and found.load(case).mode == "call" else 0
        shown = f"  ({times:.{0 if times >= 9.95 else 1}f}×)" if times else ""
        left.text(cost + 0.01 * most, place, f"{cost:.{0 if cost >= 10 else 1}f}{shown}", va="center", fontsize=10)
    left.set_xlim(0, 1.2 * most)
    right.set_xlim(0, 100)
    left.set_xlabel("CPU per call, µs  (× a call over UDP)" if unit else "CPU per call, µs")
    right.set_xlabel("share of the CPU, %")
    chart.suptitle(f"{found.who}: where the CPU goes", fontsize=13)
    drawn = [one for one in COMPONENTS if any(shares[one] > 0.005 for _, _, shares in bars)]
    legend_below(chart, {one: COLOURS[one] for one in drawn}, columns=6)
    name = "profile-costs" + ("" if found.who == "strowger" else f"-{found.who}")
    plots.add(said, chart, name, f"{found.who}: CPU for each call (registration) by component, and shares")


def draw_thesis(said: Report, found: Profiles) -> None:
    pairs, who = compared(found), found.who
    if not pairs:
        return
    chart, axes = plots.figure(9.4, 1.7 + 0.78 * len(pairs))
    for place, (theirs, case) in enumerate(reversed(pairs)):
        paper = {THESIS_NAMES.get(one, one): share for one, share in shares_at_90(theirs).items()}
        mine = dict.fromkeys(THESIS_SHOWN, 0.0)
        for one, share in found.shares(case).items():
            mine["transaction module" if one == components.MODULES else components.OURS_AS_THESIS[one]] += share
        for at, shares, alpha, title in [(place + 0.2, paper, 0.5, "thesis, 90 calls/s"), (place - 0.2, mine, 1.0, who)]:
            parts = [(100 * shares.get(one, 0.0), colour) for one, (_, colour) in THESIS_SHOWN.items()]
            plots.stacked(axes, at, parts, 0.37, 5, alpha=alpha)
            axes.text(101, at, title, va="center", fontsize=10)
    axes.set_yticks(range(len(pairs)), [case.name for _, case in reversed(pairs)])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the CPU, %")
    axes.set_title(f"Share of the CPU by component: the thesis' OpenSIPS 1.6 (pale) and {who}")
    legend_below(chart, dict(THESIS_SHOWN.values()), columns=3)
    plots.add(said, chart, "profile-thesis", f"Share of the CPU by component: the thesis at 90 calls/s, and {who}")


def legend_below(chart: Any, colours: Mapping[str, str], columns: int) -> None:
    """A legend under everything else, with the room that it needs."""
    room = (0.15 + 0.21 * -(-len(colours) // columns)) / chart.get_figheight()
    chart.get_layout_engine().set(rect=(0, room, 1, 1 - room))
    handles = [Patch(color=colour, label=words) for words, colour in colours.items()]
    how = {"fontsize": 10, "borderaxespad": 0.2, "columnspacing": 1.4, "handlelength": 1.3}
    chart.legend(handles=handles, loc="lower center", ncols=columns, **how)


# The command.


def plan(options: argparse.Namespace) -> Plan:
    found = Profiles(options)

    def told(said: Report, samples: Samples) -> None:
        found.samples = samples
        tell(said, found)

    return Plan("profile", "Where the CPU goes", found.tasks(), tell=told)


if __name__ == "__main__":
    main("profile", __doc__, 10, plan)

"""perf/overload: what a server still does when more is asked of it than it can do (row O1). Calls come on a schedule from half its
peak to three times as many, whatever comes back; goodput is calls a second that ended well. The server has a part of its core if
the machine lets it (cgroups), so that the generator can offer so many."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plots
from bench import Bench, main
from cases import TODAY, WINDOW, Case
from machine import Process
from report import Report
from samples import Estimate, Result, Row, Samples, compare, ratio, single
from study import FEWEST, Plan, Task
from tasks import key

# RSA costs who proves its key several times what it costs who checks the proof: with a handshake for each call the generator has
# room when the server has none.
UDP, TLS = Case(), Case("tls/call", "udp", suite=TODAY)
CASES = {"UDP": UDP, "TLS, a full handshake for each call": TLS}
# As it is; without its overload control; without the kernel's help.
CONTROL = {"": {}, "control off": {"limits": {"overload": "0s"}}, "answers alone": {"limits": {"shed": "answer"}}}
VARIANTS = {
    **{
        f"{label}, {words}".removesuffix(", "): case.with_(conf=conf, suffix=words.replace(" ", "-"))
        for label, case in CASES.items()
        for words, conf in CONTROL.items()
    },
    **{"UDP, digest": Case(auth="call"), "TCP": Case("tcp", "tcp")},
}
# The figures' panels.
PANELS = {
    "UDP": [label for label in VARIANTS if label.startswith("UDP")],
    "TLS and TCP": [label for label in VARIANTS if label[0] == "T"],
}
MULTIPLES = (0.5, 1.0, 1.5, 2.0, 3.0)
# Those that row O1 names, and the share of the peak that it wants.
NAMED, TARGET = (2.0, 3.0), 0.95
# Of the peak, in the same server when the overload is over: it must be as it was.
AFTER = 0.5
RATE = "completed_per_second"
# Of all calls that ended in the measured time, whenever they began.
SERVED = "latency_us.served_to_200"
# Seconds at a rate before it is measured, and measured; for the last answers: a call that nobody answers is given up after 32 s
# (Timer B), by which time it has failed. So many may be outstanding that none is held back.
SETTLE, MEASURE, PATIENCE, OUTSTANDING = 2.5, 2.0, 2, 3_000_000
# A generator that begins its calls so late, µs at the 99th percentile, or so few of them, or whose core is so busy, offers another
# load than it says.
LATE_US, OFFERED, BUSY = 10_000, 0.98, 0.95
# A server that had less of its part than this share, in a closed window, was kept from it.
ENOUGH = 0.8
# The server's part of its core, and how long it is from one such part to the next: as short as the kernel allows, which gives 1 ms
# at least. What comes while it waits must find room in its receive buffer.
PART, PERIOD_US = 0.4, 2_500
CGROUPS = Path("/sys/fs/cgroup")


def folder() -> Path | None:
    """A group of processes that may be given a part of a core, if this machine has any: of version 1 or 2."""
    for parent, sign in ((CGROUPS / "cpu", "cpu.cfs_quota_us"), (CGROUPS, "cgroup.subtree_control")):
        if (parent / sign).exists() and (sign.startswith("cpu.") or "cpu" in (parent / sign).read_text().split()):
            with contextlib.suppress(OSError):
                group = parent / f"strowger-perf-{os.getpid()}"
                group.mkdir(exist_ok=True)
                return group
    return None


@contextlib.contextmanager
def part_of_core(process: Process) -> Iterator[float]:
    """Within this block the server has a part of its core, which is said; all of it where there are no groups."""
    group = folder()
    if group is None:
        yield 1.0
        return
    quota = int(PART * PERIOD_US)
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        (group / "cgroup.procs").write_text(str(process.pid))
        yield PART
    finally:
        # A group that has a process in it cannot go; one that stays is used again.
        process.stop()
        with contextlib.suppress(OSError):
            group.rmdir()


def offered(result: Result) -> float:
    """Share of the calls that should have begun in the measured time which did."""
    return result["counts"]["started"] / max(1, result["counts"]["scheduled"])


def is_generator_bound(result: Result) -> bool:
    """In an overload the server's core is full whoever sets the pace, so what the generator says of itself is not enough."""
    late = result["latency_us"].get("generator_lag", {}).get("p99", 0) > LATE_US or result["counts"]["skipped"] > 0
    return bool(result.get("generator_bound")) or late or result["generator_busy"] > BUSY or offered(result) < OFFERED


def judged(result: Result, part: float) -> Result:
    """Losses and repetitions are what an overload is; wrong answers make it unclean, and a load that was not what was meant: from
    less than was to be offered nothing follows. A server that waits for its part of the core is not disturbed by that."""
    counts, each, is_bound = result["counts"], result["seconds"], is_generator_bound(result)
    again = sum(counts[f"retransmitted_{what}"] for what in ("invite", "2xx", "request"))
    more = {
        "offered": offered(result),
        "part": part,
        "goodput": result[RATE],
        "refused": counts["refused"] / each,
        "again": again / each,
        "drops": result["server_drops"] / each,
    }
    more |= {"clean": counts["wrong"] == 0 and not is_bound, "generator_bound": is_bound}
    return {**result, **more, "disturbed": bool(result.get("disturbed")) and part == 1}


def point(case: Case, multiple: float) -> str:
    return key(case, "strowger", f"{multiple:g} × peak")


def peak_of(case: Case) -> str:
    return key(case, "strowger", "peak of a part")


def peak_near(case: Case, multiple: float) -> str:
    return key(case, "strowger", f"peak beside {multiple:g} × peak")


def peak_judged(result: Result, part: float) -> Result:
    """If it had far less than its part, something else had the core."""
    is_disturbed = bool(result.get("disturbed")) and part == 1
    found = {"part": part, "goodput": result[RATE], "clean": result["clean"] and result["server_busy"] / part > ENOUGH}
    return {**result, **found, "disturbed": is_disturbed}


def window(bench: Bench, case: Case, process: Process, **how: Any) -> Result:
    """A closed window: what the server can do."""
    load = ["--users", case.users, "--window", WINDOW, "--settle", SETTLE, "--duration", MEASURE]
    return bench.run_load("strowger", case, process, "call", *load, **how)[0]


def mean(before: Result, after: Result) -> Result:
    """A core is not equally fast all the time, so a load is compared with the peaks before and after it. Repetitions of what an
    overload has dropped may come into the second, so only wrong answers make that unclean."""
    found = {name: (before[name] + after[name]) / 2 for name in (RATE, "server_busy")}
    judged = {name: bool(before.get(name)) or bool(after.get(name)) for name in ("disturbed", "generator_bound")}
    return {**after, **found, **judged, "clean": before["clean"] and not after["counts"]["wrong"]}


def peak(case: Case, runs: int) -> Task:
    """The rate of a closed window, with the same part of the core."""

    def measure(bench: Bench) -> dict[str, Result]:
        with bench.server("strowger", case) as process, part_of_core(process) as part:
            return {peak_of(case): peak_judged(window(bench, case, process), part)}

    return Task(f"{case.name}, peak", [peak_of(case)], measure, case.name, 7, runs, who="strowger")


def beyond(case: Case, multiple: float, runs: int) -> Task:
    """A fresh and warm server, its peak, so many times as much, and its peak again; after the worst of it half the peak in the same
    server."""
    last = multiple == max(MULTIPLES)

    def measure(bench: Bench) -> dict[str, Result]:
        most = bench.samples.median(peak_of(case), "goodput") or 0
        common = ["--users", case.users, "--settle", SETTLE, "--duration", MEASURE]
        common += ["--drain", PATIENCE, "--max-outstanding", OUTSTANDING]
        with bench.server("strowger", case) as process, part_of_core(process) as part:
            before = window(bench, case, process)
            rates = {point(case, multiple): multiple} | ({point(case, 0): AFTER} if last else {})
            found = {}
            for each, times in rates.items():
                load = ["--rate", f"{times * most:.0f}", *common]
                # Without its control a server may bring nothing through.
                found[each] = bench.run_load("strowger", case, process, "call", *load, registers=False, may_be_empty=True)[0]
            near = mean(before, window(bench, case, process, registers=False))
        results = {each: judged(result, part) for each, result in found.items()}
        return results | {peak_near(case, multiple): peak_judged(near, part)}

    keys, seconds = [point(case, multiple), peak_near(case, multiple), *([point(case, 0)] * last)], 18 + 7 * last
    return Task(f"{case.name}, {multiple:g} × peak", keys, measure, case.name, seconds, runs, after=[peak_of(case)], who="strowger")


def rows() -> list[Row]:
    return [
        compare(
            "O1",
            f"goodput at {multiple:g} × the peak ÷ the peak, {label}",
            TARGET,
            point(case, multiple),
            peak_near(case, multiple),
            "goodput",
            at_least=True,
        )
        for label, case in CASES.items()
        for multiple in NAMED
    ]


def plan(options: argparse.Namespace) -> Plan:
    tasks = []
    for label, case in VARIANTS.items():
        runs = FEWEST if options.as_published or label in CASES else 1
        tasks.append(peak(case, runs))
        # Of the others an hour has what the row names, or the worst alone.
        few = NAMED if label in CASES else NAMED[-1:]
        for multiple in MULTIPLES if options.as_published or label in CASES else few:
            tasks.append(beyond(case, multiple, runs if multiple in NAMED else 1))
    return Plan("overload", "Overload", tasks, rows(), tell)


def beside(case: Case, multiple: float) -> str:
    """Half the peak comes after the worst."""
    return peak_near(case, multiple or max(MULTIPLES))


COLUMNS: list[tuple[str, str, float]] = [
    ("offered, calls/s", "rate_or_window", 1),
    ("goodput, calls/s", RATE, 1),
    ("to 200, ms: p50", f"{SERVED}.p50", 1e-3),
    ("p99", f"{SERVED}.p99", 1e-3),
    # Many a call that was dropped meanwhile is served afterwards.
    ("p99, those begun then", "latency_us.to_200.p99", 1e-3),
    ("refused/s", "refused", 1),
    # The load has no other request that is not INVITE. It, or the answer to it, was lost or is half a second late.
    ("BYE sent again/s", "counts.retransmitted_request", 1 / MEASURE),
    ("sent again/s", "again", 1),
    ("datagrams dropped at the server/s", "drops", 1),
    ("server, % of a core", "server_busy", 100),
    ("generator's core, % busy", "generator_busy", 100),
    ("calls begun, % of those offered", "offered", 100),
]


def tell(report: Report, samples: Samples) -> None:
    for label, case in VARIANTS.items():
        most, lines = single(samples, peak_of(case), "goodput"), []
        for multiple, words in [*((each, f"{each:g}") for each in MULTIPLES), (0.0, f"{AFTER:g}, afterwards")]:
            if samples.of(point(case, multiple)):
                cells = [single(samples, point(case, multiple), path, scale) for _, path, scale in COLUMNS]
                lines.append([words, ratio(samples, point(case, multiple), beside(case, multiple), "goodput"), *cells])
        if most:
            part = samples.median(peak_of(case), "part") or 1
            title = f"{label}: peak {most.text()} calls/s with {100 * part:.0f} % of a core"
            report.table(title, ["× peak", "goodput ÷ peak", *(name for name, *_ in COLUMNS)], lines)
    draw(report, samples)


def draw(report: Report, samples: Samples) -> None:
    """Goodput above, latency below it; over UDP, and over streams."""
    chart, grid = plots.figure(11.5, 8.6, columns=2, rows=2, sharex=True, sharey="row")
    drawn = False
    for (upper, lower), (title, labels) in zip(grid.T, PANELS.items()):
        upper.plot([0, 1, max(MULTIPLES)], [0, 1, 1], color=plots.GREY, linestyle=":", linewidth=1.2, label="all that can be done")
        for number, (label, case) in enumerate((label, VARIANTS[label]) for label in labels):
            goodput = {
                multiple: ratio(samples, point(case, multiple), peak_near(case, multiple), "goodput") for multiple in MULTIPLES
            }
            drawn = curve(upper, number, goodput, label.replace(", a full handshake for each call", ""), "-") or drawn
            for quantile, style in {"p50": "-", "p99": (0, (4, 2))}.items():
                path = f"{SERVED}.{quantile}"
                times = {multiple: single(samples, point(case, multiple), path, 1e-3) for multiple in MULTIPLES}
                curve(lower, number, times, None, style)
        upper.set(title=title, ylim=(0, 1.25), xlim=(0, max(MULTIPLES) * 1.04))
        upper.legend(fontsize=9)
        lower.plot([], [], color=plots.GREY, label="median")
        lower.plot([], [], color=plots.GREY, linestyle=(0, (4, 2)), label="99th percentile")
        lower.legend(fontsize=9)
        # From a few to thousands: no factor is to be read here.
        lower.set_yscale("log")
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        lower.set_xlabel("Offered load ÷ peak")
    grid[0][0].set_ylabel("Goodput ÷ peak")
    grid[1][0].set_ylabel("INVITE to 200, ms")
    caption = "Goodput, and the time from an INVITE's schedule to its 200, of calls that ended meanwhile."
    plots.add(report, chart, "overload", f"{caption} Hollow: the generator was the limit, or something was wrong.", drawn)


def curve(axes: Any, number: int, found: dict[float, Estimate | None], label: str | None, style: Any) -> bool:
    """Whether there is anything to draw."""
    points = [(x, each) for x, each in found.items() if each]
    if points:
        colour, marker = plots.COLOURS[number], plots.MARKERS[number]
        plots.measured(axes, points, color=colour, marker=marker, linestyle=style, label=label)
        hollow = [(x, each.value) for x, each in points if each.marks]
        how = {"linestyle": "none", "marker": marker, "markerfacecolor": "white", "markeredgecolor": colour, "zorder": 3}
        axes.plot([x for x, _ in hollow], [y for _, y in hollow], **how)
    return bool(points)


if __name__ == "__main__":
    main("overload", __doc__, 20, plan)

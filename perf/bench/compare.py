"""perf/compare: strowger beside Kamailio, with the same load, certificates, number of workers and cores: CPU of a call, rate,
latency at half of what the slower one can, memory."""

import argparse
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import plots
from bench import MEASURE, SETTLE, Bench, main
from cases import TODAY, Case, registrations
from machine import Process
from matplotlib.patches import Patch
from report import Report
from samples import Result, Samples, ratio, single
from study import FEWEST, Plan, Task
from tasks import Load, at_half, key, peak, served, window

WHO = {"strowger": "strowger", "kamailio": "Kamailio"}
UDP = Case()
# The generator signs with P-256, which is cheap: with RSA it would be the limit.
LOCAL = Case("tls/call", "tls/call", False, suite=TODAY, peer="ec")
CALL, REGISTER = window(), window(mode="register")
# How each is called here, and the window in which it is measured. All are measured elsewhere too, under the same keys.
CASES: dict[str, tuple[Case, Load]] = {
    "UDP, chain": (UDP, CALL),
    "UDP, digest": (Case(routed=False, auth="call"), CALL),
    "TCP, chain": (Case("tcp", "tcp"), CALL),
    "TCP, one for each call": (Case("tcp/call", "udp"), CALL),
    "TLS 1.3, chain": (Case("tls", "tls", version="1.3"), CALL),
    "TLS 1.2, full, local": (LOCAL, CALL),
    "TLS 1.2, resumed, local": (LOCAL.with_(reuse=True), CALL),
    "TLS 1.2, mutual, local": (LOCAL.with_(mutual=True), CALL),
    "REGISTER, UDP": (registrations("udp"), REGISTER),
    "REGISTER, UDP, digest": (registrations("udp", "new"), REGISTER),
}
# In a closed window, and for latency; of Kamailio more where a row rests on it.
RUNS = {"strowger": (FEWEST, 2), "kamailio": (1, 1)}
RATE, HALF, TO_200 = "completed_per_second", "half of the slower", "latency_us.to_200"


def look(who: str, bench: Bench, process: Process, found: dict[str, Result]) -> None:
    """What a server is, and its memory after its last load."""
    command = [shutil.which("kamailio") or "/usr/sbin/kamailio", "-v"] if who == "kamailio" else [str(bench.strowger), "--version"]
    version = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
    for result in found.values():
        result.update(memory_bytes=process.memory(), version=version)


def latency(case: Case, load: Load, who: str, runs: int) -> Task:
    """The same rate for both."""
    kept, after, seconds = key(case, who, HALF), [key(case, each, load) for each in WHO], 3 + SETTLE + 2 * MEASURE
    how: dict[str, Any] = {"name": f"{case.name}, {who}, half", "block": case.name, "seconds": seconds, "least": runs}
    return at_half(case, who, kept, after, load.mode, after_each=partial(look, who), **how)


def plan(options: argparse.Namespace) -> Plan:
    tasks: list[Task] = []
    for case, load in CASES.values():
        for who in WHO:
            runs, few = (FEWEST, FEWEST) if options.as_published else RUNS[who]
            tasks += [served(case, who, [load], case.name, runs, after_each=partial(look, who)), latency(case, load, who, few)]
            # The studies measure these of UDP in any case; the others cost half a minute each.
            if load is CALL and (case is UDP or options.as_published):
                tasks.append(peak(case, who))
    return Plan("compare", "strowger beside Kamailio", tasks, tell=tell)


def table(report: Report, samples: Samples, title: str, at: str, path: str, scale: float = 1, more: bool = False) -> None:
    """A line for each case: both, and how many times better strowger is. `at`: the load, or empty for the own window."""
    lines = []
    for label, (case, load) in CASES.items():
        ours, peer = (key(case, who, at or load) for who in WHO)
        cells = [single(samples, each, path, scale) for each in (ours, peer)]
        if any(cells):
            offered = [samples.median(ours, "rate_or_window")] if at == HALF else []
            better = ratio(samples, ours, peer, path) if more else ratio(samples, peer, ours, path)
            lines.append([label, *(f"{each:,.0f}/s" if each else "—" for each in offered), *cells, better])
    head = ["case", *(["at"] if at == HALF else []), *WHO.values(), "strowger ÷ Kamailio" if more else "Kamailio ÷ strowger"]
    report.table(title, head, lines)


def tell(report: Report, samples: Samples) -> None:
    versions = {
        who: [r["version"] for case, load in CASES.values() for r in samples.of(key(case, who, load)) if "version" in r]
        for who in WHO
    }
    how = {"strowger": "one worker on core 0", "kamailio": "peers/kamailio.cfg: a UDP worker and a TCP worker, all on core 0"}
    report.table("Who", ["", "version", "how"], [[WHO[who], found[0], how[who]] for who, found in versions.items() if found])
    table(report, samples, "Server CPU at saturation, µs for each call or registration", "", "server_cpu_us_each")
    table(report, samples, "Calls or registrations a second in a closed window", "", RATE, more=True)
    table(report, samples, "Peak: the highest rate at which at most 4 % of the calls fail, calls/s", "peak", RATE, more=True)
    for quantile in ("p50", "p99"):
        title = f"Latency at half of what the slower one can, {quantile}, µs from the schedule to the 200 of the INVITE or REGISTER"
        table(report, samples, title, HALF, f"{TO_200}.{quantile}")
    # Who carries more remembers more: to be compared only after the same load.
    for at, after in ((HALF, "the run for latency, the same load for both"), ("", "the closed window, each at its own rate")):
        table(report, samples, f"Memory after {after}: proportional set size of all processes, MB", at, "memory_bytes", 1e-6)
    lines = []
    for label, (case, load) in CASES.items():
        for who in WHO:
            if found := samples.of(key(case, who, load)):
                paths = [("generator_us_each", 1), ("generator_busy", 100), ("server_busy", 100)]
                cells = [single(samples, key(case, who, load), path, scale) for path, scale in paths]
                lines.append([label, WHO[who], *cells, found[-1].get("tls") or "—"])
    head = ["case", "against", "its µs each", "its core, % busy", "server's core, % busy", "TLS agreed"]
    report.table("The generator in the closed window", head, lines)
    draw(report, samples)


PANELS: list[tuple[str, Callable[[Load], Load | str], str, float]] = [
    ("Server CPU of a call or registration, µs", lambda load: load, "server_cpu_us_each", 1),
    ("Calls or registrations a second on one core", lambda load: load, RATE, 1),
    ("Latency at half of what the slower one can, p99, ms", lambda load: HALF, f"{TO_200}.p99", 1e-3),
    ("Memory of all processes after the same load, MB", lambda load: HALF, "memory_bytes", 1e-6),
]


def draw(report: Report, samples: Samples) -> None:
    """For each case a pair of bars, the longer of which is the unit: their lengths are in proportion, their ends say the value."""
    cases = {label: each for label, each in CASES.items() if any(samples.of(key(each[0], who, each[1])) for who in WHO)}
    if not cases:
        return
    chart, grid = plots.figure(12, 2 + 0.76 * len(cases), columns=2, rows=2, sharey=True, sharex=True)
    for axes, (title, at, path, scale) in zip(grid.flat, PANELS):
        for row, (case, load) in enumerate(cases.values()):
            both = [single(samples, key(case, who, at(load)), path, scale) for who in WHO]
            most = max((found.value for found in both if found), default=1)
            for y, colour, found in zip((row - 0.19, row + 0.19), plots.COLOURS, both):
                if found:
                    axes.barh(y, found.value / most, 0.35, color=colour)
                    marks = f" {found.marks}" if found.marks else ""
                    axes.annotate(f" {text(found.value)}{marks}", (found.value / most, y), va="center", fontsize=9)
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
    grid[0][0].set_yticks(range(len(cases)), list(cases))
    grid[0][0].invert_yaxis()
    grid[0][0].set_xlim(0, 1.2)
    plots.legend_above(chart, [Patch(color=colour, label=name) for colour, name in zip(plots.COLOURS, WHO.values())])
    for axes in grid[1]:
        axes.set_xlabel("÷ the larger of the two")
    plots.add(
        report, chart, "compare", "strowger beside Kamailio: in each pair the longer bar is the unit. g, !: as in the tables."
    )


def text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


if __name__ == "__main__":
    main("compare", __doc__, 25, plan)

"""perf/compare: strowger beside Kamailio, with the same load, certificates, number of workers and cores: CPU of a call, rate,
latency at half of what the slower one can, memory; and what strowger adds to the latency of TLS that stays connected (row L1)."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import plots
import report as reports
from bench import CORE, FLOOR_PAD, Bench, main
from cases import TODAY, Case, registrations
from machine import Process
from samples import Estimate, Quantity, Result, Row, Samples, ratio, single
from study import FEWEST, Plan, Task
from tasks import Load, key, peak, served, window

WHO = {"strowger": "strowger", "kamailio": "Kamailio"}
UDP, KEPT_OPEN = Case(), Case("tls", "tls", version="1.3")
LOCAL = Case("tls/call", "tls/call", False, suite=TODAY)
CALL, REGISTER = window(), window(mode="register")
# How each is called here, and the window in which it is measured. All are measured elsewhere too, under the same keys.
CASES: dict[str, tuple[Case, Load]] = {
    "UDP, chain": (UDP, CALL),
    "UDP, digest": (Case(routed=False, auth="call"), CALL),
    "TCP, chain": (Case("tcp", "tcp"), CALL),
    "TCP, one for each call": (Case("tcp/call", "udp"), CALL),
    "TLS 1.3, chain": (KEPT_OPEN, CALL),
    "TLS 1.2, full, local": (LOCAL, CALL),
    "TLS 1.2, resumed, local": (LOCAL.with_(reuse=True), CALL),
    "TLS 1.2, mutual, local": (LOCAL.with_(mutual=True), CALL),
    "REGISTER, UDP": (registrations("udp"), REGISTER),
    "REGISTER, UDP, digest": (registrations("udp", "new"), REGISTER),
}
RUNS = {"strowger": FEWEST, "kamailio": 2}
RATE, HALF, HALF_OWN = "completed_per_second", "half", "half its own"
TO_200 = "latency_us.to_200"
# Row L1, for TLS that stays connected: beside the generator that is connected to itself.
SPANS = ("to_180", "to_200", "bye_to_200")
MOST_ADDED_US = 1_000


def memory(group: int) -> dict[str, int]:
    """Resident and proportional set size of all processes of a server, bytes."""
    sums = {"rss": 0, "pss": 0}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == group:
                for line in (path / "smaps_rollup").read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name.lower() in sums:
                        sums[name.lower()] += int(value.split()[0]) * 1024
        except (ProcessLookupError, FileNotFoundError, PermissionError):
            # It has ended meanwhile.
            pass
    return sums


def look(who: str, bench: Bench, process: Process, found: dict[str, Result]) -> None:
    """What a server is, and its memory after its last load."""
    command = [shutil.which("kamailio") or "/usr/sbin/kamailio", "-v"] if who == "kamailio" else [str(bench.strowger), "--version"]
    version = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
    for result in found.values():
        result.update(memory=memory(process.pid), version=version)


def poisson(each_second: float, bench: Bench) -> list[object]:
    """At random times, and no fuller load before it, which would be in the memory."""
    return ["--rate", f"{each_second:.0f}", "--poisson", "--settle", bench.settle, "--duration", 2 * bench.measure]


def latency(case: Case, load: Load, who: str) -> Task:
    """The same rate for both: half of what the slower one can."""

    def measure(bench: Bench) -> dict[str, Result]:
        slower = min(bench.samples.median(each, RATE) or 0 for each in after)
        with bench.server(who, case) as process:
            options = ["--users", case.users, *poisson(slower / 2, bench)]
            found = {key(case, who, HALF): bench.run_load(who, case, process, load.mode, *options)[0]}
            look(who, bench, process, found)
        return found

    after = [key(case, each, load) for each in WHO]
    return Task(f"{case.name}, {who}, half", [key(case, who, HALF)], measure, case.name, 10, 2, after=after, who=who)


def added() -> Task:
    """At half of its own rate strowger, and then the generator connected to itself, since there is no other relay of TLS."""
    case = KEPT_OPEN

    def measure(bench: Bench) -> dict[str, Result]:
        half = (bench.samples.median(key(case), RATE) or 0) / 2
        with bench.server("strowger", case) as process:
            ours = bench.run_load("strowger", case, process, "call", "--users", case.users, *poisson(half, bench))[0]
        output = Path(bench.home, "load.json")
        command = ["taskset", "-c", CORE, bench.load, "call", "--json", output, "--server", bench.at(bench.port + 10_510)]
        command += [*bench.generator_ports(), *case.options("floor", bench), "--floor", "--pad", FLOOR_PAD["call"]]
        done = subprocess.run([*map(str, [*command, *poisson(half, bench)])], capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the generator failed against itself: {done.stderr.strip()[-1000:]}")
        alone: Result = json.loads(output.read_text())[0]
        return {key(case, "strowger", HALF_OWN): ours, key(case, "floor", HALF_OWN): alone}

    keys = [key(case, who, HALF_OWN) for who in ("strowger", "floor")]
    return Task(f"{case.name}, added latency", keys, measure, case.name, 18, FEWEST, after=[key(case)], who="strowger")


def added_row() -> Row:
    of = {who: {f"{who}_{span}": f"latency_us.{span}.p99" for span in SPANS} for who in ("strowger", "floor")}
    quantities = {name: Quantity(key(KEPT_OPEN, who, HALF_OWN), path) for who in of for name, path in of[who].items()}

    def worst(**p99: Any) -> Any:
        return numpy.maximum.reduce([p99[f"strowger_{span}"] - p99[f"floor_{span}"] for span in SPANS])

    what = "latency added over TLS 1.3 kept open at half the own rate, p99, worst of INVITE to 180, to 200 and BYE to 200"
    return Row("L1", what, MOST_ADDED_US, quantities, worst, unit="µs")


def plan(options: argparse.Namespace) -> Plan:
    tasks: list[Task] = [added()]
    for case, load in CASES.values():
        for who in WHO:
            runs = FEWEST if options.as_published else RUNS[who]
            tasks += [served(case, who, [load], case.name, runs, after_each=partial(look, who)), latency(case, load, who)]
            # The studies measure these of UDP in any case; the others cost half a minute each.
            if load is CALL and (case is UDP or options.as_published):
                tasks.append(peak(case, who))
    return Plan("compare", "strowger beside Kamailio", tasks, [added_row()], tell)


def table(report: reports.Report, samples: Samples, title: str, at: str, path: str, scale: float = 1, more: bool = False) -> None:
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


def tell(report: reports.Report, samples: Samples) -> None:
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
        for size, name in (("pss", "proportional"), ("rss", "resident")):
            table(report, samples, f"Memory after {after}: {name} set size of all processes, MB", at, f"memory.{size}", 1e-6)
    lines = []
    for label, (case, load) in CASES.items():
        for who in WHO:
            if found := samples.of(key(case, who, load)):
                paths = [("generator_us_each", 1), ("generator_busy", 100), ("server_busy", 100)]
                cells = [single(samples, key(case, who, load), path, scale) for path, scale in paths]
                lines.append([label, WHO[who], *cells, found[-1].get("tls") or "—"])
    head = ["case", "against", "its µs each", "its core, % busy", "server's core, % busy", "TLS agreed"]
    report.table("The generator in the closed window", head, lines)
    lines = []
    for span in SPANS:
        for quantile in ("p50", "p99"):
            path = f"latency_us.{span}.{quantile}"
            both = [single(samples, key(KEPT_OPEN, who, HALF_OWN), path) for who in ("floor", "strowger")]
            lines += [[f"{span} {quantile}", *both]] if all(both) else []
    rate = samples.median(key(KEPT_OPEN, "strowger", HALF_OWN), "rate_or_window")
    title = f"Latency over TLS 1.3 kept open, at {rate or 0:,.0f} calls/s (half its own rate, Poisson), µs"
    report.table(title, ["", "generator connected to itself", "through strowger"], lines)
    draw(report, samples)


PANELS: list[tuple[str, Callable[[Load], Load | str], str, float]] = [
    ("Server CPU of a call or registration, µs", lambda load: load, "server_cpu_us_each", 1),
    ("Calls or registrations a second on one core", lambda load: load, RATE, 1),
    ("Latency at half of what the slower one can, p99, ms", lambda load: HALF, f"{TO_200}.p99", 1e-3),
    ("Memory of all processes after the same load, MB", lambda load: HALF, "memory.pss", 1e-6),
]


def draw(report: reports.Report, samples: Samples) -> None:
    """For each case a pair of bars, the longer of which is the unit: their lengths are in proportion, their ends say the value."""
    chart, grid = plots.figure(12, 9.6, columns=2, rows=2, sharey=True, sharex=True)
    labels, drawn = list(CASES), False
    for axes, (title, at, path, scale) in zip(grid.flat, PANELS):
        for number, who in enumerate(WHO):
            places: list[tuple[float, Estimate, float]] = []
            for row, (case, load) in enumerate(CASES.values()):
                both = [single(samples, key(case, each, at(load)), path, scale) for each in WHO]
                if found := both[number]:
                    places.append((row + 0.38 * number - 0.19, found, max(each.value for each in both if each)))
            drawn = drawn or bool(places)
            how = {"color": plots.COLOURS[number], "label": WHO[who]}
            axes.barh([y for y, *_ in places], [found.value / most for _, found, most in places], 0.35, **how)
            for y, found, most in places:
                marks = f" {found.marks}" if found.marks else ""
                axes.annotate(f" {text(found.value)}{marks}", (found.value / most, y), va="center", fontsize=9)
        axes.set_title(title)
        axes.grid(axis="y", visible=False)
    grid[0][0].set_yticks(range(len(labels)), labels)
    grid[0][0].invert_yaxis()
    grid[0][0].set_xlim(0, 1.2)
    plots.legend_above(chart, grid[0][0].containers[:2])
    for axes in grid[1]:
        axes.set_xlabel("÷ the larger of the two")
    if drawn:
        plots.save(chart, str(reports.directory()), "compare")
        report.figure("compare", "strowger beside Kamailio: in each pair the longer bar is the unit. g, !: as in the tables.")
    plots.pyplot.close(chart)


def text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


if __name__ == "__main__":
    main("compare", __doc__, 25, plan)

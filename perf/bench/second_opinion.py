"""perf/second-opinion: the server's CPU for a UDP call with our generator and with SIPp, at the same rate, in turn (row G2)."""

import argparse
import contextlib
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import CORE, Bench, main
from cases import WINDOW, Case
from machine import Process, cpu_ns
from report import PERF, Report
from samples import Result, Row, Samples, compare, ratio, single
from study import FEWEST, Plan, Task
from tasks import FORGET, key

CASE, RATES, LIMITS = Case(routed=False), (1_000, 2_000), (0.95, 1.05)
# SIPp sends one message of a call in each turn of its clock: the 200 follows the 180, and the BYE the ACK, a millisecond later.
# What is due in the same turn, of whatever call, leaves together.
TURN = "0.001"
SIPP, IN_TIME, TWO = "SIPp", "ours, in SIPp's time", "ours, in SIPp's time, two processes"
WAYS: dict[str, list[str]] = {
    IN_TIME: ["--wait", "sleep", "--turn", TURN, "--ring", TURN, "--hold", TURN],
    TWO: ["--role", "callers", "--wait", "sleep", "--turn", TURN, "--hold", TURN],
    "ours, at once": ["--wait", "sleep"],
    "ours, at once, spinning": [],
}
# Longer than the server remembers a transaction; then so many lines of SIPp's statistics, which come each second.
SETTLE, MEASURE = 3, 4
# IP, UDP, and what /proc/net/dev counts for Ethernet.
HEADERS = 20 + 8 + 14


def parse_stats(lines: Sequence[str]) -> tuple[dict[str, int], int]:
    """SIPp's file of statistics: cumulative figures, which stand under names that end in (C), and how many lines there are."""
    if len(lines) < 2:
        return {}, 0
    values = zip(lines[0].split(";"), lines[-1].split(";"))
    return {name[:-3]: int(value) for name, value in values if name.endswith("(C)") and value.isdigit()}, len(lines) - 1


def read_stats(path: Path) -> tuple[dict[str, int], int]:
    """Without the last line, which may not be whole."""
    return parse_stats(path.read_text().split("\n")[:-1]) if path.exists() else ({}, 0)


def loopback() -> tuple[int, int]:
    """(packets, bytes) that the loopback has carried."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    fields = line.partition(":")[2].split()
    return int(fields[1]), int(fields[0])


def drops(port: int) -> int:
    """Datagrams dropped at the UDP sockets of this port."""
    tables = [path for path in (Path("/proc/net/udp"), Path("/proc/net/udp6")) if path.exists()]
    lines = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    return sum(int(fields[-1]) for fields in lines if int(fields[1].rpartition(":")[2], 16) == port)


class Sipp:
    """Both sides of SIPp, pinned to the generator's core, bounded in calls and in time."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.home, self.ports = bench, Path(bench.home), [int(port) for port in bench.generator_ports()[1::2]]
        users = [f"u{number:05}" for number in range(CASE.users)]
        half = len(users) // 2
        pairs = [f"{callee};{caller};\n" for callee, caller in zip(users, users[half:] + users[:half])]
        (self.home / "users.txt").write_text("SEQUENTIAL\n" + "".join(pairs))

    def start(self, scenario: str, port: int, *options: object) -> Process:
        path, text = self.home / f"{scenario}.xml", (PERF / "peers" / "sipp" / f"{scenario}.xml").read_text()
        path.write_text(text.replace("@127.0.0.1", f"@{self.bench.address}"))
        self.stats(scenario).unlink(missing_ok=True)
        command = ["env", "TERM=dumb", "sipp", self.bench.at(self.bench.port), "-sf", path, "-i", self.bench.address, "-p", port]
        command += ["-t", "u1", "-nostdin", "-buff_size", 4 << 20, "-timer_resol", 1, *options]
        command += ["-trace_stat", "-stf", self.stats(scenario), "-fd", 1]
        return Process([*map(str, command)], CORE, self.bench.home, str(self.home / f"{scenario}.log"))

    def stats(self, scenario: str) -> Path:
        return self.home / f"{scenario}.csv"

    def run(self, process: Process, rate: int) -> Result:
        """One measurement: the server's CPU between two lines of the caller's statistics."""
        seconds = SETTLE + MEASURE + 3
        bound = ["-m", rate * seconds, "-timeout", f"{seconds + 20}s", "-l", 100_000]
        with contextlib.ExitStack() as stack:
            answerer = self.start("uas", self.ports[1], *bound)
            stack.callback(answerer.stop)
            answerer.wait_ready(self.ports[1], address=self.bench.address)
            dropped = [drops(port) for port in (self.bench.port, self.ports[1])]
            caller = self.start("uac", self.ports[0], "-r", rate, "-inf", "users.txt", *bound)
            stack.callback(caller.stop)
            before = self.at_line(SETTLE, process, caller, answerer)
            after = self.at_line(before["line"] + MEASURE, process, caller, answerer)
            dropped = [drops(port) - earlier for port, earlier in zip((self.bench.port, self.ports[1]), dropped)]
            try:
                # Both end by themselves when the last call has.
                for each in (caller, answerer):
                    each.child.wait(timeout=seconds + 40)
            except subprocess.TimeoutExpired:
                raise RuntimeError("SIPp did not end by itself") from None
        # Over the whole run, and on both sides: an answerer's call that has not ended is a caller's BYE that never came.
        return judged(rate, before, after, dropped, [read_stats(self.stats(side))[0] for side in ("uac", "uas")])

    def at_line(self, number: int, process: Process, *sipp: Process) -> dict[str, Any]:
        """Waits for a line of this number, and reads the accounts at once."""
        while True:
            figures, lines = read_stats(self.stats("uac"))
            if lines >= number:
                own, (run, wait) = cpu_ns(each.pid for each in sipp), cpu_ns([process.pid])
                accounts = {"run": run, "wait": wait, "own": own, "carried": loopback()}
                return {"figures": figures, "line": lines, "at": time.monotonic(), **accounts}
            if sipp[0].child.poll() is not None:
                raise RuntimeError(f"SIPp's caller ended too early; {sipp[0].said()}")
            time.sleep(0.01)


def judged(
    rate: int, before: dict[str, Any], after: dict[str, Any], dropped: Sequence[int], finals: Sequence[dict[str, int]]
) -> Result:
    """What happened between two moments, in the generator's words."""
    seconds = after["at"] - before["at"]
    calls = after["figures"]["SuccessfulCall"] - before["figures"]["SuccessfulCall"]
    failed, again = (sum(final.get(name, 0) for final in finals) for name in ("FailedCall", "Retransmissions"))
    run, wait, own = after["run"] - before["run"], after["wait"] - before["wait"], after["own"][0] - before["own"][0]
    packets, carried = (late - early for late, early in zip(after["carried"], before["carried"]))
    return {
        "completed_per_second": calls / seconds,
        "server_cpu_us_each": run / 1e3 / max(calls, 1),
        "server_busy": run / 1e9 / seconds,
        "generator_us_each": own / 1e3 / max(calls, 1),
        "failed": failed,
        "again": again,
        "dropped": dropped,
        **datagrams(calls, packets, carried),
        # SIPp's own two processes wait for each other, which is how it works and no disturbance.
        "disturbed": wait / 1e9 / seconds > 0.05,
        "generator_bound": calls < 0.99 * rate * seconds,
        "clean": failed == 0 and again == 0 and not any(dropped),
    }


def datagrams(calls: float, packets: int, carried: int) -> dict[str, float]:
    return {"datagrams_each": packets / max(calls, 1), "bytes_each": carried / max(packets, 1) - HEADERS}


def ours(bench: Bench, process: Process, rate: int, way: str) -> Result:
    load = ["--users", CASE.users, "--rate", rate, "--settle", SETTLE, "--duration", MEASURE, *WAYS[way]]
    with answerers(bench) if way == TWO else contextlib.nullcontext():
        before = loopback()
        result = bench.run_load("strowger", CASE, process, "call", *load, registers=False)[0]
        packets, carried = (late - early for late, early in zip(loopback(), before))
    return {**result, **datagrams(rate * (SETTLE + MEASURE), packets, carried)}


@contextlib.contextmanager
def answerers(bench: Bench) -> Iterator[None]:
    """The other side as a process of its own, as SIPp has it."""
    command = ["taskset", "-c", CORE, bench.load, "call", "--role", "answerers", "--wait", "sleep", "--ring", TURN, "--turn", TURN]
    command += ["--quiet", *bench.generator_ports(), "--server", bench.at(bench.port), "--users", CASE.users, "--duration", 120]
    command += ["--json", Path(bench.home, "answerers.json")]
    child = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr
        if "ready" not in child.stderr.readline():
            raise RuntimeError("the answerers did not start")
        yield
    finally:
        child.terminate()
        child.communicate(timeout=10)


def kept(rate: int, way: str) -> str:
    return key(CASE, "strowger", f"{rate}/s, {way}")


def task(rate: int, ways: Sequence[str], runs: int) -> Task:
    """These ways in random order against one server, which is warm."""

    def measure(bench: Bench) -> dict[str, Result]:
        with bench.server("strowger", CASE) as process:
            # The users' contacts name the port at which every answerer listens in turn.
            warm = ["--users", CASE.users, "--window", WINDOW, "--settle", 0, "--duration", 2]
            bench.run_load("strowger", CASE, process, "call", *warm)
            time.sleep(FORGET)
            sipp, found = Sipp(bench), {}
            for way in random.sample(ways, len(ways)):
                found[kept(rate, way)] = sipp.run(process, rate) if way == SIPP else ours(bench, process, rate, way)
        return found

    keys, seconds = [kept(rate, way) for way in ways], 7 + (SETTLE + MEASURE + 2) * len(ways)
    return Task(f"{rate}/s, {' and '.join(ways)}", keys, measure, "second opinion", seconds, runs, who="strowger")


def rows() -> list[Row]:
    found = []
    for rate in RATES:
        for limit in LIMITS:
            what = f"call at {rate:,}/s, our generator in SIPp's time ÷ SIPp"
            found.append(compare("G2", what, limit, kept(rate, IN_TIME), kept(rate, SIPP), at_least=limit < 1))
    return found


def plan(options: argparse.Namespace) -> Plan:
    title = "The second opinion: strowger under our generator and under SIPp"
    compared, others = [SIPP, IN_TIME], [way for way in WAYS if way != IN_TIME]
    tasks = [each for rate in RATES for each in (task(rate, compared, FEWEST), task(rate, others, 1))]
    return Plan("second-opinion", title, tasks, rows(), tell)


COLUMNS = {
    "server's core, % busy": ("server_busy", 100),
    "generator's µs a call": ("generator_us_each", 1),
    "calls/s": ("completed_per_second", 1),
    "datagrams a call": ("datagrams_each", 1),
    "bytes a datagram": ("bytes_each", 1),
}


def tell(report: Report, samples: Samples) -> None:
    lines = []
    for rate in RATES:
        for way in (SIPP, *WAYS):
            own = kept(rate, way)
            if samples.of(own):
                cells = [single(samples, own, path, scale) for path, scale in COLUMNS.values()]
                lines.append([f"{rate:,}/s", way, single(samples, own), ratio(samples, own, kept(rate, SIPP)), *cells])
    report.table("Server CPU for a call, by who calls", ["rate", "generator", "server, µs a call", "÷ SIPp", *COLUMNS], lines)
    report.table(
        "What differs", ["what", "how"], [text.replace("\n", " ").split(": ", 1) for text in DIFFERENCES.strip().split("\n\n")]
    )


# What differs: a paragraph each.
DIFFERENCES = """
A call's time: SIPp does one thing for a call in each millisecond: its 200 follows the 180, and its BYE the ACK, a millisecond
later. Our generator sends both at once, in one system call, so that the server wakes up once for the two. In SIPp's time it
waits as SIPp does: that is the same load, and what the row compares. At once is what all other commands measure.

Waking: SIPp sleeps between two turns, and so does our generator here; spinning, as everywhere else, it need not be woken at the
server's expense.

Two processes: SIPp's caller and answerer are two, so that a datagram may have to wait for the other to leave the core, or wakes one
that sleeps where the other runs.

Bursts: SIPp sends what has become due since its last turn, and in SIPp's time so does our generator (--turn); at once each call
leaves when its time has come. Datagrams that come together share the server's wake-ups.

Datagrams: headers and body are the same but for the lengths of tags, Call-ID and branch. SIPp sends and receives each datagram by a
system call of its own, ours a batch of those that are there.

What is counted: the scheduler's account of all threads of the server between two moments, ÷ the calls that ended between them. SIPp
tells those moments by the lines of its statistics, one a second; it counts a call when its last 200 has come, as we do.
"""


if __name__ == "__main__":
    main("second-opinion", __doc__, 12, plan)

"""perf/memory: what each thing costs a server in memory: an idle connection over TCP and TLS, a binding, a finished transaction, a
call in progress."""

import argparse
import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import plots
import tasks
from bench import TOP, Bench, main, target
from cases import WINDOW, Case
from machine import Process
from report import Report
from samples import Result, Row, Samples, figure, single
from study import NOTHING, Plan, Task
from tasks import key

# So many idle connections, after a few that came and went, so that what is allocated once does not count.
CONNECTIONS, FIRST = 10_000, 500
IDLE = {"tcp": Case("tcp", "udp", version="1.3"), "tls": Case("tls", "udp", version="1.3")}
# Bindings by whose coming the memory of one is measured. Their numbers have as many digits, so that the first are among the others.
BINDINGS = (110_000, 310_000)
REGISTERED = Case(routed=False)
# Finished transactions are kept long enough to be weighed; the conf's limit on them is from memory, and far above.
LINGER = Case(routed=False, conf={"timers": {"linger": "10m"}}, suffix="long linger")
LINGER_CALLS, LINGER_STEPS = 50_000, 4
# Calls that stand open while the memory is read: so many a second, for so many seconds.
RECORDED = Case(routed=False, conf={"records": {"file": "records.jsonl"}}, suffix="records")
CALL_RATE, HOLD = 5_000, 8
SERVERS = ("strowger", "kamailio")
# What is counted, not timed, hardly differs from one run to the next.
RUNS = 1


def size_key(what: str, who: str = "strowger") -> str:
    return key(what, who, "bytes")


def task(what: str, who: str, seconds: float, measure: Callable[[Bench], Result], least: int = RUNS, **how: Any) -> Task:
    kept = size_key(what, who)

    def measured(bench: Bench) -> dict[str, Result]:
        return {kept: measure(bench)}

    return Task(
        f"memory of {what}, {who}", [kept], measured, "memory", seconds, least, max(least, 4), who=who, minds=NOTHING, **how
    )


def idle_connection(transport: str, who: str) -> Task:
    """Growth of the server's own memory (proportional set size of all its processes). Each has carried one OPTIONS and its 200. The
    kernel's socket and its buffers are not in it: they are the same for every server."""
    case = IDLE[transport]

    def measure(bench: Bench) -> Result:
        with bench.server(who, case) as process:
            command = tasks.idle_command(bench, process, case, "--exchange", "--json", "-")
            tasks.on_core(*command, "--connections", FIRST, "--close", 0.05, "--settle", 1)
            return json.loads(tasks.on_core(*command, "--connections", CONNECTIONS))

    return task(f"an idle {transport.upper()} connection", who, 10 if transport == "tcp" else 16, measure)


def binding(who: str) -> Task:
    def measure(bench: Bench) -> Result:
        sizes = []
        with bench.server(who, REGISTERED) as process:
            for number in BINDINGS:
                # Registered first, and then a moment of refreshing a few.
                options = ["--users", number, "--register-first", "--rate", 100, "--settle", 0, "--duration", 1]
                result = bench.run_load(who, REGISTERED, process, "register", *options)[0]
                sizes.append(process.memory())
        return {**result, "bytes_each": (sizes[1] - sizes[0]) / (BINDINGS[1] - BINDINGS[0])}

    return task("a binding", who, 16, measure, 1)


def footprint() -> Task:
    """What the allocator holds for a binding, from the test that is bound by it."""

    def prepare(bench: Bench) -> None:
        if not bench.options.no_build:
            command = ["cargo", "test", "--quiet", "--profile", "checked", "--test", "footprint", "--no-run"]
            subprocess.run(command, cwd=TOP, check=True)

    def measure(bench: Bench) -> Result:
        built = target(TOP).parent / "checked" / "deps"
        tests = sorted((path for path in built.glob("footprint-*") if not path.suffix), key=lambda path: path.stat().st_mtime)
        if not tests:
            raise RuntimeError("the footprint test is not built: without --no-build it is")
        done = subprocess.run([tests[-1], "--nocapture"], cwd=TOP, capture_output=True, text=True)
        # It fails, too, where a binding is too heavy: then there is a size all the same.
        return weighed(done.stdout + done.stderr)

    return task("a binding, by the allocator", "strowger", 5, measure, 1, prepare=prepare)


def weighed(text: str) -> Result:
    """What the footprint test prints."""
    found = re.search(r"one binding: (\d+) bytes at most", text)
    if not found:
        raise RuntimeError(f"the footprint test says no size: {text[-500:]}")
    sizes = {int(number): int(each) for number, each in re.findall(r"(\d+) bindings: (\d+) bytes each", text)}
    return {"bytes_each": int(found[1]), "by_bindings": sizes}


def transaction() -> Task:
    def measure(bench: Bench) -> Result:
        def run(process: Process, count: int, *more: str) -> Result:
            options = [*more, "--window", WINDOW, "--settle", 0, "--count", count]
            return bench.run_load("strowger", LINGER, process, "call", *options)[0]

        with bench.server("strowger", LINGER) as process:
            before = run(process, 1_000)["server_resident_bytes"][1]
            steps = [run(process, LINGER_CALLS) for _ in range(LINGER_STEPS)]
        calls = sum(step["counts"]["completed"] for step in steps)
        # Two of a call: the INVITE's and the BYE's.
        grown = (steps[-1]["server_resident_bytes"][1] - before) / (2 * calls)
        return {"bytes_each": grown, "calls": calls, "clean": all(step["clean"] for step in steps)}

    return task("a finished transaction", "strowger", 20, measure)


def call() -> Task:
    """Beside as many calls a second that end at once, so that what their transactions take is in both."""

    def measure(bench: Bench) -> Result:
        with bench.server("strowger", RECORDED) as process:

            def run(hold: int) -> Result:
                options = ["--rate", CALL_RATE, "--hold", hold, "--settle", hold + 4, "--duration", 1]
                return bench.run_load("strowger", RECORDED, process, "call", *options)[0]

            without, held = run(0), run(HOLD)
        grown = held["server_resident_bytes"][1] - without["server_resident_bytes"][1]
        standing = held["outstanding_at_end"] - without["outstanding_at_end"]
        clean = without["clean"] and held["clean"] and standing > 0.9 * CALL_RATE * HOLD
        return {**held, "bytes_each": grown / max(standing, 1), "standing": standing, "clean": clean}

    return task("a call in progress with records", "strowger", 32, measure)


def row(name: str, what: str, limit: float, text: str) -> Row:
    return figure(name, text, limit, size_key(what), "bytes_each", unit="B", fewest=RUNS)


def plan(options: argparse.Namespace) -> Plan:
    found = [idle_connection(transport, who) for transport in IDLE for who in SERVERS]
    found += [*map(binding, SERVERS), footprint(), transaction(), call()]
    rows = [
        row("M1", "an idle TCP connection", 400, "idle TCP connection"),
        row("M2", "an idle TLS connection", 4_000, "idle TLS 1.3 connection"),
        row("M3", "a binding, by the allocator", 350, "binding, all told"),
        row("M4", "a finished transaction", 600, f"finished transaction, of {2 * LINGER_CALLS * LINGER_STEPS:,}"),
        row("M5", "a call in progress with records", 400, f"call in progress with records, of {CALL_RATE * HOLD:,}"),
    ]
    return Plan("memory", "Memory of connections, bindings, transactions and calls", found, rows, tell)


WHAT = [
    "an idle TCP connection",
    "an idle TLS connection",
    "a binding",
    "a binding, by the allocator",
    "a finished transaction",
    "a call in progress with records",
]


def tell(written: Report, samples: Samples) -> None:
    found = {what: [single(samples, size_key(what, who), "bytes_each") for who in SERVERS] for what in WHAT}
    found = {what: sizes for what, sizes in found.items() if any(sizes)}
    if not found:
        return
    lines = [[what, *(size and size.text(0) for size in sizes)] for what, sizes in found.items()]
    written.table("Bytes of the server's own memory for each", ["", "strowger", "Kamailio"], lines)
    connections = {what: sizes for what, sizes in found.items() if "connection" in what}
    others = {what: sizes for what, sizes in found.items() if "connection" not in what}
    panels = [panel for panel in (connections, others) if panel]
    chart, axes = plots.figure(7.6, 0.9 + 0.75 * len(found), rows=len(panels), squeeze=False)
    for place, panel in zip(axes[:, 0], panels):
        columns = zip(("strowger", "Kamailio"), plots.COLOURS, zip(*panel.values()))
        groups = [
            (who, [size and size.value for size in sizes], [size and f"{size.value:,.0f}" for size in sizes], {"color": colour})
            for who, colour, sizes in columns
        ]
        plots.lying(place, [what.removeprefix("a ").removeprefix("an ") for what in panel], groups)
        place.margins(x=0.12)
        place.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes[-1, 0].set_xlabel("Bytes for each")
    axes[0, 0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    plots.add(written, chart, "memory", "Memory of the server for each connection, binding, transaction and call")


if __name__ == "__main__":
    main("memory", __doc__, 6, plan)

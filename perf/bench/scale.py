"""perf/scale: what a call costs beside more and more idle connections, and among more and more users, each with a binding; and the
tables of connections and users alone, in memory."""

import argparse
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import plots
from bench import CORE, Bench, main
from cases import WINDOW, Case
from machine import Process, run
from report import PERF, Report
from samples import Quantity, Result, Row, Samples, compare, figure, highest, ratio, single
from study import Plan, Task
from tasks import FORGET, idle_command, key, rate, window

# A process has 20,000 descriptors on many machines; strowger's own default leaves more of them for other things than there are to
# spare.
IDLE, IDLE_MOST = (0, 2_000, 19_000), 19_500
# The load is the same: what lies idle beside it differs.
CALLS = Case("tcp", "tcp")
SERVER = {"tcp": CALLS, "tls": Case("tls", "tcp", version="1.3")}
LOADS = (rate(1_000), window())
SERVERS = ("strowger", "kamailio")
USERS = (100, 10_000, 1_000_000)
# REGISTERs and calls of all users in turn.
MODES = ("register", "call")
# Each takes long, and two that agree tell: a third one only where they do not.
RUNS = 2
# Row A2: cache lines that a lookup touches: the hash table's marks, its entry, and the user's hash.
MISSES = 3
# Row I1, the table alone: a step among the most ÷ (among the fewest, and as many cache misses as it has lines to fetch).
STEPS = {
    "find": "found by its token",
    "address": "found by its address",
    "renew": "renewed: to the young end of the idle",
    "turnover": "closed, and another opened",
    "sweep": "one sweep in which none is overdue",
}
MOST_OF = {"connections": "1,000,000 connections", "users": "10,000,000 users"}


# What is measured.


@contextlib.contextmanager
def idle_connections(bench: Bench, process: Process, transport: str, number: int, index: int) -> Iterator[None]:
    """Opens connections from addresses of their own, and leaves them open until the end of the block."""
    done = os.path.join(bench.home, f"idle-{index}.json")
    command = ["taskset", "-c", CORE, *idle_command(bench, process, SERVER[transport], "--connections", number, "--settle", 1)]
    command += ["--hold", 3_600, "--json", done]
    command += ["--sources", 1] if ":" in bench.address else ["--local", f"127.0.{index + 1}.1"]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(done)
    child = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    try:
        while not os.path.exists(done):
            if child.poll() is not None:
                raise RuntimeError(f"{number:,} idle connections could not be opened")
            time.sleep(0.1)
        yield
    finally:
        child.kill()
        child.wait()


def idle_key(transport: str, number: int, who: str, load: Any) -> str:
    return key(f"beside {number:,} idle {transport}", who, load)


def beside_idle(transport: str, who: str) -> Task:
    """The same calls beside more and more idle connections, in one server; each cost also as a multiple of that beside none, which
    is surer than that of two servers."""
    case = SERVER[transport]
    if who == "strowger":
        case = case.with_(conf={"connections": {"max": IDLE_MOST}})

    def measure(bench: Bench) -> dict[str, Result]:
        found: dict[str, Result] = {}
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(bench.server(who, case))
            for index, number in enumerate(IDLE):
                if number:
                    stack.enter_context(idle_connections(bench, process, transport, number - IDLE[index - 1], index))
                for load in LOADS:
                    options = [*load.options, "--settle", FORGET, "--duration", bench.measure]
                    if not found:
                        options += ["--warm", bench.settle, "--warm-window", WINDOW, "--rest", FORGET]
                    result = bench.run_load(who, CALLS, process, "call", *options, is_sliced=True)[0]
                    pair = result, found.get(idle_key(transport, 0, who, load), result)
                    if not any(map(bench.samples.why_not_calm, pair)):
                        cost, none = (bench.samples.as_calm(each)["server_cpu_us_each"] for each in pair)
                        result["to_none"] = cost / none
                    found[idle_key(transport, number, who, load)] = result
        return found

    keys = [idle_key(transport, number, who, load) for number in IDLE for load in LOADS]
    return Task(f"beside idle {transport}, {who}", keys, measure, "", 32 if transport == "tcp" else 45, 1, who=who, is_sliced=True)


def users_key(number: int, auth: bool, mode: str) -> str:
    return key(f"{number:,} users{', each challenged' if auth else ''}", load=mode)


def among_users(number: int, auth: bool) -> Task:
    """As many users are registered, with the contacts at which they are then called. Nothing is challenged, or each request."""

    def measure(bench: Bench) -> dict[str, Result]:
        found = {}
        kinds = {mode: ("call" if mode == "call" else "register") if auth else "" for mode in MODES}
        conf = {"auth": {"challenge_proxy": True, "challenge_register": True}} if auth else {}
        case = Case(routed=False, auth=kinds["register"], users=number, conf=conf)
        with bench.server("strowger", case) as process:
            for mode in MODES:
                options = ["--users", number, "--window", WINDOW, "--settle", bench.settle, "--duration", bench.measure]
                # When they are called they are there.
                options += ["--register-first"] if mode == "register" else []
                result = bench.run_load(
                    "strowger", case.with_(auth=kinds[mode]), process, mode, *options, registers=False, is_sliced=True
                )[0]
                found[users_key(number, auth, mode)] = {**result, "memory": process.memory()}
        return found

    name = f"{number:,} users{', each challenged' if auth else ''}"
    seconds = 10 + number / (20_000 if auth else 40_000)
    return Task(
        name, [users_key(number, auth, mode) for mode in MODES], measure, "users", seconds, 1, who="strowger", is_sliced=True
    )


def alone(name: str) -> Task:
    """perf/connections and perf/users: the tables without a socket. Each is a median of rounds already."""

    def prepare(bench: Bench) -> None:
        if not bench.options.no_build:
            subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", name], cwd=PERF / "micro-bench", check=True)

    def measure(bench: Bench) -> dict[str, Result]:
        return {name: {"rows": json.loads(run(PERF / name, "--json"))["rows"]}}

    return Task(f"perf/{name}", [name], measure, "", 30, 1, 3, prepare=prepare, who="strowger")


# What must hold.


def table_rows() -> list[Row]:
    steps = [step for step in STEPS if step != "sweep"]
    places = {"many": "rows.-1.steps.{}.ns", "few": "rows.0.steps.{}.ns", "lines": "rows.0.steps.{}.lines"}
    of = {f"{step}_{end}": Quantity("connections", path.format(step)) for step in steps for end, path in places.items()}
    sweeps = {end: Quantity("connections", f"rows.{place}.steps.sweep.least_ns") for end, place in (("over", -1), ("under", 0))}
    lookup = {"many": "rows.-1.lookup_ns", "few": "rows.0.lookup_ns", "miss": "rows.-1.miss_ns"}

    def worst_step(miss: Any, **ns: Any) -> Any:
        return highest([ns[f"{step}_many"] / (ns[f"{step}_few"] + ns[f"{step}_lines"] * miss) for step in steps])

    return [
        Row("I1", f"a sweep of the table alone, {MOST_OF['connections']} ÷ 1,000", 1.03, sweeps, fewest=1),
        Row(
            "I1",
            f"worst step in the table alone, {MOST_OF['connections']} ÷ (1,000, and its cache misses)",
            2,
            {**of, "miss": Quantity("connections", "rows.-1.miss_ns")},
            worst_step,
            fewest=1,
        ),
        Row(
            "A2",
            f"a lookup in memory among {MOST_OF['users']} ÷ (among 100, and {MISSES} cache misses)",
            1.5,
            {name: Quantity("users", path) for name, path in lookup.items()},
            lambda many, few, miss: many / (few + MISSES * miss),
            fewest=1,
        ),
    ]


def rows() -> list[Row]:
    call, most = LOADS[0], f"{IDLE[-1]:,}"
    beside = [
        figure(
            "I1",
            f"call at {call.name} beside {most} idle {transport.upper()} connections ÷ beside none",
            1.03,
            idle_key(transport, IDLE[-1], "strowger", call),
            "to_none",
            fewest=RUNS,
        )
        for transport in SERVER
    ]
    many, few = (users_key(number, True, "register") for number in (USERS[-1], USERS[0]))
    what = f"REGISTER, each challenged, among {USERS[-1]:,} users ÷ among {USERS[0]}"
    return [*beside, *table_rows(), compare("A2", what, 1.5, many, few, fewest=RUNS)]


def plan(options: argparse.Namespace) -> Plan:
    found = [beside_idle(transport, who) for transport in SERVER for who in SERVERS]
    found += [among_users(number, auth) for number in USERS for auth in (False, True)]
    return Plan("scale", "How costs scale", [*found, alone("connections"), alone("users")], rows(), tell)


# What is said.


def tell(written: Report, samples: Samples) -> None:
    tell_idle(written, samples)
    tell_users(written, samples)
    tell_table(written, samples)
    tell_lookups(written, samples)


def tell_idle(written: Report, samples: Samples) -> None:
    curves: dict[str, list[tuple[str, str, list[tuple[float, float]]]]] = {}
    for load in LOADS:
        lines = []
        for transport in SERVER:
            for who in SERVERS:
                points = []
                for number in IDLE:
                    kept = idle_key(transport, number, who, load)
                    if cost := single(samples, kept):
                        points.append((number / 1_000, cost.value))
                        busy = single(samples, kept, "generator_busy", 100)
                        lines.append([f"{number:,} {transport.upper()}", who, cost, single(samples, kept, "to_none"), busy])
                if points:
                    curves.setdefault(load.name, []).append((who, transport, points))
        head = ["idle connections", "server", "CPU of a call, µs", "÷ none", "generator's core, % busy"]
        written.table(f"Server CPU for each TCP call beside idle connections, {load.name}", head, lines)
    if not curves:
        return
    chart, axes = plots.figure(8.6, 4.2, columns=len(curves), squeeze=False)
    for place, (load_name, found) in zip(axes[0], curves.items()):
        for who, transport, points in found:
            draw = plots.ours if who == "strowger" else plots.theirs
            draw(place, list(SERVER).index(transport), points, f"{who}, {transport.upper()}")
        place.set_ylim(0, 1.15 * max(y for _, _, points in found for _, y in points))
        place.set(xlabel="Idle connections, thousands", ylabel="Server CPU for each call, µs", title=load_name)
        place.legend()
    plots.add(written, chart, "scale-idle", "Server CPU for each TCP call beside idle connections in the same server")


def tell_users(written: Report, samples: Samples) -> None:
    lines, curves = [], []
    for mode, title in zip(MODES, ("REGISTER", "call")):
        for auth in (False, True):
            points, first = [], users_key(USERS[0], auth, mode)
            text = f"{title}{', each challenged' if auth else ''}"
            for number in USERS:
                kept = users_key(number, auth, mode)
                if cost := single(samples, kept):
                    points.append((number, cost.value))
                    rates = single(samples, kept, "completed_per_second"), single(samples, kept, "memory", 1e-6)
                    lines.append([text, f"{number:,}", cost, ratio(samples, kept, first), *rates])
            if points:
                curves.append((text, points))
    head = ["", "users, each with a binding", "server CPU, µs", "÷ the fewest", "each second", "server's memory, MB"]
    written.table("REGISTERs and calls of all users in turn, at saturation over UDP", head, lines)
    if curves:
        chart, axes = plots.figure()
        for number, (text, points) in enumerate(curves):
            plots.ours(axes, number, points, text)
        plots.log_axis(axes)
        axes.set_ylim(0, 1.15 * max(y for _, points in curves for _, y in points))
        axes.set(xlabel="Users, each with one binding", ylabel="Server CPU, µs")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        plots.add(written, chart, "scale-users", "Server CPU for each registration and call among more and more users")


def tell_table(written: Report, samples: Samples) -> None:
    if not samples.of("connections"):
        return
    tables = samples.of("connections")[-1]["rows"]
    lines = [
        [words, *(single(samples, "connections", f"rows.{place}.steps.{step}.ns") for place in range(len(tables)))]
        for step, words in STEPS.items()
    ]
    for path, words in (("miss_ns", "one cache miss in as much memory"), ("bytes_each", "bytes each, with both indices")):
        lines.append([words, *(single(samples, "connections", f"rows.{place}.{path}") for place in range(len(tables)))])
    head = ["", *(f"{row['connections']:,}" for row in tables)]
    written.table("The table of connections without sockets, ns (perf/connections)", head, lines)
    chart, axes = plots.figure()
    for number, (step, words) in enumerate(STEPS.items()):
        plots.ours(axes, number, [(row["connections"], row["steps"][step]["ns"]) for row in tables], words)
    misses = [row["miss_ns"] for row in tables]
    axes.plot([row["connections"] for row in tables], misses, color=plots.GREY, linestyle=":", label="one cache miss")
    plots.log_axis(axes)
    axes.set_ylim(0)
    axes.set(xlabel="Connections in the table", ylabel="Time, ns")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    plots.add(
        written, chart, "scale-table", "Steps in the table of connections, without sockets, beside one cache miss in as much memory"
    )


def tell_lookups(written: Report, samples: Samples) -> None:
    if samples.of("users"):
        tables = samples.of("users")[-1]["rows"]
        keys = ("lookup_ns", "miss_ns", "check_ns", "bytes_each")
        lines = [
            [f"{row['users']:,}", *(single(samples, "users", f"rows.{place}.{each}") for each in keys)]
            for place, row in enumerate(tables)
        ]
        head = ["users", "one lookup", "one cache miss in a table of that size", "lookup and check of a digest", "bytes each"]
        written.table("A user's lookup in memory, ns (perf/users)", head, lines)


if __name__ == "__main__":
    main("scale", __doc__, 15, plan)

"""perf/cluster: what it costs several strowgers to share their location table through Redis, how fast they do, and how long it
takes to join them."""

import argparse
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import servers
from attack import legit
from bench import CORE, Bench, main
from cases import WINDOW, Case
from machine import Process, tcp_port_listens
from propagation import measure
from report import Report
from samples import Estimate, Result, Samples, compare, figure, ratio, single
from study import FEWEST, Plan, Task
from tasks import FORGET

HOSTS = ("127.0.0.2", "127.0.0.3")
REDIS_PORT = 11_319
# Only a binding that is new, or has moved, is told to the others: each of these users registers once, so many a second.
CHANGES, CHANGE_RATE = 30_000, 2_000
TABLE = 1_000_000
# Of the phones that register, one in so many is asked for at the other server, for so many seconds.
SAMPLED, PROBE_SECONDS = 20, 10
# For the share of REGISTERs that are told: phones with this expiry, in seconds, that refresh after half of it, for so many minutes.
EXPIRES, PHONES, TOLD_MINUTES = 60, 3_000, 7
RATE = 1_000
BY_CONTACT = Case("udp", "udp", False, suffix="by contact")
# The callee's own connection; where it is another server's, the two of them relay.
FLOW = ("--callee", "flow", "--callee-connections", "16", "--hops", "2")
BY_CONNECTION = Case("udp", "tcp", False, extra=FLOW, suffix="by connection")
WAYS = {"over UDP, by the contact": BY_CONTACT, "over TCP, by its connection": BY_CONNECTION}
LOADS = {f"{RATE:,}/s": ("--rate", RATE), "saturation": ("--window", WINDOW)}
PLACES = ("at the same server", "at another")


def redis(bench: Bench) -> Process:
    port = bench.port + REDIS_PORT
    command = ["redis-server", "--bind", bench.address, "--port", str(port), "--save", "", "--dir", bench.home]
    process = Process(command, CORE, bench.home, os.path.join(bench.home, "redis.log"))
    wait(lambda: tcp_port_listens(port), 10, "redis-server does not listen")
    return process


class Node:
    """One strowger of several, or one alone. `seconds`: how long it took until it served."""

    def __init__(self, bench: Bench, number: int, is_shared: bool = True, expires: str = "1h") -> None:
        self.bench, self.name = bench, f"node-{number}"
        self.host = (bench.address, *HOSTS)[number]
        conf = servers.strowger_conf(BY_CONNECTION, bench)
        for listen in conf["listen"]:
            listen["address"] = self.at()
        conf["control"] = {"socket": os.path.join(bench.home, f"{self.name}.sock")}
        shared = f"redis://{bench.address}:{bench.port + REDIS_PORT}/0"
        conf["location"] = {"shared": shared if is_shared else "", "node": self.name}
        conf["registrar"] |= {"max_expires": expires, "default_expires": expires}
        # Trusted are the servers, and the phones of all users.
        conf["limits"] = {"trusted_sources": ["127.0.0.0/8", bench.address], "bindings": 2 * TABLE}
        path = Path(bench.home, f"{self.name}.toml")
        path.write_text(servers.toml(conf))
        begun = time.monotonic()
        command = [str(bench.strowger), "run", "-c", str(path)]
        self.process = Process(command, 0, bench.home, os.path.join(bench.home, f"{self.name}.log"))
        wait(lambda: self.stat("process_start_time_seconds") is not None, 120, f"{self.name} does not serve", 0.01)
        self.seconds = time.monotonic() - begun

    def at(self) -> str:
        return f"{self.host}:{self.bench.port}"

    def stat(self, name: str) -> float | None:
        """One metric, without labels; None if the server does not answer."""
        command = [str(self.bench.strowger), "stats", name, "--json", "--control", f"{self.bench.home}/{self.name}.sock"]
        done = subprocess.run(command, capture_output=True, text=True)
        return None if done.returncode else json.loads(done.stdout).get(name)

    def wait_told(self, seconds: float) -> None:
        wait(lambda: self.stat("strowger_shared_untold") == 0, seconds, "Redis was not told of all changes")

    def resident_mb(self) -> float:
        resident = legit.resident(self.process.pid)
        assert resident is not None
        return resident / (1 << 20)


def wait(until: Callable[[], bool], seconds: float, otherwise: str, pause: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise RuntimeError(otherwise)
        time.sleep(pause)


@contextlib.contextmanager
def running(bench: Bench, count: int, is_shared: bool = True, expires: str = "1h") -> Iterator[tuple[Process | None, list[Node]]]:
    """A fresh Redis, if it is needed, and so many servers; ended at the end of the block."""
    with contextlib.ExitStack() as stack:
        shared = redis(bench) if is_shared else None
        if shared:
            stack.callback(shared.stop)
        nodes = []
        for number in range(count):
            nodes.append(Node(bench, number, is_shared, expires))
            stack.callback(nodes[-1].process.stop)
        yield shared, nodes


def load(bench: Bench, node: Node, mode: str, *options: object, case: Case = BY_CONTACT, register_server: str = "") -> Result:
    return bench.run_load("strowger", case, node.process, mode, *options, register_server=register_server)[0]


def warmed(bench: Bench, *options: object) -> tuple[object, ...]:
    return ("--users", BY_CONTACT.users, "--settle", bench.settle, "--duration", bench.measure, *options)


# What is run.


def register(is_shared: bool) -> Task:
    """A REGISTER that refreshes, and a call, at one server."""
    name = "shared" if is_shared else "alone"

    def measure(bench: Bench) -> dict[str, Result]:
        with running(bench, 1, is_shared) as (_, (node,)):
            window = warmed(bench, "--window", WINDOW)
            return {f"{mode}|{name}": load(bench, node, mode, *window) for mode in ("call", "register")}

    return Task(f"call and REGISTER, {name}", [f"{mode}|{name}" for mode in ("call", "register")], measure, "register", 15)


def changes(number: int) -> Task:
    """New bindings at the first of so many servers; 0: one that shares nothing."""

    def measure(bench: Bench) -> dict[str, Result]:
        with running(bench, max(number, 1), number > 0) as (shared, nodes):
            all_ = [*(node.process for node in nodes), *([shared] if shared else [])]
            before = [process.cpu_seconds() for process in all_]
            options = ["--users", CHANGES, "--count", CHANGES, "--settle", 0, "--rate", CHANGE_RATE]
            result = load(bench, nodes[0], "register", *options, "--duration", 2 * CHANGES / CHANGE_RATE)
            if shared:
                nodes[0].wait_told(30)
                time.sleep(1)
            done = max(1, result["counts"]["completed"])
            spent = [1e6 * (process.cpu_seconds() - cpu) / done for process, cpu in zip(all_, before)]
            others = spent[1 : len(nodes)]
            result |= {"own_us": spent[0], "other_us": sum(others) / len(others) if others else None}
            return {f"changes|{number}": {**result, "redis_us": spent[-1] if shared else None}}

    return Task(f"new bindings at one of {number}", [f"changes|{number}"], measure, "changes", CHANGES / CHANGE_RATE + 5)


def calls(what: str, place: int) -> Task:
    """Calls through the first server, the callee registered at it or at the second. Counted is the CPU of both."""
    case = WAYS[what]

    def measure(bench: Bench) -> dict[str, Result]:
        with running(bench, 2) as (_, nodes):
            at = nodes[place].at()
            flow = case is BY_CONNECTION
            more: list[object] = ["--server-pid", nodes[1].process.pid, *(["--callee-server", at] if flow else [])]
            found = {}
            for name, options in LOADS.items():
                chosen = warmed(bench, *more, *options)
                found[f"{what}|{place}|{name}"] = load(bench, nodes[0], "call", *chosen, case=case, register_server=at)
                time.sleep(FORGET)
            return found

    return Task(f"calls {what}, callee {PLACES[place]}", [f"{what}|{place}|{name}" for name in LOADS], measure, what, 20)


def propagation(bench: Bench) -> dict[str, Result]:
    own = os.sched_getaffinity(0)
    with running(bench, 2) as (_, nodes):
        at, asked = ((node.host, bench.port) for node in nodes)
        os.sched_setaffinity(0, {CORE})
        try:
            delays, lost = measure(at, asked, bench.address, CHANGE_RATE, PROBE_SECONDS, SAMPLED)
        finally:
            os.sched_setaffinity(0, own)
    shares = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999, "longest": 1}
    figures = {name: 1_000 * float(numpy.quantile(delays, share)) for name, share in shares.items()}
    return {"propagation": {**figures, "samples": len(delays), "lost": lost, "clean": lost == 0}}


def joining(bench: Bench) -> dict[str, Result]:
    with running(bench, 1) as (_, (node,)):
        load(bench, node, "register", "--users", TABLE, "--count", TABLE, "--settle", 0, "--window", 256, "--duration", 900)
        node.wait_told(300)
        joined = Node(bench, 1)
        try:
            there, held = node.stat("strowger_bindings"), joined.stat("strowger_bindings")
            memory = {"resident_mb": joined.resident_mb(), "first_resident_mb": node.resident_mb()}
            whole = there is not None and held == there >= 0.99 * TABLE
            return {"joining": {"seconds": joined.seconds, "bindings": held, "of": there, **memory, "clean": whole}}
        finally:
            joined.process.stop()


def told(bench: Bench) -> dict[str, Result]:
    """Phones that refresh at half their expiry, long enough for the table to be told anew."""
    with running(bench, 1, expires=f"{EXPIRES}s") as (_, (node,)):
        options = ["--users", PHONES, "--rate", PHONES / (EXPIRES / 2), "--settle", 0, "--wait", "sleep"]
        result = load(bench, node, "register", *options, "--duration", 60 * TOLD_MINUTES)
        changes = node.stat("strowger_shared_told_total") or 0
        return {"told": {**result, "told": changes, "share": changes / max(1, result["counts"]["completed"])}}


ROWS = [
    compare("W1", "REGISTER that refreshes, shared ÷ alone", 1.2, "register|shared", "register|alone"),
    figure(
        "W1",
        f"from one server's 200 until another knows it, p99, at {CHANGE_RATE:,} changes/s",
        50,
        "propagation",
        "p99",
        unit="ms",
    ),
    figure("W1", f"a server joins {TABLE:,} bindings", 10, "joining", "seconds", unit="s"),
    figure("W2", "share of the REGISTERs that are told to Redis, first ones included", 0.2, "told", "share"),
]


def plan(options: argparse.Namespace) -> Plan:
    found = [register(False), register(True), *map(changes, range(4))]
    found += [calls(what, place) for what in WAYS for place in (0, 1)]
    found.append(Task("propagation", ["propagation"], propagation, seconds=PROBE_SECONDS + 5))
    found.append(Task("joining", ["joining"], joining, seconds=90))
    found.append(Task("told", ["told"], told, seconds=60 * TOLD_MINUTES + 10, least=FEWEST, most=FEWEST))
    return Plan("cluster", "Several strowgers with one location table", found, ROWS, tell)


def tell(report: Report, samples: Samples) -> None:
    def table(title: str, head: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Without the lines of which nothing was measured."""
        report.table(title, head, [line for line in lines if any(isinstance(cell, Estimate) for cell in line)])

    modes = (("register", "REGISTER that refreshes"), ("call", "call"))
    pairs = [(words, f"{mode}|alone", f"{mode}|shared", "server_cpu_us_each") for mode, words in modes]
    pairs.append((f"new binding, at {CHANGE_RATE:,}/s, all threads", "changes|0", "changes|1", "own_us"))
    lines = [[words, single(samples, a, path), single(samples, b, path), ratio(samples, b, a, path)] for words, a, b, path in pairs]
    table("CPU of a server, µs, at saturation if nothing else is said", ["", "alone", "shared", "ratio"], lines)
    paths: tuple[str, ...] = ("own_us", "other_us", "redis_us")
    head = ["servers", "the server that is registered at", "each of the others", "Redis"]
    lines = [[str(number or "1, alone"), *(single(samples, f"changes|{number}", path) for path in paths)] for number in range(4)]
    table(f"CPU of a new binding, µs, at {CHANGE_RATE:,}/s, all threads", head, lines)
    lines = []
    for what in WAYS:
        for name in LOADS:
            same, other = (f"{what}|{place}|{name}" for place in (0, 1))
            lines.append([f"{what}, {name}", single(samples, same), single(samples, other), ratio(samples, other, same)])
    table("CPU of a call in both servers together, µs", ["callee", *PLACES, "ratio"], lines)
    for key, title, paths in (
        ("propagation", "From one server's 200 until another knows it, ms", ("p50", "p99", "p99_9", "longest")),
        ("joining", "A server joins", ("bindings", "of", "seconds", "resident_mb", "first_resident_mb")),
        ("told", "What Redis sees", ("counts.completed", "told", "share")),
    ):
        table(title, paths, [[single(samples, key, path) for path in paths]])


if __name__ == "__main__":
    main("cluster", __doc__, 60, plan)

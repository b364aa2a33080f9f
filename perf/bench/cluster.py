"""perf/cluster: what it costs several strowgers to share their location table through Redis, and how fast they do."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time

import machine
import udp
from contestants import PERF, fill
from generator import Generator
from machine import Process
from propagation import Probe, quantile
from report import Report, Series

PARTS = ["register", "changes", "calls", "propagation", "joining", "told"]
REDIS_PORT = 16379
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
PORT = 5060
WINDOW = 48
# Each of them registers once: only a binding that is new, or has moved, is told to the others.
CHANGES, QUICK_CHANGES = 100_000, 30_000
TABLE, QUICK_TABLE = 1_000_000, 100_000
PROPAGATION_RATE = 2000
# For the share of REGISTERs that are told: phones with this expiry, in seconds, that refresh after half of it.
TOLD_EXPIRES, TOLD_USERS = 60, 3000


class Redis:
    def __init__(self, directory):
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(REDIS_PORT), "--save", "", "--dir", directory]
        self.process = Process(command, 1, directory, os.path.join(directory, "redis.log"))
        wait(lambda: connects(("127.0.0.1", REDIS_PORT)), 10, "redis-server does not listen")

    url = f"redis://127.0.0.1:{REDIS_PORT}/0"

    def cpu(self):
        return self.process.cpu_seconds()

    def stop(self):
        self.process.stop()


class Node:
    """One strowger. `name` is what the generator's results say; on the floor of a comparison nothing is shared."""

    floor = False

    def __init__(self, bench, number, shared, expires="1h"):
        self.name = f"node {number}"
        self.address = (HOSTS[number], PORT)
        self.directory, self.binary, self.node = bench.directory, bench.strowger, f"node-{number}"
        self.conf = os.path.join(bench.directory, f"{self.node}.toml")
        values = {"ADDRESS": f"{HOSTS[number]}:{PORT}", "SHARED": shared, "NODE": self.node, "EXPIRES": expires}
        fill(os.path.join(PERF, "conf", "cluster.toml.in"), self.conf, values)
        self.process, self.seconds = None, None

    def start(self):
        begun = time.monotonic()
        log = os.path.join(self.directory, f"{self.node}.log")
        self.process = Process([self.binary, "run", "-c", self.conf], 0, self.directory, log)
        self.pid = self.process.pid
        wait(lambda: self.stat("process_start_time_seconds", None) is not None, 120, f"{self.node} does not serve", 0.01)
        self.seconds = time.monotonic() - begun
        return self

    def cpu(self):
        return self.process.cpu_seconds()

    def resident(self):
        with open(f"/proc/{self.pid}/status") as text:
            return next(int(line.split()[1]) for line in text if line.startswith("VmRSS")) * 1024

    def stat(self, name, otherwise):
        """One metric, without labels."""
        command = [self.binary, "stats", name, "--json", "--control", os.path.join(self.directory, f"{self.node}.sock")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return otherwise
        return json.loads(done.stdout).get(name, otherwise)

    def stop(self):
        if self.process:
            self.process.stop()


def connects(address):
    with socket.socket() as one:
        return one.connect_ex(address) == 0


def wait(until, seconds, otherwise, pause=0.05):
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise RuntimeError(otherwise)
        time.sleep(pause)


class Bench:
    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory
        self.strowger, generator = udp.build(arguments)
        self.generator = Generator(generator, directory, arguments.verbose)
        self.rounds = arguments.rounds or (1 if arguments.quick else 5)
        self.duration = 3 if arguments.quick else 8
        settings = (
            f"{self.rounds} round(s), load average at the start {machine.load_average():.2f}; "
            "the servers on core 0, Redis and the generator on core 1"
        )
        self.report = Report("Several strowgers with one location table", machine.describe(), settings)
        self.running = []

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def start(self, what):
        self.running.append(what)
        return what

    def clear(self):
        while self.running:
            self.running.pop().stop()

    def nodes(self, count, is_shared=True, **more):
        """A fresh Redis, if it is needed, and so many servers; what ran before is stopped."""
        self.clear()
        redis = self.start(Redis(self.directory)) if is_shared else None
        shared = Redis.url if is_shared else ""
        return redis, [self.start(Node(self, number, shared, **more)).start() for number in range(count)]

    def load(self, mode, node, label, *options):
        results = self.generator.run(mode, node, node, "--server", f"{node.address[0]}:{PORT}", "--domain", "127.0.0.1", *options)
        for result in results:
            result["label"] = label
            self.report.raw.append(result)
        return results

    # What is run.

    def register(self):
        """A REGISTER that refreshes, and a call, with and without sharing, in turn."""
        loads = ["--warm", 4, "--rest", 6, "--window", WINDOW, "--duration", self.duration]
        found = {}
        for number in range(self.rounds):
            for is_shared in [False, True] if number % 2 == 0 else [True, False]:
                label = "shared" if is_shared else "alone"
                self.say(f"  REGISTER and call, {label}, round {number + 1}")
                _, (node,) = self.nodes(1, is_shared)
                for mode, more in [("call", ["--register-first"]), ("register", [])]:
                    found.setdefault((mode, label), []).extend(self.load(mode, node, f"{mode} {label}", *more, *loads))
        lines = []
        for mode, what, target in [("register", "REGISTER that refreshes", 1.2), ("call", "call", None)]:
            alone, shared = (Series(found[mode, label], udp.cpu) for label in ["alone", "shared"])
            ratio = shared.median / alone.median
            lines.append([what, alone.text(), shared.text(), f"{ratio:.3f}"])
            if target:
                sound = alone.is_sound and shared.is_sound
                self.report.row("S1", f"{what}, shared ÷ alone", f"≤ {target}", f"{ratio:.3f}", ratio <= target if sound else None)
        self.report.table("CPU of a server, µs, at saturation", ["", "alone", "shared", "ratio"], lines)

    def changes(self):
        """Only changes: each user registers once, at the first of one, two and three servers; alone, for comparison."""
        count = QUICK_CHANGES if self.arguments.quick else CHANGES
        lines, first = [], {}
        for number in [0, 1, 2, 3]:
            own, others, redis_each = [], [], []
            for _ in range(self.rounds):
                self.say(f"  {count:,} new bindings at one of {number or 1} server(s){'' if number else ', alone'}")
                redis, nodes = self.nodes(max(number, 1), number > 0)
                before = [node.cpu() for node in nodes], redis.cpu() if redis else 0
                options = ["--users", count, "--count", count, "--settle", 0, "--rate", 2000, "--duration", 2 * count / 2000]
                (result,) = self.load("register", nodes[0], f"changes {number}", *options)
                if number:
                    wait(lambda: nodes[0].stat("strowger_shared_untold", 1) == 0, 30, "Redis was not told of all changes")
                    time.sleep(1)
                done = result["counts"]["completed"]
                spent = [1e6 * (node.cpu() - cpu) / done for node, cpu in zip(nodes, before[0])]
                own.append(spent[0])
                others.extend(spent[1:])
                redis_each.append(1e6 * ((redis.cpu() if redis else 0) - before[1]) / done)
            first[number] = median(own)
            cells = [median(values) and f"{median(values):.1f}" or "—" for values in [own, others, redis_each]]
            lines.append([number or "1, alone", *cells])
        head = ["servers", "the server that is registered at", "each of the others", "Redis"]
        self.report.table("CPU of a new binding, µs, at 2,000/s, all threads", head, lines)
        if first.get(0):
            ratio = first[1] / first[0]
            text = f"{ratio:.2f} ({first[1]:.1f} ÷ {first[0]:.1f} µs)"
            self.report.row("S2", "REGISTER that changes something, shared ÷ alone, all threads", "—", text, None)

    def calls(self):
        """Calls through the first server: the callee registered at it, or at the second; by its contact, or by a connection."""
        loads = ["--warm", 3, "--rest", 6, "--rate", 1000, "--window", WINDOW, "--duration", self.duration]
        by_connection = ["--callee-transport", "tcp", "--callee", "flow", "--callee-connections", 16, "--hops", 2]
        lines = []
        for what, options in [("over UDP, by the contact", []), ("over TCP, by its connection", by_connection)]:
            cells = {}
            for place in [0, 1] * self.rounds:
                self.say(f"  calls {what}, the callee at {'another' if place else 'the same'} server")
                _, nodes = self.nodes(2)
                at = f"{nodes[place].address[0]}:{PORT}"
                where = ["--callee-server", at] if options else ["--register-server", at]
                # Watched are both, so that what the second does for a call counts.
                both = ["--server-pid", nodes[1].pid]
                for result in self.load("call", nodes[0], f"{what} {place}", "--register-first", *options, *where, *both, *loads):
                    cells.setdefault((place, result["rate_or_window"]), []).append(result)
            for load in [1000.0, WINDOW]:
                same, other = (Series(cells.get((place, load), []), udp.cpu) for place in [0, 1])
                text = "1,000/s" if load == 1000.0 else "saturation"
                ratio = f"{other.median / same.median:.2f}" if same and other else "—"
                lines.append([f"{what}, {text}", same.text(), other.text(), ratio])
        head = ["", "callee at the same server", "callee at another", "ratio"]
        self.report.table("CPU of a call in both servers together, µs", head, lines)

    def propagation(self):
        seconds = 10 if self.arguments.quick else 30
        lines, delays, lost = [], [], 0
        for number in range(self.rounds):
            self.say(f"  propagation at {PROPAGATION_RATE:,} changes/s, round {number + 1}")
            _, nodes = self.nodes(2)
            os.sched_setaffinity(0, {1})
            probe = Probe(nodes[0].address, nodes[1].address)
            found, unanswered = probe.run(PROPAGATION_RATE, seconds, sampled=20)
            lost += unanswered + probe.unanswered
            delays += found
            lines.append([number + 1, len(found), *(f"{1000 * quantile(found, share):.1f}" for share in [0.5, 0.99, 0.999, 1])])
        head = ["round", "samples", "p50", "p99", "p99.9", "longest"]
        self.report.table(f"From one server's 200 until another knows it, ms, at {PROPAGATION_RATE:,} changes/s", head, lines)
        p99 = 1000 * quantile(sorted(delays), 0.99)
        note = f"{lost} lost" if lost else ""
        self.report.row("S3", "propagation p99", "≤ 50 ms", f"{p99:.1f} ms", p99 <= 50 if lost == 0 else None, note)

    def joining(self):
        count = QUICK_TABLE if self.arguments.quick else TABLE
        self.say(f"  a server joins {count:,} bindings")
        redis, (node,) = self.nodes(1)
        self.load("register", node, "fill", "--users", count, "--count", count, "--settle", 0, "--window", 256, "--duration", 900)
        wait(lambda: node.stat("strowger_shared_untold", 1) == 0, 300, "Redis was not told of all bindings", 0.5)
        there, lines = node.stat("strowger_bindings", 0), []
        for number in range(self.rounds):
            joined = Node(self, 1, Redis.url)
            try:
                joined.start()
                held = joined.stat("strowger_bindings", 0)
                lines.append([number + 1, f"{held:,}", f"{joined.seconds:.2f}", f"{joined.resident() / 1e6:.0f}"])
            finally:
                joined.stop()
        table_bytes = node.resident() / 1e6
        head = ["round", "bindings", "seconds until it serves", "resident, MB"]
        self.report.table(f"A server joins; the one that is there holds {table_bytes:.0f} MB", head, lines)
        slowest = max(float(line[2]) for line in lines)
        whole = all(line[1] == f"{there:,}" for line in lines)
        self.report.row("S4", f"joining {there:,} bindings", "≤ 10 s", f"{slowest:.2f} s", slowest <= 10 if whole else False)

    def told(self):
        """Phones that refresh at half their expiry, long enough for the table to be told anew."""
        minutes = 7 if self.arguments.quick else 14
        redis, (node,) = self.nodes(1, expires=f"{TOLD_EXPIRES}s")
        rate = TOLD_USERS / (TOLD_EXPIRES / 2)
        self.say(f"  {TOLD_USERS:,} phones that register for {TOLD_EXPIRES} s, and refresh after half of that, {minutes} minutes")
        options = ["--users", TOLD_USERS, "--rate", rate, "--settle", 0, "--duration", 60 * minutes, "--wait", "sleep"]
        (result,) = self.load("register", node, "told", *options)
        done, told = result["counts"]["completed"], node.stat("strowger_shared_told_total", 0)
        share = told / done
        self.report.table("What Redis sees", ["REGISTERs", "changes told", "share"], [[f"{done:,}", f"{told:,}", f"{share:.3f}"]])
        met = share <= 0.2 if result["clean"] else None
        self.report.row("S5", "REGISTERs that are told to Redis, first ones included", "≤ 0.2", f"{share:.3f}", met)

    def run(self):
        try:
            for part in PARTS:
                if part in self.arguments.parts:
                    getattr(self, part)()
        finally:
            self.clear()
        print(self.report.markdown())
        name = Report.name("cluster", self.arguments.parts, PARTS)
        print("written:", self.report.write(PERF, name) + ".{md,json}", file=sys.stderr)


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None


def main():
    parser = argparse.ArgumentParser(prog="perf/cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of short measurements")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--parts", type=udp.words(PARTS), default=PARTS, help=f"some of {','.join(PARTS)}")
    parser.add_argument("--strowger", help="this binary instead of the release build")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="show the generator's live lines")
    parser.set_defaults(only=["strowger"])
    udp.run(parser, Bench)


if __name__ == "__main__":
    main()

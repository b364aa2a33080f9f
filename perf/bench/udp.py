"""perf/udp: strowger over UDP beside the floor and Kamailio, row by row."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile

import contestants
import digest
import machine
from contestants import PERF
from generator import Generator
from report import Report, Series

CONTESTANTS = ["floor", "strowger", "kamailio"]
ROWS = ["U1", "U1b", "U2", "R1", "K1", "L1", "M4", *digest.ROWS]
RATES = [1000, 2000]
REGISTER_RATE = 4000
# Keeps a server busy, and fits the 212,992 bytes of a receive buffer that nobody enlarged.
WINDOW = 48
# Sockets on each side where two workers share the load: each socket's traffic stays with one.
K1_SOCKETS = 16
K1_RATE = 2000
LINGER_CALLS = 50_000
LINGER_STEPS = 4


def cpu(result):
    return result["server_cpu_us_each"]


class Bench:
    window = WINDOW

    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory
        self.strowger, generator = build(arguments)
        self.relay = generator
        self.generator = Generator(generator, directory, arguments.verbose)
        quick = arguments.quick
        self.rounds = arguments.rounds or (1 if quick else 3)
        self.duration = arguments.duration or (3 if quick else 10)
        self.warm = ["--warm", 5 if quick else 8, "--rest", 6, "--warm-window", 48]
        settings = (
            f"{self.rounds} round(s), {self.duration} s each, warm-up {self.warm[1]} s, "
            f"load average at the start {machine.load_average():.2f}"
        )
        self.report = Report("strowger over UDP", machine.describe(), settings)
        self.results = []

    def wants(self, *rows):
        return any(row in self.arguments.rows for row in rows)

    def has(self, name):
        return name in self.arguments.only

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def measure(self, contestant, *runs):
        """Starts the contestant, runs the generator for each (label, mode, options), and stops it."""
        self.say(f"  {contestant.name}: {', '.join(label for label, _, _ in runs)}")
        process = contestant.start(self.directory)
        try:
            for label, mode, options in runs:
                for result in self.generator.run(mode, contestant, process, *options):
                    result["label"] = label
                    self.results.append(result)
                    self.report.raw.append(result)
        finally:
            process.stop()

    def find(self, label, contestant, load=None):
        return [
            result
            for result in self.results
            if result["label"] == label and result["contestant"] == contestant and load in (None, result["rate_or_window"])
        ]

    def series(self, label, contestant, load=None, value=cpu):
        return Series(self.find(label, contestant, load), value)

    def users(self, contestant):
        # The relay has no location service.
        return [] if contestant.floor else ["--register-first"]

    # What is run.

    def run_main(self):
        """Rows U1, U1b and R1: the three in turn, as many times as asked."""
        loads = ["--rate", ",".join(map(str, RATES)), "--window", WINDOW, "--duration", self.duration]
        registers = ["--rate", REGISTER_RATE, "--window", WINDOW, "--duration", self.duration]
        for number in range(self.rounds):
            self.say(f"round {number + 1} of {self.rounds}")
            for name in ["floor", "strowger", "kamailio"]:
                if not self.has(name):
                    continue
                contestant = self.contestant(name)
                runs = [("call", "call", [*self.users(contestant), *self.warm, *loads]), ("register", "register", registers)]
                if not self.arguments.quick and not contestant.floor:
                    runs.append(("search", "call", [*self.users(contestant), "--search", "--duration", self.duration]))
                self.measure(contestant, *runs)

    def contestant(self, name):
        if name == "floor":
            return contestants.floor(self.relay)
        if name == "strowger":
            return contestants.strowger(self.strowger)
        return contestants.kamailio(self.directory)

    def run_stateless(self):
        loads = [*self.warm, "--rate", RATES[-1], "--window", WINDOW, "--duration", self.duration]
        for _ in range(self.rounds):
            for contestant in [
                contestants.floor(self.relay, stateless=True),
                contestants.strowger(self.strowger, "udp-stateless.toml"),
            ]:
                self.measure(contestant, ("stateless", "call", [*self.users(contestant), *loads]))

    def run_two_cores(self):
        """Core 1 is the generator's and the second worker's: it sleeps when idle, in both cases."""
        loads = [
            "--sockets",
            K1_SOCKETS,
            "--wait",
            "sleep",
            *self.warm,
            "--rate",
            K1_RATE,
            "--window",
            2 * WINDOW,
            "--duration",
            self.duration,
        ]
        for _ in range(self.rounds):
            for contestant in [
                contestants.strowger(self.strowger),
                contestants.strowger(self.strowger, "udp-two-cores.toml", cores=2),
            ]:
                self.measure(contestant, ("two cores", "call", [*self.users(contestant), *loads]))

    def run_latency(self, rate):
        loads = [*self.warm, "--rate", rate, "--poisson", "--duration", self.duration]
        for _ in range(self.rounds):
            for contestant in [self.contestant("floor"), self.contestant("strowger")]:
                self.measure(contestant, ("latency", "call", [*self.users(contestant), *loads]))

    def run_linger(self):
        contestant = contestants.strowger(self.strowger, "udp-long-linger.toml")
        step = ["--window", WINDOW, "--settle", 0, "--count", LINGER_CALLS]
        runs = [("linger start", "call", ["--register-first", "--window", WINDOW, "--settle", 0, "--count", 1000])]
        runs += [("linger", "call", step)] * LINGER_STEPS
        self.measure(contestant, *runs)

    # What it says.

    def tell_main(self):
        lines = []
        for title, label, load in [
            ("call, 1,000/s", "call", 1000.0),
            ("call, 2,000/s", "call", 2000.0),
            ("call, saturation", "call", WINDOW),
            ("REGISTER, 4,000/s", "register", float(REGISTER_RATE)),
            ("REGISTER, saturation", "register", WINDOW),
        ]:
            floor, ours, peer = (self.series(label, name, load) for name in ["floor", "strowger", "kamailio"])
            lines.append([title, floor.text(), ours.text(), peer.text(), ratio_text(ours, floor), ratio_text(ours, peer)])
        self.report.table(
            "Server CPU, µs for each call or registration",
            ["load", "floor", "strowger", "Kamailio", "÷ floor", "÷ Kamailio"],
            lines,
        )
        lines = []
        for title, label in [
            ("calls/s in a closed window of 48", "call"),
            ("REGISTER/s in the same", "register"),
            ("calls/s, highest open-loop rate without loss", "search"),
        ]:
            cells = [
                self.series(label, name, WINDOW if label != "search" else None, lambda result: result["completed_per_second"]).text(
                    0
                )
                for name in ["floor", "strowger", "kamailio"]
            ]
            if any(cell != "—" for cell in cells):
                lines.append([title, *cells])
        self.report.table("Highest rates", ["", "floor", "strowger", "Kamailio"], lines)
        lines = []
        for name in ["floor", "strowger", "kamailio"]:
            found = self.find("call", name, WINDOW)
            lines.append(
                [name]
                + [
                    Series(found, lambda result, key=key: scale * result[key]).text(digits)
                    for key, scale, digits in [
                        ("generator_us_each", 1, 1),
                        ("generator_busy", 100, 0),
                        ("server_busy", 100, 0),
                        ("bytes_in_each", 1, 0),
                        ("bytes_out_each", 1, 0),
                    ]
                ]
            )
        self.report.table(
            "The generator at saturation",
            ["against", "its µs a call", "its core, % busy", "server's core, % busy", "bytes received a call", "bytes sent a call"],
            lines,
        )
        if self.wants("U1"):
            ours, floor, peer = (self.series("call", name, WINDOW) for name in ["strowger", "floor", "kamailio"])
            self.ratio_row("U1", "call at saturation ÷ floor", 1.6, ours, floor)
            self.ratio_row("U1", "call at saturation ÷ Kamailio", 0.18, ours, peer)
            own = self.series("call", "strowger", WINDOW, lambda result: result["generator_us_each"])
            self.ratio_row("G1", "generator's CPU ÷ server's, call at saturation", 0.8, own, ours)
        if self.wants("U1b"):
            for rate in RATES:
                ours, floor, peer = (self.series("call", name, float(rate)) for name in ["strowger", "floor", "kamailio"])
                self.ratio_row("U1b", f"call at {rate:,}/s ÷ floor", 1.35, ours, floor)
                self.ratio_row("U1b", f"call at {rate:,}/s ÷ Kamailio", 0.36, ours, peer)
        if self.wants("R1"):
            ours, floor = (self.series("register", name, WINDOW) for name in ["strowger", "floor"])
            self.ratio_row("R1", "REGISTER at saturation ÷ floor", 2.0, ours, floor)

    def tell_stateless(self):
        for load, title in [(WINDOW, "saturation"), (float(RATES[-1]), f"{RATES[-1]:,}/s")]:
            ours = self.series("stateless", "strowger-stateless", load)
            floor = self.series("stateless", "floor-stateless", load)
            self.ratio_row("U2", f"stateless call, {title} ÷ floor of 6 in, 6 out", 1.35, ours, floor)

    def tell_two_cores(self):
        for load, title in [(2 * WINDOW, "saturation"), (float(K1_RATE), f"{K1_RATE:,}/s")]:
            two = self.series("two cores", "strowger-two-cores", load)
            one = self.series("two cores", "strowger", load)
            self.ratio_row("K1", f"CPU of a call, two workers ÷ one, {title}", 1.1, two, one)

    def tell_latency(self, rate):
        spans = ["to_100", "to_180", "to_200", "bye_to_200"]
        quantiles = ["p50", "p99", "p999"]
        # The most that is added, and what the same percentile is without a proxy: where that is long, the machine pauses.
        lines, worst = [], None
        for span in spans:
            for quantile in quantiles:
                floor, ours = (
                    self.series("latency", name, None, lambda result: result["latency_us"].get(span, {}).get(quantile))
                    for name in ["floor", "strowger"]
                )
                if not floor or not ours:
                    continue
                added = ours.median - floor.median
                lines.append([f"{span} {quantile}", floor.text(), ours.text(), f"{added:.1f}"])
                if quantile == "p99" and (worst is None or added > worst[0]):
                    worst = added, floor.median
        self.report.table(
            f"Latency at {rate:,.0f} calls/s (half the peak, Poisson), µs from the scheduled time",
            ["", "floor", "strowger", "added"],
            lines,
        )
        floor, ours = (self.series("latency", name) for name in ["floor", "strowger"])
        if worst is not None:
            self.report.row(
                "L1",
                f"added latency at {rate:,.0f}/s, p99, worst of {len(spans)}",
                "≤ 1,000 µs",
                f"{worst[0]:.0f} µs",
                worst[0] <= 1000 if floor.is_sound and ours.is_sound else None,
                " ".join(filter(None, ["".join(sorted(set(floor.marks + ours.marks))), f"the floor's: {worst[1]:.0f} µs"])),
            )

    def tell_linger(self):
        steps = self.find("linger", "strowger-long-linger")
        before = self.find("linger start", "strowger-long-linger")
        if not steps or not before:
            return
        start = before[-1]["server_resident_bytes"][1]
        calls, sizes = 0, []
        for step in steps:
            calls += step["counts"]["completed"]
            # Two transactions a call: the INVITE's and the BYE's.
            sizes.append((step["server_resident_bytes"][1] - start) / (2 * calls))
        clean = all(step["clean"] for step in steps)
        text = ", ".join(f"{size:.0f}" for size in sizes)
        self.report.row(
            "M4",
            f"resident memory of a completed transaction, after {LINGER_CALLS:,} to {calls:,} calls",
            "≤ 800 B",
            f"{text} B",
            sizes[-1] <= 800 if clean else None,
            "" if clean else "!",
        )

    def ratio_row(self, row, what, target, ours, theirs):
        if not ours or not theirs:
            self.report.row(row, what, f"≤ {target}", "—", None)
            return
        ratio = ours.median / theirs.median
        met = ratio <= target if ours.is_sound and theirs.is_sound else None
        self.report.row(
            row,
            what,
            f"≤ {target}",
            f"{ratio:.3f} ({ours.median:.1f} ÷ {theirs.median:.1f} µs)",
            met,
            "".join(sorted(set(ours.marks + theirs.marks))),
        )

    def peak(self):
        found = self.series("call", "strowger", WINDOW, lambda result: result["completed_per_second"])
        return found.median if found else None

    def run(self):
        if self.wants("U1", "U1b", "R1", "L1"):
            self.run_main()
            self.tell_main()
        if self.has("strowger"):
            if self.wants("L1") and self.peak():
                rate = self.peak() / 2
                self.run_latency(rate)
                self.tell_latency(rate)
            if self.wants("U2"):
                self.run_stateless()
                self.tell_stateless()
            if self.wants("K1"):
                self.run_two_cores()
                self.tell_two_cores()
            if self.wants("M4"):
                self.run_linger()
                self.tell_linger()
        digest.Digest(self).run()
        print(self.report.markdown())
        left = [name for name in self.arguments.only if len(self.arguments.only) < len(CONTESTANTS)]
        name = Report.name("udp", self.arguments.rows, ROWS, left)
        print("written:", self.report.write(PERF, name) + ".{md,json}", file=sys.stderr)


def ratio_text(ours, theirs):
    return f"{ours.median / theirs.median:.2f}" if ours and theirs else "—"


def build(arguments):
    """Builds the server and the generator, unless they are named; returns their paths."""
    top = os.path.dirname(PERF)
    load = os.path.join(PERF, "load")
    target = os.environ.get("CARGO_TARGET_DIR")
    named = getattr(arguments, "load", None)
    needed = [] if named else [load]
    if "strowger" in arguments.only and not arguments.strowger:
        needed.append(top)
    if not arguments.no_build:
        for directory in needed:
            subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=directory, check=True)
    generator = named or os.path.join(target or os.path.join(load, "target"), "release", "strowger-load")
    server = arguments.strowger or os.path.join(target or os.path.join(top, "target"), "release", "strowger")
    return os.path.abspath(server), os.path.abspath(generator)


def words(known):
    def split(text):
        found = text.split(",")
        for word in found:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word} is none of {', '.join(known)}")
        return found

    return split


def run(parser, bench):
    """Runs `bench(arguments, directory).run()` with a temporary directory; an error is said in words, with the ends of the servers'
    logs."""
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit(f"{parser.prog}: two cores are needed, one for the server and one for the generator")
    if arguments.strowger:
        arguments.strowger = os.path.abspath(arguments.strowger)
    # Who is told to end ends the servers that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{parser.prog}: ended by SIGTERM"))
    with tempfile.TemporaryDirectory(prefix="strowger-perf-") as directory:
        try:
            bench(arguments, directory).run()
        except (RuntimeError, subprocess.CalledProcessError) as why:
            for name in sorted(os.listdir(directory)):
                if name.endswith(".log"):
                    with open(os.path.join(directory, name), errors="replace") as text:
                        print(f"--- {name}\n{text.read()[-2000:]}", file=sys.stderr)
            sys.exit(f"{parser.prog}: {why}")


def main():
    parser = argparse.ArgumentParser(prog="perf/udp", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of short measurements")
    parser.add_argument("--rounds", type=int, help="how often each contestant is measured")
    parser.add_argument("--duration", type=float, help="seconds of each measurement")
    parser.add_argument("--rows", type=words(ROWS), default=ROWS, help=f"some of {','.join(ROWS)}")
    parser.add_argument("--only", type=words(CONTESTANTS), default=CONTESTANTS, help="leave a contestant out")
    parser.add_argument("--strowger", help="this binary instead of the release build")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="show the generator's live lines")
    run(parser, Bench)


if __name__ == "__main__":
    main()

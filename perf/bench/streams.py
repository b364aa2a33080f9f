"""perf/streams: strowger over TCP and TLS beside Kamailio, row by row."""

import argparse
import json
import os
import subprocess
import sys
import time

import certificates
import machine
from cases import WINDOW, Case
from contestants import PERF
from generator import CORE, Generator
from report import Report, Series
from udp import build, cpu, ratio_text, run, words

CONTESTANTS = ["strowger", "kamailio"]
ROWS = ["T1", "T2", "T3", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "I1"]
QUICK_ROWS = [row for row in ROWS if row not in ("S7", "I1")]
# Row I1: calls a second, and idle connections beside them. A process has 20,000 descriptors on many machines.
IDLE_RATE = 200
IDLE = [0, 2_000, 19_000]
# What the server may then have open: its default leaves more descriptors for other things than there are to spare.
IDLE_MOST = 19_500
# So many measurements that fail one after the other end the run.
HOPELESS = 3


CASES = [
    Case("UDP, next hop", "udp", "udp", routed=True),
    Case("UDP, registered", "udp", "udp"),
    Case("TCP persistent both", "tcp", "tcp", routed=True),
    Case("TCP per call left", "tcp/call", "udp"),
    Case("TCP per call both", "tcp/call", "tcp/call"),
    Case("TLS 1.3 persistent both", "tls", "tls", routed=True, version="1.3"),
    Case("TLS 1.2 full left", "tls/call", "udp"),
    Case("TLS 1.3 full left", "tls/call", "udp", version="1.3"),
    Case("TLS 1.2 resumed left", "tls/call", "udp", reuse=True),
    Case("TLS 1.3 resumed left", "tls/call", "udp", version="1.3", reuse=True),
    Case("TLS 1.2 full both", "tls/call", "tls/call"),
    Case("TLS 1.2 resumed both", "tls/call", "tls/call", reuse=True),
    Case("TLS 1.3 full both", "tls/call", "tls/call", version="1.3"),
    Case("TLS 1.3 resumed both", "tls/call", "tls/call", version="1.3", reuse=True),
    Case("TLS 1.2 mutual both, P-256", "tls/call", "tls/call", key="ec", mutual=True),
    Case("TLS 1.2 mutual both", "tls/call", "tls/call", mutual=True),
    Case("TLS 1.2 mutual resumed both, P-256", "tls/call", "tls/call", key="ec", mutual=True, reuse=True),
]
# The cases that each row needs.
NEEDS = {
    "T1": ["UDP, next hop", "TCP persistent both"],
    "T2": ["UDP, registered", "TCP per call left"],
    "T3": ["UDP, registered", "TCP per call both"],
    "S1": ["TCP persistent both", "TLS 1.3 persistent both"],
    "S2": ["TCP per call left", "TLS 1.2 full left", "TLS 1.3 full left"],
    "S3": ["TCP per call left", "TLS 1.2 resumed left", "TLS 1.3 resumed left"],
    "S4": ["TLS 1.2 full both", "TLS 1.2 resumed both"],
    "S5": ["UDP, registered", "TLS 1.2 mutual both, P-256", "TLS 1.2 mutual both", "TLS 1.2 mutual resumed both, P-256"],
    "S7": ["TLS 1.2 mutual both, P-256"],
    "I1": [],
    "S6": ["TLS 1.2 full both", "TLS 1.3 full both", "TLS 1.2 resumed both", "TLS 1.3 resumed both"],
}


class Bench:
    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory
        certificates.make()
        self.strowger, self.load = build(arguments)
        self.generator = Generator(self.load, directory, arguments.verbose)
        quick = arguments.quick
        self.rounds = arguments.rounds or (1 if quick else 3)
        self.duration = arguments.duration or (3 if quick else 10)
        self.settle = 3 if quick else 8
        usual = QUICK_ROWS if quick else ROWS
        arguments.rows = arguments.rows or usual
        wanted = {label for row in arguments.rows for label in NEEDS[row]}
        if arguments.cases:
            wanted = {case.label for case in CASES if any(part in case.label for part in arguments.cases)}
        self.cases = [case for case in CASES if case.label in wanted]
        settings = (
            f"{self.rounds} round(s), {self.duration} s each after {self.settle} s of the same load, {WINDOW} calls outstanding, "
            f"load average at the start {machine.load_average():.2f}"
        )
        self.report = Report("strowger over TCP and TLS", machine.describe(), settings)
        left = [name for name in arguments.only if len(arguments.only) < len(CONTESTANTS)]
        self.name = Report.name("streams", arguments.rows, usual, ["cases"] if arguments.cases else left)
        self.results, self.handshakes, self.flights = [], {}, {}
        self.failures, self.failed_in_a_row = [], 0
        self.system = None
        if "S7" in arguments.rows and "strowger" in arguments.only and not arguments.cases:
            self.system = arguments.system_openssl or build_with_system_openssl()

    def contestant(self, case, name):
        if name == "kamailio":
            return case.kamailio(self.directory)
        contestant = case.strowger(self.system if name == SYSTEM else self.strowger, self.directory)
        contestant.name = name
        return contestant

    def measure(self, case, name):
        print(f"  {name}: {case.label}", file=sys.stderr, flush=True)
        contestant = self.contestant(case, name)
        process = contestant.start(self.directory)
        try:
            options = [*case.options(name), "--window", WINDOW, "--settle", self.settle, "--duration", self.duration]
            for result in self.generator.run("call", contestant, process, *options):
                result["label"] = case.label
                result["complaint"] = case.complaint(result, name)
                if result["complaint"]:
                    result["clean"] = False
                    print(f"    {result['complaint']}", file=sys.stderr)
                self.results.append(result)
                self.report.raw.append(result)
            if name == "strowger" and case.is_tls:
                self.flights[case.label] = self.handshake_calls()
        finally:
            process.stop()

    def measure_idle(self, name):
        """Row I1: the same calls beside more and more idle connections, in one server."""
        case = Case("idle", "tcp", "tcp", routed=True)
        case.connections = IDLE_MOST
        print(
            f"  {name}: {IDLE_RATE} calls/s beside {', '.join(f'{number:,}' for number in IDLE)} idle connections",
            file=sys.stderr,
            flush=True,
        )
        contestant = self.contestant(case, name)
        process = contestant.start(self.directory)
        opened, idle = 0, []
        try:
            for number in IDLE:
                if number > opened:
                    idle.append(self.open_idle(process, number - opened, len(idle)))
                    opened = number
                options = [*case.options(name), "--rate", IDLE_RATE, "--settle", self.settle, "--duration", 2 * self.duration]
                for result in self.generator.run("call", contestant, process, *options):
                    result["label"] = f"idle {number}"
                    self.results.append(result)
                    self.report.raw.append(result)
        finally:
            for child in idle:
                child.kill()
                child.wait()
            process.stop()

    def open_idle(self, process, number, index):
        return open_idle(self.load, self.directory, process, number, index)

    def handshake_calls(self):
        """Calls of SSL_do_handshake for each handshake of the server, by side, from its own counters."""
        command = [self.strowger, "stats", "strowger_tls", "--json", "--control", os.path.join(self.directory, "strowger.sock")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {}
        found = {}
        samples = json.loads(done.stdout)
        for side in ["server", "client"]:
            calls = sum(
                value
                for name, value in samples.items()
                if name.startswith("strowger_tls_handshake_calls_total") and f'side="{side}"' in name
            )
            # A mutual one is a full or a resumed one too.
            number = sum(
                value
                for name, value in samples.items()
                if name.startswith("strowger_tls_handshakes_total")
                and f'side="{side}"' in name
                and ('kind="full"' in name or 'kind="resumed"' in name)
            )
            if number:
                found[side] = calls / number
        return found

    def measure_handshakes(self):
        """What the handshakes of row S2 cost in memory, in the library that the generator is built with, which must be the
        server's."""
        for version in ["1.2", "1.3"]:
            case = Case("", "tls/call", "udp", version=version)
            done = subprocess.run(
                ["taskset", "-c", str(CORE), self.load, "handshake", *case.tls_options()],
                capture_output=True,
                text=True,
                check=True,
            )
            self.handshakes.setdefault(version, []).append(
                beside(json.loads(done.stdout), subprocess.check_output([self.strowger, "--version"], text=True))
            )

    def series(self, label, contestant="strowger", value=cpu):
        found = [result for result in self.results if result["label"] == label and result["contestant"] == contestant]
        return Series(found, value)

    def run(self):
        for number in range(self.rounds):
            print(f"round {number + 1} of {self.rounds}", file=sys.stderr, flush=True)
            if "S2" in self.arguments.rows and not self.arguments.cases:
                self.measure_handshakes()
            for case in self.cases:
                for name in self.arguments.only:
                    self.attempt(self.measure, case, name)
                if self.system and case.label in NEEDS["S7"]:
                    self.attempt(self.measure, case, SYSTEM)
            if "I1" in self.arguments.rows and not self.arguments.cases:
                for name in self.arguments.only:
                    self.attempt(self.measure_idle, name)
        self.tell()
        print(self.report.markdown())
        print("written:", self.report.write(PERF, self.name) + ".{md,json}", file=sys.stderr)

        if self.failures:
            raise RuntimeError(f"{len(self.failures)} measurement(s) failed, and are missing above; the first: {self.failures[0]}")

    def attempt(self, measure, *what):
        """An hour's measurements are not thrown away because one of them fails."""
        try:
            measure(*what)
            self.failed_in_a_row = 0
        except RuntimeError as why:
            print(f"    FAILED: {why}", file=sys.stderr, flush=True)
            self.failures.append(str(why))
            self.failed_in_a_row += 1
            if self.failed_in_a_row == HOPELESS:
                raise

    # What it says.

    def tell(self):
        lines = []
        for case in self.cases:
            ours, peer = self.series(case.label), self.series(case.label, "kamailio")
            rates = [
                self.series(case.label, name, lambda result: result["completed_per_second"]) for name in ["strowger", "kamailio"]
            ]
            lines.append([case.label, ours.text(), peer.text(), ratio_text(ours, peer), *(rate.text(0) for rate in rates)])
        self.report.table(
            "Server CPU, µs for each call, at saturation; and calls/s",
            ["case", "strowger", "Kamailio", "÷ Kamailio", "strowger, calls/s", "Kamailio, calls/s"],
            lines,
        )
        lines = []
        for case in self.cases:
            for name in [*self.arguments.only, SYSTEM]:
                found = [result for result in self.results if result["label"] == case.label and result["contestant"] == name]
                if found:
                    lines.append(self.generator_line(case, name, found))
        self.report.table(
            "The generator, and what happened for each call",
            [
                "case",
                "against",
                "its µs a call",
                "its core, % busy",
                "server's core, % busy",
                "connections opened · accepted",
                "handshakes as client: full · resumed",
                "as server: full · resumed",
                "TLS agreed by the callers",
            ],
            lines,
        )
        for row in self.arguments.rows:
            if not self.arguments.cases:
                getattr(self, f"tell_{row.lower()}")()

    def generator_line(self, case, name, found):
        def each(*names):
            return " · ".join(
                f"{Series(found, lambda r, key=key: r['counts'][key] / max(r['counts']['completed'], 1)).median:.2f}"
                for key in names
            )

        return [
            case.label,
            name,
            Series(found, lambda result: result["generator_us_each"]).text(0),
            *(Series(found, lambda result, key=key: 100 * result[key]).text(0) for key in ["generator_busy", "server_busy"]),
            each("connections_opened", "connections_accepted"),
            each("tls_client_full", "tls_client_resumed"),
            each("tls_server_full", "tls_server_resumed"),
            found[-1].get("tls") or "—",
        ]

    def ratio(self, row, what, target, over, under, contestant="strowger"):
        ours, theirs = self.series(over), self.series(under, contestant)
        self.verdict(
            row,
            what,
            target,
            ours,
            theirs,
            lambda: ours.median / theirs.median,
            lambda: f"({ours.median:.1f} ÷ {theirs.median:.1f} µs)",
        )

    def verdict(self, row, what, target, ours, theirs, value, how):
        if not ours or not theirs:
            return self.report.row(row, what, f"≤ {target}", "—", None)
        found = value()
        met = found <= target if ours.is_sound and theirs.is_sound else None
        return self.report.row(
            row, what, f"≤ {target}", f"{found:.3f} {how()}", met, "".join(sorted(set(ours.marks + theirs.marks)))
        )

    def tell_t1(self):
        self.ratio("T1", "TCP, one connection each side ÷ UDP", 1.0, "TCP persistent both", "UDP, next hop")

    def tell_t2(self):
        self.ratio("T2", "TCP per call, callers' side ÷ UDP", 2.2, "TCP per call left", "UDP, registered")
        self.ratio("T2", "the same ÷ Kamailio", 0.30, "TCP per call left", "TCP per call left", "kamailio")

    def tell_t3(self):
        self.ratio("T3", "TCP per call, both sides ÷ UDP", 3, "TCP per call both", "UDP, registered")

    def tell_s1(self):
        self.ratio("S1", "TLS 1.3 persistent, both sides ÷ TCP", 1.5, "TLS 1.3 persistent both", "TCP persistent both")

    def tell_s2(self):
        plain = self.series("TCP per call left")
        for version in ["1.2", "1.3"]:
            full, memory = self.series(f"TLS {version} full left"), self.handshakes.get(version, [])
            floor = Series(memory, lambda found: found["server_us"])
            library = memory[0]["library"] if memory else "?"
            self.verdict(
                "S2",
                f"(TLS {version} full, callers' side − TCP) ÷ handshake in memory, {library}",
                1.25,
                full,
                floor if plain else plain,
                lambda: (full.median - plain.median) / floor.median,
                lambda: f"(({full.median:.1f} − {plain.median:.1f}) ÷ {floor.median:.1f} µs)",
            )

    def tell_s3(self):
        for version, target in [("1.2", 1.5), ("1.3", 2.5)]:
            self.ratio(
                "S3", f"TLS {version} resumed, callers' side ÷ TCP", target, f"TLS {version} resumed left", "TCP per call left"
            )

    def tell_s4(self):
        self.ratio("S4", "local, TLS 1.2: reuse on both sides ÷ full on both", 0.35, "TLS 1.2 resumed both", "TLS 1.2 full both")

    def tell_s5(self):
        for what, target, label in [
            ("P-256", 9, "TLS 1.2 mutual both, P-256"),
            ("RSA-2048", 20, "TLS 1.2 mutual both"),
            ("P-256, reuse on both sides", 4, "TLS 1.2 mutual resumed both, P-256"),
        ]:
            self.ratio("S5", f"local mutual, {what} ÷ UDP", target, label, "UDP, registered")

    def tell_s6(self):
        for label in NEEDS["S6"]:
            target = 3 if "1.2" in label else 2
            for side in ["server", "client"]:
                calls = self.flights.get(label, {}).get(side)
                text = "—" if calls is None else f"{calls:.2f}"
                self.report.row(
                    "S6",
                    f"calls of SSL_do_handshake for each handshake, {label}, as {side}",
                    f"≤ {target}",
                    text,
                    None if calls is None else calls <= target + 0.01,
                )

    def tell_s7(self):
        label = NEEDS["S7"][0]
        ours, theirs = self.series(label), self.series(label, SYSTEM)
        self.verdict(
            "S7",
            "local mutual, P-256: default build ÷ built with the system's OpenSSL",
            0.45,
            ours,
            theirs,
            lambda: ours.median / theirs.median,
            lambda: f"({ours.median:.1f} ÷ {theirs.median:.1f} µs)",
        )

    def tell_i1(self):
        lines = [
            [f"{number:,}", *(self.series(f"idle {number}", name).text() for name in ["strowger", "kamailio"])] for number in IDLE
        ]
        self.report.table(
            f"Server CPU, µs for each call at {IDLE_RATE} calls/s, beside idle TCP connections",
            ["idle connections", "strowger", "Kamailio"],
            lines,
        )
        alone = self.series(f"idle {IDLE[0]}")
        for number in IDLE[1:]:
            beside = self.series(f"idle {number}")
            self.verdict(
                "I1",
                f"call at {IDLE_RATE}/s beside {number:,} idle connections ÷ beside none",
                1.03,
                beside,
                alone,
                lambda: beside.median / alone.median,
                lambda: f"({beside.median:.1f} ÷ {alone.median:.1f} µs)",
            )


def beside(found, server):
    """What handshakes in memory cost, beside a server of this version: no floor of its, where it is built with another TLS
    library."""
    is_same = found["library"] in server
    if not is_same:
        print(
            f"perf/streams: the generator is built with {found['library']}, the server is {server.strip()}: no verdict for S2",
            file=sys.stderr,
        )
    return {
        **found,
        "server": server.strip(),
        "clean": is_same,
        "complaint": None if is_same else "the server has another TLS library",
    }


def open_idle(load, directory, process, number, index, transport="tcp", options=()):
    """Opens connections from addresses of their own and leaves them open until the child is ended."""
    done = os.path.join(directory, f"idle-{index}.json")
    if os.path.exists(done):
        os.unlink(done)
    command = [
        "taskset",
        "-c",
        str(CORE),
        load,
        "idle",
        "--transport",
        transport,
        "--connections",
        str(number),
        "--settle",
        "1",
        "--local",
        f"127.0.{index + 1}.1",
        "--hold",
        "3600",
        "--server-pid",
        str(process.pid),
        "--json",
        done,
        *options,
    ]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not os.path.exists(done):
        if child.poll() is not None:
            raise RuntimeError(f"{number} idle connections could not be opened")
        time.sleep(0.1)
    return child


SYSTEM = "strowger-system-openssl"


def build_with_system_openssl():
    """A second release build, in a folder of its own so that the two do not chase each other out."""
    top = os.path.dirname(PERF)
    target = os.path.join(PERF, "results", "system-openssl")
    subprocess.run(
        [
            "cargo",
            "build",
            "--release",
            "--quiet",
            "--no-default-features",
            "--features",
            "system-openssl",
            "--bin",
            "strowger",
            "--target-dir",
            target,
        ],
        cwd=top,
        check=True,
    )
    return os.path.join(target, "release", "strowger")


def main():
    parser = argparse.ArgumentParser(prog="perf/streams", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of short measurements")
    parser.add_argument("--rounds", type=int, help="how often each case is measured")
    parser.add_argument("--duration", type=float, help="seconds of each measurement")
    parser.add_argument("--rows", type=words(ROWS), help=f"some of {','.join(ROWS)}; with --quick all but S7 and I1")
    parser.add_argument(
        "--cases",
        type=lambda text: text.split("|"),
        help="only cases whose name has one of these parts in it, divided by |; no rows",
    )
    parser.add_argument("--only", type=words(CONTESTANTS), default=CONTESTANTS, help="leave a contestant out")
    parser.add_argument("--strowger", help="this binary instead of the release build")
    parser.add_argument(
        "--system-openssl", type=os.path.abspath, help="this binary as the one built with the system's OpenSSL (row S7)"
    )
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="show the generator's live lines")
    run(parser, Bench)


if __name__ == "__main__":
    main()

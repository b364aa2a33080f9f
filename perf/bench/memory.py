"""perf/memory: what an idle TCP connection and an idle TLS connection cost strowger and Kamailio in memory of their own."""

import argparse
import json
import subprocess
import sys

import certificates
import machine
from cases import Case
from contestants import PERF
from generator import CORE
from report import Report, Series
from udp import build, run, words

CONNECTIONS = 10_000
# Opened and closed first, so that what is allocated once does not count.
FIRST = 500
KINDS = {
    "M1": ("tcp", 512, Case("idle TCP", "tcp", "udp", version="1.3")),
    "M2": ("tls", 12 * 1024, Case("idle TLS 1.3", "tls", "udp", version="1.3")),
}


class Bench:
    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory
        certificates.make()
        self.strowger, self.load = build(arguments)
        self.rounds = 1 if arguments.quick else 3
        self.report = Report(
            "Memory of idle connections",
            machine.describe(),
            f"{self.rounds} round(s), {arguments.connections:,} connections of which each has carried one OPTIONS and its 200, "
            f"after {FIRST} others came and went. Growth of the server's own memory (proportional set size of all its processes) "
            f"for each "
            "connection. The kernel's socket and its buffers are not in it: they are the same for every server",
        )
        self.results = []

    def measure(self, row, name):
        transport, _, case = KINDS[row]
        print(f"  {name}: {case.label}", file=sys.stderr, flush=True)
        contestant = case.strowger(self.strowger, self.directory) if name == "strowger" else case.kamailio(self.directory)
        process = contestant.start(self.directory)
        try:
            common = [
                "taskset",
                "-c",
                str(CORE),
                self.load,
                "idle",
                "--transport",
                transport,
                "--exchange",
                "--server-pid",
                str(process.pid),
                "--json",
                "-",
            ]
            if transport == "tls":
                common += case.tls_options()
            for options in (
                ["--connections", FIRST, "--close", 0.05, "--settle", 1],
                ["--connections", self.arguments.connections],
            ):
                done = subprocess.run([*common, *map(str, options)], capture_output=True, text=True)
                if done.returncode not in (0, 1):
                    raise RuntimeError(f"the generator failed against {name}:\n{done.stderr}")
            result = json.loads(done.stdout)
            result.update(row=row, contestant=name)
            self.results.append(result)
            self.report.raw.append(result)
        finally:
            process.stop()

    def series(self, row, name):
        return Series(
            [result for result in self.results if result["row"] == row and result["contestant"] == name],
            lambda result: result["bytes_each"],
        )

    def run(self):
        for number in range(self.rounds):
            print(f"round {number + 1} of {self.rounds}", file=sys.stderr, flush=True)
            for row in self.arguments.rows:
                for name in self.arguments.only:
                    self.measure(row, name)
        lines = []
        for row in self.arguments.rows:
            _, target, case = KINDS[row]
            ours, peer = self.series(row, "strowger"), self.series(row, "kamailio")
            lines.append([case.label, ours.text(0), peer.text(0)])
            met = ours.median <= target if ours and ours.is_sound else None
            self.report.row(row, f"{case.label} connection", f"≤ {target:,} B", f"{ours.text(0)} B", met, ours.marks)
        self.report.table("Bytes for each connection", ["", "strowger", "Kamailio"], lines)
        print(self.report.markdown())
        print("written:", self.report.write(PERF, "memory") + ".{md,json}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(prog="perf/memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--rows", type=words(KINDS), default=list(KINDS), help=f"some of {','.join(KINDS)}")
    parser.add_argument(
        "--only", type=words(["strowger", "kamailio"]), default=["strowger", "kamailio"], help="leave a contestant out"
    )
    parser.add_argument("--strowger", help="this binary instead of the release build")
    parser.add_argument("--no-build", action="store_true")
    run(parser, Bench)


if __name__ == "__main__":
    main()

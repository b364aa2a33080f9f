"""perf/restart: restarts under load. Calls over UDP and calls over TLS, a connection for each, go on while the server is restarted
again and again; what fails, is lost, refused or sent again is counted, and how long each pause was."""

import argparse
import json
import os
import re
import subprocess
import sys
import time

import certificates
import machine
import udp
from cluster import median, wait
from contestants import PERF, strowger_streams
from generator import CORE
from report import Report

CONTROL = "restarts.sock"
VALUES = {
    "VERIFY_CLIENT": "no",
    "VERSION": "1.3",
    "CIPHERS": "",
    "REUSE": "true",
    "OUTGOING": "reuse",
    "CONNECTIONS": "0",
    # Where the calls over TLS lead.
    "ROUTE": '[[route]]\nto_host = "tls.example"\naction = "relay"\ntarget = ["sip:127.0.0.1:16570"]\n',
    "SOCKET": CONTROL,
}
# Calls that could not begin, or ended in something other than their 200s.
FAILED = ["refused", "timed_out", "wrong", "cut_off", "skipped", "connections_broken", "tls_client_failed"]
# Seconds that the predecessor of a restart may take to end: transactions are remembered for 5 s.
PARTING = 60


class Bench:
    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory
        self.strowger, self.load = udp.build(arguments)
        settings = f"{arguments.restarts} restarts, load average at the start {machine.load_average():.2f}"
        # The calls go on for as long as the restarts may take; those that are not made by then are not made.
        self.seconds = 10 + arguments.restarts * arguments.interval
        self.report = Report("Restarts under load", machine.describe(), settings)

    def command(self, *words):
        command = [self.strowger, *words, "--control", os.path.join(self.directory, CONTROL)]
        return subprocess.run(command, capture_output=True, text=True)

    def stats(self):
        done = self.command("stats", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def generate(self, name, *options):
        output = os.path.join(self.directory, f"{name}.json")
        command = ["taskset", "-c", str(CORE), self.load, "call", "--json", output, "--wait", "sleep"]
        command += ["--warm", 0, "--settle", 1, "--duration", self.seconds, *options]
        log = open(os.path.join(self.directory, f"{name}.log"), "wb")
        return subprocess.Popen([str(word) for word in command], stdout=log, stderr=log), output

    def run(self):
        certificates.make()
        files = {
            "CERTIFICATE": certificates.path("ec.pem"),
            "PRIVATE_KEY": certificates.path("ec.key"),
            "CA": certificates.path("ca.pem"),
        }
        contestant = strowger_streams(self.strowger, self.directory, {**VALUES, **files})
        process = contestant.start(self.directory)
        try:
            self.measure()
        finally:
            # The process that was started has ended long ago; its successors are in its group.
            process.stop()
        print(self.report.markdown())
        print("written:", self.report.write(PERF, "restart") + ".{md,json}", file=sys.stderr)

    def measure(self):
        calls, tls = self.arguments.calls, self.arguments.tls
        over_tls = ["--domain", "tls.example", "--routed", "--transport", "tls", "--connections", "per-call", "--resume"]
        over_tls += ["--callee-transport", "udp", "--server", "127.0.0.1:5061", "--caller-port", 16070, "--answerer-port", 16570]
        runs = {
            "calls over UDP": self.generate("udp", "--domain", "127.0.0.1", "--register-first", "--rate", calls),
            "calls over TLS, a connection each": self.generate("tls", *over_tls, "--rate", tls),
        }
        time.sleep(5)
        pauses, refused, end = [], [], time.monotonic() + self.seconds - 10
        for number in range(self.arguments.restarts):
            if time.monotonic() > end:
                break
            wait(lambda: self.stats().get("strowger_predecessor", 0) == 0, PARTING, "a predecessor does not end", 0.25)
            done = self.command("restart", "--deadline", "30")
            found = re.search(r"pause of ([0-9.]+) ms", done.stdout)
            if found:
                pauses.append(float(found.group(1)))
            else:
                refused.append(done.stderr.strip())
            print(f"  restart {number + 1}: {done.stdout.strip() or done.stderr.strip()}", file=sys.stderr, flush=True)
        lines = []
        for what, (child, output) in runs.items():
            child.wait(self.seconds + 60)
            if not os.path.exists(output):
                raise RuntimeError(f"the generator of the {what} has failed")
            with open(output) as text:
                (result,) = json.load(text)
            self.report.raw.append({"label": what, **result})
            counts = result["counts"]
            failed = sum(counts.get(name, 0) for name in FAILED)
            repeated = sum(count for name, count in counts.items() if name.startswith("retransmitted"))
            lines.append([what, f"{counts['completed']:,}", failed, repeated, result["server_drops"], result["generator_drops"]])
        head = ["", "completed", "failed", "messages repeated", "datagrams dropped at the server", "at the generator"]
        self.report.table("What came of the calls", head, lines)
        if pauses:
            spread = [f"{median(pauses):.1f}", f"{sorted(pauses)[int(0.9 * (len(pauses) - 1))]:.1f}", f"{max(pauses):.1f}"]
            self.report.table(
                "Pauses, ms", ["restarts", "refused", "p50", "p90", "longest"], [[len(pauses), len(refused), *spread]]
            )
        self.report.raw.append({"label": "restarts", "pauses_ms": pauses, "refused": refused})
        is_good = not refused and all(line[2] == 0 for line in lines)
        text = f"{sum(line[2] for line in lines)} failed"
        self.report.row("X7", f"{len(pauses)} restarts: calls that failed", "0", text, is_good)


def main():
    parser = argparse.ArgumentParser(prog="perf/restart", description=__doc__)
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--interval", type=float, default=8, help="seconds for each at most")
    parser.add_argument("--calls", type=int, default=2000, help="calls a second over UDP")
    parser.add_argument("--tls", type=int, default=200, help="calls a second over TLS, each over a connection of its own")
    parser.add_argument("--strowger", help="this binary instead of the release build")
    parser.add_argument("--no-build", action="store_true")
    parser.set_defaults(only=["strowger"])
    udp.run(parser, Bench)


if __name__ == "__main__":
    main()

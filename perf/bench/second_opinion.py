"""perf/second-opinion: the server's CPU for a UDP call with our generator and with SIPp, at the same rate, in turn (row G2)."""

import argparse
import glob
import os
import signal
import subprocess
import sys
import tempfile
import time

import contestants
import machine
from contestants import PERF
from generator import CORE, Generator
from report import Report, Series
from udp import build

RATES = [1000, 2000]
USERS = 10_000
CALLER_PORT, ANSWERER_PORT = 15070, 15570
# Longer than the server remembers a transaction: what it forgets in the measured time is then as much as what it learns.
SETTLE = 6
WITHIN = 0.10

# SIPp sends one message of a call in each turn of its clock: the 200 follows the 180, and the BYE the ACK, a millisecond later.
TURN = "0.001"
IN_TIME, TWO, AT_ONCE, SPIN, SIPP = (
    "ours, in SIPp's time",
    "ours, the same, two processes",
    "ours, at once",
    "ours, at once, spinning",
    "SIPp",
)


class Stats:
    """SIPp's file of statistics: a line each second, cumulative figures under names that end in (C)."""

    def __init__(self, path):
        self.path = path

    def last(self):
        """The last whole line as a dictionary, and how many there are; nothing before the first."""
        try:
            with open(self.path) as text:
                lines = text.read().split("\n")[:-1]
        except FileNotFoundError:
            return None, 0
        return parse_stats(lines)


def parse_stats(lines):
    if len(lines) < 2:
        return None, 0
    names = lines[0].split(";")
    values = dict(zip(names, lines[-1].split(";")))
    figures = {}
    for name, value in values.items():
        if name.endswith("(C)") and value.isdigit():
            figures[name[:-3]] = int(value)
    return figures, len(lines) - 1


def process_tree(pid):
    found = [pid]
    for parent in found:
        for path in glob.glob(f"/proc/{parent}/task/*/children"):
            with open(path) as text:
                found += map(int, text.read().split())
    return found


def cpu_ns(pids):
    """Run and wait time of all threads of these processes, from the scheduler's account."""
    run = wait = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                with open(path) as text:
                    fields = text.read().split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            run, wait = run + int(fields[0]), wait + int(fields[1])
    return run, wait


def loopback():
    """(packets, bytes) that the loopback has carried: every datagram once, with its IP and UDP headers and 14 bytes of
    Ethernet's."""
    with open("/proc/net/dev") as table:
        for line in table:
            name, _, rest = line.partition(":")
            if name.strip() == "lo":
                fields = rest.split()
                return int(fields[1]), int(fields[0])
    raise RuntimeError("there is no loopback")


# IP, UDP, and what /proc/net/dev counts for Ethernet.
HEADERS = 20 + 8 + 14


def drops(port):
    """Datagrams dropped at the UDP sockets of this port of 127.0.0.1 or of any address."""
    dropped = 0
    with open("/proc/net/udp") as table:
        next(table)
        for line in table:
            fields = line.split()
            address, bound = fields[1].split(":")
            if int(bound, 16) == port and address in ("0100007F", "00000000"):
                dropped += int(fields[-1])
    return dropped


class Sipp:
    """Both sides of SIPp, pinned to the generator's core, bounded in calls and in time."""

    def __init__(self, directory):
        self.directory = directory
        self.binary = "sipp"
        users = [f"u{number:05}" for number in range(USERS)]
        self.users = os.path.join(directory, "users.csv")
        with open(self.users, "w") as text:
            text.write("SEQUENTIAL\n")
            for number, callee in enumerate(users):
                text.write(f"{callee};{users[(number + USERS // 2) % USERS]};\n")

    def start(self, scenario, port, stats, *options):
        log = open(os.path.join(self.directory, f"sipp-{scenario}.log"), "wb")
        command = [
            "taskset",
            "-c",
            str(CORE),
            self.binary,
            "127.0.0.1:5060",
            "-sf",
            os.path.join(PERF, "peers", "sipp", f"{scenario}.xml"),
            "-i",
            "127.0.0.1",
            "-p",
            str(port),
            "-t",
            "u1",
            "-nostdin",
            "-buff_size",
            str(4 << 20),
            "-timer_resol",
            "1",
            "-trace_stat",
            "-stf",
            stats,
            "-fd",
            "1",
            *map(str, options),
        ]
        return subprocess.Popen(
            command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb"},
        )

    def run(self, process, rate, duration):
        """One measurement: the server's CPU between two lines of the caller's statistics, which come each second."""
        for name in glob.glob(os.path.join(self.directory, "*.csv")):
            if name != self.users:
                os.unlink(name)
        stats = {side: os.path.join(self.directory, f"sipp-{side}.csv") for side in ["uac", "uas"]}
        seconds = SETTLE + duration + 3
        calls = int(rate * seconds)
        bound = ["-m", calls, "-timeout", f"{seconds + 20}s", "-l", 100_000]
        answerer = self.start("uas", ANSWERER_PORT, stats["uas"], *bound)
        caller = None
        try:
            end = time.monotonic() + 10
            while not machine.udp_port_is_bound(ANSWERER_PORT):
                if answerer.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("SIPp's answerer did not start")
                time.sleep(0.05)
            dropped = [drops(port) for port in (5060, ANSWERER_PORT)]
            caller = self.start("uac", CALLER_PORT, stats["uac"], "-r", rate, "-inf", self.users, *bound)
            pids = process_tree(process.pid)
            file = Stats(stats["uac"])
            before = self.at_line(file, SETTLE, caller, pids, [caller, answerer])
            after = self.at_line(file, before["line"] + duration, caller, pids, [caller, answerer])
            dropped = [drops(port) - earlier for port, earlier in zip((5060, ANSWERER_PORT), dropped)]
            # Both end by themselves when the last call has.
            caller.wait(timeout=seconds + 30)
            answerer.wait(timeout=40)
        except subprocess.TimeoutExpired:
            raise RuntimeError("SIPp did not end by itself") from None
        finally:
            for child in [caller, answerer]:
                if child is not None and child.poll() is None:
                    child.send_signal(signal.SIGKILL)
                    child.wait()
        return self.result(rate, before, after, dropped, stats)

    def at_line(self, file, number, caller, pids, generators):
        """Waits for a line of this number, and reads the accounts at once."""
        while True:
            figures, lines = file.last()
            if lines >= number:
                run, wait = cpu_ns(pids)
                own = cpu_ns([child.pid for child in generators])
                packets, carried = loopback()
                return {
                    "figures": figures,
                    "line": lines,
                    "at": time.monotonic(),
                    "run": run,
                    "wait": wait,
                    "own": own,
                    "packets": packets,
                    "bytes": carried,
                }
            if caller.poll() is not None:
                raise RuntimeError("SIPp's caller ended too early; see its log")
            time.sleep(0.01)

    def result(self, rate, before, after, dropped, stats):
        seconds = after["at"] - before["at"]

        def count(name):
            return after["figures"][name] - before["figures"][name]

        calls = count("SuccessfulCall")
        # Over the whole run, and on both sides: an answerer's call that has not ended is a caller's BYE that never came.
        finals = {side: Stats(path).last()[0] or {} for side, path in stats.items()}
        failed = sum(final.get("FailedCall", 0) for final in finals.values())
        again = sum(final.get("Retransmissions", 0) for final in finals.values())
        run, wait = after["run"] - before["run"], after["wait"] - before["wait"]
        own_run, own_wait = (late - early for late, early in zip(after["own"], before["own"]))
        return {
            "contestant": SIPP,
            "rate_or_window": float(rate),
            "seconds": seconds,
            "completed": calls,
            "completed_per_second": calls / seconds,
            "server_cpu_us_each": run / 1e3 / max(calls, 1),
            "server_busy": run / 1e9 / seconds,
            "server_waited": wait / 1e9 / seconds,
            "generator_us_each": own_run / 1e3 / max(calls, 1),
            "generator_waited": own_wait / 1e9 / seconds,
            "failed": failed,
            "retransmissions": again,
            "server_drops": dropped[0],
            "generator_drops": dropped[1],
            "datagrams_each": (after["packets"] - before["packets"]) / max(calls, 1),
            "bytes_each_datagram": (after["bytes"] - before["bytes"]) / max(after["packets"] - before["packets"], 1) - HEADERS,
            "statistics": finals,
            # SIPp's own two processes wait for each other, which is how it works and no disturbance.
            "disturbed": wait / 1e9 / seconds > 0.05,
            "generator_bound": calls < 0.99 * rate * seconds,
            "clean": failed == 0 and again == 0 and not any(dropped),
        }


class SecondOpinion:
    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory
        arguments.only = ["strowger"]
        self.strowger, self.load = build(arguments)
        self.generator = Generator(self.load, directory, arguments.verbose)
        quick = arguments.quick
        self.rounds = arguments.rounds or (1 if quick else 3)
        self.duration = arguments.duration or (4 if quick else 10)
        self.warm = 4 if quick else 8
        settings = (
            f"{self.rounds} round(s), {self.duration} s measured after {SETTLE} s of the same load, warm-up {self.warm} s at "
            f"saturation, "
            f"load average at the start {machine.load_average():.2f}"
        )
        self.report = Report("The second opinion: strowger under our generator and under SIPp", machine.describe(), settings)
        self.results = []

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def ours(self, contestant, process, rate, name, *options):
        before = loopback()
        result = self.generator.run(
            "call", contestant, process, "--rate", rate, "--settle", SETTLE, "--duration", self.duration, *options
        )[0]
        packets, carried = (late - early for late, early in zip(loopback(), before))
        calls = rate * (SETTLE + self.duration)
        result.update(contestant=name, datagrams_each=packets / calls, bytes_each_datagram=carried / packets - HEADERS)
        return result

    def two(self, contestant, process, rate):
        """Callers and answerers as SIPp has them: two processes on one core."""
        command = [
            "taskset",
            "-c",
            str(CORE),
            self.load,
            "call",
            "--role",
            "answerers",
            "--wait",
            "sleep",
            "--ring",
            TURN,
            "--quiet",
            "--duration",
            str(SETTLE + self.duration + 60),
            "--json",
            os.path.join(self.directory, "answerers.json"),
        ]
        answerers = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            if "ready" not in answerers.stderr.readline():
                raise RuntimeError("the answerers did not start")
            return self.ours(contestant, process, rate, TWO, "--role", "callers", "--wait", "sleep", "--hold", TURN)
        finally:
            answerers.terminate()
            answerers.communicate(timeout=10)

    def measure(self):
        contestant = contestants.strowger(self.strowger)
        process = contestant.start(self.directory)
        try:
            # The users' contacts name the port at which every answerer listens in turn.
            self.generator.run(
                "call", contestant, process, "--register-first", "--window", 48, "--settle", 0, "--duration", self.warm
            )
            time.sleep(SETTLE)
            sipp = Sipp(self.directory)
            for number in range(self.rounds):
                for rate in self.arguments.rates:
                    asleep = ["--wait", "sleep"]
                    runs = [
                        (IN_TIME, lambda: self.ours(contestant, process, rate, IN_TIME, *asleep, "--ring", TURN, "--hold", TURN)),
                        (SIPP, lambda: sipp.run(process, rate, self.duration)),
                        (TWO, lambda: self.two(contestant, process, rate)),
                        (AT_ONCE, lambda: self.ours(contestant, process, rate, AT_ONCE, *asleep)),
                        (SPIN, lambda: self.ours(contestant, process, rate, SPIN)),
                    ]
                    for name, run in runs:
                        result = run()
                        result["label"] = "second opinion"
                        self.results.append(result)
                        self.report.raw.append(result)
                        self.say(
                            f"round {number + 1} of {self.rounds}, {rate:,}/s, {name}: "
                            f"{result['server_cpu_us_each']:.1f} µs{'' if result['clean'] else ', not clean'}"
                        )
        finally:
            process.stop()

    def series(self, name, rate, value=lambda result: result["server_cpu_us_each"]):
        return Series(
            [result for result in self.results if result["contestant"] == name and result["rate_or_window"] == float(rate)], value
        )

    def tell(self):
        lines = []
        for rate in self.arguments.rates:
            for name in [SIPP, IN_TIME, TWO, AT_ONCE, SPIN]:

                def cell(key, digits=1, scale=1, name=name, rate=rate):
                    return self.series(name, rate, lambda result: scale * result[key]).text(digits)

                ratio = self.series(name, rate).median / self.series(SIPP, rate).median
                lines.append(
                    [
                        f"{rate:,}/s",
                        name,
                        cell("server_cpu_us_each"),
                        f"{ratio:.2f}",
                        cell("server_busy", 1, 100),
                        cell("generator_us_each"),
                        cell("completed_per_second", 0),
                        cell("datagrams_each", 2),
                        cell("bytes_each_datagram", 0),
                    ]
                )
        self.report.table(
            "Server CPU for a call, by who calls",
            [
                "rate",
                "generator",
                "server, µs a call",
                "÷ SIPp",
                "server's core, % busy",
                "generator's µs a call",
                "calls/s",
                "datagrams a call",
                "bytes a datagram",
            ],
            lines,
        )
        for rate in self.arguments.rates:
            ours, theirs = self.series(IN_TIME, rate), self.series(SIPP, rate)
            ratio = ours.median / theirs.median
            met = abs(ratio - 1) <= WITHIN if ours.is_sound and theirs.is_sound else None
            self.report.row(
                "G2",
                f"call at {rate:,}/s, our generator in SIPp's time ÷ SIPp",
                f"{1 - WITHIN:.2f}–{1 + WITHIN:.2f}",
                f"{ratio:.3f} ({ours.median:.1f} ÷ {theirs.median:.1f} µs)",
                met,
                "".join(sorted(set(ours.marks + theirs.marks))),
            )
        return self.report


DIFFERENCES = """## What differs
- **A call's time.** SIPp does one thing for a call in each millisecond: its 200 follows the 180, and its BYE the ACK, a millisecond
  later. Our generator sends both at once, in one system call, so that the
  server wakes up once for the two. *In SIPp's time* it waits as SIPp does (`--ring 0.001 --hold 0.001`): that is the same load, and
  what the row compares. *At once* is what all other commands here measure.
- **Waking.** SIPp sleeps between two turns, and so does our generator here (`--wait sleep`); spinning, as everywhere else, it need
  not be woken at the server's expense.
- **Two processes.** SIPp's caller and answerer are two, so that a datagram may have to wait for the other to leave the core, or
  wakes one that sleeps where the other runs.
- **Bursts.** SIPp sends what has become due since its last turn; our calls leave at the constant interval. Datagrams that come
  together share the server's wake-ups.
- **Datagrams.** Headers and body are the same but for the lengths of tags, Call-ID and branch. SIPp sends and receives each
  datagram by a system call of its own, ours a batch of those that are there.
- **What is counted.** In both cases the scheduler's account of all threads of the server between two moments, ÷ the calls that
  ended between them. SIPp tells those moments by the
  lines of its statistics, one a second; it counts a call when its last 200 has come, as we do.
"""


def main():
    parser = argparse.ArgumentParser(prog="perf/second-opinion", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of short measurements")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--duration", type=int, help="seconds of each measurement")
    parser.add_argument("--rates", type=lambda text: [int(rate) for rate in text.split(",")], default=RATES, help="calls a second")
    parser.add_argument("--strowger", help="this binary instead of the release build")
    parser.add_argument("--load", help="this generator instead of the release build")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="show the generator's live lines")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("perf/second-opinion: two cores are needed, one for the server and one for the generators")
    for name in ["strowger", "load"]:
        if getattr(arguments, name):
            setattr(arguments, name, os.path.abspath(getattr(arguments, name)))
    with tempfile.TemporaryDirectory(prefix="strowger-perf-") as directory:
        try:
            bench = SecondOpinion(arguments, directory)
            bench.measure()
            report = bench.tell()
        except (RuntimeError, subprocess.SubprocessError) as why:
            for name in sorted(os.listdir(directory)):
                if name.endswith(".log"):
                    with open(os.path.join(directory, name), errors="replace") as text:
                        print(f"--- {name}\n{text.read()[-2000:]}", file=sys.stderr)
            sys.exit(f"perf/second-opinion: {why}")
        path = report.write(PERF, "second-opinion")
        with open(path + ".md", "a") as text:
            text.write("\n" + DIFFERENCES)
        print(report.markdown() + "\n" + DIFFERENCES)
        print("written:", path + ".{md,json}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""What the commands for the studies have in common: their options and forms, servers started for a case, loads run against them,
the peak."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

import cases
import certificates
import machine
from cases import WINDOW
from contestants import PERF
from generator import Generator
from report import Report, Series
from udp import build, words

NAMES = ["strowger", "kamailio"]
# The studies' rule: the peak is the highest rate at which no more than this share of the calls fails.
FAILURES = 0.04
# How close the search for it comes, and in the quick form.
PRECISION, QUICK_PRECISION = 0.03, 0.06
# Seconds for the last answers of a load above the peak: what has not ended by then has failed.
PATIENCE = 4
# After such a load: the server is left alone until it uses less of a core than this, or for so many seconds.
IDLE_SHARE, MOST_PATIENCE = 0.05, 40
# From this share of its time on a core counts as full.
FULL = 0.95


class Progress:
    """How far a sweep is: a bar on a terminal, otherwise a line for each step."""

    def __init__(self, steps):
        self.steps, self.done, self.began = steps, 0, time.monotonic()

    def step(self, text):
        self.done += 1
        total = max(self.steps, self.done)
        spent = time.monotonic() - self.began
        left = spent / (self.done - 1) * (total - self.done + 1) if self.done > 1 else None
        about = "" if left is None else f", about {left / 60:.0f} min left"
        if sys.stderr.isatty():
            filled = 30 * (self.done - 1) // total
            print(
                f"\r\x1b[K[{'█' * filled}{'·' * (30 - filled)}] {self.done}/{total}{about}: {text}",
                end="",
                file=sys.stderr,
                flush=True,
            )
        else:
            print(f"  {self.done}/{total}{about}: {text}", file=sys.stderr, flush=True)

    def end(self):
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Study:
    """A run of one command. `quick` measures seconds where the full form measures what the studies prescribe."""

    def __init__(self, arguments, directory, title):
        self.arguments, self.directory = arguments, directory
        certificates.make()
        self.strowger, self.load = build(arguments)
        self.generator = Generator(self.load, directory, arguments.verbose)
        quick = arguments.quick
        self.rounds = rounds_of(arguments)
        self.warm = arguments.warm if arguments.warm is not None else (3 if quick else 30)
        self.duration = arguments.duration or (3 if quick else 120)
        # Steps of a search for the peak are shorter: there are ten of them.
        self.step = min(self.duration, 2 if quick else 10)
        self.precision = QUICK_PRECISION if quick else PRECISION
        settings = (
            f"{self.rounds} round(s), {self.warm} s of load, then {self.duration} s measured; "
            f"load average at the start {machine.load_average():.2f}"
        )
        self.report = Report(title, machine.describe(), settings)
        self.results, self.failures = [], []
        self.progress = Progress(0)
        self.old_suites = None
        write_users(self.load, directory)

    def binary(self, case):
        """The build that knows the case's suite."""
        if not getattr(case, "needs_old_suites", False):
            return self.strowger
        if self.old_suites is None:
            self.old_suites = self.arguments.old_suites or build_with_old_suites()
        return self.old_suites

    @contextlib.contextmanager
    def server(self, case, name):
        """A server for the case, freshly started; ended at the end of the block."""
        if name == "kamailio":
            contestant = case.kamailio(self.directory)
        else:
            contestant = case.strowger(self.binary(case), self.directory)
            contestant.name = name
        process = contestant.start(self.directory)
        try:
            yield contestant, process
        finally:
            process.stop()

    def run_load(self, case, contestant, process, *options, mode="call", **fields):
        """One run of the generator: a result for each load in `options`. Each gets `fields`, and a complaint where what happened is
        not what the case means."""
        found = self.generator.run(mode, contestant, process, *case.options(contestant.name), *options)
        for result in found:
            result.update(fields, label=case.label, configuration=case.name)
            result["complaint"] = case.complaint(result, contestant.name)
            if result["complaint"]:
                result["clean"] = False
            self.results.append(result)
            self.report.raw.append(result)
        return found

    def saturate(self, case, contestant, process, warm=None, **fields):
        """CPU of a call and capacity, with WINDOW calls outstanding."""
        result = self.run_load(
            case,
            contestant,
            process,
            "--window",
            WINDOW,
            "--settle",
            self.warm if warm is None else warm,
            "--duration",
            self.duration,
            what="saturation",
            **fields,
        )[0]
        # What is outstanding and not at the server is at the generator.
        if result["server_busy"] + result["server_waited"] < FULL:
            result["generator_bound"] = True
        return result

    def peak(self, case, contestant, process, capacity, **fields):
        """The highest open-loop rate at which at most FAILURES of the calls fail or are left over, around the capacity of a closed
        window. Where the generator could not offer more, the result is marked as bounded by it."""
        tried = {}

        def passes(rate):
            result = self.run_load(
                case,
                contestant,
                process,
                "--rate",
                f"{rate:.0f}",
                "--settle",
                1,
                "--duration",
                self.step,
                "--drain",
                PATIENCE,
                "--max-outstanding",
                40_000,
                what="peak",
                **fields,
            )[0]
            tried[rate] = result
            if failed_share(result) <= FAILURES and not fell_behind(result) and not fell_short(result):
                return True
            # What the server still works off must not meet the next step.
            process.wait_idle(IDLE_SHARE, MOST_PATIENCE)
            return False

        low, high = highest(passes, capacity, self.precision)
        if low is None:
            return None
        best = tried[low]
        best["what"] = "peak found"
        if high is not None and generator_was_full(tried[high]):
            best["generator_bound"] = True
        return best

    def attempt(self, what, *arguments, **named):
        """An hour's measurements are not thrown away because one of them fails."""
        try:
            return what(*arguments, **named)
        except (RuntimeError, OSError, subprocess.SubprocessError) as why:
            print(f"\n    FAILED: {why}", file=sys.stderr, flush=True)
            self.failures.append(str(why))
            return None

    def series(self, label, contestant="strowger", value=None, **fields):
        value = value or (lambda result: result["server_cpu_us_each"])
        found = [
            result
            for result in self.results
            if result["label"] == label
            and result["contestant"] == contestant
            and all(result.get(key) == wanted for key, wanted in fields.items())
        ]
        return Series(found, value)

    def finish(self, name):
        """Prints the report, writes it and its plots' folder's name; a run with holes in it says so by its exit status."""
        self.progress.end()
        print(self.report.markdown())
        print("written:", self.report.write(PERF, name) + ".{md,json}", file=sys.stderr)
        if self.failures:
            raise RuntimeError(f"{len(self.failures)} measurement(s) failed, and are missing above; the first: {self.failures[0]}")


def highest(passes, capacity, precision):
    """The highest rate that passes and the lowest that does not, as near each other as `precision`; either is None if there is
    none. From below the capacity upwards, since a load far above it leaves a server with much to work off."""
    low, high = None, None
    rate = 0.8 * capacity
    while True:
        if passes(rate):
            low = rate
        else:
            high = rate
        if high is None:
            if low > 1.6 * capacity:
                return low, high
            rate *= 1.12
        elif low is None:
            if rate < 0.1 * capacity:
                return low, high
            rate *= 0.8
        elif high / low < 1 + precision:
            return low, high
        else:
            rate = (low + high) / 2


def fell_short(result):
    """The generator did not begin as many calls as were due."""
    return result["counts"]["started"] < (1 - FAILURES) * result["counts"]["scheduled"]


def fell_behind(result):
    """Fewer calls ended in the measured time than were due in it. A few seconds above the peak leave no more of them than are
    worked off while the last answers are awaited, and so none that fails."""
    return result["counts"]["completed"] < (1 - FAILURES) * result["counts"]["scheduled"]


def generator_was_full(result):
    """With what others had of its core; and the server was not, with what others had of its."""
    return fell_short(result) or (
        result["generator_busy"] + result["generator_waited"] > FULL and result["server_busy"] + result["server_waited"] < FULL
    )


def failed_share(result):
    """Share of the calls scheduled in the measured time that did not end well."""
    if "failed_share" in result:
        return result["failed_share"]
    scheduled = max(result["counts"]["scheduled"], 1)
    return max(0.0, 1 - result["counts"]["completed"] / scheduled)


def counters(binary, directory, prefix):
    """The server's own counters whose names begin so, by name and labels."""
    command = [binary, "stats", prefix, "--json", "--control", os.path.join(directory, "strowger.sock")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the server's counters could not be read: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def write_users(generator, directory):
    """What a conf with digest reads: the users of the generator, with the hashes that it will prove."""
    with open(os.path.join(directory, "users.txt"), "w") as text:
        subprocess.run([generator, "users", "--users", str(cases.USERS), "--realm", cases.REALM], stdout=text, check=True)


def build_with_old_suites():
    """A second release build, in a folder of its own so that the two do not chase each other out."""
    top = os.path.dirname(PERF)
    target = os.path.join(PERF, "results", "old-suites")
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "--features", "old-suites", "--bin", "strowger", "--target-dir", target],
        cwd=top,
        check=True,
    )
    return os.path.join(target, "release", "strowger")


def rounds_of(arguments):
    return arguments.rounds or (1 if arguments.quick else 3)


def options(prog, description):
    """The options that all of them have."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--quick", action="store_true", help="one round of short measurements: a few minutes")
    parser.add_argument("--rounds", type=int, help="how often each case is measured [3; quick: 1]")
    parser.add_argument("--warm", type=float, help="seconds of load before the measuring [30; quick: 3]")
    parser.add_argument("--duration", type=float, help="seconds of each measurement [120; quick: 3]")
    parser.add_argument("--only", type=words(NAMES), default=["strowger"], help="who is measured: strowger, kamailio or both")
    parser.add_argument("--strowger", type=os.path.abspath, help="this binary instead of the release build")
    parser.add_argument("--load", type=os.path.abspath, help="this load generator instead of the release build")
    parser.add_argument(
        "--old-suites", type=os.path.abspath, help="this binary as the one built with the feature old-suites (TLS 3DES)"
    )
    parser.add_argument("--no-build", action="store_true", help="take the binaries that there are")
    parser.add_argument("--verbose", action="store_true", help="show the generator's live lines")
    return parser

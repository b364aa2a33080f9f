"""What a study measures with: the builds, certificates, users and ports, and the load generator."""

import argparse
import contextlib
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import certificates
import servers
import study
from cases import OLD, REALM, Case
from machine import Process, run
from report import PERF
from samples import Result, Samples

TOP = PERF.parent
# The server has core 0, everything else this one.
CORE = 1
# Brings a relay's messages to the mean size of those that a proxy sends and receives.
FLOOR_PAD = {"call": 85, "register": 24}
# Seconds of load before a measurement: longer than the one for which transactions are remembered, so that as many are forgotten as
# begin, and none of the memory is touched for the first time. Then the seconds that are measured.
SETTLE, MEASURE = 1.75, 1.5
# The studies': 30 s of load, then 120 s measured.
AS_PUBLISHED = (30.0, 120.0)
# Other builds of the server, by what they are for: cargo's options.
BUILDS = {"old-suites": ["--features", "old-suites"], "system-openssl": ["--no-default-features", "--features", "system-openssl"]}
SYSTEM_OPENSSL = "strowger-system-openssl"
# What a command makes of its options.
Plans = study.Plan | Sequence[study.Plan]


class Bench:
    """`home` is the folder of the servers that are started: confs, logs, sockets. `samples` is what the study has measured so
    far."""

    def __init__(self, options: argparse.Namespace, home: str) -> None:
        self.options, self.home = options, home
        self.samples = Samples()
        self.address, self.port = options.address, options.port
        self.settle, self.measure = AS_PUBLISHED if options.as_published else (SETTLE, MEASURE)
        self.strowger = options.strowger or target(TOP) / "strowger"
        self.load = options.load or target(PERF / "load") / "strowger-load"
        if not options.no_build and not options.only_report:
            self.build()
        self.others: dict[str, Path] = {}
        self.certificates = certificates.make(self.address, options.only_report)

    def build(self) -> None:
        wanted = [] if self.options.load else [PERF / "load"]
        for folder in [*wanted, *([] if self.options.strowger else [TOP])]:
            subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=folder, check=True)

    def binary(self, who: str, case: Case) -> Path:
        """The build that a contestant is, or that knows the case's suites. It is made when it is first wanted, in a folder of its
        own, so that two builds do not chase each other out."""
        name = "old-suites" if case.suite == OLD else "system-openssl" if who == SYSTEM_OPENSSL else None
        if name is None:
            return self.strowger
        if name not in self.others:
            folder = PERF / "results" / name
            if not self.options.no_build or not (folder / "release" / "strowger").exists():
                command = ["cargo", "build", "--release", "--quiet", "--bin", "strowger", "--target-dir", str(folder)]
                subprocess.run([*command, *BUILDS[name]], cwd=TOP, check=True)
            self.others[name] = folder / "release" / "strowger"
        return self.others[name]

    # Addresses.

    @property
    def host(self) -> str:
        """As it is written in addresses and URIs."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def at(self, port: int) -> str:
        return f"{self.host}:{port}"

    def own_ports(self) -> tuple[int, int]:
        """The callers' and the answerers', 10,010 and 10,510 above the server's: 15070 and 15570."""
        return self.port + 10_010, self.port + 10_510

    def generator_ports(self) -> list[str]:
        callers, answerers = self.own_ports()
        return ["--caller-port", str(callers), "--answerer-port", str(answerers)]

    def next_hop(self, transport: str) -> str:
        return f"sip:{self.at(self.own_ports()[1])}" + ("" if transport == "udp" else f";transport={transport}")

    def prepare(self, who: str, case: Case) -> None:
        """Builds what a task will want, before the time begins."""
        if who not in ("kamailio", "floor"):
            self.binary(who, case)

    def certificate(self, name: str, kind: str) -> str:
        return str(self.certificates / f"{name}.{kind}")

    def write_users(self, case: Case) -> None:
        """What a conf with digest reads: the users of the generator, with the hashes that it will prove."""
        command = [str(self.load), "users", "--users", str(case.users), "--realm", REALM, "--algorithm", case.algorithm]
        with open(os.path.join(self.home, "users.txt"), "w") as text:
            subprocess.run(command, stdout=text, check=True)

    # Running.

    @contextlib.contextmanager
    def server(self, who: str, case: Case) -> Iterator[Process]:
        """A server for the case, freshly started; ended at the end of the block."""
        process = servers.start(who, case, self)
        try:
            yield process
        finally:
            process.stop()

    def run_load(
        self,
        who: str,
        case: Case,
        process: Process,
        mode: str,
        *options: object,
        registers: bool = True,
        is_sliced: bool = False,
        register_server: str = "",
        may_be_empty: bool = False,
    ) -> list[Result]:
        """One run of the generator: a result for each load in `options`. Whom it calls it registers first, unless they are there:
        at the server that is measured, or at another one. `is_sliced`: what the server costs is told of the time in which its
        core had its full speed. What is not what the case means makes a result unclean."""
        output = os.path.join(self.home, "load.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(output)
        command = ["taskset", "-c", str(CORE), str(self.load), mode, "--server-pid", str(process.pid), "--json", output]
        command += ["--server", self.at(self.port + (case.transports[0] == "tls")), "--local", self.at(0)]
        command += ["--domain", self.host]
        command += ["--register-server", register_server or self.at(self.port)]
        # Answerers over UDP take what comes from there alone.
        command += ["--callee-server", self.at(self.port)] if case.transports[1] == "udp" else []
        command += [*self.generator_ports(), *case.options(who, self)]
        if is_sliced and len(case.cores) == 1:
            command += ["--server-core", str(case.cores[0])]
        if who == "floor":
            command += ["--floor", "--pad", str(FLOOR_PAD[mode])]
        elif mode == "call" and case.routed:
            command.append("--routed")
        elif mode == "call" and registers:
            command.append("--register-first")
        done = subprocess.run([*command, *map(str, options)], stderr=None if self.options.verbose else subprocess.PIPE, text=True)
        # 1: it ran, and something was not clean; the results say what.
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the generator failed against {who}: {last_words(done.stderr)}")
        results: list[Result] = json.loads(Path(output).read_text())
        if not may_be_empty and not all(result["counts"]["completed"] for result in results):
            raise RuntimeError(f"nothing was completed by {who}: {last_words(done.stderr)}")
        for result in results:
            result.update(mode=mode, who=who, case=case.name)
            complaint = result["counts"]["completed"] and case.complaint(result, who)
            if complaint:
                result.update(clean=False, complaint=complaint)
            if done.stderr and not result["clean"]:
                result["generator_said"] = done.stderr[-2000:]
        return results

    def counters(self, prefix: str) -> dict[str, float]:
        """The server's own counters whose names begin so, by name and labels."""
        return json.loads(run(self.strowger, "stats", prefix, "--json", "--control", os.path.join(self.home, "strowger.sock")))


def last_words(said: str | None) -> str:
    """What a program said at its end, without its live lines, which begin with spaces."""
    lines = [line for line in (said or "").splitlines() if line.strip() and not line.startswith("  ")]
    return " / ".join(lines)[-500:] or "it said nothing"


def target(folder: Path) -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or folder / "target") / "release"


def parser(name: str, about: str, minutes: float, parts: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that all commands have."""
    found = argparse.ArgumentParser(prog=f"perf/{name}", description=about)
    if parts:
        found.add_argument("parts", nargs="*", default=list(parts), metavar="PART", help=f"of {', '.join(parts)} [all]")
    found.add_argument("--minutes", type=float, default=minutes, help=f"measure for so long at most [{minutes:g}]")
    found.add_argument("--precision", type=float, default=study.PRECISION, help="half the interval that a ratio may have [0.03]")
    found.add_argument("--rows", type=words, help="measure only what these rows need, divided by commas")
    found.add_argument("--cases", type=words, help="only cases whose names have one of these parts in them")
    found.add_argument("--only", type=words, help="only these contestants: strowger, kamailio, floor, …")
    found.add_argument("--as-published", action="store_true", help="30 s of load, then 120 s measured, as the studies: hours")
    found.add_argument("--resume", action="store_true", help="go on with the runs that the folder has")
    found.add_argument("--plan", action="store_true", help="measure nothing: say what would be, and how long it takes")
    found.add_argument("--only-report", action="store_true", help="measure nothing: report the runs that the folder has")
    found.add_argument("--results", metavar="DIR", help="the folder of runs and reports [perf/results/DATE-HOST]")
    found.add_argument(
        "--take-disturbed", action="store_true", help="count runs of disturbed minutes too: for a try, not for figures"
    )
    found.add_argument("--seed", type=int, help="of the order of the runs [random]")
    found.add_argument("--address", type=address, default="127.0.0.1", help="the server's, and the generator's [127.0.0.1]")
    found.add_argument("--port", type=port, default=5060, help="the server's [5060]; the next is for TLS, ours are 10,000 above")
    found.add_argument("--strowger", type=existing, metavar="FILE", help="this binary instead of the release build")
    found.add_argument("--load", type=existing, metavar="FILE", help="this load generator instead of the release build")
    found.add_argument("--no-build", action="store_true", help="take the binaries that there are")
    found.add_argument("--verbose", action="store_true", help="show the generator's live lines")
    return found


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def address(text: str) -> str:
    try:
        found = ipaddress.ip_address(text.strip("[]"))
    except ValueError as why:
        raise argparse.ArgumentTypeError(f"{text} is no address") from why
    if not found.is_loopback:
        raise argparse.ArgumentTypeError(f"{text} is not of this machine alone: 127.0.0.1, another of 127.0.0.0/8, or ::1")
    return str(found)


def port(text: str) -> int:
    if not text.isdigit() or not 1_024 <= int(text) <= 50_000:
        raise argparse.ArgumentTypeError(f"{text} is not from 1024 to 50000")
    return int(text)


def existing(text: str) -> Path:
    path = Path(text).resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return path


def contestant(options: argparse.Namespace) -> str:
    """Whom a command looks at that looks at one alone."""
    return next((each for each in getattr(options, "only", None) or [] if each != "floor"), "strowger")


def listed(made: Plans) -> list[study.Plan]:
    return [made] if isinstance(made, study.Plan) else list(made)


def needed(plan: study.Plan) -> list[study.Task]:
    """The tasks that a plan's rows rest on."""
    keys = {quantity.key for row in plan.rows for quantity in row.of.values()}
    return with_earlier(plan.tasks, lambda task: bool(keys.intersection(task.keys)))


def with_earlier(tasks: Sequence[study.Task], wanted: Callable[[study.Task], bool]) -> list[study.Task]:
    """The tasks that are wanted, those that must have a result before one of them, and so on."""
    found: set[str] = set()
    more = {task.name for task in tasks if wanted(task)}
    while more - found:
        found |= more
        before = {key for task in tasks if task.name in found for key in task.after}
        more = {task.name for task in tasks if before.intersection(task.keys)}
    return [task for task in tasks if task.name in found]


def chosen(plan: study.Plan, options: argparse.Namespace) -> study.Plan:
    """The part of a plan that the options leave."""
    if options.rows:
        plan.rows = [row for row in plan.rows if row.name in options.rows]
        plan.tasks = needed(plan)
    if options.cases:
        plan.tasks = with_earlier(plan.tasks, lambda task: any(part in task.name for part in options.cases))
    if options.only:
        plan.tasks = [task for task in plan.tasks if not task.who or task.who in options.only]
    if options.cases or options.only:
        there = {key for task in plan.tasks for key in task.keys}
        plan.rows = [row for row in plan.rows if there.issuperset(quantity.key for quantity in row.of.values())]
    return plan


def main(
    name: str,
    about: str,
    minutes: float,
    plan: Callable[[argparse.Namespace], Plans],
    more: Callable[[argparse.ArgumentParser], None] = lambda arguments: None,
    parts: Sequence[str] = (),
    then: Callable[[argparse.Namespace], None] = lambda options: None,
) -> None:
    """A command: its options (`more` adds its own), its plan, its reports, and what it does `then`. With parts it has several
    plans, of which `options.parts` are wanted."""
    arguments = parser(name, about, minutes, parts)
    more(arguments)
    options = arguments.parse_args()
    if unknown := set(getattr(options, "parts", [])) - set(parts):
        arguments.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    plans = listed(plan(options))
    names = list(dict.fromkeys(row.name for each in plans for row in each.rows))
    if unknown := set(options.rows or []) - set(names):
        sys.exit(f"perf/{name}: no row {', '.join(sorted(unknown))}; there are {', '.join(names) or 'none'}")
    plans = [chosen(each, options) for each in plans]
    if not any(each.tasks for each in plans):
        sys.exit(f"perf/{name}: nothing is left to measure: no case or contestant is called that")
    if options.plan:
        print(study.planned(plans))
        return
    if len(os.sched_getaffinity(0)) < 2 and not options.only_report:
        sys.exit(f"perf/{name}: two cores are needed, one for the server and one for the generator")
    try:
        failed = study.run(plans, lambda home: Bench(options, home), options, name)
        then(options)
        sys.exit(failed)
    except (study.Ended, KeyboardInterrupt):
        sys.exit(f"perf/{name}: ended before anything was measured")
    except (RuntimeError, OSError, subprocess.CalledProcessError) as why:
        sys.exit(f"perf/{name}: {why}")

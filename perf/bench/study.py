"""The one frame of all measurements: what is to be measured is data (tasks), what must hold is data (rows), and a study takes the
tasks in random order, round by round, until the rows are decided or the time is over."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import machine
import report
from gauge import Gauge
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from samples import FEWEST, Result, Row, Samples

if TYPE_CHECKING:
    from bench import Bench

# The interval of a ratio that is not decided may be so wide on either side, as a share of it.
PRECISION = 0.03
# A task that fails so often in a row is given up; one in whose minutes the machine was disturbed so often is, too.
FAILURES, DISTURBED = 2, 10
# Before each run the machine is looked at so often, a second apart, until it is calm.
CALM_LOOKS = 4
# Runs of one task at most, whatever its rows still want.
MOST = 25

# By what a run is spoilt.
ALL, HOST, NOTHING = "all", "host", "nothing"


@dataclass
class Task:
    """One thing that is measured: in one go, again and again. `keys` are those of its results: one result of each in each run.
    Tasks of one `block` are measured one after the other, so that what is compared is near in time. `least` runs are wanted
    whatever comes, and more while a row of its keys is not settled; `after` names keys that must have a result first. `seconds`:
    about how long it takes. `prepare` builds what it wants, before the time begins. `minds`: by what a run is spoilt: ALL;
    HOST, if something else having a core belongs to what is measured; NOTHING, if it is bytes that are measured and no time.
    `is_sliced`: it finds out by itself when the core had its full speed, and needs no calm machine."""

    name: str
    keys: Sequence[str]
    measure: Callable[[Bench], dict[str, Result]]
    block: str = ""
    seconds: float = 10
    least: int = FEWEST
    most: int = MOST
    after: Sequence[str] = ()
    who: str = ""
    prepare: Callable[[Bench], None] | None = None
    minds: str = ALL
    is_sliced: bool = False

    def joined(self, other: Task) -> Task:
        """Two plans want a task of this name: as often as the one that wants it more often."""
        return replace(self, least=max(self.least, other.least), most=max(self.most, other.most), block=self.block or other.block)


@dataclass
class Plan:
    """What one command measures, what must hold, and what it says: `tell` adds tables and figures to the report."""

    name: str
    title: str
    tasks: Sequence[Task]
    rows: Sequence[Row] = ()
    tell: Callable[[report.Report, Samples], None] = lambda report, samples: None


class Ended(Exception):
    """The run is to end now: a signal, or the time is over."""


class Study:
    """Runs the tasks of plans and writes their reports. What two plans share is measured once."""

    def __init__(
        self, plans: Sequence[Plan], bench: Bench, minutes: float, precision: float = PRECISION, seed: int | None = None
    ) -> None:
        self.plans, self.bench, self.precision = plans, bench, precision
        self.seconds = minutes * 60
        self.tasks = merged(task for plan in plans for task in plan.tasks)
        self.rows = [row for plan in plans for row in plan.rows]
        self.gauge = Gauge(bench.load)
        self.failures: list[str] = []
        self.in_a_row: dict[str, int] = {}
        self.disturbed: dict[str, int] = {}
        self.seed = seed if seed is not None else random.randrange(2**32)
        self.random = random.Random(self.seed)
        self.console = Console(stderr=True)
        self.began, self.earlier = time.monotonic(), 0.0
        # What depends on an earlier result reads it from the bench.
        self.samples = bench.samples = Samples()

    # The order.

    def wanted(self) -> list[Task]:
        """The tasks of the next pass: those with the fewest runs while any has fewer than it must have; after that those of the
        rows that are not settled. Blocks in random order, and the tasks of a block in random order."""
        open_tasks = [task for task in self.tasks if self.may_run(task)]
        behind = [task for task in open_tasks if self.count(task) < task.least]
        if behind:
            fewest = min(map(self.count, behind))
            chosen = [task for task in behind if self.count(task) == fewest]
        else:
            unsettled = {
                quantity.key
                for row in self.rows
                if not row.is_settled(self.samples, self.precision)
                for quantity in row.of.values()
            }
            chosen = [task for task in open_tasks if unsettled.intersection(task.keys)]
        blocks: dict[str, list[Task]] = {}
        for task in chosen:
            blocks.setdefault(task.block or task.name, []).append(task)
        order = list(blocks.values())
        self.random.shuffle(order)
        for block in order:
            self.random.shuffle(block)
        return [task for block in order for task in block]

    def count(self, task: Task) -> int:
        """The runs of a task that counted, those of an earlier study that this one resumes among them."""
        counted = self.samples.of if self.bench.options.take_disturbed else self.samples.calm
        return min((len(counted(key)) for key in task.keys), default=0)

    def may_run(self, task: Task) -> bool:
        """What takes too long for the time that is left makes room for what does not."""
        return (
            task.seconds <= self.seconds - (time.monotonic() - self.began)
            and self.count(task) < task.most
            and self.in_a_row.get(task.name, 0) < FAILURES
            and self.disturbed.get(task.name, 0) < DISTURBED
            and all(self.samples.of(key) for key in task.after)
        )

    # Running.

    def run(self) -> None:
        """Measures until nothing more is wanted, the time is over or a signal comes; then the reports are written."""
        with self.progress() as step, contextlib.suppress(Ended, KeyboardInterrupt):
            self.prepare()
            self.began = time.monotonic()
            while tasks := self.wanted():
                for number, task in enumerate(tasks):
                    if self.may_run(task):
                        step(task.name, len(tasks) - number)
                        self.run_once(task)

    def prepare(self) -> None:
        for task in self.tasks:
            try:
                if task.prepare:
                    task.prepare(self.bench)
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                self.fail(f"{task.name}: {error}")
                self.in_a_row[task.name] = FAILURES
                self.say(f"FAILED: {task.name}: {error}")

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str, int], None]]:
        """A bar on a terminal, told the next task and how many follow it; elsewhere the lines of `say` are enough."""
        if not sys.stderr.isatty():
            yield lambda name, left: None
            return
        columns = (TextColumn("{task.description:<48}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task("")
            done = itertools.count()

            def step(name: str, left: int) -> None:
                completed = next(done)
                progress.update(bar, description=name, completed=completed, total=completed + left)

            yield step

    def calm(self) -> str | None:
        """Waits some seconds for a calm machine, because a run beside anything else is lost. Says what disturbs it if it is not
        calm even then."""
        for left in range(CALM_LOOKS, 0, -1):
            if not (why := self.gauge.read()) or self.bench.options.take_disturbed or left == 1:
                return why
            self.pause()
        return None

    def pause(self) -> None:
        time.sleep(1)

    def fail(self, text: str) -> None:
        """What fails again and again is told once."""
        if text not in self.failures:
            self.failures.append(text)

    def run_once(self, task: Task) -> None:
        """One run of a task. It counts if the machine was calm before it, during it and after it."""
        before = self.calm() if task.minds != NOTHING and not task.is_sliced else None
        self.gauge.distance()
        began = time.monotonic()
        try:
            found = task.measure(self.bench)
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.fail(f"{task.name}: {error}")
            self.in_a_row[task.name] = self.in_a_row.get(task.name, 0) + 1
            self.say(f"FAILED: {task.name}: {error}")
            return
        if missing := set(task.keys) - set(found):
            self.fail(f"{task.name}: nothing of {', '.join(sorted(missing))}")
        self.in_a_row[task.name] = self.in_a_row.get(task.name, 0) + 1 if missing else 0
        distance_ns, moved = self.gauge.distance()
        reading = self.gauge.read()
        why = before or moved or (None if task.is_sliced else reading)
        if task.minds == NOTHING:
            why = None
        elif not why and task.minds == ALL and any(result.get("disturbed") for result in found.values()):
            why = "something else had one of the cores for more than 5 % of the time"
        took = time.monotonic() - began
        if self.bench.options.take_disturbed:
            why = None
        for key, result in found.items():
            apart = {"distance_ns": distance_ns} if distance_ns and "server_cpu_us_each" in result else {}
            self.samples.add(key, {"at": round(time.time()), "took_s": round(took), **apart, **result}, why)
        # What is found in slices is kept: whether it counts depends on how fast the core is in other runs.
        why = why or next(filter(None, map(self.samples.why_not_calm, found.values())), None)
        self.disturbed[task.name] = self.disturbed.get(task.name, 0) + bool(why)
        self.say(f"{task.name} ({took:.0f} s){': taken again, ' + why if why else ''}")

    def say(self, text: str) -> None:
        spent = time.monotonic() - self.began
        self.console.print(f"[{spent / 60:5.1f} of {self.seconds / 60:g} min] {text}", markup=False, highlight=False)

    # Saying.

    def write(self, directory: Path) -> None:
        """A report for each plan, from the same runs."""
        about = {
            "machine": machine.describe(),
            "minutes": round((self.earlier + time.monotonic() - self.began) / 60, 1),
            "seed": self.seed,
            "gauge": self.gauge.summary(),
            "taken_again": self.samples.not_counted(),
            "given_up": sorted(name for name, number in self.disturbed.items() if number >= DISTURBED),
            "failures": self.failures,
        }
        for plan in self.plans:
            written = report.Report(plan.name, plan.title, about)
            for row in plan.rows:
                written.row(row, self.samples)
            try:
                plan.tell(written, self.samples)
            except Exception:
                # What one plan cannot say is no reason for the others to be silent.
                self.fail(f"{plan.name}: its tables and figures could not be made")
                traceback.print_exc()
            written.write(directory)
            if len(self.plans) == 1:
                print(written.markdown())
            print(f"written: {directory / plan.name}.{{md,json}}", file=sys.stderr)


def merged(tasks: Iterable[Task]) -> list[Task]:
    """Tasks of one name are one task."""
    found: dict[str, Task] = {}
    for task in tasks:
        found[task.name] = found[task.name].joined(task) if task.name in found else task
    return list(found.values())


def planned(plans: Sequence[Plan]) -> str:
    """What would be measured: how often at least, and how long that takes."""
    tasks = sorted(merged(task for plan in plans for task in plan.tasks), key=lambda task: -task.least * task.seconds)
    lines = [f"{task.least:3} × {task.seconds:3.0f} s  {task.name}" for task in tasks]
    total, once = (sum(task.seconds * times(task) for task in tasks) for times in (lambda task: task.least, lambda task: 1))
    said = f"{len(tasks)} tasks: {once / 60:.0f} min once each, {total / 60:.0f} min as often as they must be"
    return "\n".join([*lines, said + "; more where a row is not decided, until the time is over."])


def run(plans: Sequence[Plan], bench_of: Callable[[str], Bench], options: argparse.Namespace, name: str) -> int:
    """Runs the plans as the options say, and writes what was found; 1 if something failed. A folder of its own is the servers'
    home. What this command and others have measured is in the folder of the reports, a file for each: the same key means the same
    in all."""
    directory = report.directory(options.results)
    signal.signal(signal.SIGTERM, end)
    with tempfile.TemporaryDirectory(prefix="strowger-perf-") as home:
        study = Study(plans, bench_of(home), options.minutes, options.precision, options.seed)
        path = directory / f"runs-{name}.jsonl"
        if options.resume or options.only_report:
            for each in sorted(directory.glob("runs-*.jsonl")):
                study.samples.read(each)
            study.earlier = study.samples.seconds()
        elif path.exists():
            os.rename(path, directory / f"earlier-{name}-{int(path.stat().st_mtime)}.jsonl")
        study.samples.path = path
        if not options.only_report:
            study.say(planned(plans).splitlines()[-1])
            study.run()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        study.write(directory)
    return 1 if study.failures else 0


def end(*_: object) -> None:
    raise Ended

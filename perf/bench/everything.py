"""perf/all: everything that the other commands measure, in one study: what several need is measured once. perf/targets: of that,
only what the rows of the targets rest on. Both end with every target, and whether it is met."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

import bench
import compare
import memory
import model_fit
import overload
import page
import profiling
import published
import report
import reproduce
import rows
import scale
import second_opinion
import security
from report import Report
from samples import FEWEST, VERDICTS, Row, Samples, worst
from study import Plan, Task

# Those that have plans. The attack laboratory, the soak, the cluster and restarts are not among them: they need more than two
# cores' worth of time, or judge and do not measure.
MODULES = (rows, memory, scale, security, reproduce, compare, overload, second_opinion, profiling, model_fit)
# The page of targets: its rows in order, and what measures those that no plan here has.
ROWS = "U1 U1b U2 R1 A1 R2 A2 A3 T1 T2 T3 S1 S2 S3 S4 S6 S7 S8 I1 M1 M2 M3 M4 M5 O1 K1 L1 G1 G2 G3 C1 X1 X2 H1 W1 P1".split()
ELSEWHERE = {"X1": "perf/attack", "X2": "perf/attack", "H1": "perf/instructions", "W1": "perf/cluster"}
MINUTES = 60
# Seconds that a task on which a row rests has at first.
ROOM = 45


def plans(options: argparse.Namespace) -> list[Plan]:
    """All of them, as often as an hour has room for: what no row rests on once, and what takes long as often at first. Rows that
    are not settled then go on."""
    found = every_plan(options)
    needed = {task.name for plan in found for task in bench.needed(plan)}
    if not options.as_published:
        for plan in found:
            plan.tasks = [replace(task, least=min(task.least, most_runs(task, task.name in needed))) for task in plan.tasks]
    return [*found, targets(found)]


def most_runs(task: Task, has_row: bool) -> int:
    return max(1, min(FEWEST, int(ROOM // task.seconds))) if has_row else 1


def every_plan(options: argparse.Namespace) -> list[Plan]:
    return [plan for module in MODULES for plan in bench.listed(module.plan(options))]


def only_rows(options: argparse.Namespace) -> list[Plan]:
    found = [plan for plan in every_plan(options) if plan.rows]
    for plan in found:
        plan.tasks = bench.needed(plan)
    return [*found, targets(found)]


# Every target.


def targets(found: Sequence[Plan]) -> Plan:
    """A plan that measures nothing, and has the rows of all others, in the order of the page of targets."""
    rows = list({(row.name, row.what, row.target()): row for plan in found for row in plan.rows}.values())
    rows.sort(key=lambda row: ROWS.index(row.name) if row.name in ROWS else len(ROWS))
    names = [plan.name for plan in found]
    return Plan("targets", "Every target", [], rows, lambda written, samples: tell(written, samples, rows, names))


def tell(written: Report, samples: Samples, rows: Sequence[Row], names: Sequence[str]) -> None:
    """A row is as its worst line is."""
    reproduced_row(written, names)
    by_name: dict[str, list[str]] = {name: [] for name in ROWS}
    for line in written.rows:
        by_name.setdefault(line["row"], []).append(line["verdict"])
    together: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for name, verdicts in by_name.items():
        if verdicts:
            together[worst(verdicts)].append(name)
    lines = [[verdict, len(found), " ".join(found)] for verdict, found in together.items()]
    elsewhere = [f"{name} ({ELSEWHERE[name]})" for name, verdicts in by_name.items() if not verdicts and name in ELSEWHERE]
    lines += [["measured by other commands", len(elsewhere), ", ".join(elsewhere)]] if elsewhere else []
    missing = [name for name, verdicts in by_name.items() if not verdicts and name not in ELSEWHERE]
    lines += [["no command here measures it", len(missing), " ".join(missing)]] if missing else []
    written.table("Together: a row is as the worst of its lines", ["", "rows", ""], lines)


def reproduced_row(written: Report, names: Sequence[str]) -> None:
    """Row G3: the studies' tables and figures that the plans have reproduced, as each says in its report; and the time that all
    took."""
    there: set[str] = set()
    for name in names:
        path = report.directory() / f"{name}.json"
        there.update(json.loads(path.read_text()).get("reproduced", []) if path.exists() else [])
    if there:
        minutes, wanted = written.about["minutes"], len(published.TABLES_AND_FIGURES)
        what = "tables and figures of both studies reproduced, and minutes that all took"
        verdict = "met" if len(there) == wanted and minutes <= MINUTES else "not met"
        line = {"row": "G3", "what": what, "target": f"all, ≤ {MINUTES} min", "verdict": verdict, "note": ""}
        measured = f"{len(there)} of {wanted}, {minutes:.0f} min"
        written.rows.append({**line, "measured": measured, "value": len(there), "low": None, "high": None, "runs": 1})


# The commands.


def say(options: argparse.Namespace) -> None:
    """The targets on the screen."""
    print((report.directory() / "targets.md").read_text())


def say_and_write(options: argparse.Namespace) -> None:
    say(options)
    try:
        page.write(report.directory())
    except (RuntimeError, OSError) as why:
        print(f"perf/RESULTS.md was not made: {why}", file=sys.stderr)


COMMANDS = {"all": (MINUTES, plans, say_and_write), "targets": (45, only_rows, say)}

if __name__ == "__main__":
    command = sys.argv.pop(1)
    minutes, made, then = COMMANDS[command]
    bench.main(command, __doc__, minutes, made, then=then)

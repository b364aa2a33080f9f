"""perf/attack: the attack laboratory. One scenario for each known attack, against the real server, while legitimate phones call and
register beside it."""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import certificates
import machine
from attack import net, verdicts
from attack.lab import MEGABYTE, SCENARIOS, TELLING, Lab, ms
from report import PERF, Report, directory
from samples import Result

MODULES = ["identity", "floods", "tables", "reflection", "connections", "names", "operations"]
# Seconds before, during and after the attack.
QUICK, FULL = (2.5, 5.0, 2.5), (5.0, 20.0, 10.0)

Cell = Callable[[Result], list[str]]

LEGEND = (
    "Legitimate calls and registrations: done of those tried, before / during / after the attack; goes on means "
    f"{verdicts.GOES_ON:.0%} of them within 4 s. ms: from when it was due to the 200, median and 99th percentile. CPU: of the "
    "server's core. Not to be told: it was not well before, the legitimate side or the attacker was itself the limit, or the "
    f"server waited for its core for more than {verdicts.DISTURBED:.0%} of the time, which something else on the machine had."
)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perf/attack", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="NAME", help='names of --list, beginnings of names with "*", or "all"')
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--quick", action="store_true", help="seconds for each scenario")
    server_options(parser)
    parser.add_argument("--name", default="attack", help="of the report [attack]")
    return parser


def server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--binary", type=os.path.abspath, help="this server instead of the release build")
    parser.add_argument("--no-build", action="store_true", help="take the binary that there is")


def chosen(words: Iterable[str]) -> list[str]:
    names = []
    for word in words:
        found = [name for name in SCENARIOS if word == "all" or name == word or word.endswith("*") and name.startswith(word[:-1])]
        if not found:
            raise RuntimeError(f"{word} is none of the scenarios; perf/attack --list names them")
        names += [name for name in found if name not in names]
    return names


def binary(arguments: argparse.Namespace) -> str:
    top = os.path.dirname(PERF)
    if arguments.binary:
        return arguments.binary
    if not arguments.no_build:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=top, check=True)
    return os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(top, "target"), "release", "strowger")


def counts(*kinds: str) -> Cell:
    """Done of those tried, of some kinds of legitimate traffic, before, during and after."""

    def cell(result: Result) -> list[str]:
        phases = [[phase[kind] for kind in kinds if kind in phase] for phase in result["legitimate"].values()]
        return [f"{sum(part['done'] for part in of)}/{sum(part['tried'] for part in of)}" for of in phases if of]

    return cell


def times(*kinds: str) -> Cell:
    """Milliseconds of the first of some kinds that there is."""

    def cell(result: Result) -> list[str]:
        phases = [[phase[kind] for kind in kinds if kind in phase] for phase in result["legitimate"].values()]
        return [f"{ms(of[0]['p50_ms'])}, {ms(of[0]['p99_ms'])}" for of in phases if of]

    return cell


def memory(result: Result) -> list[str]:
    machine = result["machine"]
    values = [machine["before"]["rss"], machine["during"]["peak"], machine["after"]["rss"]]
    return ["—" if value is None else f"{value / MEGABYTE:.0f}" for value in values]


def shares(name: str) -> Cell:
    def cell(result: Result) -> list[str]:
        values = [phase[name] for phase in result["machine"].values()]
        return ["—" if value is None else f"{100 * value:.0f}" for value in values]

    return cell


def figure(value: object) -> str:
    if isinstance(value, (int, float)) and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


# Of the table, and of what is said of each as soon as it is known.
COLUMNS: list[tuple[str, Cell]] = [
    ("calls", counts("calls", "names")),
    ("ms", times("calls", "names")),
    ("registrations", counts("refreshed", "new")),
    ("new connections", counts("tcp", "tls")),
    ("ms", times("tcp", "tls")),
    ("MB before · most · after", memory),
    ("CPU % before · during · after", shares("cpu")),
    ("waited for the core, %", shares("waited")),
    ("the attack", lambda result: ["; ".join(f"{name} {figure(value)}" for name, value in result["attack"].items())]),
]


def cells(result: Result) -> list[str]:
    return [" · ".join(cell(result)) or "—" for _, cell in COLUMNS]


def say(result: Result) -> None:
    print(f"{result['scenario']}: {verdicts.WORDS[result['verdict']]}  ({result['what']})")
    for (title, _), cell in zip(COLUMNS, cells(result)):
        if cell != "—":
            print(f"    {title}: {cell}")
    for check in result["checks"]:
        print(f"    {verdicts.line(check['what'], check['seen'], check['held'])}")
    for line in [*counters(result), *(f"log: {line}" for line in result["log"])]:
        print(f"    {line}")
    sys.stdout.flush()


def counters(result: Result) -> list[str]:
    return [f"{name} +{value:,.0f}" for name, value in sorted(result["counters"].items()) if TELLING.search(name)]


def report(results: Sequence[Result], failures: Sequence[Sequence[str]], settings: str, minutes: float, name: str) -> Path:
    about = {"machine": machine.describe(), "minutes": round(minutes, 1), "how": settings}
    found = Report(name, "The attack laboratory", about)
    found.legend, found.data = LEGEND, {"measurements": results}
    lines = [[result["scenario"], verdicts.WORDS[result["verdict"]], *cells(result)] for result in results]
    found.table("What became of both", ["scenario", "verdict", *(title for title, _ in COLUMNS)], lines)
    lines = [
        [result["scenario"], result["what"], result["source"], check["what"], check["seen"], verdicts.WORDS[check["held"]]]
        for result in results
        for check in result["checks"]
    ]
    found.table("What must hold", ["scenario", "the attack", "of", "check", "seen", "held"], lines)
    lines = [
        [result["scenario"], "<br>".join(f"`{line}`" for line in counters(result)) or "—", "<br>".join(result["log"]) or "—"]
        for result in results
    ]
    found.table("What the operator sees", ["scenario", "counters", "log"], lines)
    found.table("What could not be run", ["scenario", "why"], failures)
    found.write(directory())
    return directory() / name


def run(arguments: argparse.Namespace, names: Sequence[str]) -> bool:
    server = binary(arguments)
    certificates.make()
    seconds = QUICK if arguments.quick else FULL
    settings = (
        f"{server if arguments.binary else 'the release build'}; {'/'.join(f'{each:g}' for each in seconds)} s "
        f"before, during and after each attack; load average at the start {machine.load_average():.2f}"
    )
    net.enter()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    results, failures, began = [], [], time.monotonic()

    def minutes() -> float:
        return (time.monotonic() - began) / 60

    for number, name in enumerate(names, 1):
        print(f"-- {number} of {len(names)}, {minutes():.1f} min", flush=True)
        with tempfile.TemporaryDirectory(prefix="strowger-attack-", ignore_cleanup_errors=True) as folder:
            try:
                results.append(Lab(SCENARIOS[name], server, folder, *seconds).run())
                say(results[-1])
            except (RuntimeError, OSError, EOFError) as why:
                failures.append([name, f"{type(why).__name__}: {why}"])
                print(f"{name}: could not be run: {why}", flush=True)
    path = report(results, failures, settings, minutes(), arguments.name)
    bad = [result["scenario"] for result in results if result["verdict"] is False]
    print(f"{len(results)} scenarios in {minutes():.1f} min; does not hold: {', '.join(bad) or 'none'}; {path}.md")
    return bool(failures)


def main() -> None:
    for name in MODULES:
        importlib.import_module(f"attack.{name}")
    parser = options()
    arguments = parser.parse_args()
    if arguments.list or not arguments.scenarios:
        for name, scenario in SCENARIOS.items():
            print(f"{name:26} {scenario.what}. Must hold: {scenario.must}")
        return
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("perf/attack: two cores are needed, one for the server and one for everybody else")
    # Who is told to end ends the servers that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("perf/attack: ended by SIGTERM"))
    try:
        sys.exit(run(arguments, chosen(arguments.scenarios)))
    except (RuntimeError, subprocess.CalledProcessError) as why:
        sys.exit(f"perf/attack: {why}")


if __name__ == "__main__":
    main()

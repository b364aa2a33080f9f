"""perf/targets: every performance target in one table: what it asks, what was measured, by which command and when, and whether it
is met."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time

import machine
import published
from contestants import PERF
from report import Report

NOT_MEASURED = "not measured"
# Row M3.
BINDING_BYTES = 400
# Commands that measure rows: by the name that their JSON file has, the command, and what it is given in its quick form.
COMMANDS = {
    "udp": (["perf/udp"], ["--quick"]),
    # Its quick form leaves rows out unless they are named.
    "streams": (["perf/streams"], ["--quick", "--rows", "T1,T2,T3,S1,S2,S3,S4,S5,S6,S7,I1"]),
    "memory": (["perf/memory"], ["--quick"]),
    "scale": (["perf/scale"], ["--quick"]),
    "overload": (["perf/overload"], ["--quick"]),
    "compare": (["perf/compare"], ["--quick"]),
    "second-opinion": (["perf/second-opinion"], ["--quick"]),
    "reproduce": (["perf/reproduce", "all", "--for-model"], ["--quick"]),
    "profile": (["perf/profile"], ["--quick"]),
    # It takes what perf/reproduce has just measured, and measures the rest: two rounds more, since a fit to single ones is told by
    # chance.
    "model": (["perf/model", "fit"], ["--quick", "--rounds", "3"]),
    "footprint": (None, []),
}
FOR_MODEL = ["reproduce-registrar.json", "reproduce-modes.json"]
# They know no --load.
WITHOUT_LOAD = ["udp", "streams", "memory"]


class Target:
    """One row of the page of targets. `parts` are what must stand in the rows that were measured, each at least once, or the row is
    not all measured: (how it is called here, a pattern of the row's text)."""

    def __init__(self, row, what, target, command, *parts):
        self.row, self.what, self.target, self.command = row, what, target, command
        self.parts = parts or [("", ".")]


FLOOR_AND_PEER = [("÷ floor", "÷ floor"), ("÷ Kamailio", "÷ Kamailio")]
VERSIONS = [("TLS 1.2", r"1\.2"), ("TLS 1.3", r"1\.3")]
TARGETS = [
    Target("U1", "UDP stateful call near the maximum", "≤ 1.6 × floor, ≤ 0.18 × Kamailio", "udp", *FLOOR_AND_PEER),
    Target("U1b", "the same at 1,000 and 2,000 calls/s, warm", "≤ 1.35 × floor, ≤ 0.36 × Kamailio", "udp", *FLOOR_AND_PEER),
    Target("U2", "UDP stateless call", "≤ 1.35 × floor", "udp"),
    Target("R1", "REGISTER over UDP, no digest, saturation", "≤ 2 × floor", "udp"),
    Target(
        "R2",
        "REGISTER with digest ÷ none",
        "≤ 2.1 new, ≤ 1.2 kept",
        "udp",
        ("new challenge", "new challenge"),
        ("kept nonce", "kept nonce"),
    ),
    Target("A1", "UDP call with INVITE digest ÷ without", "≤ 1.35", "udp"),
    Target(
        "A2",
        "a user lookup from 100 to 10,000,000 users",
        "≤ 2 × (cache misses only)",
        "udp",
        ("in memory", "lookup"),
        ("REGISTER", "REGISTER"),
    ),
    Target("A3", "registrations/s, acknowledged ÷ batched", "≥ 0.8", "udp"),
    Target("T1", "TCP, one connection each side ÷ UDP", "≤ 1.0", "streams"),
    Target(
        "T2",
        "TCP per call, callers' side",
        "≤ 2.2 × UDP, ≤ 0.30 × Kamailio",
        "streams",
        ("÷ UDP", "÷ UDP"),
        ("÷ Kamailio", "÷ Kamailio"),
    ),
    Target("T3", "TCP per call, both sides ÷ UDP", "≤ 3", "streams"),
    Target("S1", "TLS 1.3 persistent both sides ÷ TCP", "≤ 1.5", "streams"),
    Target("S2", "(TLS full handshake per call − TCP) ÷ handshake in memory", "≤ 1.25", "streams", *VERSIONS),
    Target("S3", "TLS resumed per call, callers' side ÷ TCP", "≤ 1.5 (1.2), ≤ 2.5 (1.3)", "streams", *VERSIONS),
    Target("S4", "local, TLS 1.2: reuse on both sides ÷ full on both", "≤ 0.35", "streams"),
    Target(
        "S5",
        "local mutual ÷ UDP",
        "≤ 9 P-256, ≤ 20 RSA-2048, ≤ 4 with reuse",
        "streams",
        ("P-256", "P-256 ÷"),
        ("RSA-2048", "RSA-2048"),
        ("reuse", "reuse"),
    ),
    Target(
        "S6",
        "calls of SSL_do_handshake per handshake, each side",
        "3 (1.2), 2 (1.3)",
        "streams",
        *[
            (f"{version} as {side}", rf"{re.escape(version)}.*as {side}")
            for version in ("TLS 1.2", "TLS 1.3")
            for side in ("server", "client")
        ],
    ),
    Target("S7", "local mutual P-256, default build ÷ built with the system's OpenSSL", "≤ 0.45", "streams"),
    Target(
        "I1",
        "a call beside 0 to 19,000 idle connections; the table to 1,000,000",
        "≤ 1.03; flat",
        "streams, scale",
        *[(f"{number} connections", rf"{number} idle") for number in ("2,000", "19,000")],
        ("table to 1,000,000", "1,000,000"),
    ),
    Target("M1", "idle TCP connection, our memory", "≤ 512 B", "memory"),
    Target("M2", "idle TLS connection, our memory", "≤ 12 kB", "memory"),
    Target("M3", "one binding, all told", "≤ 400 B", "footprint"),
    Target("M4", "one completed transaction in its linger time", "≤ 800 B", "udp"),
    Target("O1", "goodput at 2 × and 3 × the peak ÷ the peak", "≥ 0.95", "overload", ("2 ×", r"at 2 ×"), ("3 ×", r"at 3 ×")),
    Target("K1", "CPU per call with two workers ÷ one", "≤ 1.1", "udp"),
    Target(
        "L1",
        "added latency at half the peak, p99",
        "≤ 1 ms UDP, ≤ 2 ms TLS persistent",
        "udp, compare",
        ("UDP", "^(?!.*TLS)"),
        ("TLS", "TLS"),
    ),
    Target("G1", "load generator's CPU per UDP call ÷ server's", "≤ 0.8", "udp"),
    Target("G2", "CPU per call measured with our generator and with SIPp", "within 10 %", "second-opinion"),
    Target("G3", "share of the studies' tables and figures reproduced by one command", "all", "reproduce, profile, model"),
    Target("C1", "cost model, mean error over all configurations", "≤ 8 %", "model"),
]


# What is collected.


def read(directory):
    """The rows of all reports in a folder: (name, what, target, measured, met, note), with the file's name and its date. The newest
    of the same name and text wins, and hides none of another text."""
    found = {}
    for name in sorted(os.listdir(directory)):
        if not name.endswith(".json") or name == "targets.json":
            continue
        path = os.path.join(directory, name)
        try:
            with open(path) as text:
                report = json.load(text)
        except (OSError, ValueError) as why:
            print(f"perf/targets: {path}: {why}", file=sys.stderr)
            continue
        if not isinstance(report, dict):
            continue
        written = os.path.getmtime(path)
        for row in report.get("rows", []):
            key = (row[0], row[1])
            if key not in found or found[key]["written"] < written:
                found[key] = {"row": list(row), "file": name, "written": written, "settings": report.get("settings", "")}
    return list(found.values())


def reports(command):
    """How the files of a command of published.TABLES_AND_FIGURES begin."""
    words = command.split()
    return "-".join([os.path.basename(words[0]), *words[1:]])


def reproduced(directory):
    """Row G3: the tables and figures whose command has left a report with measurements in it."""
    wanted = getattr(published, "TABLES_AND_FIGURES", None)
    if not wanted:
        return None
    there, newest, file = {}, 0, ""
    for command in {command for _, _, command in wanted}:
        for name in os.listdir(directory):
            if not re.fullmatch(re.escape(reports(command)) + r"(-.*)?\.json", name):
                continue
            path = os.path.join(directory, name)
            with open(path) as text:
                report = json.load(text)
            if isinstance(report, dict) and report.get("measurements"):
                there[command] = name
                newest, file = max(newest, os.path.getmtime(path)), ", ".join(sorted(set(there.values())))
    if not there:
        return None
    missing = [(name, command) for name, _, command in wanted if command not in there]
    note = "" if not missing else "without a report here: " + ", ".join(sorted({command for _, command in missing}))
    met = "NO" if missing else "yes"
    text = f"{len(wanted) - len(missing)} of {len(wanted)}"
    return {"row": ["G3", "tables and figures reproduced", "all", text, met, note], "file": file, "written": newest, "settings": ""}


def collect(directory):
    """One line for each measured row and for each part of a target that was not measured, in the order of the targets."""
    found = read(directory)
    if not any(each["row"][0] == "G3" for each in found):
        counted = reproduced(directory)
        found += [counted] if counted else []
    lines = []
    for target in TARGETS:
        rows = [each for each in found if each["row"][0] == target.row]
        for each in rows:
            name, what, wanted, measured, met, note = each["row"]
            told = measured not in ("—", "", "— B")
            lines.append(
                {
                    "row": name,
                    "what": what,
                    "target": wanted,
                    "measured": measured if told else NOT_MEASURED,
                    "met": met,
                    "note": note,
                    "file": each["file"],
                    "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(each["written"])),
                    "told": told,
                    "quick": "quick" if each["settings"].startswith("1 round") else "",
                }
            )
        mine = [line for line in lines if line["row"] == target.row]
        for name, pattern in target.parts:
            if not any(re.search(pattern, line["what"]) for line in mine):
                what = target.what + (f": {name}" if name else "")
                lines.append(
                    {
                        "row": target.row,
                        "what": what,
                        "target": target.target,
                        "measured": NOT_MEASURED,
                        "met": "—",
                        "note": f"perf/targets --run {target.command.replace(' ', '')}",
                        "file": "—",
                        "date": "—",
                        "told": False,
                        "quick": "",
                    }
                )
    return lines


def summary(lines):
    """Which rows are met, not met, not to be told, and not all measured. Met is only a row each line of which is; one that is not
    met may have parts that are missing as well, and then stands in both."""
    met, missed, unsure, missing = [], [], [], []
    for target in TARGETS:
        mine = [line for line in lines if line["row"] == target.row]
        is_whole = all(line["told"] for line in mine)
        if not is_whole:
            missing.append(target.row)
        if any(line["met"] == "NO" for line in mine):
            missed.append(target.row)
        elif is_whole:
            (met if all(line["met"] == "yes" for line in mine) else unsure).append(target.row)
    return met, missed, unsure, missing


def shown(directory):
    """A folder of ours by its path from the top."""
    top = os.path.dirname(PERF) + os.sep
    path = os.path.abspath(directory)
    return path.removeprefix(top)


# What is run.


def footprint(report):
    """Row M3: what the allocator holds for a binding, from the test that is bound by it. Returns the bytes, or None."""
    done = subprocess.run(
        ["cargo", "test", "--profile", "checked", "--test", "footprint", "--", "--nocapture"],
        cwd=os.path.dirname(PERF),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    size, sizes = weighed(done.stdout)
    if done.returncode or size is None:
        print(done.stdout[-2000:], file=sys.stderr)
        # It fails, too, where the binding is too heavy: then there is a size all the same.
        if size is None:
            return None
    report.row("M3", "one binding, all told", f"≤ {BINDING_BYTES} B", f"{size} B", size <= BINDING_BYTES)
    report.raw.append({"label": "footprint", "sizes": sizes, "most": size})
    return size


def weighed(text):
    """What the footprint test prints: the most bytes of a binding, or None, and the bytes by number of bindings."""
    found = re.search(r"one binding: (\d+) bytes at most", text)
    sizes = [
        {"bindings": int(number), "bytes_each": int(each)} for number, each in re.findall(r"(\d+) bindings: (\d+) bytes each", text)
    ]
    return (int(found[1]) if found else None), sizes


def write_footprint():
    report = Report("Memory of a binding", machine.describe(), "counted by the allocator, from 10,000 to 240,000 bindings")
    if footprint(report) is None:
        return False
    report.write(PERF, "footprint")
    return True


def command_of(name, arguments):
    command, quick = COMMANDS[name]
    command = [os.path.join(os.path.dirname(PERF), command[0]), *command[1:]]
    if arguments.quick:
        command += quick
    if arguments.strowger:
        command += ["--strowger", arguments.strowger]
    if arguments.load and name not in WITHOUT_LOAD:
        command += ["--load", arguments.load]
    if arguments.no_build:
        command.append("--no-build")
    if name == "model":
        # Of this very run: what an earlier one left may be another server's.
        found = [os.path.join(Report.directory(PERF), file) for file in FOR_MODEL]
        command += [
            word
            for path in found
            if os.path.exists(path) and os.path.getmtime(path) >= arguments.began
            for word in ("--from", path)
        ]
    return command


def ended(command):
    """The exit status of the command. Who is told to end tells the command, and waits for the report of what it has measured by
    then; Ctrl-C reaches it without that."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        try:
            return child.wait()
        except SystemExit:
            child.terminate()
            child.wait()
            raise
        except KeyboardInterrupt:
            child.wait()
            sys.exit("perf/targets: ended by SIGINT")


def run(names, arguments):
    """Runs the commands one after the other; what fails is said, and the others go on."""
    failed = []
    for number, name in enumerate(names):
        print(f"perf/targets: {number + 1} of {len(names)}: {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        if name == "footprint":
            well = write_footprint()
        else:
            command = command_of(name, arguments)
            if not os.path.exists(command[0]):
                print(f"perf/targets: there is no {command[0]}", file=sys.stderr)
                failed.append(name)
                continue
            well = ended(command) == 0
        print(
            f"perf/targets: {name} {'done' if well else 'FAILED'} after {(time.monotonic() - began) / 60:.1f} min",
            file=sys.stderr,
            flush=True,
        )
        if not well:
            failed.append(name)
    return failed


def names(text):
    found = text.split(",")
    for name in found:
        if name not in COMMANDS:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(COMMANDS)}")
    return found


def main():
    parser = argparse.ArgumentParser(prog="perf/targets", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the quick form of each command")
    parser.add_argument(
        "--from",
        dest="folder",
        nargs="?",
        const="",
        metavar="DIR",
        help="measure nothing: collect what the commands have left in this folder [that of today]",
    )
    parser.add_argument("--run", type=names, metavar="NAME,…", help=f"run only some of {','.join(COMMANDS)}, then collect")
    parser.add_argument("--strowger", type=os.path.abspath, help="this binary instead of the release build")
    parser.add_argument(
        "--load", type=os.path.abspath, help="this load generator instead of the release build, where the command knows that option"
    )
    parser.add_argument("--no-build", action="store_true", help="take the binaries that there are")
    arguments = parser.parse_args()
    arguments.began = time.time()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("perf/targets: ended by SIGTERM"))
    # Named before anything runs: what runs writes there too, over midnight as well.
    directory = arguments.folder or Report.directory(PERF)
    failed = []
    if arguments.folder is None or arguments.run:
        failed = run(arguments.run or list(COMMANDS), arguments)
    if not os.path.isdir(directory):
        sys.exit(f"perf/targets: there is no folder {directory}")
    lines = collect(directory)
    report = Report(
        "Performance targets", machine.describe(), f"Collected {time.strftime('%Y-%m-%d %H:%M')} from {shown(directory)}"
    )
    report.table(
        "Every target",
        ["row", "what", "target", "measured", "met", "note", "from", "when", ""],
        [[line[key] for key in ("row", "what", "target", "measured", "met", "note", "file", "date", "quick")] for line in lines],
    )
    met, missed, unsure, missing = summary(lines)
    report.table(
        "Together",
        ["", "rows", ""],
        [
            [title, str(len(rows)), " ".join(rows)]
            for title, rows in [
                ("met", met),
                ("not met", missed),
                ("measured, and not to be told", unsure),
                (NOT_MEASURED + ", or not all of it", missing),
            ]
        ],
    )
    report.raw = lines
    print(report.markdown())
    data = {"machine": report.machine, "settings": report.settings, "lines": lines}
    for end, text in [("md", report.markdown()), ("json", json.dumps(data, indent=1))]:
        with open(os.path.join(directory, f"targets.{end}"), "w") as file:
            file.write(text)
    print("written:", os.path.join(directory, "targets") + ".{md,json}", file=sys.stderr)
    if failed:
        print(f"perf/targets: failed: {', '.join(failed)}", file=sys.stderr)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()

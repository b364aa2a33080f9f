"""Runs the fixed runs of `instructions` under callgrind, twice each, and prints what was counted in `counted_turn`. Or compares it
with what is kept of an earlier count."""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

import kept

# What is kept in the repository, beside the command.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEPT = os.path.join(ROOT, "perf", "instructions.json")

COUNTED = "*counted_turn*"
COUNT = 2000


def run(program, what, out):
    """One run; returns the number of operations and of messages that came in."""
    command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", f"--toggle-collect={COUNTED}"]
    command += [f"--callgrind-out-file={out}", program, what, str(COUNT)]
    # An empty environment: its size moves the stack, and a copy's length of path may depend on alignment.
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    operations, messages = re.search(r"(\d+) messages (\d+)", done.stdout).groups()
    return int(operations), int(messages)


class Profile:
    """A callgrind output file: instructions by function, alone and with what it calls, and by source file."""

    def __init__(self, path):
        self.own, self.all, self.files = (collections.Counter() for _ in range(3))
        self.names = {}
        with open(path) as lines:
            self.read(lines)
        self.total = self.own.total()

    def name(self, kind, text):
        """Names are written once as `(number) name` and later as `(number)`."""
        number, rest = re.match(r"(\(\d+\))?\s*(.*)", text).groups()
        return self.names.setdefault((kind, number), rest) if number else rest

    def read(self, lines):
        function = file = callee = None
        for line in lines:
            key, _, text = line.rstrip("\n").partition("=")
            match key:
                case "fn":
                    function = self.name("fn", text)
                case "cfn":
                    callee = self.name("fn", text)
                case "fl" | "fi" | "fe":
                    file = self.name("fl", text)
                case "cfi" | "cfl":
                    self.name("fl", text)
                case "calls":
                    # What a callee cost is its own business, but for the inclusive sum; recursion is counted once.
                    if callee != function:
                        self.all[function] += cost_of(next(lines))
                case _ if line[0] in "0123456789+-*":
                    for counter, name in [(self.own, function), (self.all, function), (self.files, file)]:
                        counter[name] += cost_of(line)


def cost_of(line):
    return int(line.split()[1])


def short(name):
    """Function names without hashes and the numbers of recursion."""
    name = re.sub(r"'\d+$", "", re.sub(r"::h[0-9a-f]{16}$", "", name))
    return name if len(name) <= 90 else name[:87] + "…"


def source(path):
    for mark in ("/src/", "/library/"):
        if mark in path:
            head, _, tail = path.rpartition(mark)
            return os.path.basename(head) + mark + tail
    return path


def measure(program, what, runs):
    with tempfile.TemporaryDirectory() as folder:
        profiles = []
        for number in range(runs):
            out = os.path.join(folder, f"out.{number}")
            operations, messages = run(program, what, out)
            profiles.append(Profile(out))
    first = profiles[0]
    for other in profiles[1:]:
        if first.own != other.own:
            sys.exit(f"{what}: two runs differ: {first.total} and {other.total} instructions")
    if first.total == 0:
        sys.exit(f"{what}: nothing was counted; is {COUNTED} inlined?")
    return first, operations, messages


def result_of(program, what, runs, top):
    profile, operations, messages = measure(program, what, runs)
    result = {
        "count": operations,
        "instructions": profile.total,
        "rooms": kept.by_room(profile.files, ROOT),
        "per_operation": round(profile.total / operations, 1),
        "per_message": round(profile.total / messages, 1),
    }
    for key, counter, spell in (("own", profile.own, short), ("inclusive", profile.all, short), ("files", profile.files, source)):
        merged = collections.Counter()
        for name, cost in counter.items():
            merged[spell(name)] += cost
        result[key] = [{"name": name, "per_operation": round(cost / operations, 1)} for name, cost in merged.most_common(top)]
    return result


def show(results):
    for what, result in results.items():
        each = kept.SINGULAR[what].removeprefix("a ")
        print(
            f"{what}: {result['per_operation']} instructions for each {each}, {result['per_message']} for each message in "
            f"({result['count']} of them, {result['instructions']} instructions, twice the same)"
        )
        for key, title in (
            ("own", "in the function alone"),
            ("inclusive", "with what it calls"),
            ("files", "by source file, inlined code counted where it was written"),
        ):
            print(f"\n  instructions for each {each}, {title}")
            for row in result[key]:
                print(f"  {row['per_operation']:10.1f}  {row['name']}")
        print()


def check(new):
    with open(KEPT) as file:
        lines, has_failed = kept.compare(json.load(file), new)
    for line in lines:
        print(f"perf/instructions: {line}")
    each = (f"{singular} takes {kept.per_one(new[what]):,.0f}" for what, singular in kept.SINGULAR.items())
    print(f"perf/instructions: {', '.join(each)} instructions")
    sys.exit(1 if has_failed else 0)


def main():
    parser = argparse.ArgumentParser(prog="perf/instructions", description=__doc__)
    parser.add_argument("program", help=argparse.SUPPRESS)
    parser.add_argument("--top", type=int, default=25, help="how many functions and files are listed")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for machines")
    how.add_argument("--check", action="store_true", help="compare with perf/instructions.json; a rise fails")
    how.add_argument("--write", action="store_true", help="write perf/instructions.json")
    options = parser.parse_args()
    # A comparison needs no second run: a count that does not repeat is found by the others.
    runs = 1 if options.check else 2
    results = {what: result_of(options.program, what, runs, options.top) for what in kept.SINGULAR}
    if options.json:
        print(json.dumps(results, indent=2))
    elif options.check:
        check(kept.figures(results, kept.tools(ROOT)))
    elif options.write:
        with open(KEPT, "w") as file:
            file.write(kept.text(kept.figures(results, kept.tools(ROOT))))
    else:
        show(results)


if __name__ == "__main__":
    main()

"""The figures kept in the repository, `perf/instructions.json`: what they consist of, and what a comparison with them says."""

import collections
import datetime
import json
import os
import platform
import subprocess

# A total that has moved by more than this share of what is kept is reported.
TOLERANCE = 0.02

SINGULAR = {"calls": "a call", "recorded": "a call that leaves a record", "registrations": "a REGISTER"}

# Without the same ones, two counts cannot be compared: they decide which instructions there are.
TOOLS = ("rustc", "libc", "cpu")


def room(path, root):
    """Which part of the program a source file belongs to, whatever function its code was inlined into."""
    if path.startswith(os.path.join(root, "src") + os.sep):
        head = os.path.relpath(path, os.path.join(root, "src")).split(os.sep)[0]
        return head.removesuffix(".rs")
    if path.startswith(root + os.sep):
        return "bench"
    if "/registry/src/" in path:
        return "crates"
    if path.startswith("/rustc/") or "/library/" in path:
        return "std"
    return "libc"


def by_room(files, root):
    """Instructions by room; `files`: instructions by source file."""
    rooms = collections.Counter()
    for path, cost in files.items():
        rooms[room(path, root)] += cost
    return dict(sorted(rooms.items()))


def cpu(flags):
    """What of the processor the C library and memchr choose their code by."""
    return " ".join([platform.machine(), *(flag for flag in ("avx2", "erms", "fsrm") if flag in flags)])


def tools(root):
    """The versions of all that decides which instructions there are, and what they were counted for."""
    said = subprocess.run(["rustc", "--version"], cwd=root, capture_output=True, text=True, check=True).stdout
    with open("/proc/cpuinfo") as lines:
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
    commit = subprocess.run(["git", "rev-parse", "--short=9", "HEAD"], cwd=root, capture_output=True, text=True)
    return {
        "rustc": said.strip(),
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
        "cpu": cpu(flags),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
    }


def figures(results, about):
    """What is kept of a count: `results` as `instructions.py` makes them, `about` as `tools` does."""
    kept = {what: {key: result[key] for key in ("count", "instructions", "rooms")} for what, result in results.items()}
    return {**about, **kept}


def text(kept):
    return json.dumps(kept, indent=2) + "\n"


def per_one(result):
    return result["instructions"] / result["count"]


def moved_rooms(before, after):
    """The rooms that have moved the total, the greatest first."""
    each = [
        collections.Counter({name: cost / count["count"] for name, cost in count["rooms"].items()}) for count in (before, after)
    ]
    moves = {name: each[1][name] - each[0][name] for name in {*each[0], *each[1]}}
    ordered = sorted(moves.items(), key=lambda item: (-abs(item[1]), item[0]))
    return ", ".join(f"{name} {move:+,.0f}" for name, move in ordered if abs(move) >= 1)


def compare(kept, new):
    """Lines that say what has changed, and whether the count fails: a total has risen, and the tools are the same."""
    lines = []
    others = [f"{name} was {kept.get(name)} and is {new[name]}" for name in TOOLS if kept.get(name) != new[name]]
    if others:
        lines.append(f"the counts can only be looked at, not compared: {'; '.join(others)}")
    has_failed = False
    for what, singular in SINGULAR.items():
        before, after = per_one(kept[what]), per_one(new[what])
        share = after / before - 1
        change = f"{abs(share) * 100:.1f} % {'more' if share > 0 else 'fewer'}"
        said = f"{singular} takes {after:,.0f} instructions, {change} than the {before:,.0f} of {kept['commit']}"
        if abs(share) <= TOLERANCE:
            continue
        where = moved_rooms(kept[what], new[what])
        if share > 0:
            has_failed = has_failed or not others
            lines.append(f"{said}: {where}")
        else:
            lines.append(f"{said}: {where}; perf/instructions --write keeps it so")
    return lines, has_failed

"""perf/page: makes perf/RESULTS.md of the reports of one folder. It says nothing in figures that they do not say: their tables are
taken as they stand."""

import argparse
import os
import re
import shutil
import sys

from contestants import PERF
from report import LEGEND, Report

FIGURES = os.path.join(PERF, "figures")

# Heading, what to know before reading it, [(report, beginning of a section's title)], [(figure, caption)].
PARTS = [
    (
        "The studies' ratios beside ours",
        "Peak: the highest rate at which at most 4 % of the calls fail. Capacity: that of a closed window of 48 calls. A handshake "
        "costs what the TLS library makes of it, then as now; the rest of a call "
        "costs strowger a small part of what it cost then. So a configuration with a handshake for each call looks worse here "
        "beside its own UDP figure than in the report, and one with lasting connections "
        "better: cryptography is what is left. At 200 calls/s a server mostly pays for being woken.",
        [
            ("reproduce-modes", "Ratios of peaks"),
            ("reproduce-modes", "Worst case"),
            ("reproduce-modes", "Configurations, strowger"),
        ],
        [
            ("reproduce-modes-peaks", "Peaks of the report's 20 configurations"),
            ("reproduce-modes-cpu", "CPU of a call, in calls over UDP"),
        ],
    ),
    (
        "The thesis' proxy and registrar",
        "Local mode throughout; six ways of connecting.",
        [("reproduce-proxy", "Peaks"), ("reproduce-registrar", "Full core")],
        [
            ("reproduce-proxy-cpu", "CPU by calls a second, with the thesis' curves"),
            ("reproduce-registrar-degradation", "What digest costs a registration"),
            ("reproduce-registrar-udp", "CPU by registrations a second, over UDP"),
            ("reproduce-registrar-tcp", "The same over TCP"),
        ],
    ),
    (
        "The peers beside us",
        "One worker each, pinned to the same core, the same load, the same certificates, in turn in one run.",
        [
            ("compare", "Who"),
            ("compare", "Server CPU"),
            ("compare", "Calls or registrations"),
            ("compare", "Latency at half of what the slower one can, p99"),
            ("compare", "Memory after"),
        ],
        [("compare-cpu", "Server CPU of a call or registration")],
    ),
    (
        "Where the CPU goes",
        "Shares of CPU samples. The studies' profiles had the server and libcrypto where ours has the kernel.",
        [
            ("profile", "strowger: share of the CPU by component"),
            ("profile", "strowger: CPU for each call"),
            ("profile", "Beside the thesis' profile at 90"),
        ],
        [("profile-costs", "CPU of a call by component"), ("profile-thesis", "Shares beside the thesis'")],
    ),
    ("The six faults of the measured servers, and the evidence that each is absent", None, [], []),
    (
        "Many of everything",
        "Costs that must not grow with a table.",
        [("scale", "Server CPU"), ("scale", "REGISTER and calls"), ("scale", "Bytes"), ("scale", "The table of connections")],
        [("scale-table", "The connection table, to a million entries")],
    ),
    (
        "Beyond the peak",
        "What is left of the peak when more is asked, on a schedule that nothing moves.",
        [("overload", "")],
        [("overload-goodput", "Goodput by what was offered"), ("overload-latency", "Latency of the calls that were served")],
    ),
    (
        "The cost model",
        "Fitted to chain, outbound and inbound mode; local mode is foretold.",
        [("model", "Components of a call"), ("model", "Errors"), ("model", "CPU of a call at saturation")],
        [("model-predicted", "Foretold and measured")],
    ),
    ("Is the generator to be believed", "The same server under SIPp.", [("second-opinion", "")], []),
    ("Every target", None, [("targets", "")], []),
]


class Reports:
    """The Markdown of a folder, by section."""

    def __init__(self, directory):
        self.directory, self.texts = directory, {}

    def text(self, name):
        if name not in self.texts:
            path = os.path.join(self.directory, name + ".md")
            self.texts[name] = ""
            if os.path.exists(path):
                with open(path) as file:
                    self.texts[name] = file.read().replace(LEGEND, "")
        return self.texts[name]

    def settings(self, name):
        """The line below the title: the machine, how often and how long."""
        lines = [line for line in self.text(name).splitlines() if line and not line.startswith("#")]
        return lines[0] if lines else None

    def sections(self, name, beginning):
        """The sections whose title begins so, each with its title a level lower; pictures are left out."""
        found = []
        for part in re.split(r"^## ", self.text(name), flags=re.M)[1:]:
            title, _, body = part.partition("\n")
            if title == "Rows" or not title.startswith(beginning):
                continue
            body = re.sub(r"^!\[.*\n(\n\*.*\*\n)?", "", body, flags=re.M)
            found.append(f"### {title}\n{body.rstrip()}\n")
        return found

    def rows(self, name, row):
        """Lines of the report's table of rows for one of them; failing that, of a report that was confined to some of its rows."""
        parts = sorted(file[:-3] for file in os.listdir(self.directory) if file.startswith(name + "-") and file.endswith(".md"))
        for each in [name, *parts]:
            found = [line for line in self.text(each).splitlines() if line.startswith(f"| {row} |")]
            if found:
                return found
        return []


def faults(reports):
    """Each of the report's faults, and where the evidence stands. What was not measured is said to be so."""

    def evidence(name, row):
        lines = reports.rows(name, row)
        if not lines:
            return f"*{row} was not measured here*"
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return "; ".join(f"{row}, {cell[1]}: {cell[3]}" for cell in cells)

    def section(name, beginning):
        found = reports.sections(name, beginning)
        return found[0].split("\n", 1)[0].lstrip("# ") if found else None

    lines = ["| fault | here |", "| --- | --- |"]
    lines.append(
        f"| The idle sweep walked the whole connection table on every wake-up: half of TCP's CPU | once a tick, only what has "
        f"expired. {evidence('streams', 'I1')}; {evidence('scale', 'I1')} |"
    )
    lines.append(f"| `SSL_connect` called on the wrong event, 44 times for one connection | {evidence('streams', 'S6')} |")
    lines.append(
        "| A nonce index that ran out after 100,000 entries | there is no index: a nonce is a time, a realm and a keyed MAC. Ten "
        "million challenges in one run without one refusal are a test "
        "(`cargo test --profile checked --lib ten_million`) |"
    )
    lines.append(
        f"| A database query for each authentication | users are in memory, the database is read by a thread of its own. "
        f"{evidence('udp', 'A2')}; the component *database* in `perf/profile registrar-digest` |"
    )
    lines.append(
        f"| As a client neither session reuse nor mutual authentication, nor a connection for each call | all three are "
        f"configurations above: outbound, inbound and local, reuse and mutual. {evidence('streams', 'S4')} |"
    )
    lines.append(
        f"| More worker processes than cores, more instructions for the same work | one pinned worker for each core of the conf, "
        f"none else in the path. {evidence('udp', 'K1')} |"
    )
    return lines


def page(reports):
    out = ["# Results", ""]
    # The last three are quoted by their rows.
    names = [*(name for _, _, sections, _ in PARTS for name, _ in sections), "udp", "streams", "memory"]
    seen = {name: reports.settings(name) for name in sorted(set(names))}
    machine = next((text for text in seen.values() if text), None)
    if machine is None:
        raise RuntimeError(f"there are no reports in {reports.directory}")
    folder = os.path.basename(os.path.abspath(reports.directory))
    out += [
        f"Made by `perf/page` of the reports in `{folder}`. Ratios are what can be carried to another machine; the absolute "
        f"figures are this one's: {machine.split('. ')[0]}. "
        "How everything is measured is in [README.md](README.md).",
        "",
        LEGEND,
        "",
        "| report | rounds and times |",
        "| --- | --- |",
    ]
    for name, text in seen.items():
        said = text.split(". ", 1)[1] if text and ". " in text else "not measured"
        out.append(f"| `{name}` | {said} |")
    out.append("")
    for heading, intro, sections, figures in PARTS:
        out += [f"## {heading}", ""]
        if intro:
            out += [intro, ""]
        if heading.startswith("The six faults"):
            out += [*faults(reports), ""]
        for name, beginning in sections:
            found = reports.sections(name, beginning)
            out += found or [f"*{name}: {beginning or 'all of it'}: not measured.*\n"]
        for name, caption in figures:
            source = os.path.join(reports.directory, name + ".svg")
            if os.path.exists(source):
                os.makedirs(FIGURES, exist_ok=True)
                shutil.copy(source, os.path.join(FIGURES, name + ".svg"))
                out += [f"![{caption}](figures/{name}.svg)", "", f"*{caption}.*", ""]
    return "\n".join(out).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(prog="perf/page", description=__doc__)
    parser.add_argument("--from", dest="directory", default=None, help="the folder of the reports [today's]")
    parser.add_argument("--out", default=os.path.join(PERF, "RESULTS.md"))
    arguments = parser.parse_args()
    try:
        text = page(Reports(arguments.directory or Report.directory(PERF)))
    except RuntimeError as why:
        sys.exit(f"perf/page: {why}")
    with open(arguments.out, "w") as file:
        file.write(text)
    print("written:", arguments.out, file=sys.stderr)


if __name__ == "__main__":
    main()

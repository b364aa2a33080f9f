"""perf/page: makes perf/RESULTS.md of the reports and runs of one folder: six sentences and a picture, then a section for each
question. Its figures are those of the runs; what was not measured is left out, or said to be so."""

import argparse
import json
import os
import string
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import plots
import report
import rows
import security
from cases import Case
from report import PERF
from samples import FEWEST, VERDICTS, Estimate, Samples, ratio, single, worst
from tasks import key, window

RESULTS = PERF / "results"
# Why a row is not met, by its name, or by name and what it says: "S2: …".
REASONS = PERF / "reasons.toml"
# What the page says, to be filled with figures.
WORDS = tomllib.loads((PERF / "page.toml").read_text())
# The reports, in the order in which the end of the page lists what they say.
REPORTS = (
    "rows security memory scale compare reproduce-modes reproduce-proxy reproduce-registrar overload profile model second-opinion"
).split()
# Figures of one section at most; the others are linked.
MOST_FIGURES = 3
CAPTION = (
    "Left: a call over UDP. Right: a call with security, in calls over UDP of the same server, now and then. The cheaper those "
    "are, the more a handshake stands out"
)


def said(value: float | Estimate | None) -> str | None:
    """A figure as a person would say it: two digits that count, thousands divided; none for 2.0."""
    if value is None:
        return None
    number = value.value if isinstance(value, Estimate) else float(value)
    if abs(number) >= 100:
        return f"{round(number, -1 if abs(number) < 1000 else -2):,.0f}"
    return f"{number:.0f}" if abs(number) >= 10 else f"{number:.1f}".removesuffix(".0") if abs(number) >= 1 else f"{number:.2g}"


def filled(clauses: Iterable[str], figures: Mapping[str, Any], subject: str = "") -> str | None:
    """The clauses whose figures are all there, one after the other. Without the first there is no sentence, but the subject and
    that it was not measured."""
    out = []
    for number, clause in enumerate(clauses):
        values = {name: figures.get(name) for _, name, _, _ in string.Formatter().parse(clause) if name}
        texts = {name: value if isinstance(value, str) else said(value) for name, value in values.items()}
        if None not in texts.values():
            out.append(clause.format(**texts))
        elif number == 0:
            return f"*{subject}: not measured.*" if subject else None
    return "".join(out)


class Run:
    """What one folder has: reports by name, and the results."""

    def __init__(self, directory: Path, page: Path) -> None:
        self.directory = directory
        self.link = os.path.relpath(directory, page.parent)
        paths = [directory / f"{name}.json" for name in REPORTS] + sorted(directory.glob("*.json"))
        self.reports: dict[str, dict[str, Any]] = {}
        for path in paths:
            if path.exists() and path.stem not in self.reports:
                data = json.loads(path.read_text())
                if isinstance(data, dict) and "title" in data and "rows" in data:
                    self.reports[path.stem] = data
        if not self.reports:
            raise RuntimeError(f"there are no reports in {directory}")
        self.samples = Samples()
        self.runs = sorted(directory.glob("runs*.jsonl"))
        for path in self.runs:
            self.samples.read(path)

    def rows(self) -> list[dict[str, Any]]:
        """Of all reports, each once; in the order of the page of targets if that is there."""
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for data in [self.reports.get("targets", {"rows": []}), *self.reports.values()]:
            for row in data["rows"]:
                found.setdefault((row["row"], row["what"], row["target"]), row)
        return list(found.values())

    def value(self, name: str, part: str) -> float | None:
        """What a row of that name has, in whose words the part is."""
        return next((row["value"] for row in self.rows() if row["row"] == name and part in row["what"]), None)

    def with_verdict(self, verdict: str) -> list[dict[str, Any]]:
        return [row for row in self.rows() if row["verdict"] == verdict]

    def figures(self) -> dict[str, Any]:
        """What sentences are filled with."""
        samples, by = self.samples, security.BY_LABEL
        found: dict[str, Any] = {}

        def us(case: Case, who: str = "strowger") -> Estimate | None:
            return single(samples, key(case, who))

        for name, label in WORDS["ways"].items():
            found |= {name: by[label].units(samples), f"{name}_2010": by[label].in_2010, f"{name}_2012": by[label].in_2012}
        for name, (with_, without) in WORDS["steps"].items():
            found[name] = ratio(samples, key(by[with_].case), key(by[without].case))
            for year, over, under in (
                ("2010", by[with_].in_2010, by[without].in_2010),
                ("2012", by[with_].in_2012, by[without].in_2012),
            ):
                found[f"{name}_{year}"] = over / under if over and under else None
        local = by[WORDS["ways"]["local"]]
        memory, cost = local.in_memory(samples), us(local.case)
        found["memory_share"] = 100 * memory.value / cost.value if memory and cost else None
        found |= {"udp": us(rows.REGISTERED), "kamailio": us(rows.REGISTERED, "kamailio")}
        found["floor"] = ratio(samples, key(rows.REGISTERED), key(rows.REGISTERED, "floor"))
        found |= {"digest_us": us(rows.DIGEST), "tcp_left_us": us(rows.TCP_LEFT)}
        register = window(mode="register")
        found["register"] = ratio(samples, *(key(rows.REGISTER[kind], load=register) for kind in ("new", "none")))
        found["register_2012"] = security.published.REGISTRAR_DEGRADATION
        for name, (row, part) in WORDS["rows"].items():
            found[name] = self.value(row, part)
        counts = {verdict.replace(" ", "_"): len(self.with_verdict(verdict)) for verdict in VERDICTS[:3]}
        found["targets"] = str(sum(counts.values())) if any(counts.values()) else None
        found |= {name: str(number) for name, number in counts.items()}
        found["not_met_names"] = ", ".join(dict.fromkeys(row["row"] for row in self.with_verdict("not met"))) or None
        return found


def reasons() -> dict[str, str]:
    return tomllib.loads(REASONS.read_text()) if REASONS.exists() else {}


def reason(row: Mapping[str, Any], known: Mapping[str, str]) -> str:
    return known.get(f"{row['row']}: {row['what']}") or known.get(row["row"]) or "no reason known"


def glance(run: Run) -> str | None:
    """The one picture: a call beside floor and peer, and what security makes of it, then and now."""
    costs = [(who, single(run.samples, key(rows.REGISTERED, who))) for who in ("floor", "strowger", "kamailio")]
    chosen = {
        "digest": "digest, MD5, UDP",
        "TCP, kept": "TCP, kept open",
        "TLS, kept": "TLS 1.3, kept open",
        "TLS, each call,\nresumed": "TLS 1.2, both sides, RSA-2048, resumed",
        "TLS, each call": "TLS 1.2, both sides, RSA-2048",
        "TLS, each call,\nmutual": "TLS 1.2, both sides, RSA-2048, mutual",
    }
    ways = {name: security.BY_LABEL[label] for name, label in chosen.items() if security.BY_LABEL[label].units(run.samples)}
    if not ways or not any(found for _, found in costs):
        return None
    chart, (calls, factors) = plots.figure(11, 4.6, columns=2, width_ratios=[1, 2.6])
    for who, found in costs:
        if found:
            name, error = who.replace("kam", "Kam"), [[found.value - found.low], [found.high - found.value]]
            calls.bar([name], [found.value], 0.6, color=plots.WHO[who], yerr=error, capsize=3)
            calls.annotate(said(found), (name, found.high), (0, 3), textcoords="offset points", ha="center")
    calls.tick_params(axis="x", length=0)
    calls.grid(axis="x", visible=False)
    calls.margins(y=0.1)
    calls.set(xlabel="bar: median; whisker: 95 %", ylabel="µs of one core", title="A call over UDP")
    groups: list[tuple] = []
    today = [way.units(run.samples) for way in ways.values()]
    values = [units and (units.value, units.low, units.high) for units in today]
    groups.append(("strowger, 2026", values, [said(units) or "" for units in today], {"color": plots.BLUE}))
    for name, years, style in (
        ("OpenSIPS, 2012", [way.in_2012 for way in ways.values()], plots.PUBLISHED_TOO),
        ("OpenSIPS, 2010", [way.in_2010 for way in ways.values()], plots.PUBLISHED),
    ):
        groups.append((name, years, [said(value) or "" for value in years], style))
    plots.lying(factors, list(ways), groups)
    factors.set(xlabel="calls of the same server over UDP", title="What security makes of it (TLS: RSA; each call: both sides)")
    factors.axvline(1, color=plots.BLACK, linewidth=1, linestyle=(0, (2, 2)), label="a call over UDP")
    factors.margins(x=0.08)
    factors.legend(loc="upper right")
    plots.save(chart, run.directory, "glance")
    return "glance"


def picture(run: Run, name: str, caption: str) -> list[str]:
    return [f"![{caption}]({run.link}/{name}.svg)", "", f"*{caption.rstrip('.')}.*", ""]


def section(run: Run, part: Mapping[str, Any], figures: Mapping[str, Any]) -> Iterator[str]:
    """Nothing if none of its reports is there."""
    names = [name for name in part["reports"] if name in run.reports]
    if not names:
        return
    yield from [f"## {part['question']}", ""]
    captions = {name: caption for each in names for name, caption in run.reports[each].get("figures", [])}
    captions = {name: text for name, text in captions.items() if (run.directory / f"{name}.svg").exists()}
    order = [name for name in part["figures"] if name in captions]
    order += [name for name in captions if name not in order and not name.startswith("flame-")]
    for name in order[:MOST_FIGURES]:
        yield from picture(run, name, captions[name])
    yield from [filled(part["text"], figures) or "", ""]
    if met := verdicts(row for name in names for row in run.reports[name]["rows"]):
        yield from [f"Targets: {met}.", ""]
    links = [f"[{name}]({run.link}/{name}.md)" for name in names]
    more = [f"[{name}]({run.link}/{name}.svg)" for name in captions if name not in order[:MOST_FIGURES]]
    yield from [f"Tables: {', '.join(links)}." + (f" More figures: {', '.join(more)}." if more else ""), ""]


def verdicts(found: Iterable[Mapping[str, Any]]) -> str:
    """Names by verdict: a row of several lines is as the worst of them."""
    lines: dict[str, list[str]] = {}
    for row in found:
        lines.setdefault(row["row"], []).append(row["verdict"])
    by_verdict = {verdict: [name for name in lines if worst(lines[name]) == verdict] for verdict in VERDICTS}
    return "; ".join(f"{verdict} {', '.join(names)}" for verdict, names in by_verdict.items() if names)


def faults(run: Run) -> Iterator[str]:
    yield from ["## The six faults that the report found in its servers", "", "| fault | here | measured |", "| --- | --- | --- |"]
    for fault, (here, wanted) in WORDS["faults"].items():
        found = [f"{row['what']}: {row['measured']}" for row in run.rows() if row["row"] == wanted and row["value"] is not None]
        yield f"| {fault} | {here} | {'; '.join(found) or ('not measured' if wanted else 'a test')} |"
    yield ""


def unmet(run: Run) -> Iterator[str]:
    yield from ["## What is not met", ""]
    if "targets" in run.reports:
        yield from [f"All targets, with what was measured: [targets]({run.link}/targets.md).", ""]
    known = reasons()
    for verdict in ("not met", "not decided"):
        found = run.with_verdict(verdict)
        if found:
            yield from [f"{verdict.capitalize()}:", "", "| row | what | target | measured | why |", "| --- " * 5 + "|"]
            for row in found:
                why = reason(row, known) if verdict == "not met" else undecided(row)
                yield f"| {row['row']} | {row['what']} | {row['target']} | {row['measured']} | {why} |"
            yield ""
    if missing := list(dict.fromkeys(row["row"] for row in run.with_verdict("not measured"))):
        yield from [f"Not measured here: {', '.join(missing)}.", ""]
    yield from [report.LEGEND, ""]


def undecided(row: Mapping[str, Any]) -> str:
    marks = str(row["measured"]).rsplit("×", 1)[-1].lstrip("0123456789 ")
    if "g" in marks:
        return "the generator was the limit"
    if "!" in marks:
        return "something was not clean"
    return "the interval holds the target" if row["runs"] and row["runs"] >= 3 else "too few runs"


def page(run: Run) -> str:
    figures = run.figures()
    first = next(iter(run.reports.values()))
    minutes = max(data.get("minutes", 0) for data in run.reports.values())
    out = ["# Results", ""]
    for number, sentence in enumerate(WORDS["sentence"], 1):
        out.append(f"{number}. {filled(sentence['clauses'], figures, sentence['about'])}")
    out.append("")
    few = [row for row in run.rows() if row["runs"] and row["runs"] < FEWEST]
    if few:
        measured = sum(row["value"] is not None for row in run.rows())
        out += [f"**A first look**: {len(few)} of {measured} lines of the targets rest on fewer than {FEWEST} runs.", ""]
    if name := glance(run):
        out += picture(run, name, CAPTION)
    runs = ", ".join(f"[{path.name}]({run.link}/{path.name})" for path in run.runs)
    out += [
        f"{first.get('machine', 'A machine')}; {minutes:.0f} minutes, `{run.directory.name}`; server on core 0, load generator on "
        "core 1, over the loopback. Ratios can be carried to another machine, microseconds cannot. 2010 and 2012: what two studies "
        "published of OpenSIPS on one core of their time. [README.md](README.md) says how everything is measured; every single run "
        f"is in {runs}. Made by `perf/page`.",
        "",
    ]
    for part in WORDS["section"]:
        out += section(run, part, figures)
    out += [*faults(run), *unmet(run)]
    return "\n".join(out).rstrip() + "\n"


def write(directory: str | Path, out: str | Path | None = None) -> Path:
    """perf/RESULTS.md of a folder in perf/results; a try elsewhere has its page beside its reports."""
    directory = Path(directory).resolve()
    is_published = RESULTS in directory.parents
    path = Path(out).resolve() if out else (PERF if is_published else directory) / "RESULTS.md"
    path.write_text(page(Run(directory, path)))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="perf/page", description=__doc__)
    parser.add_argument("--from", dest="directory", metavar="DIR", help="the folder of the reports [that of the day]")
    parser.add_argument("--out", metavar="FILE", help="[perf/RESULTS.md, if the folder is in perf/results; else in the folder]")
    options = parser.parse_args()
    try:
        path = write(options.directory or report.directory(), options.out)
    except (RuntimeError, OSError) as why:
        sys.exit(f"perf/page: {why}")
    print("written:", path, file=sys.stderr)


if __name__ == "__main__":
    main()

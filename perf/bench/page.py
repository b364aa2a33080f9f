"""perf/page: makes perf/RESULTS.md of the reports and runs of one folder: six sentences and a picture, then a section for each
question. Its figures are those of the runs; what was not measured is left out, or said to be so."""

from __future__ import annotations

import argparse
import json
import os
import string
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plots
import report
import rows
import security
from cases import Case
from report import PERF
from samples import Estimate, Quantity, Samples, estimate, ratio, single
from tasks import key, window

RESULTS = PERF / "results"
# Why a row is not met, by its name, or by name and what it says: "S2: …".
REASONS = PERF / "reasons.toml"
# The reports, in the order in which the end of the page lists what they say.
REPORTS = (
    "rows security memory scale compare reproduce reproduce-modes reproduce-proxy reproduce-registrar overload profile model "
    "second-opinion"
).split()
# Figures of one section at most; the others are linked.
MOST_FIGURES = 3


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


# Each: what it is about, then its clauses. The first must be there.
SENTENCES = [
    (
        "What a call costs over UDP",
        "A call over UDP, from INVITE to BYE, takes **{udp} µs of one core** of this machine through strowger when it is busy",
        ", {floor} times what a bare relay of the same datagrams takes",
        "; Debian's Kamailio, on the same core under the same load, takes {kamailio} µs",
        ".",
    ),
    (
        "Connections that are kept",
        "Where connections are kept open, a call over TCP costs {tcp} times what it costs over UDP, and **over TLS 1.3 {tls_chain} "
        "times**",
        " (two studies of OpenSIPS found {tcp_2010} and {tls_chain_2010} in 2010, and {tcp_2012} for TCP in 2012)",
        ".",
    ),
    (
        "A TLS handshake for each call",
        "A TLS connection for each call makes it **{left_13} times** as dear as over UDP on the callers' side with TLS 1.3 and "
        "P-256",
        ", {left_12} times with TLS 1.2 and RSA-2048",
        ", {local} times with RSA on both sides (2010: {local_2010}; 2012: {local_2012})",
        "; {memory_share} % of the last are the handshakes themselves, so that cryptography is what is left",
        ".",
    ),
    (
        "Mutual authentication and session reuse",
        "If both sides of each handshake show a certificate, such a call costs **{mutual} times** as much "
        "(2010: {mutual_2010}; 2012: {mutual_2012})",
        ", and if each resumes a session, **{reuse} times** (2010: {reuse_2010}; 2012: {reuse_2012})",
        ".",
    ),
    (
        "Digest",
        "Digest authentication makes a call over UDP **{digest} times** as dear (2010: {digest_2010}, most of it a database query)",
        ", with SHA-256 {sha256} times",
        ", and a registration {register} times (2012: {register_2012})",
        ".",
    ),
    (
        "Targets",
        "Of {targets} targets {met} are met, {unmet} are not, and {undecided} could not be decided in the time that was given",
        "; not met: {unmet_names}",
        ". [The end](#what-is-not-met) says why.",
    ),
]


@dataclass(frozen=True)
class Section:
    """A question, the figures that answer it first, and what one must know to read them. `figures`: those to be shown before
    others of the same reports."""

    question: str
    reports: tuple[str, ...]
    text: tuple[str, ...]
    figures: tuple[str, ...] = ()


SECTIONS = [
    Section(
        "What does a call cost, and beside whom?",
        ("compare", "rows", "memory"),
        (
            "A *call* is INVITE, 100, 180, 200, ACK, BYE, 200 through a proxy that stays in its path. The *floor* is a relay that "
            "receives and sends as many messages of the same size and reads none of them, below which no server can be. *Busy* "
            "means that 48 calls are always outstanding: the server never sleeps, and what is measured is the cost of one more call.",
            " A call challenged by digest costs {digest_us} µs, one over a TCP connection of its own on the callers' side "
            "{tcp_left_us} µs.",
        ),
        ("compare-cpu",),
    ),
    Section(
        "What does security cost in 2026, beside 2010 and 2012?",
        ("security",),
        (
            "The unit is a call of the same server over UDP, so that a factor can be carried to another machine and another "
            "year. "
            "A handshake costs what the TLS library makes of it, then as now; the rest of a call costs a small part of what it "
            "cost "
            "then. So what keeps its connections is cheaper here beside UDP than it was, and what makes them anew is dearer.",
            " Key exchange that withstands a quantum computer (X25519MLKEM768) costs {hybrid} times a call with X25519.",
            " A chain of three certificates costs {chain} times a chain of two, where both sides show one.",
        ),
        ("security",),
    ),
    Section(
        "Do the studies' results come again?",
        ("reproduce", "reproduce-modes", "reproduce-proxy", "reproduce-registrar"),
        (
            "*The report* (Shen, Nahum, Schulzrinne, Wright, 2010) and *the thesis* (Maguluri, 2012) measured OpenSIPS on one "
            "core. "
            "*Chain* has one connection on each side, *outbound* one for each call on the callers' side, *inbound* on the "
            "answerers', "
            "*local* on both. *Peak* is the highest rate at which at most 4 % of the calls fail. Published values are hatched "
            "or dashed.",
        ),
        ("reproduce-modes-peaks", "reproduce-proxy-cpu", "reproduce-registrar-degradation"),
    ),
    Section(
        "Where does the CPU go?",
        ("profile",),
        (
            "Shares of samples, each counted as one of the report's components. The studies had the server where ours has the "
            "kernel.",
        ),
        ("profile-costs", "profile-thesis"),
    ),
    Section(
        "Can the cost of a load be foretold?",
        ("model",),
        (
            "A model of the report's components is fitted to chain, outbound and inbound mode; local mode is foretold by it, "
            "never "
            "fitted. `perf/model predict` says what a load will take.",
        ),
        ("model-predicted",),
    ),
    Section(
        "Does it cost more beside many others?",
        ("scale", "memory"),
        ("Calls beside many idle connections, bindings and users: costs that must not grow with a table, and bytes of each.",),
        ("scale-table",),
    ),
    Section(
        "What is left when more is asked than can be done?",
        ("overload",),
        ("Calls leave on a schedule that nothing moves. *Goodput*: those of them that are done within their time.",),
        ("overload-goodput", "overload-latency"),
    ),
    Section(
        "Is the generator to be believed?",
        ("second-opinion",),
        ("The same server under SIPp and under our load generator, at equal rates.",),
    ),
]
# The faults that the report found, how strowger has not got each, and the rows that show it.
FAULTS = [
    ("The idle sweep walked all connections on every wake-up: half of TCP's CPU", "once a tick, only what has expired", "I1"),
    ("`SSL_connect` on the wrong event, 44 times for one connection", "called when bytes have come", "S6"),
    (
        "A nonce index that ran out after 100,000 entries",
        "no index: a nonce is a time, a realm and a keyed MAC (`cargo test --profile checked --lib ten_million`)",
        "",
    ),
    ("A database query for each authentication", "users are in memory", "A2"),
    ("No session reuse, mutual authentication or connection for each call as a client", "all three, measured above", "S4"),
    ("More worker processes than cores", "one pinned worker for each core", "K1"),
]


class Run:
    """What one folder has: reports by name, and the results."""

    def __init__(self, directory: Path, page: Path):
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
        if (directory / "runs.jsonl").exists():
            self.samples.read(directory / "runs.jsonl")

    def rows(self) -> list[dict[str, Any]]:
        """Of all reports, each once."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for data in self.reports.values():
            for row in data["rows"]:
                found.setdefault((row["row"], row["what"]), row)
        return list(found.values())

    def with_verdict(self, verdict: str) -> list[dict[str, Any]]:
        return [row for row in self.rows() if row["verdict"] == verdict]

    def figures(self) -> dict[str, Any]:
        """What sentences are filled with."""
        samples, by = self.samples, security.BY_LABEL
        found: dict[str, Any] = {}

        def way(name: str, label: str) -> None:
            found[name] = by[label].units(samples)
            found[name + "_2010"], found[name + "_2012"] = by[label].in_2010, by[label].in_2012

        def step(name: str, with_: str, without: str) -> None:
            found[name] = ratio(samples, key(by[with_].case), key(by[without].case))
            for year, over, under in (
                ("2010", by[with_].in_2010, by[without].in_2010),
                ("2012", by[with_].in_2012, by[without].in_2012),
            ):
                found[f"{name}_{year}"] = over / under if over and under else None

        def us(case: Case, who: str = "strowger") -> Estimate | None:
            return single(samples, key(case, who))

        way("tcp", "TCP, kept open")
        way("tls_chain", "TLS 1.3, kept open")
        way("digest", "digest, MD5, UDP")
        way("sha256", "digest, SHA-256, UDP")
        way("left_13", "TLS 1.3, each call, P-256")
        way("left_12", "TLS 1.2, each call, RSA-2048")
        local = "TLS 1.2, both sides, RSA-2048"
        way("local", local)
        step("mutual", local + ", mutual", local)
        step("reuse", local + ", resumed", local)
        curves = [f"TLS 1.3, each call, P-256, {group}" for group in (security.HYBRID, security.CURVE)]
        step("hybrid", *curves)
        step("chain", "TLS 1.3, each call, P-256, mutual, chain of three", "TLS 1.3, each call, P-256, mutual")
        memory, cost = by[local].in_memory(samples), us(by[local].case)
        found["memory_share"] = 100 * memory.value / cost.value if memory and cost else None
        found |= {"udp": us(rows.REGISTERED), "kamailio": us(rows.REGISTERED, "kamailio")}
        found["floor"] = ratio(samples, key(rows.REGISTERED), key(rows.REGISTERED, "floor"))
        found |= {"digest_us": us(rows.DIGEST), "tcp_left_us": us(rows.TCP_LEFT)}
        register = window(mode="register")
        over, under = (key(rows.REGISTER[kind], load=register) for kind in ("new", "none"))
        found["register"] = estimate(samples, lambda a, b: a / b, {"a": Quantity(over), "b": Quantity(under)})
        found["register_2012"] = security.published.REGISTRAR_DEGRADATION
        counts = {name: len(self.with_verdict(verdict)) for name, verdict in VERDICTS.items()}
        found["targets"] = str(sum(counts.values())) if any(counts.values()) else None
        found |= {name: str(number) for name, number in counts.items()}
        unmet = dict.fromkeys(row["row"] for row in self.with_verdict("not met"))
        found["unmet_names"] = ", ".join(unmet) or None
        return found


VERDICTS = {"met": "met", "unmet": "not met", "undecided": "not decided"}


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
            error = [[found.value - found.low], [found.high - found.value]]
            calls.bar([who], [found.value], 0.6, color=plots.WHO[who], yerr=error, capsize=3)
            calls.annotate(said(found), (who, found.high), (0, 3), textcoords="offset points", ha="center")
    calls.tick_params(axis="x", length=0)
    calls.grid(axis="x", visible=False)
    calls.margins(y=0.1)
    plots.label(calls, "bar: median; whisker: 95 %", "µs of one core", "A call over UDP")
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
    plots.label(factors, "calls of the same server over UDP", "", "What security makes of it (TLS: RSA; each call: both sides)")
    factors.axvline(1, color=plots.BLACK, linewidth=1, linestyle=(0, (2, 2)), label="a call over UDP")
    factors.margins(x=0.08)
    factors.legend(loc="upper right")
    plots.save(chart, run.directory, "glance")
    return "glance"


def picture(run: Run, name: str, caption: str) -> list[str]:
    return [f"![{caption}]({run.link}/{name}.svg)", "", f"*{caption.rstrip('.')}.*", ""]


def section(run: Run, part: Section, figures: Mapping[str, Any]) -> Iterator[str]:
    """Nothing if none of its reports is there."""
    names = [name for name in part.reports if name in run.reports]
    if not names:
        return
    yield from [f"## {part.question}", ""]
    captions = {name: caption for each in names for name, caption in run.reports[each].get("figures", [])}
    captions = {name: text for name, text in captions.items() if (run.directory / f"{name}.svg").exists()}
    order = [name for name in part.figures if name in captions]
    order += [name for name in captions if name not in order and not name.startswith("flame-")]
    for name in order[:MOST_FIGURES]:
        yield from picture(run, name, captions[name])
    yield from [filled(part.text, figures) or "", ""]
    links = [f"[{name}]({run.link}/{name}.md)" for name in names]
    more = [f"[{name}]({run.link}/{name}.svg)" for name in captions if name not in order[:MOST_FIGURES]]
    yield from [f"Tables: {', '.join(links)}." + (f" More figures: {', '.join(more)}." if more else ""), ""]


def faults(run: Run) -> Iterator[str]:
    yield from ["## The six faults that the report found in its servers", "", "| fault | here | measured |", "| --- | --- | --- |"]
    for fault, here, wanted in FAULTS:
        found = [f"{row['what']}: {row['measured']}" for row in run.rows() if row["row"] == wanted and row["value"] is not None]
        yield f"| {fault} | {here} | {'; '.join(found) or ('not measured' if wanted else 'a test')} |"
    yield ""


def unmet(run: Run) -> Iterator[str]:
    yield from ["## What is not met", ""]
    known = reasons()
    for verdict, words in (("not met", "why"), ("not decided", "why")):
        found = run.with_verdict(verdict)
        if found:
            yield from [f"{verdict.capitalize()}:", "", f"| row | what | target | measured | {words} |", "| --- " * 5 + "|"]
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
    for number, (subject, *clauses) in enumerate(SENTENCES, 1):
        out.append(f"{number}. {filled(clauses, figures, subject)}")
    out.append("")
    if name := glance(run):
        out += picture(run, name, "Left: CPU of a call over UDP. Right: how many of them a call costs with security, now and then")
    out += [
        f"{first.get('machine', 'A machine')}. Measured in {minutes:.0f} minutes; server on core 0, load generator on core 1, "
        f"over "
        "the loopback. Ratios can be carried to another machine, microseconds cannot. 2010 and 2012: what two studies "
        "published of "
        "OpenSIPS on one core of their time. [README.md](README.md) says how everything is measured; every single run is in "
        f"[runs.jsonl]({run.link}/runs.jsonl). Made by `perf/page`.",
        "",
    ]
    for part in SECTIONS:
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

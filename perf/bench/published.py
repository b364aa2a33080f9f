"""What both studies published: their tables, read from perf/published, and the ratios and components that the report gives in
figures and text. Absolute rates of a core of 2004 say nothing today: ratios do.

The report: C. Shen, E. Nahum, H. Schulzrinne, C. Wright, "The Impact of TLS on SIP Server Performance" (2010), OpenSIPS 1.4.2. The
thesis: S. Maguluri, "Performance Evaluation of SIP Authentication and TLS" (2012), OpenSIPS 1.6.0."""

import csv
from collections.abc import Sequence
from typing import Any

import numpy
from report import PERF, Report

Points = list[tuple[float, float]]


def table(name: str) -> list[dict[str, Any]]:
    """The rows of a CSV file, numbers as numbers."""

    def value(text: str) -> float | str | None:
        try:
            return float(text)
        except ValueError:
            return text or None

    with open(PERF / "published" / name, newline="") as text:
        return [{key: value(cell) for key, cell in row.items()} for row in csv.DictReader(text)]


def curve(rows: Sequence[dict[str, Any]], x: str, y: str) -> Points:
    """What is drawn: the points up to the first at which the core was full."""
    points = [(row[x], row[y]) for row in rows if row[y] is not None]
    full = next((number for number, (_, percent) in enumerate(points) if percent >= 100), len(points))
    return points[: full + 1]


def interpolate(points: Points, x: float) -> float | None:
    """Between the points of a curve; None outside of them."""
    xs, ys = zip(*points)
    found = float(numpy.interp(x, xs, ys, left=numpy.nan, right=numpy.nan))
    return None if numpy.isnan(found) else found


# The thesis: calls/s and registrations/s at 100 % CPU.
PROXY_PEAKS = {
    **{"udp": 1810, "tcp_mono": 1130, "tcp_multi": 865},
    **{"tls_local_client_session_reuse": 320, "tls_local_client": 135, "tls_local_mutual": 95},
}
REGISTRAR_PEAKS = {"udp_auth": 5750, "tcp_auth": 4500}
REGISTRAR_DEGRADATION = 5.0

# The report: ratios of peak throughput, by the names of configurations; the second is the divisor.
RATIOS = [tuple(row.values()) for row in table("report-peak-ratios.csv")]
# UDP ÷ local TLS mutual.
WORST_CASE = 20
# Thousands of CPU cycles for a call at 50 calls/s. The chain's without digest; its outbound and local with.
CYCLES = {row["configuration"]: row["thousand_cycles"] for row in table("report-thousand-cycles-50cps.csv")}
# Its cost model; the unit is a call over UDP in chain mode. Client-side figures are those before its fix of the server.
COMPONENTS = {row["component"]: row["cost"] for row in table("report-component-costs.csv")}
# The share that its fix took from the client's side.
CLIENT_FIX = {"full": 0.50, "mutual": 0.55, "reuse": 0.73}
MODEL_ERROR = 0.15


def relative_peaks() -> dict[str, float]:
    """The report's peaks ÷ the peak over UDP in chain mode with the same setting of digest, by configuration: the products of its
    ratios, in which each divisor stands before what it divides."""
    found = {"chain-udp": 1.0, "chain-udp-auth": 1.0}
    for name, divisor, ratio in RATIOS:
        found[name] = ratio * found[divisor]
    return found


def matching_udp(name: str) -> str:
    """The UDP configuration that the report draws this one against."""
    return "chain-udp-auth" if name.endswith("-auth") else "chain-udp"


REGISTRAR, PROXY, MODES = (f"perf/reproduce {part}" for part in ("registrar", "proxy", "modes"))
PROFILE, MODEL = "perf/profile", "perf/model"
_MODES = ("proxy chain", "outbound", "inbound", "local")
_CASES = ("UDP", "TCP one socket", "TCP socket per call", "TLS", "TLS session reuse", "TLS mutual")
# Every table and figure of the two studies: its name, the study, the command that reproduces it. Row G3 counts them.
TABLES_AND_FIGURES = [
    ("Table 1: CPU by registrations/s, UDP and TCP, without and with digest", "thesis", REGISTRAR),
    ("figure: registrar over UDP, without and with digest", "thesis", REGISTRAR),
    ("figure: registrar over TCP, without and with digest", "thesis", REGISTRAR),
    ("figure: registrar without digest, UDP and TCP", "thesis", REGISTRAR),
    ("figure: registrar with digest, UDP and TCP", "thesis", REGISTRAR),
    ("figure: degradation factor of digest", "thesis", REGISTRAR),
    ("Table 2: CPU by calls/s, six cases", "thesis", PROXY),
    ("figure: CPU by calls/s, six cases", "thesis", PROXY),
    ("peaks of the six cases", "thesis", PROXY),
    *[(f"Tables 3 to 14: component shares by calls/s, {case}", "thesis", PROFILE) for case in _CASES],
    ("Table 15: components × CPU at 90 calls/s", "thesis", PROFILE),
    *[(f"figure: peak throughput, {mode}", "report", MODES) for mode in _MODES],
    *[(f"figure: CPU of a call, {mode}, totals", "report", MODES) for mode in _MODES],
    ("ratios of peaks", "report", MODES),
    ("worst case: UDP ÷ local TLS mutual", "report", MODES),
    *[(f"figure: CPU of a call, {mode}, components", "report", PROFILE) for mode in _MODES],
    ("component costs of the cost model", "report", MODEL),
    ("predicted against measured", "report", MODEL),
]


def reproduced(report: Report, command: str, where: dict[str, str]) -> None:
    """Says in a report which of its own tables and figures stand for which of the studies', `where` naming a table's title or a
    figure's file for each; and in its JSON, as `reproduced`, for which of them something was measured: row G3 counts those."""
    there = {title for title, _ in report.tables} | {name for name, _ in report.figures}
    wanted = [(name, study) for name, study, by in TABLES_AND_FIGURES if by == command]
    report.data["reproduced"] = [name for name, _ in wanted if where[name] in there]
    lines = [[name, study, where[name] if where[name] in there else "—"] for name, study in wanted]
    report.table("What of the studies this reproduces", ["published", "by", "here"], lines)

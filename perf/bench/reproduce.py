"""perf/reproduce [registrar] [proxy] [modes]: what the two published studies measured, measured today, beside their figures. The
registrar and the six cases of the proxy are the thesis', the 20 configurations of the four modes the report's."""

import argparse
from typing import Any

import published
import study_figures
from bench import main
from report import Report
from samples import Samples, ratio, single
from studies import BUSY, CONFIGURATIONS, FIXED, PROXY, RATE, REGISTRAR, WHO, Curves, related, tasks_of
from study import Plan
from tasks import key

CPU_BY_RATE = "CPU % by rate (open loop), and the thesis at the same share of its own unit"
FULL_CORE = "Full core: peak (at most 4 % of the calls fail), and what a closed window brings through"
RATIOS = "Ratios of peaks (inbound and local: the report's fixed server)"
WORST = "Worst case: UDP in chain mode ÷ local TLS mutual with digest"
COSTS = "CPU of a call ÷ that over UDP in chain mode without digest (the report: before its fix of the client)"


def theirs(value: float | None, digits: int = 2) -> str:
    return "—" if value is None else f"{value:,.{digits}f}"


def tell_curves(report: Report, samples: Samples, curves: Curves) -> None:
    full, lines, peaks = [], [], curves.peaks
    base = curves.labels[curves.base]
    for who in WHO:
        unit = curves.unit(samples, who)
        for column, case in curves.cases.items():
            own, carried = curves.carried(column, who), curves.carried(curves.base, who)
            best, base_best = (key(each, who, "peak") for each in (case, curves.cases[curves.base]))
            cells: list[Any] = [single(samples, own, RATE), single(samples, own), ratio(samples, own, carried)]
            if any(cells):
                cells += [single(samples, best, RATE), single(samples, best, "failed_share", 100)] if curves.own else []
                cells.append(theirs(peaks[column] / peaks[curves.base], 3) if column in peaks else "—")
                cells += [ratio(samples, own, carried, RATE), *([ratio(samples, best, base_best, RATE)] if curves.own else [])]
                full.append([WHO[who], curves.labels[column], *cells])
            for share in curves.shares(column):
                point = curves.point(column, who, share)
                rate = samples.median(point, "rate_or_window")
                relative = rate / unit if rate and unit else None if curves.own else share
                if samples.of(point) and relative:
                    busy: Any = single(samples, point, BUSY, 100) or "full"
                    at = published.interpolate(curves.published(column), relative)
                    lines.append([WHO[who], curves.labels[column], theirs(rate, 0), theirs(relative, 3), busy, theirs(at, 1)])
    head = ["who", "case", "closed window, each second", "µs CPU each", f"µs ÷ {base}"]
    head += ["peak, each second", "failed %"] if curves.own else []
    head += [f"rate ÷ {base}: the thesis", "closed window", *(["peak"] if curves.own else [])]
    report.table(FULL_CORE, head, full)
    report.table(CPU_BY_RATE, ["who", "case", f"{curves.what}/s", f"÷ full core, {base}", "CPU %", "the thesis"], lines)
    study_figures.curves(report, samples, curves)


def tell_registrar(report: Report, samples: Samples) -> None:
    tell_curves(report, samples, REGISTRAR)
    lines = []
    for who in WHO:
        full = [ratio(samples, *(REGISTRAR.carried(f"{via}_{auth}", who) for auth in ("auth", "noauth"))) for via in ("udp", "tcp")]
        factors = [
            (theirs(share), [study_figures.factor(samples, via, who, share) for via in ("udp", "tcp")])
            for share in REGISTRAR.shares("udp_auth")
        ]
        lines += [[WHO[who], at, *both] for at, both in [*factors, ("full core of each", full)] if any(both)]
    title = f"CPU with digest ÷ CPU without, at equal rate (the thesis: about {published.REGISTRAR_DEGRADATION:g})"
    report.table(title, ["who", "÷ full core, UDP, digest", "UDP", "TCP"], lines)
    study_figures.degradation(report, samples)
    figures = [name for name, _, by in published.TABLES_AND_FIGURES if by == published.REGISTRAR]
    where = [CPU_BY_RATE, *["reproduce-registrar"] * 4, "reproduce-registrar-degradation"]
    published.reproduced(report, published.REGISTRAR, dict(zip(figures, where)))


def tell_proxy(report: Report, samples: Samples) -> None:
    tell_curves(report, samples, PROXY)
    pairs = [(case.name, PROXY.cases["udp"].name) for case in PROXY.cases.values()]
    study_figures.thesis_peaks(report, samples, pairs)
    names = [name for name, _, by in published.TABLES_AND_FIGURES if by == published.PROXY]
    published.reproduced(report, published.PROXY, dict(zip(names, [CPU_BY_RATE, "reproduce-proxy", FULL_CORE])))


def tell_modes(report: Report, samples: Samples) -> None:
    lines, kinds = [], {"peak": "peaks", "carried": "closed window", "by cost": "CPU of a call, inverse"}
    for who in WHO:
        for name in CONFIGURATIONS:
            best, full, fixed = (key(name, who, load) for load in ("peak", "window", FIXED.name))
            cells = [single(samples, best, RATE), single(samples, best, "failed_share", 100), single(samples, full, RATE)]
            cells += [single(samples, full), single(samples, fixed)]
            lines += [[WHO[who], name, *cells]] if any(cells) else []
    head = [
        "who",
        "configuration",
        "peak, calls/s",
        "failed %",
        "closed window, calls/s",
        "µs CPU of a call there",
        f"at {FIXED.name}",
    ]
    report.table("Configurations", head, lines)

    def table(title: str, first: str, kinds: dict[str, str], lines: list[tuple[str, str, str, str]]) -> None:
        """Of pairs of configurations: what the report says, and ours of each kind."""
        pairs = [
            (label, told, [related(samples, over, under, who, kind) for who in WHO for kind in kinds])
            for label, told, over, under in lines
        ]
        head = [f"{WHO[who]}: {text}" for who in WHO for text in kinds.values()]
        report.table(title, [first, "the report", *head], [[label, told, *cells] for label, told, cells in pairs if any(cells)])

    table(
        RATIOS,
        "configurations",
        kinds,
        [(f"{over} ÷ {under}", theirs(told), over, under) for over, under, told in published.RATIOS],
    )
    table(WORST, "", kinds, [("UDP ÷ TLS mutual", f"~{published.WORST_CASE}", "chain-udp", "local-tls-mutual-auth")])
    unit = published.CYCLES["chain-udp"]
    cycles = {name: theirs(published.CYCLES[name] / unit, 1) if name in published.CYCLES else "—" for name in CONFIGURATIONS}
    kinds = {"fixed": FIXED.name.removeprefix("fixed "), "cost": "saturation"}
    table(COSTS, "configuration", kinds, [(name, told, name, "chain-udp") for name, told in cycles.items()])
    study_figures.modes(report, samples)
    names = [name for name, _, by in published.TABLES_AND_FIGURES if by == published.MODES]
    where = {name: "reproduce-modes-peaks" if "peak" in name else "reproduce-modes-cpu" for name in names}
    published.reproduced(report, published.MODES, where | {names[-2]: RATIOS, names[-1]: WORST})


TELL = {"registrar": tell_registrar, "proxy": tell_proxy, "modes": tell_modes}
TITLES = {
    "registrar": "The thesis' registrar measurements, reproduced",
    "proxy": "The thesis' proxy measurements, reproduced",
    "modes": "The report's 20 configurations, reproduced",
}


def plan(options: argparse.Namespace) -> list[Plan]:
    parts = [part for part in TITLES if part in getattr(options, "parts", TITLES)]
    tasks = {part: [task for who in WHO for task in tasks_of(part, who, options)] for part in parts}
    return [Plan(f"reproduce-{part}", TITLES[part], tasks[part], tell=TELL[part]) for part in parts]


if __name__ == "__main__":
    main("reproduce", __doc__, 45, plan, parts=tuple(TITLES))

"""What of the two published studies is measured again: the thesis' registrar and proxy, and the report's four modes; which cases,
under which loads, how often."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import published
from bench import MEASURE, SETTLE, Bench
from cases import OLD, THESIS, Case, configuration, registrations, report_configurations
from samples import Estimate, Result, Samples, ratio, single
from study import FEWEST, Task
from tasks import Load, key, peak, served, window

WHO = {"strowger": "strowger", "kamailio": "Kamailio"}
RATE, CPU, BUSY = "completed_per_second", "server_cpu_us_each", "server_busy"
# Runs at saturation in an hour; those of a peak or a curve are one. As published, all are as many as the studies had.
RUNS = {"strowger": FEWEST, "kamailio": 1}
# Above this share of its own capacity a case counts as full.
NEAR_FULL = 0.97


@dataclass(frozen=True)
class Curves:
    """CPU by rate in the cases of one of the thesis' tables, a file of perf/published, by the names of its columns. `base` is the
    case whose rate at a full core is 1.0 on the x axes: as `load` finds it, or its peak. Rates are shares of that, or (`own`) of
    what the case itself carries."""

    name: str
    what: str
    cases: Mapping[str, Case]
    labels: Mapping[str, str]
    load: Load
    base: str
    own: bool
    table: str
    peaks: Mapping[str, float]
    panels: Mapping[str, Sequence[str]]

    def carried(self, column: str, who: str) -> str:
        return key(self.cases[column], who, self.load)

    def unit(self, samples: Samples, who: str) -> float | None:
        """The rate that is 1.0 on the x axes; for who has no peak measured, the capacity in a closed window."""
        peaks = samples.median(key(self.cases[self.base], who, "peak"), RATE) if self.own else None
        return peaks or samples.median(self.carried(self.base, who), RATE)

    def shares(self, column: str) -> tuple[float, ...]:
        if self.own:
            return (0.05, 0.25, 0.5, 0.75, 0.92)
        return (0.05, 0.25, 0.5, 0.9, *(() if self.cases[column].auth else (1.4, 2.0)))

    def point(self, column: str, who: str, share: float) -> str:
        return key(self.cases[column], who, f"curve {share:g}")

    def published(self, column: str) -> published.Points:
        """CPU % by rate in units of the own base's."""
        points = published.curve(published.table(self.table), "cps" if self.own else "rps", column)
        return [(rate / self.peaks[self.base], percent) for rate, percent in points]

    def series(self, samples: Samples, column: str, who: str) -> list[tuple[float, Estimate]]:
        """CPU % by rate in units of the own base's; at the end what the case carries at most."""
        keys = [(self.point(column, who, share), "rate_or_window") for share in self.shares(column)]
        unit, keys = self.unit(samples, who), [*keys, (self.carried(column, who), RATE)]
        found = [(samples.median(each, path), single(samples, each, BUSY, 100), samples.is_bound(each)) for each, path in keys]
        # A core that the generator did not fill is no full one, nor a rate that it did not keep the rate that it says.
        return [
            (rate / unit, replace(busy, is_clean=busy.is_clean and not bound))
            for rate, busy, bound in found
            if unit and rate and busy
        ]

    def task(self, column: str, who: str, shares: Sequence[float], runs: int) -> Task:
        """Open loops in one server, from slow to fast. What the case cannot carry is not offered, and its result says so."""
        case, own = self.cases[column], self.carried(column, who)
        base = own if self.own else self.carried(self.base, who)

        def measure(bench: Bench) -> dict[str, Result]:
            found: dict[str, Result] = {self.point(column, who, share): {"full": True} for share in shares}
            unit, capacity = bench.samples.median(base, RATE), bench.samples.median(own, RATE)
            assert unit and capacity
            possible = [share for share in shares if share * unit <= NEAR_FULL * capacity]
            if possible:
                rates = ",".join(f"{share * unit:.0f}" for share in possible)
                options = ["--users", case.users, "--rate", rates, "--settle", bench.settle, "--duration", bench.measure]
                with bench.server(who, case) as process:
                    results = bench.run_load(who, case, process, self.load.mode, *options, "--drain", 8)
                found.update({self.point(column, who, share): result for share, result in zip(possible, results)})
            return found

        keys, after = [self.point(column, who, share) for share in shares], list(dict.fromkeys([base, own]))
        return Task(
            f"{case.name}, {who}, curve", keys, measure, case.name, 3 + (SETTLE + MEASURE) * len(shares), runs, after=after, who=who
        )


# The thesis' clients answer each challenge without qop, and each REGISTER is challenged anew.
REGISTRAR = Curves(
    "registrar",
    "registrations",
    {f"{via}_{auth}": registrations(via, how) for auth, how in [("noauth", "none"), ("auth", "study")] for via in ("udp", "tcp")},
    {"udp_noauth": "UDP", "tcp_noauth": "TCP", "udp_auth": "UDP, digest", "tcp_auth": "TCP, digest"},
    window(mode="register"),
    "udp_auth",
    False,
    "thesis-table1-registrar-cpu.csv",
    published.REGISTRAR_PEAKS,
    {
        "over UDP, without and with digest": ["udp_noauth", "udp_auth"],
        "over TCP, without and with digest": ["tcp_noauth", "tcp_auth"],
        "without digest, UDP and TCP": ["udp_noauth", "tcp_noauth"],
        "with digest, UDP and TCP": ["udp_auth", "tcp_auth"],
    },
)
# All in local mode, without digest.
PROXY = Curves(
    "proxy",
    "calls",
    THESIS,
    {
        **{"udp": "UDP", "tcp_mono": "TCP, one socket", "tcp_multi": "TCP, socket per call"},
        **{"tls_local_client_session_reuse": "TLS, session reuse", "tls_local_client": "TLS", "tls_local_mutual": "TLS, mutual"},
    },
    window(),
    "udp",
    True,
    "thesis-table2-proxy-cpu.csv",
    published.PROXY_PEAKS,
    {"UDP and TCP": list(THESIS)[:3], "TLS (x axis enlarged)": list(THESIS)[3:]},
)
# The report's, and the bases of calls to registered users, which it does not have.
CONFIGURATIONS = {
    case.name: case for case in (*report_configurations(), *(configuration("local", "udp", on) for on in (False, True)))
}
MODES = {"chain": "proxy chain", "outbound": "outbound", "inbound": "inbound", "local": "local"}
# The report read CPU of a call at 50/s, when its server had more to do than ours has at this.
FIXED = Load("fixed 200/s", ("--rate", "200"), seconds=2)
# Of Kamailio's peaks only the best and the worst in an hour: the others' ratios are near those in a closed window.
EXTREMES = ("chain-udp", "local-tls-mutual-auth")


def tasks_of(part: str, who: str, options: argparse.Namespace) -> list[Task]:
    """In an hour Kamailio has fewer runs, every second rate, and few peaks."""
    runs, once = (FEWEST, FEWEST) if options.as_published else (RUNS[who], 1)
    all_of_it = options.as_published or who == "strowger"
    curves = {"registrar": REGISTRAR, "proxy": PROXY}.get(part)
    cases = list(curves.cases.values() if curves else CONFIGURATIONS.values())
    if who == "kamailio":
        # The distribution's OpenSSL has no 3DES, which only a build of ours brings back.
        cases = [case for case in cases if case.suite != OLD]
    found: list[Task] = [served(case, who, [curves.load if curves else window()], least=runs) for case in cases]
    if part != "registrar":
        found += [peak(case, who, once) for case in cases if all_of_it or case.name in EXTREMES]
    if curves:
        return [*found, *(curves.task(column, who, curves.shares(column)[:: 2 - all_of_it], once) for column in curves.cases)]
    # In an hour where the report has a figure to stand beside.
    fixed = [
        served(case, who, [FIXED], least=once)
        for case in cases
        if options.as_published or all_of_it and case.name in published.CYCLES
    ]
    return [*found, *(replace(task, name=f"{task.name}, {FIXED.name}") for task in fixed)]


def related(samples: Samples, over: str, under: str, who: str, what: str) -> Estimate | None:
    """One configuration ÷ another: of their peaks; of the rates in a closed window (carried); inversely, of CPU of a call there (by
    cost); of that CPU itself (cost), or at a fixed rate."""
    if what == "by cost":
        over, under = under, over
    load, path = {"peak": ("peak", RATE), "carried": ("window", RATE), "fixed": (FIXED.name, CPU)}.get(what, ("window", CPU))
    return ratio(samples, key(over, who, load), key(under, who, load), path)

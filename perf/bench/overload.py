"""perf/overload: what a server still does when more is asked of it than it can do (row O1). Calls come on a schedule from half its
peak to three times as many, whatever comes back; goodput is calls a second that ended well."""

import copy

import study
from cases import WINDOW, Case
from contestants import PERF
from report import Report, Series
from study import PATIENCE, Progress, Study
from udp import words

CASES = {
    "udp": Case("UDP", "udp", "udp", routed=True),
    "udp-auth": Case("UDP, digest", "udp", "udp", routed=True, auth=True),
    "tcp": Case("TCP", "tcp", "tcp", routed=True),
    # RSA costs who proves its key several times what it costs who checks the proof: the generator has room where the server has
    # none.
    "tls": Case("TLS, a full handshake for each call", "tls/call", "udp", routed=True),
}
# The server with another conf: as it would be without its overload control, and with the kernel's help.
UNCONTROLLED, SHEDDING = "strowger-uncontrolled", "strowger-shed"
OTHERWISE = {UNCONTROLLED: '\n[limits]\noverload = "0s"\n', SHEDDING: '\n[limits]\nshed = "kernel"\n'}
WHO = {"strowger": "", UNCONTROLLED: ", control off", SHEDDING: ", the kernel sheds", "kamailio": ", Kamailio"}
MULTIPLES = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0]
QUICK_MULTIPLES = [0.5, 1.0, 1.5, 2.0, 3.0]
# Those that row O1 names.
ROW = [2.0, 3.0]
TARGET = 0.95
# Of the peak, in the same server when the overload is over: it must be as it was.
AFTER = 0.5
# Calls that nobody answers stay for 32 s (Timer B): so many may be outstanding that none is held back for it.
OUTSTANDING = 3_000_000
# A generator that begins its calls so late, µs at the 99th percentile, or so few of them, or whose core is so busy, offers another
# load than it says.
LATE_US = 10_000
OFFERED = 0.98
BUSY = 0.95


def rate(result):
    return result["completed_per_second"]


def offered(result):
    """Share of the calls that should have begun in the measured time which did."""
    return result["counts"]["started"] / max(1, result["counts"]["scheduled"])


def is_generator_bound(result):
    """In an overload the server's core is full whoever sets the pace, so what the generator says of itself is not enough."""
    lag = result["latency_us"].get("generator_lag", {}).get("p99", 0)
    return (
        bool(result.get("generator_bound"))
        or result["generator_busy"] > BUSY
        or offered(result) < OFFERED
        or lag > LATE_US
        or result["counts"]["skipped"] > 0
    )


def judged(result):
    """For a series: losses and repetitions are what an overload is; only wrong answers make it unclean."""
    return {**result, "clean": result["counts"]["wrong"] == 0, "generator_bound": is_generator_bound(result)}


def verdict(goodput, peak):
    """Whether row O1 is met: not to be told where the generator offered less than it should have, or something else had the
    core."""
    if not goodput or not peak or not goodput.is_sound or not peak.is_sound or "g" in goodput.marks:
        return None
    return goodput.median >= TARGET * peak.median


def changed(case, lines):
    """The same case, with more in the conf."""
    other = copy.copy(case)

    def values(directory):
        found = case.values(directory)
        return {**found, "ROUTE": found["ROUTE"] + lines}

    other.values = values
    return other


def case_of(key, name):
    return changed(CASES[key], OTHERWISE[name]) if name in OTHERWISE else CASES[key]


class Overload(Study):
    def __init__(self, arguments, directory):
        super().__init__(arguments, directory, "Overload")
        quick = arguments.quick
        self.names = [*arguments.only, *([UNCONTROLLED] if arguments.uncontrolled else []), *([SHEDDING] if arguments.shed else [])]
        self.multiples = arguments.multiples or (QUICK_MULTIPLES if quick else MULTIPLES)
        self.cases = arguments.cases or (["udp", "tls"] if quick else list(CASES))
        self.settle = 3 if quick else 10
        self.step = min(self.duration, 4 if quick else 20)
        self.warm = 3 if quick else 8
        self.report = Report(
            self.report.title,
            self.report.machine,
            f"{self.rounds} round(s). For each point a fresh server, which {self.warm} s of a closed window have warmed up; "
            f"{self.settle} s at the rate, then {self.step:g} s measured. The peak is the rate of a closed window of {WINDOW} "
            f"calls",
        )
        self.progress = Progress(self.rounds * len(self.cases) * len(self.names) * (len(self.multiples) + 1))

    def run(self):
        for _ in range(self.rounds):
            for key in self.cases:
                for name in self.names:
                    self.attempt(self.sweep, key, name)
        self.tell()
        self.finish("overload")

    def sweep(self, key, name):
        case = case_of(key, name)
        self.progress.step(f"{name}: {case.label}: peak")
        with self.server(case, name) as (contestant, process):
            peak = self.saturate(case, contestant, process, warm=self.settle, key=key)
        for multiple in self.multiples:
            self.progress.step(f"{name}: {case.label}: {multiple:g} × {rate(peak):,.0f} calls/s")
            self.attempt(self.point, key, name, multiple, rate(peak))

    def point(self, key, name, multiple, peak):
        case = case_of(key, name)
        common = ["--drain", PATIENCE, "--max-outstanding", OUTSTANDING]
        with self.server(case, name) as (contestant, process):
            self.run_load(
                case,
                contestant,
                process,
                "--warm",
                self.warm,
                "--warm-window",
                48,
                "--rest",
                1,
                "--rate",
                f"{multiple * peak:.0f}",
                "--settle",
                self.settle,
                "--duration",
                self.step,
                *common,
                what="overload",
                key=key,
                multiple=multiple,
            )
            if multiple == max(self.multiples):
                self.run_load(
                    case,
                    contestant,
                    process,
                    "--rate",
                    f"{AFTER * peak:.0f}",
                    "--settle",
                    self.settle,
                    "--duration",
                    self.step,
                    *common,
                    what="after",
                    key=key,
                    multiple=AFTER,
                )

    def points(self, key, name, what, multiple, value):
        found = [
            judged(result)
            for result in self.results
            if result.get("key") == key
            and result["contestant"] == name
            and result["what"] == what
            and multiple in (None, result.get("multiple"))
        ]
        return Series(found, value)

    def latency(self, key, name, multiple, quantile):
        """Milliseconds from when the call was to leave to its 200."""

        def value(result):
            found = result["latency_us"].get("to_200", {}).get(quantile)
            return None if found is None else found / 1000

        return self.points(key, name, "overload", multiple, value)

    # What it says.

    def tell(self):
        for name in self.names:
            for key in self.cases:
                self.tell_case(key, name)
        self.draw(
            "overload-goodput",
            self.draw_goodput,
            "Goodput against offered load, both relative to the peak. Hollow: the generator was at its limit",
        )
        self.draw(
            "overload-latency",
            self.draw_latency,
            "Time from an INVITE's schedule to its 200, of calls that were answered: median, and 99th percentile (dashed)",
        )

    def tell_case(self, key, name):
        peak = self.points(key, name, "saturation", None, rate)
        if not peak:
            return
        lines = []
        for what, multiple in [("overload", multiple) for multiple in self.multiples] + [("after", AFTER)]:
            goodput = self.points(key, name, what, multiple, rate)
            if not goodput:
                continue

            def of(value, digits=0):
                return self.points(key, name, what, multiple, value).text(digits)

            def each(counter):
                return of(lambda result: result["counts"][counter] / result["seconds"])

            lines.append(
                [
                    f"{multiple:g}" + (", afterwards" if what == "after" else ""),
                    of(lambda result: result["rate_or_window"]),
                    goodput.text(0),
                    f"{goodput.median / peak.median:.2f}",
                    *(
                        of(
                            lambda result, q=q: (
                                (result["latency_us"].get("to_200") or {q: None})[q] and result["latency_us"]["to_200"][q] / 1000
                            ),
                            1,
                        )
                        for q in ["p50", "p99"]
                    ),
                    each("refused"),
                    of(
                        lambda result: (
                            (
                                result["counts"]["retransmitted_invite"]
                                + result["counts"]["retransmitted_2xx"]
                                + result["counts"]["retransmitted_request"]
                            )
                            / result["seconds"]
                        )
                    ),
                    of(lambda result: result["server_drops"] / result["seconds"]),
                    of(lambda result: 100 * result["server_busy"]),
                    of(lambda result: 100 * result["generator_busy"]),
                    of(lambda result: 100 * offered(result)),
                ]
            )
            if what == "overload" and multiple in ROW and name in ("strowger", SHEDDING):
                self.report.row(
                    "O1",
                    f"goodput at {multiple:g} × the peak ÷ the peak, {CASES[key].label}{WHO[name]}",
                    f"≥ {TARGET}",
                    f"{goodput.median / peak.median:.3f} ({goodput.median:,.0f} ÷ {peak.median:,.0f} calls/s)",
                    verdict(goodput, peak),
                    "".join(sorted(set(goodput.marks + peak.marks))),
                )
        self.report.table(
            f"{CASES[key].label}{WHO[name]}: peak {peak.text(0)} calls/s",
            [
                "× peak",
                "offered, calls/s",
                "goodput, calls/s",
                "÷ peak",
                "to 200, ms: p50",
                "p99",
                "refused/s",
                "sent again/s",
                "datagrams dropped at the server/s",
                "server's core, % busy",
                "generator's core, % busy",
                "calls begun, % of those offered",
            ],
            lines,
        )

    def draw(self, name, how, title):
        # Loaded late: what is measured does not need it, nor do the tests.
        import plots

        chart, axes = plots.figure()
        if how(axes, plots):
            plots.save(chart, Report.directory(PERF), name)
            self.report.figure(name, title)
        else:
            plots.pyplot.close(chart)

    def curves(self):
        """(number of the colour, name, key, contestant) of what has a peak."""
        number = 0
        for name in self.names:
            for key in self.cases:
                if self.points(key, name, "saturation", None, rate):
                    yield number, CASES[key].label + WHO[name], key, name
                    number += 1

    def draw_goodput(self, axes, plots):
        most, drawn = max(self.multiples), False
        axes.plot([0, 1, most], [0, 1, 1], color=plots.GREY, linestyle=":", linewidth=1.2, label="all that can be done")
        for number, label, key, name in self.curves():
            peak = self.points(key, name, "saturation", None, rate).median
            series = [(multiple, self.points(key, name, "overload", multiple, rate)) for multiple in self.multiples]
            points = [(multiple, found.median / peak, "g" in found.marks) for multiple, found in series if found]
            if not points:
                continue
            drawn = True
            plots.ours(axes, number, [(x, y) for x, y, _ in points], label)
            hollow = [(x, y) for x, y, bound in points if bound]
            if hollow:
                axes.plot(
                    *zip(*hollow),
                    linestyle="none",
                    marker=plots.MARKERS[number],
                    markerfacecolor="white",
                    markeredgecolor=plots.COLOURS[number],
                    zorder=3,
                )
        axes.set_xlim(0, most * 1.03)
        axes.set_ylim(0, max(1.2, 1.05 * axes.dataLim.ymax))
        plots.label(axes, "Offered load ÷ peak", "Goodput ÷ peak")
        above(axes)
        return drawn

    def draw_latency(self, axes, plots):
        drawn = False
        for number, label, key, name in self.curves():
            for quantile in ["p50", "p99"]:
                points = [
                    (multiple, found.median)
                    for multiple in self.multiples
                    if (found := self.latency(key, name, multiple, quantile))
                ]
                if not points:
                    continue
                drawn = True
                if quantile == "p50":
                    plots.ours(axes, number, points, label)
                else:
                    plots.theirs(axes, number, points, None)
        axes.set_yscale("log")
        axes.set_xlim(0, max(self.multiples) * 1.03)
        plots.label(axes, "Offered load ÷ peak", "INVITE to 200, ms")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        above(axes)
        return drawn


def above(axes):
    """The legend where no curve can be."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def multiples(text):
    return sorted(float(part) for part in text.split(","))


def main():
    parser = study.options("perf/overload", __doc__)
    parser.add_argument("--cases", type=words(CASES), help=f"some of {','.join(CASES)} [all; quick: udp,tls]")
    parser.add_argument("--uncontrolled", action="store_true", help='strowger with [limits] overload = "0s" too')
    parser.add_argument("--multiples", type=multiples, help="of the peak [0.5 to 3]")
    parser.add_argument("--shed", action="store_true", help='strowger with [limits] shed = "kernel" too')
    study.run(parser, Overload)


if __name__ == "__main__":
    main()

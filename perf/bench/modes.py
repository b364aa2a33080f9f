"""perf/reproduce modes: the report's 20 configurations. Peak throughput, capacity, and CPU of a call at saturation and at a fixed
rate.

Digest is on in outbound and local mode and off in inbound mode, as the report has it; each configuration is drawn against UDP with
the same setting."""

import published
from cases import Configuration, report_configurations
from reproduction import NAMES, Reproduction, at_saturation, completed, cpu, is_bound, ratio
from study import Progress, failed_share

MODES = {"chain": "proxy chain", "outbound": "outbound", "inbound": "inbound", "local": "local"}
# The base of calls to registered users, which the report does not have.
EXTRA = [Configuration("local", "udp"), Configuration("local", "udp", auth=True)]


def for_model():
    """Where the report has a configuration only without digest or only with it, the other."""
    variants = [("tcp", "full"), ("tls", "full"), ("tls", "mutual"), ("tls", "reuse")]
    return [
        Configuration(mode, transport, mode == "inbound", variant)
        for mode in ("outbound", "inbound", "local")
        for transport, variant in variants
    ]


class Modes(Reproduction):
    name, title = "modes", "The report's 20 configurations, reproduced"
    ours = {
        **{f"figure: peak throughput, {title}": "reproduce-modes-peaks" for title in MODES.values()},
        **{f"figure: CPU of a call, {title}, totals": "reproduce-modes-cpu" for title in MODES.values()},
        "ratios of peaks": "table “Ratios of peaks” and reproduce-modes-ratios",
        "worst case: UDP ÷ local TLS mutual": "table “Worst case”",
    }

    def __init__(self, arguments, directory):
        self.cases = report_configurations() + EXTRA + (for_model() if arguments.for_model else [])
        super().__init__(arguments, directory)

    # What is run.

    def measure(self, number):
        cases = [case for case in self.cases if self.wants(case.name)]
        if number == 0:
            self.progress = Progress(self.rounds * len(cases) * len(self.arguments.only))
        for case in cases:
            for name in self.arguments.only:
                self.progress.step(f"{case.label}, {name}, round {number + 1}")
                self.attempt(self.measure_case, case, name, number)

    def measure_case(self, case, name, number):
        with self.server(case, name) as (contestant, process):
            capacity = completed(self.saturate_and_rest(case, contestant, process, round=number))
            self.at_rate(case, contestant, process, self.arguments.fixed_rate, what="fixed rate", round=number)
            self.peak(case, contestant, process, capacity, round=number)

    # What is told.

    def peak_of(self, name, contestant):
        return self.of(name, contestant, "peak found", completed)

    def cpu_of(self, name, contestant, what):
        return self.of(name, contestant, what, cpu)

    def fixed_rate(self):
        return next(
            (result["rate_or_window"] for result in self.results if result["what"] == "fixed rate"), self.arguments.fixed_rate
        )

    def tell(self, plots):
        for contestant in self.contestants:
            self.tell_configurations(contestant)
        for contestant in self.contestants:
            self.tell_ratios(contestant)
            self.tell_cpu(contestant)
        self.tell_worst_case()
        if all(self.peak_of(name, contestant) for name in ("chain-udp", "chain-udp-auth") for contestant in self.contestants):
            self.draw_peaks(plots)
        if all(self.cpu_of("chain-udp", contestant, "fixed rate") for contestant in self.contestants):
            self.draw_cpu(plots)
        self.draw_ratios(plots)

    def tell_configurations(self, contestant):
        lines = []
        for name in self.names():
            values = [
                self.peak_of(name, contestant),
                self.of(name, contestant, "peak found", lambda result: 100 * failed_share(result)),
                self.of(name, contestant, "saturation", completed),
                self.cpu_of(name, contestant, "saturation"),
                self.cpu_of(name, contestant, "fixed rate"),
            ]
            if any(values):
                lines.append((name, *(value.text(digits) for value, digits in zip(values, (0, 1, 0, 1, 1)))))
        self.report.table(
            f"Configurations, {contestant}",
            [
                "configuration",
                "peak, calls/s",
                "failed %",
                f"capacity, calls/s ({at_saturation()})",
                "µs CPU of a call, at that",
                f"µs CPU of a call, at {self.fixed_rate():.0f}/s",
            ],
            lines,
        )

    def names(self):
        """In the report's order, and what else there is after it."""
        known = [case.name for case in report_configurations() + EXTRA + for_model()]
        return [name for name in known if any(result["configuration"] == name for result in self.results)]

    def tell_ratios(self, contestant):
        lines = []
        for name, divisor, theirs in published.RATIOS:
            peaks = self.peak_of(name, contestant), self.peak_of(divisor, contestant)
            windows = [self.of(each, contestant, "saturation", completed) for each in (name, divisor)]
            each = [self.cpu_of(which, contestant, "saturation") for which in (divisor, name)]
            lines.append((f"{name} ÷ {divisor}", f"{theirs:.2f}", ratio(*peaks), ratio(*windows), ratio(*each)))
        self.report.table(
            f"Ratios of peaks, {contestant} (inbound and local: the report's fixed server)",
            ["configurations", "the report", "peak", "capacity in a closed window", "CPU of a call at saturation, inverse"],
            lines,
        )

    def tell_cpu(self, contestant):
        lines = []
        fixed, full = (self.cpu_of("chain-udp", contestant, what) for what in ("fixed rate", "saturation"))
        for name in self.names():
            theirs = f"{published.CYCLES[name] / published.CYCLES['chain-udp']:.1f}" if name in published.CYCLES else "—"
            lines.append(
                (
                    name,
                    theirs,
                    ratio(self.cpu_of(name, contestant, "fixed rate"), fixed),
                    ratio(self.cpu_of(name, contestant, "saturation"), full),
                )
            )
        self.report.table(
            f"CPU of a call ÷ that over UDP in chain mode without digest, {contestant} (the report: before its fix of the client)",
            ["configuration", "the report, 50/s", f"{self.fixed_rate():.0f}/s", "saturation"],
            lines,
        )

    def tell_worst_case(self):
        lines = []
        for contestant in self.contestants:
            lines.append(
                (
                    contestant,
                    f"~{published.WORST_CASE}",
                    ratio(self.peak_of("chain-udp", contestant), self.peak_of("local-tls-mutual-auth", contestant), 1),
                    ratio(*(self.cpu_of(name, contestant, "saturation") for name in ("local-tls-mutual-auth", "chain-udp")), 1),
                )
            )
        self.report.table(
            "Worst case: UDP in chain mode ÷ local TLS mutual with digest",
            ["who", "the report", "peaks", "CPU of a call at saturation, inverse"],
            lines,
        )

    # What is drawn.

    def panels(self, plots, groups_of, y, height=7.4, digits=2):
        """One panel for each mode. `groups_of(names)` gives its bars."""
        chart, grid = plots.figure(10.8, height, columns=2, rows=2, gridspec_kw={"width_ratios": [1.35, 1]})
        for axes, (mode, title) in zip(grid.flat, MODES.items()):
            names = [case.name for case in report_configurations() if case.mode == mode and case.transport != "udp"]
            plots.bars(axes, [short(name) for name in names], groups_of(names), digits)
            axes.set_title(title + (", with digest" if all(name.endswith("-auth") for name in names) else ""))
            axes.tick_params(axis="x", labelsize=9)
            axes.margins(y=0.1)
        for row in grid:
            row[0].set_ylabel(y)
        return chart, grid

    def draw_peaks(self, plots):
        theirs = published.relative_peaks()

        def groups(names):
            found = [("report (OpenSIPS 1.4)", [theirs.get(name) for name in names], plots.PUBLISHED)]
            for number, contestant in enumerate(self.contestants):
                values, reach = [], []
                for name in names:
                    peak, udp = self.peak_of(name, contestant), self.peak_of(published.matching_udp(name), contestant)
                    each = self.cpu_of(name, contestant, "saturation")
                    values.append(peak.median / udp.median if peak and udp else None)
                    # What a full core would carry at that CPU of a call, where the generator did not let it.
                    reach.append(1e6 / each.median / udp.median if peak and udp and each and "g" in peak.marks else None)
                found.append((NAMES[contestant], values, {"color": plots.COLOURS[number]}, reach))
            return found

        chart, grid = self.panels(plots, groups, "peak ÷ own peak over UDP")
        if any("g" in self.peak_of(name, contestant).marks for name in self.names() for contestant in self.contestants):
            grid[0][1].bar(
                [0],
                [0],
                fill=False,
                edgecolor=plots.COLOURS[0],
                linestyle=(0, (2, 2)),
                label="a full core at that CPU of a call,\nwhere the generator was the limit",
            )
        for axes in grid.flat:
            axes.axhline(1, color=plots.GREY, linewidth=1)
        # Where the bars are lowest.
        grid[0][1].legend(loc="upper right")
        udp = "; ".join(
            f"{contestant} {self.peak_of('chain-udp', contestant).median:,.0f} and "
            f"{self.peak_of('chain-udp-auth', contestant).median:,.0f} calls/s"
            for contestant in self.contestants
        )
        self.figure(
            plots,
            chart,
            "peaks",
            "Peak throughput ÷ own peak over UDP in chain mode with the same setting of digest "
            f"(the line; without and with digest: {udp}).",
        )

    def draw_cpu(self, plots):
        unit = published.CYCLES["chain-udp"]

        def groups(names):
            found = [
                (
                    "report, 50 calls/s",
                    [published.CYCLES[name] / unit if name in published.CYCLES else None for name in names],
                    plots.PUBLISHED,
                )
            ]
            for number, contestant in enumerate(self.contestants):
                for index, (what, text) in enumerate(
                    [("fixed rate", f"{self.fixed_rate():.0f} calls/s"), ("saturation", "saturation")]
                ):
                    base = self.cpu_of("chain-udp", contestant, what)
                    values = [
                        each.median / base.median if each and base else None
                        for each in (self.cpu_of(name, contestant, what) for name in names)
                    ]
                    found.append((f"{NAMES[contestant]}, {text}", values, {"color": plots.COLOURS[2 * number + index]}))
            return found

        chart, grid = self.panels(plots, groups, "CPU of a call ÷ own over UDP,\nchain mode, without digest", digits=1)
        grid[0][0].legend(loc="upper left")
        self.figure(
            plots,
            chart,
            "cpu",
            "CPU of a call ÷ own CPU of a call over UDP in chain mode without digest. The report's are before its fix of the "
            "client.",
        )

    def draw_ratios(self, plots):
        """Each published ratio of peaks and ours on one line."""
        lines = [
            (name, divisor, theirs)
            for name, divisor, theirs in published.RATIOS
            if any(self.peak_of(name, contestant) and self.peak_of(divisor, contestant) for contestant in self.contestants)
        ]
        if not lines:
            return
        chart, axes = plots.figure(8.6, 1.7 + 0.33 * len(lines))
        bound = []
        for contestant_number, contestant in enumerate(self.contestants):
            points, by_cpu = [], []
            for place, (name, divisor, theirs) in enumerate(lines):
                peaks = self.peak_of(name, contestant), self.peak_of(divisor, contestant)
                if not all(peaks):
                    continue
                points.append((peaks[0].median / peaks[1].median, place))
                axes.plot([theirs, points[-1][0]], [place, place], color="#bbbbbb", linewidth=1, zorder=1)
                if any(map(is_bound, peaks)):
                    bound.append(points[-1])
                each = [self.cpu_of(which, contestant, "saturation") for which in (divisor, name)]
                if all(each):
                    by_cpu.append((each[0].median / each[1].median, place))
            axes.plot(
                *zip(*points),
                linestyle="none",
                marker=plots.MARKERS[contestant_number],
                markersize=7,
                color=plots.COLOURS[contestant_number],
                label=NAMES[contestant],
            )
            if by_cpu:
                axes.plot(
                    *zip(*by_cpu),
                    linestyle="none",
                    marker="|",
                    markersize=11,
                    markeredgewidth=1.8,
                    color=plots.COLOURS[contestant_number],
                    label=f"{NAMES[contestant]}, from CPU of a call",
                )
        axes.plot(
            [theirs for _, _, theirs in lines],
            range(len(lines)),
            linestyle="none",
            marker="D",
            markersize=6.5,
            markerfacecolor="white",
            markeredgecolor="black",
            label="report (OpenSIPS 1.4)",
        )
        if bound:
            plots.ring(axes, bound, "bound by the generator, or not clean")
        axes.axvline(1, color=plots.GREY, linewidth=1)
        axes.set_yticks(
            range(len(lines)), [f"{words_of(name)} ÷ {words_of(divisor, name)}" for name, divisor, _ in lines], fontsize=9.5
        )
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, None)
        axes.set_xlabel("ratio of peaks")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, fontsize=9)
        self.figure(plots, chart, "ratios", "The ratios of peaks that the report gives, and ours.")


def short(name):
    """Under a bar: what sets it apart in its mode."""
    mode, transport, *rest = name.split("-")
    variant = [part for part in rest if part != "auth"]
    text = transport.upper() + ("\n" + {"3des": "3DES"}.get(variant[0], variant[0]) if variant else "")
    return text + ("\ndigest" if mode == "chain" and "auth" in rest else "")


def words_of(name, beside=None):
    """In a line: local TLS mutual, digest; without what it shares with the one beside it."""
    mode, transport, *rest = name.split("-")
    variant = " ".join({"3des": "3DES"}.get(part, part) for part in rest if part != "auth")
    digest = ", digest" if "auth" in rest else ""
    text = " ".join(part for part in (transport.upper(), variant) if part)
    if beside:
        return text if beside.split("-")[0] == mode else f"{mode} {text}"
    return f"{mode} {text}{digest}"

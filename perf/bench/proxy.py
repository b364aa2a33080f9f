"""perf/reproduce proxy: the thesis' proxy table, its figure and its peaks. CPU against calls/s in six cases, all in local mode,
without digest.

The unit of the x axes, there and here, is the own peak over UDP. The suite is the thesis' time's (AES128-SHA over TLS 1.2), with
RSA-2048."""

import published
from cases import thesis_configurations
from reproduction import NAMES, Reproduction, completed, cpu, is_bound, ratio
from study import Progress, failed_share

# ÷ the capacity of the case itself in a closed window.
FRACTIONS = [0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9]
QUICK_FRACTIONS = [0.05, 0.25, 0.5, 0.75]
TITLES = {
    "udp": "UDP",
    "tcp_mono": "TCP, one socket",
    "tcp_multi": "TCP, socket per call",
    "tls_local_client_session_reuse": "TLS, session reuse",
    "tls_local_client": "TLS",
    "tls_local_mutual": "TLS, mutual",
}


class Proxy(Reproduction):
    name, title = "proxy", "The thesis' proxy measurements, reproduced"
    ours = {
        "Table 2: CPU by calls/s, six cases": "table “CPU % by calls/s”",
        "figure: CPU by calls/s, six cases": "reproduce-proxy-cpu",
        "peaks of the six cases": "table “Peaks” and reproduce-proxy-peaks",
    }

    def __init__(self, arguments, directory):
        self.cases = thesis_configurations()
        super().__init__(arguments, directory)

    # What is run.

    def measure(self, number):
        cases = [case for column, case in self.cases.items() if self.wants(case.name) or self.wants(column)]
        if number == 0:
            self.progress = Progress(self.rounds * len(cases) * len(self.arguments.only))
            self.capacities = {}
        for case in cases:
            for name in self.arguments.only:
                self.progress.step(f"{case.label}, {name}, round {number + 1}")
                self.attempt(self.measure_case, case, name, number)

    def measure_case(self, case, name, number):
        with self.server(case, name) as (contestant, process):
            capacity = completed(self.saturate_and_rest(case, contestant, process, round=number))
            # The same rates in all rounds.
            common = self.capacities.setdefault((case.name, name), capacity)
            for fraction in QUICK_FRACTIONS if self.arguments.quick else FRACTIONS:
                self.at_rate(case, contestant, process, fraction * common, what="rate", fraction=fraction, round=number)
            # Last, since it leaves a server that has had too much.
            self.peak(case, contestant, process, capacity, round=number)

    # What is told.

    def peaks(self, column, contestant):
        return self.of(self.cases[column].name, contestant, "peak found", completed)

    def tell(self, plots):
        self.tell_peaks()
        for contestant in self.contestants:
            self.tell_table(contestant)
        if all(self.peaks("udp", contestant) for contestant in self.contestants):
            self.draw_cpu(plots)
            self.draw_peaks(plots)

    def tell_peaks(self):
        lines = []
        for contestant in self.contestants:
            udp = self.peaks("udp", contestant)
            udp_cpu = self.of(self.cases["udp"].name, contestant, "saturation", cpu)
            for column, title in TITLES.items():
                name, theirs = self.cases[column].name, published.PROXY_PEAKS
                peak = self.peaks(column, contestant)
                failed = self.of(name, contestant, "peak found", lambda result: 100 * failed_share(result))
                window = self.of(name, contestant, "saturation", completed)
                each = self.of(name, contestant, "saturation", cpu)
                if peak or each:
                    lines.append(
                        (
                            contestant,
                            title,
                            peak.text(0),
                            failed.text(),
                            ratio(peak, udp, 3),
                            f"{theirs[column] / theirs['udp']:.3f}",
                            window.text(0),
                            each.text(),
                            ratio(each, udp_cpu),
                        )
                    )
        self.report.table(
            "Peaks: the highest rate at which at most 4 % of the calls fail",
            [
                "who",
                "case",
                "peak, calls/s",
                "failed %",
                "÷ UDP",
                "the thesis",
                "in a closed window, calls/s",
                "µs CPU each",
                "÷ UDP",
            ],
            lines,
        )

    def tell_table(self, contestant):
        udp, lines = self.peaks("udp", contestant), []
        for column, title in TITLES.items():
            curve = published.curve(published.proxy(), "cps", column)
            for rate, _, series in self.curve(self.cases[column].name, contestant, "fraction"):
                relative = rate / udp.median if udp else None
                at = published.interpolate(curve, relative * published.PROXY_PEAKS["udp"]) if relative is not None else None
                lines.append(
                    (
                        title,
                        f"{rate:.0f}",
                        f"{relative:.3f}" if relative is not None else "—",
                        series.text(),
                        f"{at:.1f}" if at is not None else "—",
                    )
                )
        self.report.table(
            f"CPU % by calls/s, {contestant} (open loop; the last of each case is its peak)",
            ["case", "calls/s", "÷ own UDP peak", "CPU %", "the thesis at the same relative rate"],
            lines,
        )

    def draw_cpu(self, plots):
        chart, (left, right) = plots.figure(10.4, 4.6 + 1.2 * (len(self.contestants) - 1), columns=2, sharey=True)
        panels = [
            (left, ["udp", "tcp_mono", "tcp_multi"]),
            (right, ["tls_local_client_session_reuse", "tls_local_client", "tls_local_mutual"]),
        ]
        rows, unit = published.proxy(), published.PROXY_PEAKS["udp"]
        for axes, columns in panels:
            bound, furthest = [], 0
            for column in columns:
                number = list(TITLES).index(column)
                for contestant in self.contestants:
                    own = self.peaks("udp", contestant).median
                    points = [
                        (rate / own, percent, series)
                        for rate, percent, series in self.curve(self.cases[column].name, contestant, "fraction")
                    ]
                    if points:
                        how = {} if contestant == "strowger" else {"linestyle": ":"}
                        plots.ours(axes, number, [(x, y) for x, y, _ in points], f"{TITLES[column]}: {NAMES[contestant]}", **how)
                        bound += [(x, y) for x, y, series in points if is_bound(series)]
                        furthest = max(furthest, points[-1][0])
                points = [(cps / unit, percent) for cps, percent in published.curve(rows, "cps", column)]
                plots.theirs(axes, number, points, f"{TITLES[column]}: thesis", marker="")
                furthest = max(furthest, points[-1][0])
            if bound:
                plots.ring(axes, bound, "bound by the generator, or not clean")
            axes.set_xlim(0, 1.03 * furthest)
            # With several contestants there is no room for it between the curves.
            alone = (
                {"loc": "lower right"}
                if len(self.contestants) == 1
                else {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
            )
            axes.legend(fontsize=8.5, **alone)
            axes.set_xlabel("calls/s ÷ own peak over UDP")
        left.set_ylim(0, 104)
        left.set_ylabel("CPU of the server (% of one core)")
        left.set_title("UDP and TCP")
        right.set_title("TLS (x axis enlarged)")
        ours = ", ".join(f"{name} {self.peaks('udp', name).median:,.0f}" for name in self.contestants)
        self.figure(
            plots,
            chart,
            "cpu",
            "CPU of the proxy by calls/s in the six cases. 1.0 on the x axis is the own peak over UDP: "
            f"{ours}, thesis {unit:,} calls/s.",
        )

    def draw_peaks(self, plots):
        chart, axes = plots.figure(8.2, 4.3)
        unit = published.PROXY_PEAKS["udp"]
        groups = [("thesis (OpenSIPS 1.6)", [published.PROXY_PEAKS[column] / unit for column in TITLES], plots.PUBLISHED)]
        for number, contestant in enumerate(self.contestants):
            udp = self.peaks("udp", contestant).median
            values, reach = [], []
            for column in TITLES:
                peak, each = self.peaks(column, contestant), self.of(self.cases[column].name, contestant, "saturation", cpu)
                values.append(peak.median / udp if peak else None)
                # What a full core would carry at that CPU of a call, where the generator did not let it.
                reach.append(1e6 / each.median / udp if peak and each and "g" in peak.marks else None)
            groups.append((f"{NAMES[contestant]} ({udp:,.0f} calls/s over UDP)", values, {"color": plots.COLOURS[number]}, reach))
            if any(reach):
                axes.bar(
                    [0],
                    [0],
                    fill=False,
                    edgecolor=plots.COLOURS[number],
                    linestyle=(0, (2, 2)),
                    label="a full core at that CPU of a call, where the generator was the limit",
                )
        plots.bars(axes, [title.replace(", ", "\n") for title in TITLES.values()], groups)
        axes.set_ylabel("peak ÷ own peak over UDP")
        axes.legend()
        self.figure(plots, chart, "peaks", "Peaks (at most 4 % of the calls fail) ÷ own peak over UDP.")

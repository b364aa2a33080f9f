"""perf/reproduce registrar: the thesis' registrar table and its five figures. CPU against registrations/s, UDP and TCP, without and
with digest.

Each REGISTER is challenged anew, MD5 without qop, as the thesis' clients do: REGISTER, 401, REGISTER, 200. The rates are the same
in all four cases, as in its table: fractions of what the server carries over UDP with digest, which is also the unit of the x axes,
there and here, since it is a rate that the thesis publishes (5,750/s)."""

import published
from cases import Case
from reproduction import NAMES, Reproduction, at_saturation, completed, cpu, cpu_percent, is_bound, offered, ratio
from study import Progress

# ÷ the capacity over UDP with digest.
FRACTIONS = [0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.25, 1.6, 1.9, 2.2]
QUICK_FRACTIONS = [0.02, 0.25, 0.5, 0.75, 0.95, 1.5, 2.0]
# Above this share of its own capacity a case is measured at saturation only.
NEAR_FULL = 0.97


class Registration(Case):
    def __init__(self, transport, auth):
        super().__init__(transport.upper() + (", digest" if auth else ""), transport, transport, auth="register" if auth else False)
        # As in the thesis' table.
        self.column = f"{transport}_{'auth' if auth else 'noauth'}"

    @property
    def name(self):
        return f"register-{self.left}{'-auth' if self.auth else ''}"


# UDP with digest first: the others' rates are fractions of its capacity.
BASE = Registration("udp", True)
CASES = [BASE, Registration("udp", False), Registration("tcp", True), Registration("tcp", False)]
FOR_MODEL = [Registration("tls", True), Registration("tls", False)]
COLUMNS = {
    "udp_noauth": "register-udp",
    "tcp_noauth": "register-tcp",
    "udp_auth": "register-udp-auth",
    "tcp_auth": "register-tcp-auth",
}
LABELS = {case.name: case.label for case in CASES}
TRANSPORTS = ["udp", "tcp"]


class Registrar(Reproduction):
    name, title = "registrar", "The thesis' registrar measurements, reproduced"
    ours = {
        "Table 1: CPU by registrations/s, UDP and TCP, without and with digest": "table “CPU % by registrations/s”",
        "figure: registrar over UDP, without and with digest": "reproduce-registrar-udp",
        "figure: registrar over TCP, without and with digest": "reproduce-registrar-tcp",
        "figure: registrar without digest, UDP and TCP": "reproduce-registrar-without-digest",
        "figure: registrar with digest, UDP and TCP": "reproduce-registrar-with-digest",
        "figure: degradation factor of digest": "reproduce-registrar-degradation",
    }

    # What is run.

    def measure(self, number):
        cases = CASES + (FOR_MODEL if self.arguments.for_model else [])
        # The rates hang on the first, whatever --cases says.
        cases = [case for case in cases if case is BASE or self.wants(case.name)]
        if number == 0:
            self.progress = Progress(self.rounds * len(cases) * len(self.arguments.only))
            self.bases = {}
        for case in cases:
            for name in self.arguments.only:
                self.progress.step(f"{case.label}, {name}, round {number + 1}")
                self.attempt(self.measure_case, case, name, number)

    def measure_case(self, case, name, number):
        with self.server(case, name) as (contestant, process):
            capacity = completed(self.saturate_and_rest(case, contestant, process, mode="register", round=number))
            if case is BASE:
                self.bases.setdefault(name, capacity)
            if name not in self.bases:
                raise RuntimeError(f"{name}: no capacity over UDP with digest, so no rates for {case.label}")
            for fraction in QUICK_FRACTIONS if self.arguments.quick else FRACTIONS:
                rate = fraction * self.bases[name]
                if rate <= NEAR_FULL * capacity:
                    self.at_rate(case, contestant, process, rate, mode="register", what="rate", fraction=fraction, round=number)

    # What is told.

    def base(self, contestant):
        return self.of(BASE.name, contestant, "saturation", completed).median

    def points(self, configuration, contestant):
        """As curve(), with rates in units of the base."""
        base = self.base(contestant)
        return [(rate / base, percent, series) for rate, percent, series in self.curve(configuration, contestant, "fraction")]

    def factors(self, transport, contestant):
        """The degradation factor: CPU with digest ÷ CPU without, at each common rate."""
        base, points = self.base(contestant), []
        for fraction in self.fractions(contestant):
            pair = [
                self.of(f"register-{transport}{auth}", contestant, "rate", cpu_percent, fraction=fraction) for auth in ("-auth", "")
            ]
            if all(pair):
                rate = self.of(f"register-{transport}-auth", contestant, "rate", offered, fraction=fraction).median
                points.append((rate / base, pair[0].median / pair[1].median, is_bound(pair[0]) or is_bound(pair[1])))
        return points

    def fractions(self, contestant):
        return sorted(
            {result["fraction"] for result in self.results if result["what"] == "rate" and result["contestant"] == contestant}
        )

    def tell(self, plots):
        for contestant in self.contestants:
            if not self.found(BASE.name, contestant, "saturation"):
                raise RuntimeError(f"{contestant}: no capacity over UDP with digest")
        self.tell_capacities()
        for contestant in self.contestants:
            self.tell_table(contestant)
        self.tell_published()
        self.draw(plots)

    def tell_capacities(self):
        lines = []
        peaks = published.REGISTRAR_PEAKS
        for contestant in self.contestants:
            base = self.of(BASE.name, contestant, "saturation", completed)
            for name in [*COLUMNS.values(), *(case.name for case in FOR_MODEL)]:
                rate = self.of(name, contestant, "saturation", completed)
                if not rate:
                    continue
                column = next((column for column, configuration in COLUMNS.items() if configuration == name), None)
                theirs = f"{peaks[column] / peaks['udp_auth']:.2f}" if column in peaks else "—"
                each = self.of(name, contestant, "saturation", cpu)
                factor = (
                    ratio(each, self.of(name.removesuffix("-auth"), contestant, "saturation", cpu))
                    if name.endswith("-auth")
                    else "—"
                )
                published_factor = f"{published.REGISTRAR_DEGRADATION:.0f}" if column in peaks else "—"
                lines.append((contestant, name, rate.text(0), ratio(rate, base), theirs, each.text(2), factor, published_factor))
        self.report.table(
            f"Full core ({at_saturation()})",
            [
                "who",
                "case",
                "registrations/s",
                "÷ UDP with digest",
                "the thesis",
                "µs CPU each",
                "with digest ÷ without",
                "the thesis, about",
            ],
            lines,
        )

    def tell_table(self, contestant):
        base, lines = self.base(contestant), []
        factors = {
            transport: {round(x, 2): factor for x, factor, _ in self.factors(transport, contestant)} for transport in TRANSPORTS
        }
        for fraction in self.fractions(contestant):
            cells = []
            for name in COLUMNS.values():
                percent = self.of(name, contestant, "rate", cpu_percent, fraction=fraction)
                capacity = self.of(name, contestant, "saturation", completed)
                full = capacity and fraction * base > NEAR_FULL * capacity.median
                cells.append(percent.text() if percent else "100 (full)" if full else "—")
            for transport in TRANSPORTS:
                near = [factor for x, factor in factors[transport].items() if abs(x - fraction) < 0.02]
                cells.append(f"{near[0]:.2f}" if near else "—")
            lines.append((f"{fraction * base:.0f}", f"{fraction:.2f}", *cells))
        self.report.table(
            f"CPU % by registrations/s, {contestant} (open loop)",
            [
                "registrations/s",
                "÷ full core, UDP with digest",
                "UDP",
                "TCP",
                "UDP, digest",
                "TCP, digest",
                "factor of digest, UDP",
                "factor, TCP",
            ],
            lines,
        )

    def tell_published(self):
        """The thesis at the relative rates of strowger's table."""
        rows, unit = published.registrar(), published.REGISTRAR_PEAKS["udp_auth"]
        curves = {column: published.curve(rows, "rps", column) for column in COLUMNS}
        lines = []
        for fraction in self.fractions(self.contestants[0]):
            at = {column: published.interpolate(points, fraction * unit) for column, points in curves.items()}
            # Beyond its own end a case with digest fills the core; those without end at 8,000.
            cells = [
                f"{at[column]:.1f}"
                if at[column] is not None
                else "100 (full)"
                if column in published.REGISTRAR_PEAKS and fraction * unit > published.REGISTRAR_PEAKS[column]
                else "—"
                for column in COLUMNS
            ]
            for transport in TRANSPORTS:
                both = at[f"{transport}_auth"], at[f"{transport}_noauth"]
                cells.append(f"{both[0] / both[1]:.2f}" if all(both) else "—")
            lines.append((f"{fraction * unit:.0f}", f"{fraction:.2f}", *cells))
        self.report.table(
            "The same, the thesis (between its rows)",
            [
                "registrations/s",
                "÷ full core, UDP with digest",
                "UDP",
                "TCP",
                "UDP, digest",
                "TCP, digest",
                "factor of digest, UDP",
                "factor, TCP",
            ],
            lines,
        )

    def draw(self, plots):
        for name, columns, title in [
            ("udp", ["udp_noauth", "udp_auth"], "Registrar over UDP, without and with digest authentication"),
            ("tcp", ["tcp_noauth", "tcp_auth"], "Registrar over TCP, without and with digest authentication"),
            ("without-digest", ["udp_noauth", "tcp_noauth"], "Registrar without digest authentication, UDP and TCP"),
            ("with-digest", ["udp_auth", "tcp_auth"], "Registrar with digest authentication, UDP and TCP"),
        ]:
            self.draw_cpu(plots, name, columns, title)
        self.draw_factors(plots)

    def draw_cpu(self, plots, name, columns, title):
        chart, axes = plots.figure()
        rows, unit, bound = published.registrar(), published.REGISTRAR_PEAKS["udp_auth"], []
        for contestant in self.contestants:
            for column in columns:
                number = list(COLUMNS).index(column)
                points = self.points(COLUMNS[column], contestant)
                if points:
                    how = {} if contestant == "strowger" else {"linestyle": ":"}
                    plots.ours(
                        axes, number, [(x, y) for x, y, _ in points], f"{LABELS[COLUMNS[column]]}: {NAMES[contestant]}", **how
                    )
                    bound += [(x, y) for x, y, series in points if is_bound(series)]
        for column in columns:
            points = [(rps / unit, percent) for rps, percent in published.curve(rows, "rps", column)]
            plots.theirs(axes, list(COLUMNS).index(column), points, f"{LABELS[COLUMNS[column]]}: thesis")
        self.finish_axes(plots, axes, bound, "CPU of the server (% of one core)", title)
        axes.set_ylim(0, 104)
        self.figure(plots, chart, name, f"{title}. {self.units()}")

    def draw_factors(self, plots):
        chart, axes = plots.figure()
        rows, unit, bound = published.registrar(), published.REGISTRAR_PEAKS["udp_auth"], []
        for number, transport in enumerate(TRANSPORTS):
            for contestant in self.contestants:
                points = self.factors(transport, contestant)
                if points:
                    how = {} if contestant == "strowger" else {"linestyle": ":"}
                    plots.ours(axes, number, [(x, y) for x, y, _ in points], f"{transport.upper()}: {NAMES[contestant]}", **how)
                    bound += [(x, y) for x, y, marked in points if marked]
            without = dict(published.curve(rows, "rps", f"{transport}_noauth"))
            points = [(rps / unit, percent / without[rps]) for rps, percent in published.curve(rows, "rps", f"{transport}_auth")]
            plots.theirs(axes, number, points, f"{transport.upper()}: thesis")
        title = "What digest authentication costs the registrar"
        self.finish_axes(plots, axes, bound, "CPU with digest ÷ CPU without", title)
        axes.set_ylim(0, None)
        self.figure(plots, chart, "degradation", f"{title}: CPU with digest ÷ CPU without, at equal rate. {self.units()}")

    def finish_axes(self, plots, axes, bound, y, title):
        if bound:
            plots.ring(axes, bound, "bound by the generator, or not clean")
        plots.label(axes, "registrations/s ÷ own rate at a full core over UDP with digest", y)
        axes.set_title(title, pad=12)
        axes.set_xlim(0, None)
        base = self.base(self.contestants[0]) / 1000
        top = axes.secondary_xaxis("top", functions=(lambda x: x * base, lambda x: x / base))
        top.set_xlabel(f"{self.contestants[0]}: thousand registrations/s", fontsize=10)
        top.tick_params(labelsize=9)
        axes.legend(fontsize=9)

    def units(self):
        """What 1.0 on the x axis is, for each."""
        ours = ", ".join(f"{name} {self.base(name):,.0f}/s" for name in self.contestants)
        theirs = f"thesis {published.REGISTRAR_PEAKS['udp_auth']:,}/s"
        return f"1.0 on the x axis is the rate that fills one core over UDP with digest: {ours}, {theirs}."

"""The report of perf/model fit: components, predicted against measured, row C1, the plots, and the model as it is saved."""

import glob
import json
import os
import re
import statistics
import sys
import time

import cases
import model
import published
from cases import report_configurations
from contestants import PERF
from model import DIGESTS, TARGET, UDP, ModelError, Shape, registration, registration_name
from model_runs import CPU, PHONES, RATE, Measurements, beyond_the_report, to_udp
from report import Report, Series

# A rate measured is a peak, not a bound of the generator's, where the server's core was as full as this.
FULL = 0.95


class Fit:
    def __init__(self, arguments, results, machine_text, settings, failures=()):
        self.arguments, self.failures = arguments, list(failures)
        self.found = Measurements(results, arguments.only[0])
        self.report = Report("The cost model", machine_text, settings)
        self.report.raw = self.found.results
        self.measured = self.found.saturated()
        self.values = model.fit(self.measured)
        self.intervals = model.intervals(self.measured)
        self.errors = model.errors(self.values, self.measured)
        self.registrations = {name: statistics.median(values) for name, values in self.found.registered().items()}
        self.waking = {"call": self.waking_of_calls(), "registration": self.waking_of_registrations()}

    def run(self):
        self.tell()
        # Loaded late: what is told does not need it, nor do the tests.
        import plots

        folder = Report.directory(PERF)
        draw_predicted(plots, folder, self)
        draw_components(plots, folder, self)
        self.report.figure(
            "model-predicted",
            "Left: predicted against measured CPU of a call at saturation, with a band of ±8 %. Right: the "
            "error of each configuration. Local mode is not in the fit.",
        )
        self.report.figure("model-components", "What a call is made of, predicted; the circle is the measured sum.")
        print(self.report.markdown())
        path = self.report.write(PERF, "model")
        data = self.data()
        with open(path + ".json") as text:
            whole = json.load(text)
        for target, content in [(path + ".json", {"model": data, **whole}), (self.arguments.write, {"model": data})]:
            if target:
                with open(target, "w") as text:
                    json.dump(content, text, indent=1)
                print("written:", target, file=sys.stderr)
        if self.failures:
            raise RuntimeError(f"{len(self.failures)} measurement(s) failed, and are missing above; the first: {self.failures[0]}")

    # Waking.

    def points(self, kind):
        """(configuration, µs at saturation as the model has it, wakings, rate, µs measured) of each run at a fixed rate."""
        found = []
        for name in self.found.names("fixed rate"):
            if kind == "call" and (shape := Shape.parse(name)):
                saturated, wakings = model.cost(self.values, shape.components()), shape.wakings()
            elif kind == "registration" and name in self.registrations:
                saturated, wakings = self.registrations[name], 2 if name.endswith("-auth") else 1
            else:
                continue
            by_rate = {}
            for each in self.found.of(name, "fixed rate"):
                by_rate.setdefault(each["rate_or_window"], []).append(each[CPU])
            found += [
                (name, saturated, wakings, rate, statistics.median(values))
                for rate, values in by_rate.items()
                if saturated is not None
            ]
        return found

    def waking_of(self, points):
        found = []
        for rate in sorted({rate for _, _, _, rate, _ in points}):
            group = [point[1:] for point in points if point[3] == rate]
            value = model.waking(group)
            if value is not None:
                found.append((rate * statistics.geometric_mean([wakings for _, wakings, _, _ in group]), value))
        return found

    def waking_of_calls(self):
        return self.waking_of([point for point in self.points("call") if model.fitted(point[0])])

    def waking_of_registrations(self):
        return self.waking_of(self.points("registration"))

    # The model as it is saved.

    def data(self):
        rates = {kind: [rate for _, _, _, rate, _ in self.points(kind)] for kind in ("call", "registration")}
        highest = {}
        for each in self.found.results:
            if each["what"] in ("saturation", "peak found"):
                group = group_of(each["configuration"])
                highest[group] = max(highest.get(group, 0), each[RATE])
        text = self.report.machine
        return {
            "kind": "strowger cost model",
            "version": 1,
            "date": time.strftime("%Y-%m-%d"),
            "machine": text,
            "cpu": cpu_of(text),
            "settings": self.report.settings,
            "contestant": self.arguments.only[0],
            "tls": self.tls(),
            "components": {
                name: {
                    "us": value,
                    "of_a_udp_call": value / self.values[UDP],
                    "low": self.intervals.get(name, (None, None))[0],
                    "high": self.intervals.get(name, (None, None))[1],
                }
                for name, value in self.values.items()
            },
            "registrations": {name: {"us": value} for name, value in self.registrations.items()},
            "waking": self.waking,
            "workers": workers_of(text),
            "ranges": {
                "lowest_calls_per_second": min(rates["call"], default=None),
                "lowest_registrations_per_second": min(rates["registration"], default=None),
                "highest_per_second": highest,
                "connections": self.arguments.connections or connections_of(text),
                "outstanding": cases.WINDOW,
                "configurations": sorted(self.measured),
            },
            "errors": {name: error for name, (_, _, error) in self.errors.items()},
        }

    def tls(self):
        agreed = self.found.tls()
        if not agreed:
            return None
        if len({text.split()[0] for text in agreed}) > 1:
            raise ModelError("runs of different TLS versions cannot be fitted together: " + ", ".join(agreed))
        version, _, suite = agreed[0].partition(" ")
        return {"version": version.removeprefix("TLSv"), "key": self.arguments.key, "suite": suite}

    # What is told.

    def tell(self):
        self.tell_components()
        self.tell_errors()
        self.tell_peaks()
        self.tell_registrations()
        self.tell_fixed_rates()
        self.tell_row()

    def series(self, name, what, value):
        return Series(self.found.of(name, what), value)

    def tell_components(self):
        lines = []
        for name, value in self.values.items():
            low, high = self.intervals.get(name, (None, None))
            theirs, fixed = published_of(name)
            lines.append(
                (
                    name,
                    f"{value:.1f}",
                    "—" if low is None else f"{low:.1f}–{high:.1f}",
                    f"{value / self.values[UDP]:.2f}",
                    theirs,
                    fixed,
                )
            )
        self.report.table(
            "Components of a call: CPU at saturation. The unit is a call over UDP in chain mode. TCP data: both sides with one "
            "connection, in addition to UDP data",
            [
                "component",
                "µs",
                "90 % of the rounds drawn anew" if self.intervals else "interval (three rounds or more)",
                "units",
                "the report, units",
                "with its fix of the client",
            ],
            lines,
        )

    def reported(self):
        """Errors of the report's 20."""
        names = [case.name for case in report_configurations()]
        return {name: self.errors[name] for name in names if name in self.errors}

    def tell_errors(self):
        order = [case.name for case in report_configurations() + to_udp() + beyond_the_report()]
        names = sorted(self.errors, key=lambda name: order.index(name) if name in order else len(order))
        lines = []
        for name in names:
            predicted, _, error = self.errors[name]
            lines.append(
                (
                    name,
                    "fitted" if model.fitted(name) else "**predicted only**",
                    f"{predicted:.1f}",
                    self.series(name, "saturation", lambda each: each[CPU]).text(),
                    f"{100 * error:+.1f} %",
                )
            )
        self.report.table(
            "CPU of a call at saturation, µs", ["configuration", "in the fit", "predicted", "measured", "error"], lines
        )
        local = {name: each for name, each in self.errors.items() if not model.fitted(name)}
        reported = self.reported()
        groups = [
            ("the report's 20 configurations", reported),
            ("of them those fitted", {name: each for name, each in reported.items() if model.fitted(name)}),
            ("local mode, never fitted", local),
            ("configurations that the report has not", {name: each for name, each in self.errors.items() if name not in reported}),
        ]
        lines = []
        for title, found in groups:
            if found:
                worst, (_, _, error) = model.worst(found)
                lines.append((title, len(found), f"{100 * model.mean_error(found):.1f} %", f"{worst}, {100 * error:+.1f} %"))
        across = model.across_rounds({name: values for name, values in self.measured.items() if Shape.parse(name)})
        if across is not None:
            lines.append(
                ("each round predicted from the others, all configurations", len(self.errors), f"{100 * across:.1f} %", "—")
            )
        lines.append(("the report", 18, f"{100 * published.MODEL_ERROR:.0f} %", "—"))
        self.report.table("Errors", ["of", "configurations", "mean of the absolute errors", "worst"], lines)

    def tell_peaks(self):
        what_of = {"peak found": "peak", "saturation": "capacity in a closed window"}
        lines, found = [], {}
        for name, (predicted, _, _) in self.errors.items():
            what = "peak found" if self.found.of(name, "peak found") else "saturation"
            measured = self.series(name, what, lambda each: each[RATE])
            busy = self.series(name, what, lambda each: each["server_busy"]).median
            error = 1e6 / predicted / measured.median - 1
            if busy >= FULL:
                found[name] = (1e6 / predicted, measured.median, error)
            lines.append(
                (
                    name,
                    f"{1e6 / predicted:,.0f}",
                    f"{measured.median:,.0f}",
                    what_of[what],
                    f"{100 * busy:.0f} %",
                    f"{100 * error:+.1f} %" if busy >= FULL else f"({100 * error:+.1f} %)",
                )
            )
        if found:
            worst, (_, _, error) = model.worst(found)
            lines.append(
                (
                    f"**mean of {len(found)}**",
                    "",
                    "",
                    "",
                    "",
                    f"{100 * model.mean_error(found):.1f} %, worst {worst} {100 * error:+.1f} %",
                )
            )
        self.report.table(
            "Peaks, calls/s: 10⁶ ÷ predicted CPU. Errors in brackets are not counted: the server's core was less than "
            f"{100 * FULL:.0f} % busy, so that something else set the rate",
            ["configuration", "predicted", "measured", "as", "server's core busy", "error"],
            lines,
        )

    def tell_registrations(self):
        lines = []
        without_tls = {name: value for name, value in self.registrations.items() if "-tls" not in name}
        for kind in [*model.REGISTRATIONS, "tls", "tls-many"]:
            for digest in DIGESTS:
                name = registration_name(kind, digest)
                if name not in self.registrations:
                    continue
                parts = registration(without_tls, self.values, kind, digest) if kind.startswith("tls") else None
                predicted = f"{sum(parts.values()):.1f}" if parts else "—"
                error = f"{100 * (sum(parts.values()) / self.registrations[name] - 1):+.1f} %" if parts else "—"
                lines.append((name, self.series(name, "saturation", lambda each: each[CPU]).text(), predicted, error))
        self.report.table(
            "CPU of a registration at saturation, µs (many: over 1,000 connections; TLS is predicted as TCP and the bulk of so "
            "many "
            "messages)",
            ["registration", "measured", "predicted", "error"],
            lines,
        )

    def tell_fixed_rates(self):
        lines, found = [], {}
        for kind in ("call", "registration"):
            curve = model.Waking(self.waking[kind])
            if not curve:
                continue
            for name, saturated, wakings, rate, measured in self.points(kind):
                full = rate * wakings * curve.at(rate * wakings) / 1e6
                work = rate * saturated / 1e6
                predicted = 1e6 * (work + full) / (1 + full) / rate
                found[(name, rate)] = (predicted, measured, predicted / measured - 1)
                how = "fitted" if model.fitted(name) or kind == "registration" else "**predicted only**"
                lines.append(
                    (
                        name,
                        f"{rate:,.0f}/s",
                        how,
                        f"{saturated:.1f}",
                        f"{predicted:.1f}",
                        f"{measured:.1f}",
                        f"{100 * (predicted / measured - 1):+.1f} %",
                    )
                )
        if found:
            lines.append(("**mean of the absolute errors**", "", "", "", "", "", f"{100 * model.mean_error(found):.1f} %"))
        self.report.table(
            "CPU at fixed rates, µs each: at saturation and with waking",
            ["configuration", "rate", "in the fit", "at saturation", "predicted", "measured", "error"],
            lines,
        )
        lines = [(kind, f"{each_second:,.0f}", f"{us:.1f}") for kind in self.waking for each_second, us in self.waking[kind]]
        self.report.table("Waking", ["of", "wakings/s, if the core always slept", "µs each"], lines)

    def tell_row(self):
        """Row C1. Local mode must meet it too: what was fitted fits."""
        reported = self.reported()
        local = {name: each for name, each in reported.items() if not model.fitted(name)}
        sound = all(self.series(name, "saturation", lambda each: each[CPU]).is_sound for name in reported)
        for what, found, number in [("all configurations", reported, 20), ("local mode, never fitted", local, 4)]:
            if not found:
                continue
            error = model.mean_error(found)
            notes = [] if len(found) == number else [f"{len(found)} of {number}"]
            notes += [] if sound else ["not all of it clean and undisturbed"]
            if self.found.left_out:
                notes.append(f"{self.found.left_out} run(s) left out that were not what was meant")
            self.report.row(
                "C1",
                f"cost model, mean error over {what}",
                f"≤ {100 * TARGET:.0f} %",
                f"{100 * error:.1f} %",
                error <= TARGET if sound and len(found) == number else None,
                "; ".join(notes),
            )


def group_of(name):
    """What the rates of a run are a ground for: chain-tls, register-udp."""
    return "-".join(name.split("-")[:2])


def cpu_of(text):
    """The processor in a machine's line."""
    return re.sub(r", \d+ cores, Linux .*", "", text)


def published_of(name):
    """The report's value, and that with its fix of the client."""
    value = published.COMPONENTS.get("TCP handshake" if name.startswith("TCP handshake") else name)
    if value is None:
        return "—", "—"
    share = published.CLIENT_FIX[name.rpartition(", ")[2]] if "as client, " in name else None
    return f"{value:g}", "—" if share is None else f"{value * (1 - share):.1f}"


def rows_of(machine_text, row):
    """This machine's rows of other reports, newest first."""
    paths = sorted(glob.glob(os.path.join(PERF, "results", "*", "*.json")), key=os.path.getmtime, reverse=True)
    for path in paths:
        try:
            with open(path) as text:
                found = json.load(text)
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get("machine") == machine_text:
            yield from (each for each in found.get("rows", []) if each[0] == row)


def workers_of(machine_text):
    """{"2": CPU of a call with two workers ÷ one}, at saturation, from row K1 of perf/udp."""
    for _, what, _, measured, _, _ in rows_of(machine_text, "K1"):
        if "saturation" in what and (number := re.match(r"[\d.]+", measured)):
            return {"2": float(number[0])}
    return {}


def connections_of(machine_text):
    """The most connections beside which a call has been seen to cost the same (row I1); otherwise those of the fit."""
    numbers = [
        int(number.replace(",", ""))
        for _, what, _, _, met, _ in rows_of(machine_text, "I1")
        if met == "yes"
        for number in re.findall(r"([\d,]+) idle", what)
    ]
    return max([PHONES, *numbers])


# The plots.

# What is drawn as one, and its colour.
GROUPS = [
    ("data", ["UDP data", "TCP data", *model.BESIDE.values()]),
    ("TLS bulk", ["TLS bulk", "TLS bulk, 3DES"]),
    ("digest", ["digest, UDP", "digest, TCP", "digest, TLS"]),
    ("TCP handshake as server", ["TCP handshake as server"]),
    ("TCP handshake as client", ["TCP handshake as client"]),
    ("TLS handshake as server", [f"TLS handshake as server, {variant}" for variant in model.VARIANTS]),
    ("TLS handshake as client", [f"TLS handshake as client, {variant}" for variant in model.VARIANTS]),
]


def words_of(name):
    shape = Shape.parse(name)
    variant = [] if shape.variant == "full" else [{"3des": "3DES"}.get(shape.variant, shape.variant)]
    return f"{shape.mode} {' '.join([shape.left.upper(), *variant])}{', digest' if shape.auth else ''}"


def draw_predicted(plots, folder, fit):
    names = list(fit.reported())
    chart, (left, right) = plots.figure(11, 5.6, columns=2, gridspec_kw={"width_ratios": [1, 1.1]})
    values = [value for name in names for value in fit.errors[name][:2]]
    low, high = 0.8 * min(values), 1.25 * max(values)
    left.fill_between(
        [low, high],
        [low * (1 - TARGET), high * (1 - TARGET)],
        [low * (1 + TARGET), high * (1 + TARGET)],
        color="#dddddd",
        label="±8 %",
        zorder=0,
    )
    left.plot([low, high], [low, high], color=plots.GREY, linewidth=1, zorder=1)
    kinds = [
        ("fitted: chain, outbound, inbound", [name for name in names if model.fitted(name)], plots.BLUE, "o"),
        ("predicted only: local", [name for name in names if not model.fitted(name)], plots.VERMILION, "D"),
    ]
    for title, group, colour, marker in kinds:
        left.plot(
            [fit.errors[name][1] for name in group],
            [fit.errors[name][0] for name in group],
            marker,
            color=colour,
            label=title,
            markersize=7,
            markeredgecolor="white",
        )
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlim(low, high)
    left.set_ylim(low, high)
    left.set_aspect("equal")
    plots.label(left, "measured, µs CPU of a call", "predicted, µs CPU of a call")
    left.legend(loc="upper left")
    right.axvspan(-100 * TARGET, 100 * TARGET, color="#dddddd", zorder=0)
    right.axvline(0, color=plots.GREY, linewidth=1)
    for place, name in enumerate(names):
        error, is_fitted = 100 * fit.errors[name][2], model.fitted(name)
        right.plot([0, error], [place, place], color=plots.BLUE if is_fitted else plots.VERMILION, linewidth=1.4)
        right.plot([error], [place], "o" if is_fitted else "D", color=plots.BLUE if is_fitted else plots.VERMILION, markersize=6)
    right.set_yticks(range(len(names)), [words_of(name) for name in names], fontsize=9.5)
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    edge = max(15, 1.1 * max(abs(100 * fit.errors[name][2]) for name in names))
    right.set_xlim(-edge, edge)
    right.set_xlabel("predicted ÷ measured − 1, %")
    plots.save(chart, folder, "model-predicted")


def draw_components(plots, folder, fit):
    """Cheap configurations and dear ones have axes of their own: one is a fiftieth of the other."""
    shades = [plots.BLUE, plots.SKY, plots.GREEN, plots.YELLOW, plots.ORANGE, plots.VERMILION, plots.PURPLE]
    names = list(fit.reported())
    dear = [name for name in names if any(part.startswith("TLS handshake") for part in Shape.parse(name).components())]
    panels = [[name for name in names if name not in dear], dear]
    panels = [panel for panel in panels if panel]
    chart, grid = plots.figure(
        9.5,
        1.6 + 0.34 * len(names),
        rows=len(panels),
        squeeze=False,
        gridspec_kw={"height_ratios": [len(panel) for panel in panels]},
    )
    for (axes,), panel in zip(grid, panels):
        for place, name in enumerate(panel):
            parts, start = Shape.parse(name).components(), 0
            for number, (_, members) in enumerate(GROUPS):
                width = sum(fit.values[member] * parts.get(member, 0) for member in members if member in fit.values)
                axes.barh(place, width, left=start, height=0.68, color=shades[number], edgecolor="white", linewidth=0.6)
                start += width
            axes.plot([fit.errors[name][1]], [place], "o", markerfacecolor="white", markeredgecolor="black", markersize=6, zorder=5)
        axes.set_yticks(range(len(panel)), [words_of(name) for name in panel], fontsize=9.5)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.05 * max(max(fit.errors[name][:2]) for name in panel))
    grid[-1][0].set_xlabel("µs CPU of a call at saturation")
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Patch(color=shades[number], label=title) for number, (title, _) in enumerate(GROUPS)]
    handles.append(Line2D([], [], linestyle="none", marker="o", markerfacecolor="white", markeredgecolor="black", label="measured"))
    grid[0][0].legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1.01), ncols=3)
    plots.save(chart, folder, "model-components")

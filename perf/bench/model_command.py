"""perf/model fit|predict: fits the cost model to measurements, which it takes from files of perf/reproduce and makes itself where they lack some, and
tells an operator what a load costs. Exit status: 2 where there is no ground for an answer."""

import argparse
import glob
import json
import os
import re
import statistics
import sys
import time

import cases
import machine
import model
import published
from cases import Case, Configuration, report_configurations
from contestants import PERF
from model import DIGESTS, TARGET, UDP, Load, Model, ModelError, Refused, Shape, registration, registration_name
from modes import for_model
from report import Report, Series
from reproduction import FORGET
from study import Progress, Study
import study

# Calls and registrations each second at which waking is measured, and how full a core may be then.
RATES = [200, 1000, 4000, 16000]
NEAR_IDLE = 0.5
WAKING = ["chain-udp", "chain-tcp", "outbound-tcp-auth", "inbound-tcp", "outbound-tls-reuse-auth", "inbound-tls-reuse", "local-tls-reuse-auth"]
# Each of so many phones has a connection of its own.
PHONES = 1000
CPU, RATE = "server_cpu_us_each", "completed_per_second"
# A rate measured is a peak, not a bound of the generator's, where the server's core was as full as this.
FULL = 0.95


class Registrations(Case):
    """REGISTERs, by one connection or by one for each phone; each challenged (`new`), or with a nonce that is kept (`kept`)."""

    def __init__(self, kind, digest, version="1.2", key="rsa", suite="study"):
        self.kind, self.digest = kind, digest
        transport, _, many = kind.partition("-")
        self.many = bool(many)
        ciphers = {"study": cases.STUDY_CIPHERS, "today": cases.CIPHERS}[suite]
        super().__init__(registration_name(kind, digest), transport, transport, auth=False if digest == "none" else "register", version=version, key=key,
                         ciphers=ciphers)

    def options(self, contestant):
        options = super().options(contestant)
        if self.digest == "kept":
            # A nonce is counted with a qop only.
            place = options.index("--auth")
            options[place:place + 4] = ["--auth", "kept"]
        return options + (["--connections", PHONES] if self.many else [])

    def complaint(self, result, contestant):
        if self.digest != "kept":
            return super().complaint(result, contestant)
        challenges, done = result["counts"]["challenges_received"], max(result["counts"]["completed"], 1)
        return None if challenges < 0.02 * done else f"{challenges} challenges in {done} registrations with a kept nonce"


class ToUdp(Case):
    """One side as in outbound or inbound mode, and UDP on the other."""

    def __init__(self, mode, transport, auth=False, variant="full", version="1.2", key="rsa", suite="study"):
        sides = (transport, "udp") if mode == "outbound" else ("udp", transport)
        self.shape = Shape(mode, *sides, variant, auth)
        left, right = (side + ("/call" if side != "udp" else "") for side in sides)
        ciphers = {"study": cases.STUDY_CIPHERS, "today": cases.CIPHERS}[suite]
        super().__init__(self.shape.name, left, right, routed=mode == "outbound", version=version, key=key, auth=auth, mutual=variant == "mutual",
                         reuse=variant == "reuse", ciphers=ciphers)

    needs_old_suites = False


def to_udp(**how):
    """With digest where the report has it."""
    variants = [("tcp", "full"), ("tls", "full"), ("tls", "mutual"), ("tls", "reuse")]
    return [ToUdp(mode, transport, mode == "outbound", variant, **how) for mode in ("outbound", "inbound") for transport, variant in variants]


def registrations(**how):
    """TLS is measured to be compared, not to be fitted."""
    kinds = [(kind, digest) for kind in model.REGISTRATIONS for digest in DIGESTS]
    return [Registrations(kind, digest, **how) for kind, digest in [*kinds, ("tls", "none"), ("tls", "new"), ("tls-many", "none"), ("tls-many", "new")]]


class Measurements:
    """Results by configuration, in the shape of perf/reproduce: `configuration`, `what`, the generator's figures. Those that a complaint says were
    of something else than meant are left out, and counted."""

    def __init__(self, results, contestant):
        mine = [each for each in results if each.get("contestant") == contestant and each.get("configuration")]
        self.results = [each for each in mine if not each.get("complaint")]
        self.left_out = len(mine) - len(self.results)

    def of(self, name, *whats):
        return [each for each in self.results if each["configuration"] == name and each["what"] in whats]

    def names(self, what):
        return list(dict.fromkeys(each["configuration"] for each in self.results if each["what"] == what))

    def saturated(self):
        """{configuration: [µs of each round]} of calls."""
        return {name: [each[CPU] for each in self.of(name, "saturation")] for name in self.names("saturation") if Shape.parse(name)}

    def registered(self):
        return {name: [each[CPU] for each in self.of(name, "saturation")] for name in self.names("saturation") if name.startswith("register-")}

    def tls(self):
        """What was agreed, without 3DES."""
        return sorted({each["tls"] for each in self.results if each.get("tls") and "3des" not in each["configuration"]})


def beyond_the_report(**how):
    """Where the report has a configuration only without digest or only with it, the other."""
    return [Configuration(case.mode, case.transport, case.auth, case.variant, **how) for case in for_model()]


# What is measured.

class Measuring(Study):
    """Measures what `sources` lack of what a fit wants."""

    def __init__(self, arguments, directory, sources):
        super().__init__(arguments, directory, "The cost model")
        self.sources = sources

    def run(self):
        calls, others = wanted(self.arguments, self.sources)
        self.progress = Progress(self.rounds * (len(calls) + len(others)))
        name = self.arguments.only[0]
        for number in range(self.rounds):
            for case in calls:
                self.progress.step(f"{case.name}, round {number + 1}")
                self.attempt(self.measure_calls, case, name, number)
            for case in others:
                self.progress.step(f"{case.name}, round {number + 1}")
                self.attempt(self.measure_registrations, case, name, number)
        self.progress.end()
        Fit(self.arguments, self.sources + self.results, self.report.machine, self.report.settings, self.failures).run()

    def measure_calls(self, case, name, number):
        with self.server(case, name) as (contestant, process):
            capacity = self.saturate(case, contestant, process, round=number)[RATE]
            if case.name in WAKING:
                self.at_rates(case, contestant, process, capacity, "call", number)
            if self.arguments.peaks:
                self.peak(case, contestant, process, capacity, round=number)

    def measure_registrations(self, case, name, number):
        with self.server(case, name) as (contestant, process):
            capacity = self.run_load(case, contestant, process, "--window", cases.WINDOW, "--settle", self.warm + (3 if case.digest == "kept" else 0),
                                     "--duration", self.duration, mode="register", what="saturation", round=number)[0][RATE]
            if case.digest == "none" and case.kind in ("udp", "tcp-many"):
                self.at_rates(case, contestant, process, capacity, "register", number)

    def at_rates(self, case, contestant, process, capacity, mode, number):
        # What saturation has left to be forgotten must not be counted here.
        time.sleep(FORGET)
        for rate in self.arguments.rates:
            if rate < NEAR_IDLE * capacity:
                self.run_load(case, contestant, process, "--rate", f"{rate:g}", "--settle", 1, "--duration", self.duration, "--drain", 8,
                              mode=mode, what="fixed rate", round=number)


def wanted(arguments, sources):
    """Cases of calls and of registrations that the sources have no saturation of."""
    if arguments.no_measure:
        return [], []
    have = {each["configuration"] for each in sources if each["what"] == "saturation" and not each.get("complaint")}
    how = {"version": arguments.tls_version, "key": arguments.key, "suite": arguments.suite}
    calls = report_configurations(**how) + to_udp(**how) + ([] if arguments.quick else beyond_the_report(**how))
    old = bool(arguments.old_suites) or (not arguments.quick and arguments.tls_version == "1.2" and arguments.key == "rsa")
    calls = [case for case in calls if case.name not in have and (old or not case.needs_old_suites)]
    return calls, [case for case in registrations(**how) if case.name not in have]


# The fit and its report.

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
        self.tell_components()
        self.tell_errors()
        self.tell_peaks()
        self.tell_registrations()
        self.tell_fixed_rates()
        self.tell_row()
        import plots
        folder = Report.directory(PERF)
        draw_predicted(plots, folder, self)
        draw_components(plots, folder, self)
        self.report.figure("model-predicted", "Left: predicted against measured CPU of a call at saturation, with a band of ±8 %. Right: the error of each "
                           "configuration. Local mode is not in the fit.")
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
            found += [(name, saturated, wakings, rate, statistics.median(values)) for rate, values in by_rate.items() if saturated is not None]
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
            "kind": "strowger cost model", "version": 1, "date": time.strftime("%Y-%m-%d"), "machine": text, "cpu": cpu_of(text),
            "settings": self.report.settings, "contestant": self.arguments.only[0], "tls": self.tls(),
            "components": {name: {"us": value, "of_a_udp_call": value / self.values[UDP], "low": self.intervals.get(name, (None, None))[0],
                                  "high": self.intervals.get(name, (None, None))[1]} for name, value in self.values.items()},
            "registrations": {name: {"us": value} for name, value in self.registrations.items()},
            "waking": self.waking,
            "workers": workers_of(text),
            "ranges": {"lowest_calls_per_second": min(rates["call"], default=None),
                       "lowest_registrations_per_second": min(rates["registration"], default=None),
                       "highest_per_second": highest, "connections": self.arguments.connections or connections_of(text),
                       "outstanding": cases.WINDOW, "configurations": sorted(self.measured)},
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

    def series(self, name, what, value):
        return Series(self.found.of(name, what), value)

    def tell_components(self):
        lines = []
        for name, value in self.values.items():
            low, high = self.intervals.get(name, (None, None))
            theirs, fixed = published_of(name)
            lines.append((name, f"{value:.1f}", "—" if low is None else f"{low:.1f}–{high:.1f}", f"{value / self.values[UDP]:.2f}", theirs, fixed))
        self.report.table("Components of a call: CPU at saturation. The unit is a call over UDP in chain mode; TCP data: both sides with one connection, "
                          "in addition to UDP data",
                          ["component", "µs", "90 % of the rounds drawn anew" if self.intervals else "interval (three rounds or more)", "units",
                           "the report, units", "with its fix of the client"], lines)

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
            lines.append((name, "fitted" if model.fitted(name) else "**predicted only**", f"{predicted:.1f}",
                          self.series(name, "saturation", lambda each: each[CPU]).text(), f"{100 * error:+.1f} %"))
        self.report.table("CPU of a call at saturation, µs", ["configuration", "in the fit", "predicted", "measured", "error"], lines)
        local = {name: each for name, each in self.errors.items() if not model.fitted(name)}
        reported = self.reported()
        groups = [("the report's 20 configurations", reported), ("of them those fitted", {name: each for name, each in reported.items() if model.fitted(name)}),
                  ("local mode, never fitted", local),
                  ("configurations that the report has not", {name: each for name, each in self.errors.items() if name not in reported})]
        lines = []
        for title, found in groups:
            if found:
                worst, (_, _, error) = model.worst(found)
                lines.append((title, len(found), f"{100 * model.mean_error(found):.1f} %", f"{worst}, {100 * error:+.1f} %"))
        across = model.across_rounds({name: values for name, values in self.measured.items() if Shape.parse(name)})
        if across is not None:
            lines.append(("each round predicted from the others, all configurations", len(self.errors), f"{100 * across:.1f} %", "—"))
        lines.append(("the report", 18, f"{100 * published.MODEL_ERROR:.0f} %", "—"))
        self.report.table("Errors", ["of", "configurations", "mean of the absolute errors", "worst"], lines)

    def tell_peaks(self):
        lines, found = [], {}
        for name, (predicted, _, _) in self.errors.items():
            what = "peak found" if self.found.of(name, "peak found") else "saturation"
            measured = self.series(name, what, lambda each: each[RATE])
            busy = self.series(name, what, lambda each: each["server_busy"]).median
            error = 1e6 / predicted / measured.median - 1
            if busy >= FULL:
                found[name] = (1e6 / predicted, measured.median, error)
            lines.append((name, f"{1e6 / predicted:,.0f}", f"{measured.median:,.0f}", {"peak found": "peak", "saturation": "capacity in a closed window"}[what],
                          f"{100 * busy:.0f} %", f"{100 * error:+.1f} %" if busy >= FULL else f"({100 * error:+.1f} %)"))
        if found:
            worst, (_, _, error) = model.worst(found)
            lines.append((f"**mean of {len(found)}**", "", "", "", "", f"{100 * model.mean_error(found):.1f} %, worst {worst} {100 * error:+.1f} %"))
        self.report.table(f"Peaks, calls/s: 10⁶ ÷ predicted CPU. Errors in brackets are not counted: the server's core was less than {100 * FULL:.0f} % busy, "
                          "so that something else set the rate", ["configuration", "predicted", "measured", "as", "server's core busy", "error"], lines)

    def tell_registrations(self):
        lines = []
        for kind in [*model.REGISTRATIONS, "tls", "tls-many"]:
            for digest in DIGESTS:
                name = registration_name(kind, digest)
                if name not in self.registrations:
                    continue
                parts = registration(self.registrations, self.values, kind, digest) if kind.startswith("tls") else None
                predicted = f"{sum(parts.values()):.1f}" if parts else "—"
                error = f"{100 * (sum(parts.values()) / self.registrations[name] - 1):+.1f} %" if parts else "—"
                lines.append((name, self.series(name, "saturation", lambda each: each[CPU]).text(), predicted, error))
        self.report.table("CPU of a registration at saturation, µs (many: over 1,000 connections; TLS is predicted as TCP and the bulk of so many messages)",
                          ["registration", "measured", "predicted", "error"], lines)

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
                lines.append((name, f"{rate:,.0f}/s", how, f"{saturated:.1f}", f"{predicted:.1f}", f"{measured:.1f}", f"{100 * (predicted / measured - 1):+.1f} %"))
        if found:
            lines.append(("**mean of the absolute errors**", "", "", "", "", "", f"{100 * model.mean_error(found):.1f} %"))
        self.report.table("CPU at fixed rates, µs each: at saturation and with waking",
                          ["configuration", "rate", "in the fit", "at saturation", "predicted", "measured", "error"], lines)
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
            self.report.row("C1", f"cost model, mean error over {what}", f"≤ {100 * TARGET:.0f} %", f"{100 * error:.1f} %",
                            error <= TARGET if sound and len(found) == number else None, "; ".join(notes))


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
    numbers = [int(number.replace(",", "")) for _, what, _, _, met, _ in rows_of(machine_text, "I1") if met == "yes"
               for number in re.findall(r"([\d,]+) idle", what)]
    return max([PHONES, *numbers])


# The plots.

# What is drawn as one, and its colour.
GROUPS = [("data", ["UDP data", "TCP data", *model.BESIDE.values()]), ("TLS bulk", ["TLS bulk", "TLS bulk, 3DES"]), ("digest", ["digest, UDP", "digest, TCP", "digest, TLS"]),
          ("TCP handshake as server", ["TCP handshake as server"]), ("TCP handshake as client", ["TCP handshake as client"]),
          ("TLS handshake as server", [f"TLS handshake as server, {variant}" for variant in model.VARIANTS]),
          ("TLS handshake as client", [f"TLS handshake as client, {variant}" for variant in model.VARIANTS])]


def words_of(name):
    shape = Shape.parse(name)
    variant = [] if shape.variant == "full" else [{"3des": "3DES"}.get(shape.variant, shape.variant)]
    return f"{shape.mode} {' '.join([shape.left.upper(), *variant])}{', digest' if shape.auth else ''}"


def draw_predicted(plots, folder, fit):
    names = list(fit.reported())
    chart, (left, right) = plots.figure(11, 5.6, columns=2, gridspec_kw={"width_ratios": [1, 1.1]})
    values = [value for name in names for value in fit.errors[name][:2]]
    low, high = 0.8 * min(values), 1.25 * max(values)
    left.fill_between([low, high], [low * (1 - TARGET), high * (1 - TARGET)], [low * (1 + TARGET), high * (1 + TARGET)], color="#dddddd", label="±8 %", zorder=0)
    left.plot([low, high], [low, high], color=plots.GREY, linewidth=1, zorder=1)
    kinds = [("fitted: chain, outbound, inbound", [name for name in names if model.fitted(name)], plots.BLUE, "o"),
             ("predicted only: local", [name for name in names if not model.fitted(name)], plots.VERMILION, "D")]
    for title, group, colour, marker in kinds:
        left.plot([fit.errors[name][1] for name in group], [fit.errors[name][0] for name in group], marker, color=colour, label=title, markersize=7,
                  markeredgecolor="white")
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
    chart, grid = plots.figure(9.5, 1.6 + 0.34 * len(names), rows=len(panels), squeeze=False, gridspec_kw={"height_ratios": [len(panel) for panel in panels]})
    for (axes,), panel in zip(grid, panels):
        for place, name in enumerate(panel):
            parts, start = Shape.parse(name).components(), 0
            for number, (title, members) in enumerate(GROUPS):
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


# The commands.

def rates(text):
    found = sorted(float(each) for each in text.split(","))
    if not found or found[0] <= 0:
        raise argparse.ArgumentTypeError("rates are numbers above 0")
    return found


def fit_parser():
    parser = study.options("perf/model fit", "Measures what the cost model wants, and fits it.")
    parser.add_argument("--from", dest="files", metavar="FILE.json", action="append", default=[],
                        help="take the runs of this JSON of perf/reproduce (modes, registrar) and measure only what is missing; can be given several times")
    parser.add_argument("--no-measure", action="store_true", help="with --from: measure nothing; the model has then no component that the files lack")
    parser.add_argument("--peaks", action=argparse.BooleanOptionalAction, help="search for the peak of each configuration too [yes; quick: no]")
    parser.add_argument("--rates", type=rates, default=RATES, help="calls and registrations a second at which waking is measured [200,1000,4000,16000]")
    parser.add_argument("--tls-version", choices=["1.2", "1.3"], default="1.2")
    parser.add_argument("--key", choices=["rsa", "ec"], default="rsa")
    parser.add_argument("--suite", choices=["study", "today"], default="study", help="TLS 1.2: the report's AES128-SHA, or what is negotiated today")
    parser.add_argument("--connections", type=int, help="beside so many open connections a call has been seen to cost the same [from row I1]")
    parser.add_argument("--write", metavar="FILE.json", help="write the model here too, without its measurements")
    return parser


def read_sources(files):
    """The runs of all files, the machine's line and the settings; all must be of one machine."""
    results, machines, settings = [], [], []
    for path in files:
        with open(path) as text:
            found = json.load(text)
        results += found["measurements"]
        machines.append(found["machine"])
        settings.append(f"{os.path.basename(path)}: {found.get('settings', 'settings unknown')}")
    if len(set(machines)) > 1:
        raise ModelError("the files are of different machines: " + "; ".join(sorted(set(machines))))
    return results, machines[0] if machines else None, " ".join(settings)


def fit_command():
    parser = fit_parser()
    arguments = parser.parse_args()
    if arguments.peaks is None:
        arguments.peaks = not arguments.quick
    try:
        sources, text, settings = read_sources(arguments.files)
        if arguments.no_measure and not arguments.files:
            parser.error("--no-measure without --from leaves nothing to fit")
        if not any(wanted(arguments, sources)):
            Fit(arguments, sources, text, settings).run()
            return
        if text is not None and text != machine.describe():
            raise ModelError(f"the files are of another machine ({text}), and some runs are missing: --no-measure fits what there is")

        def measuring(again, directory):
            again.peaks = arguments.peaks
            found = Measuring(again, directory, sources)
            found.report.settings += settings and f"; {settings}"
            return found
        study.main(parser, measuring)
    except ModelError as why:
        sys.exit(f"perf/model fit: {why}")


def predict_parser():
    parser = argparse.ArgumentParser(prog="perf/model predict", description="What a load costs: how much of a core, how many cores, which component dominates.")
    parser.add_argument("--calls", type=float, default=0, help="calls a second")
    parser.add_argument("--registrations", type=float, default=0, help="registrations a second")
    parser.add_argument("--transport", choices=model.TRANSPORTS, default="udp", help="of both sides [udp]")
    parser.add_argument("--left", choices=model.TRANSPORTS, help="the callers' side, if another")
    parser.add_argument("--right", choices=model.TRANSPORTS, help="the answerers' side, if another")
    parser.add_argument("--mode", choices=model.MODES, default="local",
                        help="who has a connection for each call: chain nobody, outbound the callers, inbound the callees, local both [local]")
    parser.add_argument("--auth", choices=["yes", "no"], default="no", help="whether each INVITE is challenged")
    parser.add_argument("--registration-auth", choices=DIGESTS, help="digest of REGISTER: a new challenge each time, or a nonce that is kept [as --auth: new or none]")
    parser.add_argument("--mutual", action="store_true", help="both sides of each TLS handshake show certificates")
    parser.add_argument("--reuse", type=float, default=0, metavar="SHARE", help="share of the handshakes that resume a session, 0 to 1")
    parser.add_argument("--hold", type=float, default=0, metavar="SECONDS", help="how long a call lasts: its connections are open meanwhile")
    parser.add_argument("--connections", type=float, default=0, help="connections open beside those of the calls")
    parser.add_argument("--cores-use", type=float, default=0.7, help="share of a core that may be busy [0.7]")
    parser.add_argument("--tls-version")
    parser.add_argument("--key", choices=["rsa", "ec"])
    parser.add_argument("--suite", help="as OpenSSL calls it")
    parser.add_argument("--model", metavar="FILE.json", help="this model instead of the newest")
    parser.add_argument("--any-machine", action="store_true", help="answer for the machine of the model, though it is not this one")
    parser.add_argument("--json", metavar="FILE", help="write the answer here too; - for standard output alone")
    return parser


def newest_model():
    found = sorted(glob.glob(os.path.join(PERF, "results", "*", "model.json")), key=os.path.getmtime)
    if found:
        return found[-1]
    path = os.path.join(PERF, "model.json")
    if os.path.exists(path):
        return path
    raise Refused("there is no model: perf/model fit makes one")


def read_model(path):
    try:
        with open(path) as text:
            return Model(json.load(text)["model"])
    except OSError as why:
        raise Refused(f"the model cannot be read: {why}") from None
    except (ValueError, KeyError, TypeError) as why:
        raise Refused(f"{path} is not a model of perf/model fit ({why!r})") from None


def answer_text(load, answer, data, path):
    """For people."""
    def percent(share):
        return f"{100 * share:.1f} %"
    lines = [f"{data['contestant']} on {data['machine']}; model of {data['date']} ({os.path.relpath(path)})", ""]
    waking = answer["one_core"] - answer["work"]
    lines.append(f"one core      {percent(answer['work'])} of its capacity" +
                 (f"; busy {percent(answer['one_core'])}, {percent(waking)} of it waking, which it gives back under load" if waking > 0 else ""))
    lines.append(f"cores         {answer['workers']} at no more than {percent(answer['use'])} of their capacity" +
                 (f"; each {percent(answer['work'] * answer['factor'] / answer['workers'])}" if answer["workers"] > 1 else ""))
    if answer["us_per_call"]:
        lines.append(f"a call        {answer['us_per_call']:.1f} µs at this load")
    lines.append(f"headroom      {answer['headroom']:.2f} times this load before {percent(answer['use'])} is used")
    full = [f"{answer[f'full_core_{what}']:,.0f} {what}/s" for what in ("calls", "registrations") if answer[f"full_core_{what}"]]
    lines += [f"a full core   {' and '.join(full)} in this proportion", ""]
    width = max(len(name) for name in answer["parts"])
    for name, value in sorted(answer["parts"].items(), key=lambda item: -item[1]):
        lines.append(f"{name:<{width}}  {100 * value:8.2f} % of a core  {100 * value / answer['one_core']:6.1f} % of the sum")
    lines += ["", model.in_words(load, answer) + "."]
    return "\n".join(lines)


def predict_command():
    arguments = predict_parser().parse_args()
    load = Load(arguments.calls, arguments.registrations, arguments.transport, arguments.mode, arguments.auth, arguments.mutual, arguments.reuse,
                arguments.hold, arguments.connections, arguments.registration_auth, arguments.tls_version, arguments.key, arguments.suite,
                arguments.cores_use, arguments.left, arguments.right)
    try:
        load.check()
        path = arguments.model or newest_model()
        found = read_model(path)
        if not arguments.any_machine:
            found.check_machine(cpu_of(machine.describe()))
        answer = found.predict(load)
    except Refused as why:
        print(f"perf/model predict: {why}.", file=sys.stderr)
        sys.exit(2)
    if arguments.json != "-":
        print(answer_text(load, answer, found.data, path))
    if arguments.json:
        whole = {"load": vars(load), "machine": found.data["machine"], "model": path, **answer, "dominating": model.in_words(load, answer)}
        text = json.dumps(whole, indent=1)
        if arguments.json == "-":
            print(text)
        else:
            with open(arguments.json, "w") as target:
                target.write(text + "\n")


def main():
    commands = {"fit": fit_command, "predict": predict_command}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit("usage: perf/model fit|predict …  (each has --help)")
    commands[sys.argv.pop(1)]()


if __name__ == "__main__":
    main()

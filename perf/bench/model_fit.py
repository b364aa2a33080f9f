"""perf/model fit: measures what the cost model wants, fits it to chain, outbound and inbound mode, and tries it on local mode,
which is never fitted: row C1. model.json is what perf/model predict answers from."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import model
import numpy
import plots
import published
from bench import contestant, main
from cases import OLD, STUDY, TODAY, WINDOW, Case, configuration, registrations, report_configurations, to_udp
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from model import ORDER, TCP, UDP, Call, Parts, cost
from report import Report
from rows import ONE_WORKER, TWO_WORKERS
from samples import CONFIDENCE, FEWEST, RESAMPLES, Estimate, Quantity, Row, Samples, ratio, single
from scale import IDLE, LOADS, SERVER, idle_key
from scipy.linalg import null_space
from scipy.optimize import lsq_linear
from study import Plan, Task
from tasks import FULL, key, rate, served, window

TARGET, LOCAL_TARGET = 5.0, 8.0
ENOUGH = 6
# Each of so many phones has a connection of its own.
PHONES = 1_000
# Calls and registrations each second at which waking is measured, and how full a core may be then.
RATES: dict[str, tuple[float, ...]] = {
    "chain-udp": (200, 1_000, 4_000, 16_000),
    "chain-tcp": (1_000,),
    "outbound-tcp-auth": (200, 1_000),
    "inbound-tcp": (1_000,),
    "inbound-tls-reuse": (1_000,),
    "local-tls-reuse-auth": (1_000,),
    "udp, none": (200, 1_000, 4_000, 16_000),
    "tcp-many, none": (1_000,),
}
NEAR_IDLE = 0.5
# Of row I1.
SAME = 1.03
CPU = "server_cpu_us_each"
COMPONENTS_TABLE = "Components of a call: CPU at saturation. The unit is a call over UDP in chain mode; TCP and TLS are in addition"
Array = numpy.ndarray


# What is measured.


def call_of(case: Case) -> Call:
    variant = "reuse" if case.reuse else "mutual" if case.mutual else "3des" if case.is_tls and case.suite == OLD else "full"
    # One connection on each side is a chain's, whoever is called.
    return Call("chain" if case.mode == "mono" else case.mode, *case.transports, variant, case.auth == "call")


def is_fitted(call: Call) -> bool:
    return call.mode != "local"


def unique(cases: Sequence[Case]) -> list[Case]:
    return list({case.name: case for case in cases}.values())


class ErrorRow(Row):
    """It rests on so many tasks that more runs of each than these are not worth their time."""

    def is_settled(self, samples: Samples, precision: float) -> bool:
        found = self.estimate(samples)
        return super().is_settled(samples, precision) or (found is not None and found.runs >= ENOUGH)


def tls_of(options: argparse.Namespace) -> dict[str, str]:
    """What the options say, for cases."""
    found = {"version": getattr(options, "tls_version", "1.2"), "key": getattr(options, "key", "rsa")}
    return {**found, "suite": TODAY} if getattr(options, "suite", "study") == "today" else found


class Wanted:
    """The cases of a fit, by what TLS it is of, and the tasks that measure them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.who = contestant(options)
        self.how = how = tls_of(options)
        self.report = unique(report_configurations(**how))
        # Where the report has digest these have it; so that a handshake is seen beside two transports.
        kinds = [("tcp", "full"), ("tls", "full"), ("tls", "mutual"), ("tls", "reuse")]
        sides = [(mode, *kind) for mode in ("outbound", "inbound") for kind in kinds]
        self.to_udp = [to_udp(mode, transport, mode == "outbound", variant, **how) for mode, transport, variant in sides]
        # The thesis': the report has local mode with digest only.
        self.local = [configuration("local", transport, False, variant, **how) for transport, variant in kinds]
        self.cases = unique([*self.report, *self.to_udp, *self.local])
        self.calls = {case.name: call_of(case) for case in self.cases}
        transports = [("udp", 0), ("tcp", 0), ("tcp", PHONES), ("tls", 0), ("tls", PHONES)]
        self.registrations = {
            model.registration_name(transport + ("-many" if phones else ""), digest): registrations(
                transport, digest, phones, **(how if transport == "tls" else {})
            )
            for transport, phones in transports
            for digest in model.REGISTER_MESSAGES
            if (transport, digest) != ("tls", "kept")
        }

    def rates(self) -> list[tuple[str, Case, str, tuple[float, ...]]]:
        """Name, case, mode and rates of what tells waking."""
        asked = getattr(self.options, "rates", None)
        calls = [(case.name, case, "call") for case in self.cases]
        both = [*calls, *((name, case, "register") for name, case in self.registrations.items())]
        return [(name, case, mode, asked or RATES[name]) for name, case, mode in both if name in RATES]

    def key(self, case: Case, what: str = "window") -> str:
        return key(case, self.who, what)

    def tasks(self) -> list[Task]:
        found: list[Task] = [served(case, self.who, [window()]) for case in self.cases]
        found += [served(case, self.who, [window()], "workers") for case in (ONE_WORKER, TWO_WORKERS)]
        found += [served(case, self.who, [window(mode="register")], least=1) for case in self.registrations.values()]
        for _, case, mode, rates in self.rates():
            task = served(case, self.who, [rate(each, mode) for each in rates], least=1)
            found.append(replace(task, name=f"{task.name}, at rates", most=FEWEST))
        return found

    def row(self, what: str, limit: float, tested: Sequence[Case]) -> Row:
        names = [case.name for case in tested]
        needed = {case.name: case for case in [*(case for case in self.cases if is_fitted(self.calls[case.name])), *tested]}

        def formula(**measured: Any) -> Any:
            values = fit({name: self.calls[name] for name in needed}, measured)
            return 100 * mean_error(errors(values, self.calls, {name: measured[name] for name in names}))

        quantities = {name: Quantity(self.key(case)) for name, case in needed.items()}
        return ErrorRow("C1", what, limit, quantities, formula, unit="%")

    def rows(self) -> list[Row]:
        return [
            self.row("cost model, mean error over the report's configurations", TARGET, self.report),
            self.row(
                "cost model, mean error over local mode, never fitted",
                LOCAL_TARGET,
                [case for case in self.cases if not is_fitted(self.calls[case.name])],
            ),
        ]


# The fit.


def told_apart(calls: Mapping[str, Call]) -> tuple[list[str], list[str], list[str]]:
    """Of the calls that may be fitted: which, the components that they tell, and those that they do not tell apart. A call that has
    one of the latter says nothing."""
    parts = {name: call.components() for name, call in calls.items() if is_fitted(call)}
    lost: list[str] = []
    while True:
        components = [each for each in ORDER if any(each in found for found in parts.values())]
        counts = numpy.array([[found.get(each, 0) for each in components] for found in parts.values()], dtype=float)
        # What can be added to the values without a change of what is predicted.
        free = null_space(counts) if counts.size else []
        mixed = [each for each, weights in zip(components, free) if numpy.abs(weights).max(initial=0) > 1e-6]
        if not mixed:
            return list(parts), components, lost
        lost += mixed
        parts = {name: found for name, found in parts.items() if not set(mixed).intersection(found)}


def fit(calls: Mapping[str, Call], measured: Mapping[str, Any]) -> dict[str, Array]:
    """µs of the components: the least sum of squared relative errors, none negative but what TCP costs more than UDP. `measured` is
    µs of a call by name: numbers, or arrays of draws, each fitted by itself. Local mode is left out here, and nowhere else has it
    a way in."""
    names, components, _ = told_apart({name: call for name, call in calls.items() if name in measured})
    if not names:
        return {}
    counts = numpy.array([[calls[name].components().get(each, 0) for each in components] for name in names], dtype=float)
    weighted = counts / numpy.stack(numpy.broadcast_arrays(*(measured[name] for name in names)), axis=-1)[..., None]
    transposed = numpy.swapaxes(weighted, -1, -2)
    found = numpy.linalg.solve(transposed @ weighted, transposed.sum(axis=-1)[..., None])[..., 0]
    lowest = numpy.array([-numpy.inf if each == TCP else 0 for each in components])
    for draw in numpy.argwhere((found < lowest - 1e-9).any(axis=-1)):
        place = tuple(draw)
        found[place] = lsq_linear(weighted[place], numpy.ones(len(names)), (lowest, numpy.inf)).x
    return dict(zip(components, numpy.moveaxis(found, -1, 0)))


def errors(values: Mapping[str, Any], calls: Mapping[str, Call], measured: Mapping[str, Any]) -> dict[str, Array]:
    """Predicted ÷ measured − 1 of all that can be predicted."""
    predicted = {name: cost(values, calls[name].components()) for name in measured}
    return {name: each / measured[name] - 1 for name, each in predicted.items() if each is not None}


def mean_error(found: Mapping[str, Any]) -> Any:
    return numpy.mean(numpy.abs(numpy.stack(numpy.broadcast_arrays(*found.values()))), axis=0) if found else numpy.nan


def waking(points: Sequence[tuple[float, float, float, float]]) -> float | None:
    """µs of one waking, from points of (µs at saturation, wakings, rate, µs measured at that rate), all of about one rate: the
    least squares of the relative error of `saturated + µs × wakings × (1 − busy)`, since a server that is busy is not woken."""
    part = numpy.array([wakings * (1 - min(1, each * measured / 1e6)) / measured for _, wakings, each, measured in points])
    rest = numpy.array([1 - saturated / measured for saturated, _, _, measured in points])
    return float(part @ rest / (part @ part)) if len(points) and part.any() else None


class Fit:
    """The model of what has been measured: the first of each array is of the medians, the others of runs drawn anew."""

    def __init__(self, wanted: Wanted, samples: Samples) -> None:
        self.wanted, self.samples = wanted, samples
        self.series = {case.name: values for case in wanted.cases if len(values := samples.values(wanted.key(case), CPU))}
        random = numpy.random.default_rng(len(self.series))
        self.measured = {
            name: numpy.concatenate([[numpy.median(values)], numpy.median(random.choice(values, (RESAMPLES, len(values))), axis=1)])
            for name, values in self.series.items()
        }
        self.calls = wanted.calls
        self.values = fit(self.calls, self.measured)
        self.runs = min((len(values) for name, values in self.series.items() if is_fitted(self.calls[name])), default=0)
        self.is_clean = all(samples.is_clean(wanted.key(case)) for case in wanted.cases if is_fitted(self.calls[case.name]))
        self.errors = errors(self.values, self.calls, self.measured)
        self.workers = ratio(samples, wanted.key(TWO_WORKERS), wanted.key(ONE_WORKER))
        self.medians: Parts = {name: float(values[0]) for name, values in self.values.items()}
        self.registrations: Parts = {
            name: value
            for name, case in wanted.registrations.items()
            if (value := samples.median(wanted.key(case, "register window"), CPU)) is not None
        }
        self.points = {mode: self.points_of(mode) for mode in ("call", "register")}
        self.waking = {mode: self.waking_of(mode) for mode in self.points}

    def estimate(self, values: Array, scale: float = 1) -> Estimate:
        low, high = numpy.quantile(values[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Estimate(scale * float(values[0]), scale * float(low), scale * float(high), self.runs, self.is_clean)

    def points_of(self, mode: str) -> list[tuple[str, float, float, float, float]]:
        """(name, µs at saturation as the model has it, wakings, rate, µs measured) of each run at a rate."""
        found: list[tuple[str, float, float, float, float]] = []
        for name, case, of, rates in self.wanted.rates():
            if mode == "call":
                saturated, wakings = cost(self.medians, call_of(case).components()), call_of(case).wakings()
            else:
                saturated, wakings = self.registrations.get(name), 2 if name.endswith("new") else 1
            for each in rates if of == mode else []:
                measured = self.samples.median(self.wanted.key(case, rate(each, mode).name), CPU)
                if measured and saturated is not None and each * saturated < NEAR_IDLE * 1e6:
                    found.append((name, saturated, wakings, each, measured))
        return found

    def waking_of(self, mode: str) -> list[tuple[float, float]]:
        found = []
        points = [point for point in self.points[mode] if mode == "register" or is_fitted(self.calls[point[0]])]
        for each in sorted({point[3] for point in points}):
            group = [point[1:] for point in points if point[3] == each]
            value = waking(group)
            if value is not None and value > 0:
                found.append((each * float(numpy.exp(numpy.mean(numpy.log([point[1] for point in group])))), value))
        return found

    def each_from_the_others(self) -> float | None:
        """The mean error with which each run is predicted from the others: what the fit owes to chance is then against it."""
        runs = min(map(len, self.series.values()), default=0)
        if runs < 2:
            return None
        found = []
        for number in range(runs):
            others = {name: numpy.median(numpy.delete(values, number)) for name, values in self.series.items()}
            left_out = {name: values[number] for name, values in self.series.items()}
            found += [abs(each) for each in errors(fit(self.calls, others), self.calls, left_out).values()]
        return float(numpy.mean(found))

    def data(self, described: str) -> dict[str, Any]:
        """The model as it is saved."""
        wanted, samples = self.wanted, self.samples
        results = [result for case in wanted.cases for result in samples.of(wanted.key(case))]
        suites = {result["tls"].partition(" ")[2] for result in results if result.get("tls") and "3des" not in result["case"]}
        highest: Parts = {}
        groups: list[tuple[str, Case, tuple[str, ...]]] = [
            ("-".join(case.name.split("-")[:2]), case, ("window", "peak")) for case in wanted.cases
        ]
        groups += [(f"register-{case.transports[0]}", case, ("register window",)) for case in wanted.registrations.values()]
        for group, case, whats in groups:
            reached = [*(each for what in whats for each in samples.values(wanted.key(case, what), "completed_per_second"))]
            if reached:
                highest[group] = max(highest.get(group, 0.0), *map(float, reached))
        lowest = {mode: min((point[3] for point in points), default=None) for mode, points in self.points.items()}
        tls = {"version": wanted.how["version"], "key": wanted.how["key"], "suite": min(suites)} if suites else None
        return {
            "kind": "strowger cost model",
            "version": 2,
            "date": time.strftime("%Y-%m-%d"),
            "machine": described,
            "cpu": model.cpu_of(described),
            "contestant": wanted.who,
            "tls": tls,
            "components": {
                name: {"us": each.value, "low": each.low, "high": each.high, "of_a_udp_call": each.value / self.medians[UDP]}
                for name, each in ((name, self.estimate(values)) for name, values in self.values.items())
            },
            "registrations": self.registrations,
            "waking": {"call": self.waking["call"], "registration": self.waking["register"]},
            "workers": self.workers and [self.workers.value, self.workers.low, self.workers.high],
            "ranges": {
                "lowest_per_second": {"call": lowest["call"], "registration": lowest["register"]},
                "highest_per_second": highest,
                "connections": getattr(wanted.options, "connections", None) or connections_of(samples),
                "outstanding": WINDOW,
                "sides": sorted(
                    {f"{call.mode} {call.left} {call.right}" for name, call in self.calls.items() if name in self.series}
                ),
            },
            "errors": {name: float(each[0]) for name, each in self.errors.items()},
        }


def connections_of(samples: Samples) -> int:
    """The most idle connections beside which a call has been seen to cost the same (row I1), or those of the fit."""

    def same(number: int) -> bool:
        beside = [single(samples, idle_key(via, number, "strowger", LOADS[0]), "to_none") for via in SERVER]
        return all(each is not None and each.low <= SAME for each in beside)

    return max([PHONES, *filter(same, IDLE)])


# What is told.


def published_of(name: str) -> tuple[str | None, str | None]:
    """The report's value, and that with its fix of the client."""
    value = published.COMPONENTS.get("TCP handshake" if name.startswith("TCP handshake") else name)
    if value is None:
        return None, None
    share = published.CLIENT_FIX[name.rpartition(", ")[2]] if "as client, " in name else None
    return f"{value:g}", None if share is None else f"{value * (1 - share):.1f}"


def percent(error: float) -> str:
    return f"{100 * error:+.1f} %"


def tell(said: Report, samples: Samples, wanted: Wanted) -> None:
    found = Fit(wanted, samples)
    if not found.values or UDP not in found.values:
        return
    tell_components(said, found)
    tell_errors(said, found)
    tell_registrations(said, found)
    tell_rates(said, found)
    tell_workers(said, found)
    where = {"component costs of the cost model": COMPONENTS_TABLE, "predicted against measured": "model-predicted"}
    said.data["model"] = found.data(said.about["machine"])
    draw_predicted(said, found)
    draw_components(said, found)
    published.reproduced(said, published.MODEL, where)


def tell_components(said: Report, found: Fit) -> None:
    lines = [
        [name, found.estimate(values), found.estimate(values / found.values[UDP]), *published_of(name)]
        for name, values in found.values.items()
    ]
    _, _, lost = told_apart({name: found.calls[name] for name in found.series})
    lines += [[name, "not told apart", None, *published_of(name)] for name in lost]
    said.table(COMPONENTS_TABLE, ["component", "µs", "units", "the report, units", "with its fix of the client"], lines)


def tell_errors(said: Report, found: Fit) -> None:
    lines: list[list[Any]] = []
    rates: dict[str, float] = {}
    for case in found.wanted.cases:
        name, samples = case.name, found.samples
        if name not in found.errors:
            continue
        predicted = found.estimate(cost(found.values, found.calls[name].components()))
        what = "peak" if samples.of(found.wanted.key(case, "peak")) else "window"
        reached = single(samples, found.wanted.key(case, what), "completed_per_second")
        error = 1e6 / predicted.value / reached.value - 1 if reached and reached.value else 0.0
        is_full = (samples.median(found.wanted.key(case, what), "server_busy") or 0) >= FULL
        rates |= {name: error} if is_full else {}
        how = "fitted" if is_fitted(found.calls[name]) else "**predicted only**"
        cells = [predicted, single(samples, found.wanted.key(case)), percent(found.errors[name][0])]
        shown = percent(error) if is_full else f"({percent(error)})"
        lines.append([name, how, *cells, f"{1e6 / predicted.value:,.0f}", reached, what, shown])
    head = ["configuration", "in the fit", "predicted, µs", "measured, µs", "error"]
    said.table(
        "CPU of a call at saturation, and calls/s: 10⁶ ÷ predicted CPU beside the peak, or the capacity of a closed window. "
        f"An error in brackets is not counted: the server's core was less than {100 * FULL:.0f} % busy, so the rate is another's",
        [*head, "predicted, calls/s", "measured, calls/s", "as", "error of the rate"],
        lines,
    )
    reported = {case.name for case in found.wanted.report}
    fitted = {name for name in found.errors if is_fitted(found.calls[name])}
    groups = [
        ("the report's configurations", reported),
        ("of them those fitted", reported & fitted),
        ("local mode, never fitted", set(found.errors) - fitted),
        ("configurations that the report has not", set(found.errors) - reported),
    ]
    lines = []
    for title, names in groups:
        group = {name: found.errors[name] for name in found.errors if name in names}
        if group:
            lines.append([title, len(group), found.estimate(mean_error(group), 100), worst(group)])
    if rates:
        lines.append(["calls/s, where the core was full", len(rates), f"{100 * mean_error(rates):.1f}", worst(rates)])
    across = found.each_from_the_others()
    if across is not None:
        lines.append(["each run predicted from the others, all configurations", len(found.errors), f"{100 * across:.1f}", None])
    lines.append(["the report", 18, f"{100 * published.MODEL_ERROR:.0f}", None])
    said.table("Errors", ["of", "configurations", "mean of the absolute errors, %", "worst"], lines)


def worst(group: Mapping[str, Any]) -> str:
    name, error = max(((name, float(numpy.ravel(each)[0])) for name, each in group.items()), key=lambda item: abs(item[1]))
    return f"{name}, {percent(error)}"


def tell_registrations(said: Report, found: Fit) -> None:
    without_tls = {name: value for name, value in found.registrations.items() if not name.startswith("tls")}
    lines: list[list[Any]] = []
    for name, case in found.wanted.registrations.items():
        measured = single(found.samples, found.wanted.key(case, "register window"))
        parts = model.registration(without_tls, found.medians, *name.split(", ")) if name.startswith("tls") else None
        predicted = sum(parts.values()) if parts else None
        if measured:
            error = percent(predicted / measured.value - 1) if predicted else None
            lines.append([name, measured, f"{predicted:.1f}" if predicted else None, error])
    said.table(
        f"CPU of a registration at saturation, µs (many: over {PHONES:,} connections; new and kept: with digest, by nonce; TLS is "
        "predicted as TCP and the bulk of so many messages)",
        ["registration", "measured", "predicted", "error"],
        lines,
    )


def tell_rates(said: Report, found: Fit) -> None:
    lines, all_errors = [], []
    for mode, points in found.points.items():
        curve = model.Waking(found.waking[mode])
        for name, saturated, wakings, each, measured in points if curve else []:
            busy = model.with_waking(each * saturated / 1e6, each * wakings * curve.at(each * wakings) / 1e6)
            predicted = 1e6 * busy / each
            all_errors.append(abs(predicted / measured - 1))
            how = "fitted" if mode == "register" or is_fitted(found.calls[name]) else "**predicted only**"
            cells = [f"{value:.1f}" for value in (saturated, predicted, measured)]
            lines.append([name, f"{each:,.0f}/s", how, *cells, percent(predicted / measured - 1)])
    if lines:
        lines.append(["**mean of the absolute errors**", "", "", "", "", "", f"{100 * numpy.mean(all_errors):.1f} %"])
    said.table(
        "CPU at fixed rates, µs each: at saturation and with waking",
        ["configuration", "rate", "in the fit", "at saturation", "predicted", "measured", "error"],
        lines,
    )
    said.table(
        "model.Waking",
        ["of", "wakings/s, if the core always slept", "µs each"],
        [[mode, f"{each:,.0f}", f"{us:.1f}"] for mode, points in found.waking.items() for each, us in points],
    )


def tell_workers(said: Report, found: Fit) -> None:
    if found.workers:
        two = (found.workers.value, found.workers.low, found.workers.high)
        concluded = [[number, *(f"{each:.2f}" for each in model.factor_of(two, number))] for number in (4, 8, 16)]
        said.table(
            "CPU of a call on several workers ÷ on one, without digest and a location that other servers share: two are measured, "
            "more are concluded from the share of messages that come to another worker than their call's; at most each costs what "
            "the second did",
            ["workers", "÷ one", "at least", "at most"],
            [[2, *(f"{each:.2f}" for each in two)], *concluded],
        )


# The figures.

# What is drawn as one.
GROUPS = {
    "data": [UDP, TCP, model.BROKEN_UP],
    "TLS bulk": [model.BULK, model.OLD_BULK],
    "digest": ["digest, UDP", "digest, TCP", "digest, TLS"],
    **{f"TCP handshake as {side}": [f"TCP handshake as {side}"] for side in ("server", "client")},
    **{
        f"TLS handshake as {side}": [f"TLS handshake as {side}, {variant}" for variant in model.VARIANTS]
        for side in ("server", "client")
    },
}
SHADES = [plots.BLUE, plots.SKY, plots.GREEN, plots.YELLOW, plots.ORANGE, plots.VERMILION, plots.PURPLE]


def shown(found: Fit) -> list[str]:
    """The report's configurations and local mode, as far as they can be compared."""
    return [case.name for case in unique([*found.wanted.report, *found.wanted.local]) if case.name in found.errors]


def words(call: Call) -> str:
    variant = "" if call.variant == "full" else " " + {"3des": "3DES", "reuse": "resumed"}.get(call.variant, call.variant)
    return f"{call.mode} {call.left.upper()}{variant}{', digest' if call.auth else ''}"


def draw_predicted(said: Report, found: Fit) -> None:
    """The error of each with its interval; µs beside."""
    names, band = shown(found), LOCAL_TARGET
    chart, axes = plots.figure(9, 1.6 + 0.27 * len(names))
    spread = {name: found.estimate(found.errors[name], 100) for name in names}
    edge = max(15.0, *(1.05 * max(-error.low, error.high) for error in spread.values()))
    axes.axvspan(-band, band, color="#dddddd", zorder=0, label=f"±{band:.0f} %")
    axes.axvline(0, color=plots.GREY, linewidth=1)
    for place, name in enumerate(names):
        fitted, error = is_fitted(found.calls[name]), spread[name]
        style = {"color": plots.BLUE if fitted else plots.VERMILION, "marker": "o" if fitted else "D"}
        axes.plot([error.low, error.high], [place, place], color=style["color"], linewidth=1.4)
        axes.plot([error.value], [place], markersize=6, **style)
        measured = found.measured[name][0]
        axes.text(1.02 * edge, place, f"{measured * (1 + error.value / 100):,.0f} · {measured:,.0f}", va="center", fontsize=9.5)
    axes.text(1.02 * edge, -1, "µs: predicted · measured", va="center", fontsize=9.5)
    for label, style in [
        ("fitted: chain, outbound, inbound", {"color": plots.BLUE, "marker": "o"}),
        ("predicted only: local", {"color": plots.VERMILION, "marker": "D"}),
    ]:
        axes.plot([], [], linestyle="none", label=label, **style)
    axes.set_yticks(range(len(names)), [words(found.calls[name]) for name in names], fontsize=9.5)
    axes.set(ylim=(len(names) - 0.5, -0.7), xlim=(-edge, edge), xlabel="predicted ÷ measured − 1, %, and its 95 % interval")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.03), ncols=3)
    plots.add(
        said, chart, "model-predicted", "CPU of a call at saturation, predicted against measured. Local mode is not in the fit."
    )


def draw_components(said: Report, found: Fit) -> None:
    """Cheap configurations and dear ones have axes of their own: one is a fiftieth of the other."""
    names = shown(found)
    dear = [name for name in names if any(part.startswith("TLS handshake") for part in found.calls[name].components())]
    panels = [panel for panel in ([name for name in names if name not in dear], dear) if panel]
    ratios = {"height_ratios": [len(panel) for panel in panels]}
    chart, grid = plots.figure(9.5, 1.6 + 0.34 * len(names), rows=len(panels), squeeze=False, gridspec_kw=ratios)
    for (axes,), panel in zip(grid, panels):
        for place, name in enumerate(panel):
            parts = found.calls[name].components()
            of_groups = [sum(found.medians.get(each, 0) * parts.get(each, 0) for each in members) for members in GROUPS.values()]
            plots.stacked(axes, place, zip(of_groups, SHADES), 0.68, edgecolor="white", linewidth=0.6)
            measured = found.measured[name][0]
            axes.plot([measured], [place], "o", markerfacecolor="white", markeredgecolor="black", markersize=6, zorder=5)
        axes.set_yticks(range(len(panel)), [words(found.calls[name]) for name in panel], fontsize=9.5)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.12 * max(found.measured[name][0] for name in panel))
    grid[-1][0].set_xlabel("µs CPU of a call at saturation")
    circle = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": "black", "label": "measured"}
    handles = [
        *(Patch(color=shade, label=title) for shade, title in zip(SHADES, GROUPS)),
        Line2D([], [], linestyle="none", **circle),
    ]
    grid[0][0].legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1.01), ncols=3)
    plots.add(said, chart, "model-components", "What a call is made of, predicted; the circle is the measured sum.")


# The command.


def plan(options: argparse.Namespace) -> Plan:
    wanted = Wanted(options)
    return Plan("model", "The cost model", wanted.tasks(), wanted.rows(), lambda said, samples: tell(said, samples, wanted))


def rates_of(text: str) -> tuple[float, ...]:
    found = tuple(sorted(float(each) for each in text.split(",")))
    if not found or found[0] <= 0:
        raise argparse.ArgumentTypeError("rates are numbers above 0, divided by commas")
    return found


def more(arguments: argparse.ArgumentParser) -> None:
    arguments.prog = "perf/model fit"
    add = arguments.add_argument
    add("--tls-version", choices=["1.2", "1.3"], default="1.2", help="[1.2]")
    add("--key", choices=["rsa", "ec"], default="rsa", help="RSA-2048 or P-256 [rsa]")
    add("--suite", choices=["study", "today"], default="study", help=f"TLS 1.2: {STUDY}, or what is negotiated today [study]")
    add("--rates", type=rates_of, help="calls and registrations a second at which waking is measured [200 to 16,000, by case]")
    add("--connections", type=int, help="beside so many open connections a call has been seen to cost the same [from row I1]")


if __name__ == "__main__":
    main("model", __doc__, 20, plan, more)

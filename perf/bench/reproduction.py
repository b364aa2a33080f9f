"""What the sub-commands of perf/reproduce have in common: measured, or drawn again from a report's JSON; what of the studies each
one reproduces."""

import json
import time

import published
from contestants import PERF
from report import Report, Series
from study import WINDOW, Study

# The server forgets a transaction 5 s after its end: what a fuller load has left behind must not be counted with the next.
FORGET = 5.5
# As they stand in the figures, in their order.
NAMES = {"strowger": "strowger", "kamailio": "Kamailio"}


class Reproduction(Study):
    """One sub-command. `name` is its own and its files'; `ours` says where each published table or figure is to be found in the
    report."""

    name, title, ours = "", "", {}

    def __init__(self, arguments, directory):
        if arguments.redraw:
            self.read(arguments)
        else:
            super().__init__(arguments, directory, self.title)
        self.folder = Report.directory(PERF)
        self.drawn = []
        self.is_interrupted = False

    def read(self, arguments):
        found = []
        for path in arguments.redraw:
            with open(path) as text:
                found.append(json.load(text))
        machines = {each["machine"] for each in found}
        if len(machines) > 1:
            raise RuntimeError("measured on different machines: " + "; ".join(sorted(machines)))
        self.arguments = arguments
        self.report = Report(self.title, *machines, "; ".join(dict.fromkeys(each["settings"] for each in found)))
        self.results = self.report.raw = [result for each in found for result in each["measurements"]]
        self.failures = []

    def run(self):
        if not self.arguments.redraw:
            try:
                for number in range(self.rounds):
                    self.measure(number)
                    # For --redraw, should the next round not come to its end.
                    self.report.write(PERF, f"reproduce-{self.name}")
            except (KeyboardInterrupt, SystemExit):
                # Hours of measurements are worth a report with holes in it.
                self.failures.append("interrupted")
                self.is_interrupted = True
            self.progress.end()
        if not self.results:
            raise RuntimeError("nothing could be measured; the first failure: " + str((self.failures or ["none"])[0]))
        # Loaded late: what is measured does not need it, nor do the tests.
        import plots

        self.tell(plots)
        self.report.table(
            "What of the studies this reproduces",
            ["published", "by", "here"],
            [
                (name, study, self.ours[name])
                for name, study, command in published.TABLES_AND_FIGURES
                if command == f"perf/reproduce {self.name}"
            ],
        )
        if self.arguments.redraw:
            print(self.report.markdown())
            self.report.write(PERF, f"reproduce-{self.name}")
        else:
            self.finish(f"reproduce-{self.name}")

    @property
    def contestants(self):
        """Those that were measured, strowger first."""
        return [name for name in NAMES if any(result["contestant"] == name for result in self.results)]

    def wants(self, name):
        if any(part in name for part in self.arguments.without):
            return False
        return not self.arguments.cases or any(part in name for part in self.arguments.cases)

    def saturate_and_rest(self, case, contestant, process, **fields):
        result = self.saturate(case, contestant, process, **fields)
        time.sleep(FORGET)
        return result

    def at_rate(self, case, contestant, process, rate, **fields):
        """An open loop at this rate, long enough below it first that as many transactions are forgotten as are begun."""
        settle = 1 if self.arguments.quick else FORGET
        return self.run_load(
            case,
            contestant,
            process,
            "--rate",
            f"{rate:.0f}",
            "--settle",
            settle,
            "--duration",
            self.duration,
            "--drain",
            8,
            "--max-outstanding",
            40_000,
            **fields,
        )[0]

    def found(self, configuration, contestant, what, **fields):
        return [
            result
            for result in self.results
            if result["configuration"] == configuration
            and result["contestant"] == contestant
            and result["what"] == what
            and all(result.get(key) == wanted for key, wanted in fields.items())
        ]

    def of(self, configuration, contestant, what, value, **fields):
        """Median and marks of one quantity. A peak is allowed failures by its definition and is not marked for them."""
        found = self.found(configuration, contestant, what, **fields)
        if what == "peak found":
            found = [{**result, "clean": True} for result in found]
        return Series(found, value)

    def curve(self, configuration, contestant, tag):
        """CPU % by rate: (rate, CPU, the Series of it), one for each value of the field `tag`, and what filled the core at the
        end."""
        points = []
        for value in sorted(
            {
                result[tag]
                for result in self.results
                if result["configuration"] == configuration and result["contestant"] == contestant and result["what"] == "rate"
            }
        ):
            cpu = self.of(configuration, contestant, "rate", cpu_percent, **{tag: value})
            rate = self.of(configuration, contestant, "rate", offered, **{tag: value})
            points.append((rate.median, cpu.median, cpu))
        for what in ("peak found", "saturation"):
            cpu = self.of(configuration, contestant, what, cpu_percent)
            if cpu:
                points.append((self.of(configuration, contestant, what, completed).median, cpu.median, cpu))
                break
        return sorted(points, key=lambda point: point[0])

    def figure(self, plots, chart, name, title):
        name = f"reproduce-{self.name}-{name}"
        plots.save(chart, self.folder, name)
        self.report.figure(name, title)


def offered(result):
    return result["rate_or_window"]


def completed(result):
    return result["completed_per_second"]


def cpu(result):
    return result["server_cpu_us_each"]


def cpu_percent(result):
    return 100 * result["server_busy"]


def is_bound(series):
    """Whether a point is a bound rather than a measurement."""
    return bool(set(series.marks) & {"g", "!"})


def ratio(a, b, digits=2):
    """Of the medians, with all marks."""
    if not a or not b or not b.median:
        return "—"
    marks = "".join(sorted(set(a.marks + b.marks)))
    return f"{a.median / b.median:.{digits}f}{' ' + marks if marks else ''}"


def at_saturation():
    return f"{WINDOW} outstanding"

"""perf/compare: strowger beside Kamailio, in turn in one run: CPU of a call, the highest rate, latency and memory, with the same
load, certificates, number of workers and cores."""

import math
import os
import shutil
import subprocess

import study
from cases import ANSWERER_PORT, WINDOW, Case
from contestants import PERF, Contestant
from report import Report, Series
from study import Progress, Study

CASES = {
    "udp": Case("UDP, chain", "udp", "udp", routed=True),
    "udp-auth": Case("UDP, chain, digest", "udp", "udp", routed=True, auth=True),
    "tcp": Case("TCP, chain", "tcp", "tcp", routed=True),
    "tcp-call": Case("TCP, one for each call", "tcp/call", "udp"),
    "tls": Case("TLS 1.3, chain", "tls", "tls", routed=True, version="1.3"),
    "tls-full": Case("TLS 1.2, full, local", "tls/call", "tls/call"),
    "tls-resumed": Case("TLS 1.2, resumed, local", "tls/call", "tls/call", reuse=True),
    "tls-mutual": Case("TLS 1.2, mutual, local", "tls/call", "tls/call", mutual=True),
    "register": Case("REGISTER, UDP", "udp", "udp"),
    "register-auth": Case("REGISTER, UDP, digest", "udp", "udp", auth="register"),
}
# What each is of: a call, or a registration.
MODES = {key: "register" if key.startswith("register") else "call" for key in CASES}
PEERS = {"strowger": "strowger", "kamailio": "Kamailio"}
# Row L1, its second half: what strowger adds over TLS that stays connected, beside the generator connected to itself.
ADDED = "tls"
ADDED_SPANS = ["to_180", "to_200", "bye_to_200"]
ADDED_TARGET_US = 2_000
FLOOR = "floor"


def cpu(result):
    return result["server_cpu_us_each"]


def rate(result):
    return result["completed_per_second"]


def family(pid):
    """The process and all that it has started."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as text:
                    # The command's name, in parentheses, may have spaces in it.
                    parents.setdefault(int(text.read().rsplit(")", 1)[1].split()[1]), []).append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += parents.get(one, [])
    return found


def memory(pid):
    """Resident and proportional set size of a server, bytes, all its processes together."""
    sums = {"Rss": 0, "Pss": 0}
    for one in family(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as text:
                for line in text:
                    name, _, value = line.partition(":")
                    if name in sums:
                        sums[name] += int(value.split()[0]) * 1024
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return sums


class Compare(Study):
    def __init__(self, arguments, directory):
        super().__init__(arguments, directory, "strowger beside its peers")
        self.cases = arguments.cases or list(CASES)
        self.with_peaks = arguments.peaks or not arguments.quick
        # It settles sooner than the studies' two minutes.
        self.latency_duration = min(self.duration, 30)
        steps = 2 * len(self.arguments.only) * self.rounds * len(self.cases)
        self.progress = Progress(steps + self.rounds * ("strowger" in arguments.only and ADDED in self.cases))

    def run(self):
        for _ in range(self.rounds):
            for key in self.cases:
                rates = {name: self.attempt(self.saturation, key, name) for name in self.arguments.only}
                slowest = min((found for found in rates.values() if found), default=None)
                for name in self.arguments.only:
                    if slowest:
                        self.attempt(self.latency, key, name, slowest / 2)
                if key == ADDED and rates.get("strowger"):
                    self.attempt(self.added, key, rates["strowger"] / 2)
        self.tell()
        self.finish("compare")

    # What is run.

    def saturation(self, key, name):
        """Cost and highest rate, in a fresh server; returns that rate."""
        case, mode = CASES[key], MODES[key]
        self.progress.step(f"{name}: {case.label}: saturation" + (" and peak" if self.peaks(key) else ""))
        with self.server(case, name) as (contestant, process):
            result = self.run_load(
                case,
                contestant,
                process,
                "--window",
                WINDOW,
                "--settle",
                self.warm,
                "--duration",
                self.duration,
                mode=mode,
                what="saturation",
                key=key,
            )[0]
            found = rate(result)
            result["memory"] = memory(process.pid)
            if self.peaks(key):
                best = self.peak(case, contestant, process, found)
                if best is not None:
                    best["key"] = key
                    found = min(found, best["rate_or_window"])
        return found

    def peaks(self, key):
        return self.with_peaks and MODES[key] == "call"

    def latency(self, key, name, at):
        """At the same rate for all: half of what the slowest can."""
        case, mode = CASES[key], MODES[key]
        self.progress.step(f"{name}: {case.label}: latency at {at:,.0f}/s")
        with self.server(case, name) as (contestant, process):
            result = self.run_load(
                case,
                contestant,
                process,
                "--rate",
                f"{at:.0f}",
                "--poisson",
                "--settle",
                self.warm,
                "--duration",
                self.latency_duration,
                mode=mode,
                what="latency",
                key=key,
            )[0]
            result["memory"] = memory(process.pid)

    def added(self, key, at):
        """Row L1: strowger at half of its own peak, and the generator connected to itself at the same rate."""
        case = CASES[key]
        self.progress.step(f"strowger and floor: {case.label}: latency at {at:,.0f}/s")
        load = ["--rate", f"{at:.0f}", "--poisson", "--settle", self.warm, "--duration", self.latency_duration]
        with self.server(case, "strowger") as (contestant, process):
            self.run_load(case, contestant, process, *load, what="added", key=key)
        # There is no server. Its process is the generator's own parent: something must be named, and that does nothing meanwhile.
        floor, nobody = Contestant(FLOOR, []), Nobody()
        options = [*case.options(FLOOR), "--floor", "--server", f"127.0.0.1:{ANSWERER_PORT}", *load]
        for result in self.generator.run("call", floor, nobody, *options):
            result.update(what="added", key=key, label=case.label)
            self.results.append(result)
            self.report.raw.append(result)

    def of(self, key, name, what, value):
        found = [
            result
            for result in self.results
            if result.get("key") == key and result["contestant"] == name and result["what"] == what
        ]
        return Series(found, value)

    # What it says.

    def tell(self):
        self.tell_who()
        both = [key for key in self.cases if any(self.of(key, name, "saturation", cpu) for name in self.arguments.only)]
        self.tell_quantity("Server CPU, µs for each call or registration, at saturation", both, "saturation", cpu, 1, False)
        self.tell_quantity(f"Calls or registrations a second in a closed window of {WINDOW}", both, "saturation", rate, 0, True)
        if self.with_peaks:
            self.tell_quantity(
                "Peak: the highest open-loop rate at which at most 4 % of the calls fail, calls/s",
                both,
                "peak found",
                lambda result: result["rate_or_window"],
                0,
                True,
            )
        for quantile in ["p50", "p99"]:
            self.tell_quantity(
                f"Latency at half of what the slower one can, {quantile}, µs from the schedule to the 200 of the INVITE or "
                f"REGISTER",
                both,
                "latency",
                lambda result, q=quantile: result["latency_us"]["to_200"][q],
                0,
                False,
            )
        # Who carries more remembers more: beside each other only after the same load.
        for what, when in [
            ("latency", "the run for latency, which is the same for both"),
            ("saturation", "the run at saturation, each at its own rate"),
        ]:
            for name, title in [("Pss", "proportional"), ("Rss", "resident")]:
                self.tell_quantity(
                    f"Memory after {when}: {title} set size of all processes, MB",
                    both,
                    what,
                    lambda result, name=name: result["memory"][name] / 1e6,
                    1,
                    False,
                )
        self.tell_generator(both)
        self.tell_added()
        self.draw(both)

    def tell_who(self):
        lines = [["strowger", version([self.strowger, "--version"]), "as conf/streams.toml.in, one worker on core 0"]]
        if "kamailio" in self.arguments.only:
            lines.append(
                [
                    "Kamailio",
                    version([shutil.which("kamailio") or "/usr/sbin/kamailio", "-v"]),
                    "as peers/kamailio.cfg, one UDP worker and one TCP worker, all processes on core 0",
                ]
            )
        opensips = shutil.which("opensips") or (os.path.exists("/usr/sbin/opensips") and "/usr/sbin/opensips")
        lines.append(
            [
                "OpenSIPS",
                version([opensips, "-V"]) if opensips else "not installed",
                "not measured" + (": no conf of it is here" if opensips else ""),
            ]
        )
        self.report.table("Who", ["", "version", "how"], lines)

    def tell_quantity(self, title, keys, what, value, digits, more_is_better):
        lines = []
        for key in keys:
            series = [self.of(key, name, what, value) for name in PEERS]
            if not any(series):
                continue
            ours, theirs = series
            ratio = "—"
            if ours and theirs and ours.median and theirs.median:
                ratio = f"{ours.median / theirs.median if more_is_better else theirs.median / ours.median:.2f}"
            at = self.of(key, "strowger", "latency", lambda result: result["rate_or_window"]) if what == "latency" else None
            lines.append(
                [
                    CASES[key].label,
                    *([f"{at.median:,.0f}/s"] if at else ["—"] if what == "latency" else []),
                    *(found.text(digits) for found in series),
                    ratio,
                ]
            )
        how = "strowger ÷ Kamailio" if more_is_better else "Kamailio ÷ strowger"
        self.report.table(title, ["case", *(["at"] if what == "latency" else []), "strowger", "Kamailio", how], lines)

    def tell_generator(self, keys):
        lines = []
        for key in keys:
            for name in self.arguments.only:
                busy, server, each = (
                    self.of(key, name, "saturation", value)
                    for value in (
                        lambda result: 100 * result["generator_busy"],
                        lambda result: 100 * result["server_busy"],
                        lambda result: result["generator_us_each"],
                    )
                )
                if busy:
                    tls = [
                        result.get("tls") for result in self.results if result.get("key") == key and result["contestant"] == name
                    ]
                    lines.append(
                        [CASES[key].label, PEERS[name], each.text(), busy.text(0), server.text(0), next(filter(None, tls), "—")]
                    )
        self.report.table(
            "The generator at saturation",
            ["case", "against", "its µs each", "its core, % busy", "server's core, % busy", "TLS agreed"],
            lines,
        )

    def tell_added(self):
        lines, worst = [], None
        ours = theirs = None
        for span in ADDED_SPANS:
            for quantile in ["p50", "p99"]:
                ours, theirs = (
                    self.of(ADDED, name, "added", lambda result: result["latency_us"].get(span, {}).get(quantile))
                    for name in ("strowger", FLOOR)
                )
                if not ours or not theirs:
                    continue
                added = ours.median - theirs.median
                lines.append([f"{span} {quantile}", theirs.text(), ours.text(), f"{added:.1f}"])
                if quantile == "p99" and (worst is None or added > worst[0]):
                    worst = added, theirs.median
        if worst is None:
            return
        at = self.of(ADDED, "strowger", "added", lambda result: result["rate_or_window"]).median
        self.report.table(
            f"Latency that strowger adds over TLS 1.3, one connection each side, at {at:,.0f} calls/s (half of its peak, "
            f"Poisson), µs",
            ["", "generator connected to itself", "through strowger", "added"],
            lines,
        )
        met = worst[0] <= ADDED_TARGET_US if ours.is_sound and theirs.is_sound else None
        self.report.row(
            "L1",
            f"added latency over TLS 1.3 that stays connected at {at:,.0f}/s, p99, worst of {len(ADDED_SPANS)}",
            f"≤ {ADDED_TARGET_US:,} µs",
            f"{worst[0]:.0f} µs",
            met,
            " ".join(filter(None, ["".join(sorted(set(ours.marks + theirs.marks))), f"without it: {worst[1]:.0f} µs"])),
        )

    # What it draws.

    def draw(self, keys):
        each = "call or registration"
        self.bars(
            "compare-cpu", keys, "saturation", cpu, f"Server CPU for each {each}, µs", f"Server CPU for each {each} at saturation"
        )
        self.bars(
            "compare-rate",
            keys,
            "saturation",
            rate,
            "Calls or registrations a second",
            f"Highest rate on one core, closed window of {WINDOW}",
        )
        self.bars(
            "compare-peak",
            keys,
            "peak found",
            lambda result: result["rate_or_window"],
            "Calls a second",
            "Peak: at most 4 % of the calls fail",
        )
        self.bars(
            "compare-latency",
            keys,
            "latency",
            lambda result: result["latency_us"]["to_200"]["p99"] / 1000,
            "Schedule to 200, 99th percentile, ms",
            "Latency at half of what the slower one can, 99th percentile",
        )
        self.bars(
            "compare-memory",
            keys,
            "latency",
            lambda result: result["memory"]["Pss"] / 1e6,
            "Proportional set size, MB",
            "Memory of all processes after the same load",
        )

    def bars(self, name, keys, what, value, axis, title):
        """A pair of bars for each case, on a logarithmic axis, each with its value, and what the peer's is of ours."""
        # Loaded late: what is measured does not need it, nor do the tests.
        import plots

        names = [each for each in PEERS if each in self.arguments.only]
        found = [(key, [self.of(key, each, what, value) for each in names]) for key in keys]
        found = [(key, series) for key, series in found if any(series)]
        if not found:
            return
        chart, axes = plots.figure(height=1.3 + 0.52 * len(found))
        width = 0.8 / len(names)
        for number, each in enumerate(names):
            places = [
                (row + (number - (len(names) - 1) / 2) * width, series[number].median, series[number].marks)
                for row, (_, series) in enumerate(found)
                if series[number] and series[number].median > 0
            ]
            if not places:
                continue
            axes.barh(
                [y for y, _, _ in places],
                [height for _, height, _ in places],
                0.92 * width,
                color=plots.COLOURS[number],
                label=PEERS[each],
            )
            for (y, length, mark), (_, series) in zip(
                places, [row for row in found if row[1][number] and row[1][number].median > 0]
            ):
                first = series[0].median if number and series[0] else None
                ratio = f"   ({text(length / first)} ×)" if first else ""
                axes.annotate(f" {text(length)}{' ' + mark if mark else ''}{ratio}", (length, y), va="center", fontsize=8.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.set_yticks(range(len(found)), [CASES[key].label for key, _ in found])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        every = [each.median for _, series in found for each in series if each and each.median > 0]
        # From a whole decade, and so that the shortest bar is one: the lengths are of logarithms, the numbers say the proportion.
        axes.set_xlim(10 ** math.floor(math.log10(min(every) / 1.5)), max(every) * 6)
        plots.label(axes, axis, None)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        plots.save(chart, Report.directory(PERF), name)
        self.report.figure(name, title)


class Nobody:
    """In the place of a server's process where there is no server."""

    pid = os.getpid()


def text(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def version(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[0]


def main():
    parser = study.options("perf/compare", __doc__)
    parser.set_defaults(only=list(PEERS))
    parser.add_argument("--cases", type=study.words(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--peaks", action="store_true", help="with --quick too: search for the peak by the studies' rule")
    study.run(parser, Compare)


if __name__ == "__main__":
    main()

"""perf/profile: where the CPU goes, by the report's components, from samples of the server under load; bars and flame graphs."""

import collections
import os
import sys
import threading
import time

import cases
import components
import flamegraph
import machine
import published
import sampling
import study
from cases import Case
from components import COMPONENTS
from contestants import PERF

# Seconds of the recording with stacks, from which the flame graph is drawn: it takes 8 MB each second.
FLAME, FLAME_QUICK = 10, 4
# Seconds without the profiler, beside which its own cost is seen.
BARE = 10
# What no rule knows is named in the report where it is more than this share of a case.
UNKNOWN = 0.01
REGISTRAR = "registrar-digest"
# Of the report, one of each kind: digest, and connections and handshakes on either side.
OF_THE_REPORT = [
    "chain-udp",
    "chain-udp-auth",
    "chain-tcp",
    "chain-tcp-auth",
    "chain-tls",
    "outbound-tls-auth",
    "inbound-tls",
    "inbound-tls-mutual",
    "local-tls-reuse-auth",
    "local-tls-mutual-auth",
]
# To what the thesis' cases are compared, by its names.
OF_THE_THESIS = {
    "udp": "local-udp",
    "tcp_mono": "local-tcp-one-socket",
    "tcp_multi": "local-tcp",
    "tls_local_client": "local-tls",
    "tls_local_client_session_reuse": "local-tls-reuse",
    "tls_local_mutual": "local-tls-mutual",
}
UNIT = "chain-udp"
# Two cases that differ by one of the report's components.
DIFFERENCES = {
    "TCP data": ("chain-tcp", "chain-udp"),
    "TLS bulk": ("chain-tls", "chain-tcp"),
    "digest, UDP": ("chain-udp-auth", "chain-udp"),
    "digest, TCP": ("chain-tcp-auth", "chain-tcp"),
    "digest, TLS": ("chain-tls-auth", "chain-tls"),
}


def known(**how):
    """Every case by its name."""
    found = {OF_THE_THESIS[name]: case for name, case in cases.thesis_configurations(**how).items()}
    found.update({case.name: case for case in cases.report_configurations(**how)})
    found[REGISTRAR] = Case("registrar, digest", "udp", "udp", auth="register")
    return found


class Profile(study.Study):
    def __init__(self, arguments, directory):
        self.known = known(version=arguments.tls_version, key=arguments.key, suite=arguments.suite)
        wanted = arguments.cases or [*OF_THE_THESIS.values(), *OF_THE_REPORT, REGISTRAR]
        unknown = [name for name in wanted if name not in self.known]
        if unknown:
            sys.exit(f"perf/profile: there is no case {', '.join(unknown)}; perf/profile list names them")
        super().__init__(arguments, directory, "Where the CPU goes")
        # By what they are, since a case may stand in both studies.
        self.cases = {name: self.known[name] for name in dict.fromkeys(wanted)}
        self.programs, self.counts, self.unknown, self.stacks, self.statistics = {}, {}, {}, {}, {}
        self.flame = FLAME_QUICK if arguments.quick else FLAME
        self.load_options = ["--rate", f"{arguments.rate:g}"] if arguments.rate else ["--window", cases.WINDOW]

    def run(self):
        names = self.arguments.only
        self.progress = study.Progress(self.rounds * len(self.cases) * len(names))
        for number in range(self.rounds):
            for label, case in self.cases.items():
                for name in names:
                    self.progress.step(f"{name}: {label}")
                    self.attempt(self.measure, label, case, name, number == 0)
        self.tell()
        self.draw()
        self.finish("profile")

    # What is run.

    def measure(self, label, case, name, is_first):
        with self.server(case, name) as (contestant, process):
            program = self.program(case, name)
            self.load_once(label, case, contestant, process, self.warm, min(self.duration, BARE), "bare")
            before = self.read_statistics(name)
            path = os.path.join(self.directory, "perf.data")
            # Its own load had begun to be measured, and goes on being so, while samples are taken: all of them are of the same.
            with Recording(process.pid, 1.5, self.duration - 1, path):
                result = self.load_once(label, case, contestant, process, 1, self.duration, "profiled")
            after = self.read_statistics(name)
            self.take(label, name, program, path, result, before, after)
            if is_first:
                with Recording(process.pid, 1.5, self.flame - 1, path, stacks=True):
                    self.load_once(label, case, contestant, process, 1, self.flame, "flame")
                samples = sampling.read(path)
                program.learn(samples)
                self.stacks[label, name] = sampling.fold(samples, program)
            os.unlink(path)

    def load_once(self, label, case, contestant, process, settle, duration, what):
        mode = "register" if case.auth == "register" else "call"
        result = self.run_load(
            case, contestant, process, *self.load_options, "--settle", settle, "--duration", duration, mode=mode, what=what
        )[0]
        # The label of a case is of the study's; two of the studies' may have one in common.
        result["label"] = label
        return result

    def program(self, case, name):
        """A peer's binary has no debug information, and files of its own for its parts."""
        path = None if name == "kamailio" else self.binary(case)
        if path not in self.programs:
            self.programs[path] = sampling.Program(path)
        return self.programs[path]

    def take(self, label, name, program, path, result, before, after):
        samples = sampling.read(path)
        program.learn(samples)
        counts, unknown = sampling.profile(samples, program)
        if not counts[components.KERNEL]:
            raise RuntimeError(
                f"{label}: no sample is of the kernel; perf may not see it (sysctl kernel.perf_event_paranoid=1, or be root)"
            )
        total = sum(counts.values())
        seconds = self.duration - 1
        result["samples"] = total
        result["components"] = {component: counts[component] / total for component in COMPONENTS}
        # Both say how much of a core the server used; they must agree, or samples were lost.
        result["sampled_busy"] = total / sampling.FREQUENCY / seconds
        result["statistics"] = {key: after[key] - before.get(key, 0) for key in after}
        self.counts.setdefault((label, name), collections.Counter()).update(counts)
        self.unknown.setdefault((label, name), collections.Counter()).update(unknown)
        self.statistics.setdefault((label, name), collections.Counter()).update(
            {**result["statistics"], "completed": result["counts"]["completed"]}
        )

    def read_statistics(self, name):
        """The server's own counters of what the report found at fault."""
        if name == "kamailio":
            return {}
        found = {}
        for prefix in ("strowger_tls", "strowger_idle_sweep"):
            for sample, value in study.counters(self.strowger, self.directory, prefix).items():
                found[sample] = value
        return found

    # What it says.

    def cost(self, label, name, what="profiled"):
        return self.series(label, name, what=what)

    def shares(self, label, name):
        counts = self.counts[label, name]
        total = sum(counts.values())
        return {component: counts[component] / total for component in COMPONENTS}

    def measured(self, name):
        return [label for label in self.cases if (label, name) in self.counts]

    def columns(self, name):
        """The components that a table of this server has: all, but that only a peer may have what has no name."""
        has_unnamed = any(self.counts[label, name][components.UNNAMED] for label in self.measured(name))
        return [one for one in COMPONENTS if one != components.UNNAMED or has_unnamed]

    def tell(self):
        for name in self.arguments.only:
            self.tell_shares(name)
            self.tell_costs(name)
            self.tell_trust(name)
        self.tell_report()
        self.tell_thesis()
        self.tell_faults()

    def tell_shares(self, name):
        lines, columns = [], self.columns(name)
        for label in self.measured(name):
            shares = self.shares(label, name)
            lines.append([label, f"{sum(self.counts[label, name].values()):,}", *(f"{100 * shares[one]:.1f}" for one in columns)])
        self.report.table(f"{name}: share of the CPU by component, %", ["case", "samples", *columns], lines)

    def tell_costs(self, name):
        lines, columns = [], self.columns(name)
        unit = self.cost(UNIT, name) if UNIT in self.cases else None
        for label in self.measured(name):
            shares, cost = self.shares(label, name), self.cost(label, name)
            relative = f"{cost.median / unit.median:.2f}" if unit and label != REGISTRAR else "—"
            lines.append([label, cost.text(), relative, *(f"{cost.median * shares[one]:.1f}" for one in columns)])
        self.report.table(
            f"{name}: CPU for each call (registration) by component, µs", ["case", "all", f"÷ {UNIT}", *columns], lines
        )

    def tell_trust(self, name):
        lines = []
        for label in self.measured(name):
            bare, cost = self.cost(label, name, "bare"), self.cost(label, name)
            results = [
                result
                for result in self.results
                if (result["label"], result["contestant"], result["what"]) == (label, name, "profiled")
            ]
            sampled = sum(result["sampled_busy"] for result in results) / len(results)
            busy = sum(result["server_busy"] for result in results) / len(results)
            total = sum(self.counts[label, name].values())
            unknown = [
                f"{symbol} {100 * count / total:.1f} %"
                for symbol, count in self.unknown[label, name].most_common()
                if count > UNKNOWN * total
            ]
            stacks, cut = self.stacks.get((label, name), ({}, 0))
            lines.append(
                [
                    label,
                    self.series(label, name, lambda result: result["completed_per_second"], what="profiled").text(0),
                    bare.text(),
                    f"{100 * (cost.median / bare.median - 1):+.0f} %" if bare else "—",
                    f"{100 * busy:.0f} · {100 * sampled:.0f}",
                    f"{100 * cut / max(sum(stacks.values()), 1):.1f} %",
                    ", ".join(unknown) or "none",
                ]
            )
        self.report.table(
            f"{name}: how far to trust it",
            [
                "case",
                "each s",
                "µs without the profiler",
                "with it",
                "core busy, %: scheduler · samples",
                "stacks cut off",
                f"no rule knows, more than {100 * UNKNOWN:.0f} %",
            ],
            lines,
        )

    def tell_report(self):
        """Beside the report's cycles for a call."""
        if UNIT not in self.cases:
            return
        lines = []
        for label in self.cases:
            if label not in published.CYCLES:
                continue
            cells = [label, f"{published.CYCLES[label] / published.CYCLES[UNIT]:.1f}"]
            for name in self.arguments.only:
                cost, unit = self.cost(label, name), self.cost(UNIT, name)
                cells.append(f"{cost.median / unit.median:.1f}" if cost and unit else "—")
            lines.append(cells)
        self.report.table(
            "The report: CPU for a call at 50 calls/s, ÷ the same over UDP in chain mode, beside ours",
            ["case", "report", *self.arguments.only],
            lines,
        )
        lines = []
        for component, value in published.COMPONENTS.items():
            cells = [component, f"{value:g}"]
            for name in self.arguments.only:
                more, less = DIFFERENCES.get(component, (None, None))
                cost, without, unit = (self.cost(label, name) for label in (more, less, UNIT))
                cells.append(f"{(cost.median - without.median) / unit.median:.2f}" if cost and without and unit else "—")
            lines.append(cells)
        self.report.table(
            "The report's components of a call, in calls over UDP in chain mode, beside the difference of the two cases here that "
            "differ by each (it printed its profiles as figures only; perf/model takes handshakes apart)",
            ["component", "report", *self.arguments.only],
            lines,
        )

    def thesis(self):
        """(label, its name in the thesis) of those measured."""
        return [(label, theirs) for theirs, label in OF_THE_THESIS.items() if (label, self.arguments.only[0]) in self.counts]

    def tell_thesis(self):
        rows = published.profile_at_90()
        lines = []
        for label, theirs in self.thesis():
            total = sum(row[theirs] for row in rows)
            shares = {row["component"]: row[theirs] / total for row in rows}
            lines.append(["thesis", label, *self.as_thesis(shares, components.THESIS)])
            for name in self.arguments.only:
                if (label, name) in self.counts:
                    lines.append([name, label, *self.as_thesis(self.shares(label, name), components.OURS_AS_THESIS)])
        self.report.table(
            "Beside the thesis' profile at 90 calls/s (its table 15), share of the CPU, %; its transaction module is in its "
            "server, "
            "and what it does not name is in its kernel",
            ["", "case", *components.THESIS_COMPONENTS],
            lines,
        )
        if not self.thesis():
            return
        wanted = {theirs for _, theirs in self.thesis()}
        cells = {}
        for row in published.profile_shares():
            if row["case"] in wanted:
                cells.setdefault((row["case"], int(row["cps"])), {})[row["component"]] = row["share_percent"]
        names = ["server", "transaction_module", "libcrypto", "libssl", "libc"]
        lines = [
            [
                OF_THE_THESIS[case],
                cps,
                *(f"{found[one]:.1f}" if one in found else "—" for one in names),
                f"{100 - sum(found.values()):.1f}",
            ]
            for (case, cps), found in cells.items()
        ]
        self.report.table(
            "The thesis' profiles at other rates (its tables 3 to 14), share of the CPU, %",
            ["case", "calls/s", *names, "the rest"],
            lines,
        )

    @staticmethod
    def as_thesis(shares, mapping):
        found = components.as_thesis(shares, mapping)
        return [f"{100 * found[one]:.1f}" for one in components.THESIS_COMPONENTS]

    def tell_faults(self):
        """Evidence that the faults that show in a profile are absent."""
        lines = []
        for label in self.measured("strowger"):
            found, (stacks, _) = self.statistics[label, "strowger"], self.stacks.get((label, "strowger"), ({}, 0))
            calls = max(found["completed"], 1)
            lines.append(
                [
                    label,
                    f"{100 * sampling.inclusive(stacks, SWEEP):.2f} %",
                    f"{found['strowger_idle_sweep_visited_total'] / calls:.4f}",
                    f"{100 * sampling.inclusive(stacks, '^SSL_do_handshake$'):.1f} %",
                    *(handshakes(found, side) for side in ("server", "client")),
                    f"{100 * self.shares(label, 'strowger')[components.DATABASE]:.2f} %",
                    f"{100 * sampling.inclusive(stacks, USERS):.2f} %",
                ]
            )
        self.report.table(
            "The report's faults, in strowger: 1, the sweep for idle connections (50 % of the CPU of TCP, 20 % of TLS); 2, "
            "handshakes "
            "tried again on the wrong event (up to 44 calls for one); 4, a database asked for each authentication (two thirds of "
            "its cost)",
            [
                "case",
                "1: sweep, with what it calls",
                "connections looked at for each call",
                "2: SSL_do_handshake, with what it calls",
                "calls for each handshake as server",
                "as client",
                "4: database",
                "lookup of the user, in memory",
            ],
            lines,
        )

    # What it draws.

    def draw(self):
        # Plots are a package of their own, which the pure parts and their tests do without.
        import profile_figures

        directory = self.report.directory(PERF)
        for name in self.arguments.only:
            labels = self.measured(name)
            if not labels:
                continue
            bars = [(label, self.cost(label, name).median, self.shares(label, name)) for label in labels]
            unit = self.cost(UNIT, name).median if (UNIT, name) in self.counts else None
            suffix = "" if name == "strowger" else f"-{name}"
            profile_figures.costs(bars, unit, name, directory, f"profile-costs{suffix}")
            self.report.figure(f"profile-costs{suffix}", f"{name}: CPU for each call (registration) by component, and shares")
        self.draw_thesis(profile_figures, directory)
        for (label, name), (stacks, _) in self.stacks.items():
            suffix = "" if name == "strowger" else f"-{name}"
            path = f"flame-{label}{suffix}"
            total = sum(stacks.values())
            text = flamegraph.svg(
                stacks,
                f"{name}: {label}",
                f"{total:,} samples of the CPU, one each millisecond; {machine.describe()}",
                profile_figures.COLOURS,
            )
            with open(os.path.join(directory, path + ".svg"), "w") as file:
                file.write(text)
            with open(os.path.join(directory, path + ".folded"), "w") as file:
                file.write(sampling.folded(stacks))
            self.report.figure(path, f"{name}: {label}, flame graph; stacks in {path}.folded")

    def draw_thesis(self, figures, directory):
        rows, pairs = published.profile_at_90(), []
        for label, theirs in self.thesis():
            total = sum(row[theirs] for row in rows)
            pairs.append(
                (label, {row["component"]: row[theirs] / total for row in rows}, self.shares(label, self.arguments.only[0]))
            )
        if pairs:
            figures.beside_thesis(pairs, self.arguments.only[0], directory, "profile-thesis")
            self.report.figure(
                "profile-thesis", f"Share of the CPU by component: the thesis at 90 calls/s, and {self.arguments.only[0]}"
            )


SWEEP = r"^strowger::net::(streams|wires)::\w+::sweep$"
USERS = r"^strowger::stack::auth::users::Users::find$"


def handshakes(found, side):
    """Calls of SSL_do_handshake for each handshake, by the server's counters."""
    calls = sum(
        value for name, value in found.items() if name.startswith("strowger_tls_handshake_calls_total") and f'side="{side}"' in name
    )
    # A mutual one is a full or a resumed one too.
    number = sum(
        value
        for name, value in found.items()
        if name.startswith("strowger_tls_handshakes_total")
        and f'side="{side}"' in name
        and ('kind="full"' in name or 'kind="resumed"' in name)
    )
    return f"{calls / number:.2f}" if number else "—"


class Recording:
    """Takes samples for `seconds`, beginning `after` from now, while the block runs."""

    def __init__(self, pid, after, seconds, path, stacks=False):
        self.what = (pid, max(seconds, 1), path, stacks)
        self.after, self.why = after, None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        time.sleep(self.after)
        try:
            sampling.record(*self.what)
        except RuntimeError as why:
            self.why = why

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *how):
        self.thread.join()
        if self.why and not how[0]:
            raise self.why


def main():
    parser = study.options("perf/profile", __doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="cases by name, or list; without any, the thesis' six, ten of the report's and the registrar",
    )
    parser.add_argument("--rate", type=float, help="calls each second, open loop [as many as it takes: 48 outstanding]")
    parser.add_argument("--tls-version", choices=["1.2", "1.3"], default="1.2", help="[1.2]")
    parser.add_argument("--key", choices=["rsa", "ec"], default="rsa", help="RSA-2048 or P-256 [rsa]")
    parser.add_argument(
        "--suite", choices=["study", "today"], default="study", help="AES128-SHA, or ECDHE with AES-128-GCM [study]"
    )
    if "list" in sys.argv[1:]:
        for name, case in known().items():
            print(f"{name:32} {case.label}")
        return
    study.run(parser, Profile)


if __name__ == "__main__":
    main()

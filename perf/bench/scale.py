"""perf/scale: what a call costs beside more and more idle connections, bindings and users, with one worker and two, and how many
bytes each thing takes."""

import argparse
import json
import os
import subprocess

import contestants
import digest
import memory as connections_memory
import study
import targets
import udp
from cases import WINDOW, Case
from compare import memory
from contestants import PERF
from report import Report, Series
from streams import IDLE_MOST, open_idle
from study import Progress, Study

PARTS = ["idle", "table", "bindings", "users", "workers", "bytes"]
# A process has 20,000 descriptors on many machines.
IDLE = [0, 2_000, 10_000, 19_000]
RATE = 1_000
NUMBERS = [100, 10_000, 100_000, 1_000_000]
# The load is the same in both: what lies idle beside it differs.
CASES = {
    "tcp": Case("idle TCP connections", "tcp", "tcp", routed=True, version="1.3"),
    "tls": Case("idle TLS 1.3 connections", "tcp", "tcp", routed=True, version="1.3"),
}
for each in CASES.values():
    each.connections = IDLE_MOST
# Row I1, the table alone: a step among the most ÷ (the step among the fewest and as many cache misses as it has lines to fetch);
# the sweep ÷ itself.
FLAT, SWEEP_FLAT = 2.0, 1.03
# Bindings by whose coming the memory of one is measured, in both servers. Their numbers have as many digits, so that the first are
# among the others.
BINDINGS = [110_000, 310_000]
PEERS = {"strowger": "strowger", "kamailio": "Kamailio"}
# Every binding is there a few times over while it is measured.
AUTHS = {"none": ("udp.toml", []), "new": ("udp-auth.toml", ["--auth", "new"])}
STEP_NAMES = {
    "find": "found by its token",
    "address": "found by its address",
    "renew": "renewed: to the young end of the idle",
    "sweep": "one sweep in which none is overdue",
    "turnover": "closed, and another opened",
}


def cpu(result):
    return result["server_cpu_us_each"]


def sweeps(table):
    """A sweep among the most ÷ among the fewest, and both, ns. It is the same few instructions, which wait for nothing: whatever
    else ran can only have added to them, so the least of the rounds counts."""
    least = [row["steps"]["sweep"]["least_ns"] for row in (table[0], table[-1])]
    return least[1] / least[0], least


def worst_step(table):
    """The step that is dearest among the most, measured by what it costs among the fewest and the cache misses that it cannot
    avoid: how many times that, its name, what it costs and that bound, ns."""
    few, many = table[0], table[-1]
    found = []
    for step, cost in many["steps"].items():
        if step != "sweep":
            bound = few["steps"][step]["ns"] + cost["lines"] * many["miss_ns"]
            found.append((cost["ns"] / bound, step, cost["ns"], bound))
    return max(found)


class Scale(Study):
    def __init__(self, arguments, directory):
        super().__init__(arguments, directory, "How costs scale")
        self.parts = arguments.parts or PARTS
        quick = arguments.quick
        # There are many points, and what is measured here settles in seconds: as many as a transaction is remembered (5), for then
        # as many are forgotten as begin, and none of the load before.
        self.short = min(self.duration, 3 if quick else 10)
        self.settle = 6 if quick else 8
        self.warming = ["--warm-window", 48, "--warm", 3 if quick else 8, "--rest", 2 if quick else 6]
        self.numbers = NUMBERS[::3] if quick else NUMBERS
        self.idle = [0, IDLE[-1]] if quick else IDLE
        self.report = Report(
            self.report.title,
            self.report.machine,
            f"{self.rounds} round(s), {self.short:g} s for each measurement after {self.settle} s of the same load",
        )
        self.table, self.lookups, self.bytes = None, None, []
        once = {"table": 1, "users": 1, "bytes": 8}
        self.progress = Progress(self.rounds * self.steps_of_a_round() + sum(once.get(part, 0) for part in self.parts))

    def steps_of_a_round(self):
        each = {
            "idle": len(CASES) * len(self.arguments.only) * len(self.idle),
            "bindings": len(self.numbers),
            "users": len(self.numbers),
            "workers": 2,
        }
        return sum(each.get(part, 0) for part in self.parts)

    def run(self):
        for number in range(self.rounds):
            if "idle" in self.parts:
                for key in CASES:
                    for name in self.arguments.only:
                        self.attempt(self.run_idle, key, name)
            if "bindings" in self.parts or "users" in self.parts:
                for number in self.numbers:
                    for kind in AUTHS:
                        if ("users" if kind == "new" else "bindings") in self.parts:
                            self.attempt(self.run_users, number, kind)
            if "workers" in self.parts:
                self.attempt(self.run_workers)
        if "table" in self.parts:
            self.table = self.attempt(self.micro, "connections")
        if "users" in self.parts:
            self.lookups = self.attempt(self.micro, "users")
        if "bytes" in self.parts:
            for what in [self.run_connection_bytes, self.run_binding_bytes, self.run_footprint, self.run_linger]:
                self.attempt(what)
        self.tell()
        self.finish(Report.name("scale", self.parts, PARTS))

    # What is run.

    def run_idle(self, key, name):
        """The same calls beside more and more idle connections, in one server."""
        case = CASES[key]
        opened, idle = 0, []
        with self.server(case, name) as (contestant, process):
            try:
                for number in self.idle:
                    self.progress.step(f"{name}: {number:,} {case.label}")
                    if number > opened:
                        options = case.tls_options() if key == "tls" else []
                        idle.append(open_idle(self.load, self.directory, process, number - opened, len(idle), key, options))
                        opened = number
                    before = memory(process.pid)["Pss"]
                    for result in self.run_load(
                        case,
                        contestant,
                        process,
                        "--rate",
                        RATE,
                        "--window",
                        WINDOW,
                        "--settle",
                        self.settle,
                        "--duration",
                        self.short,
                        what="idle",
                        key=key,
                        number=number,
                    ):
                        result["memory"] = before
            finally:
                for child in idle:
                    child.kill()
                    child.wait()

    def start(self, contestant, *runs):
        """A server by its conf, with these runs of (fields, mode, options)."""
        process = contestant.start(self.directory)
        try:
            for fields, mode, options in runs:
                for result in self.generator.run(mode, contestant, process, *options):
                    result.update(fields, memory=memory(process.pid)["Pss"])
                    # As many challenges as were meant, or it does not count.
                    result["complaint"] = digest.complaint(result) if "kind" in fields else None
                    if result["complaint"]:
                        result["clean"] = False
                    self.results.append(result)
                    self.report.raw.append(result)
        finally:
            process.stop()

    def run_users(self, number, kind):
        """As many users are registered, with the contacts at which they are then called; they refresh in turn, and are called in
        turn."""
        conf, auth = AUTHS[kind]
        self.progress.step(f"strowger: {number:,} users, {'each request challenged' if auth else 'no challenge'}")
        if auth:
            digest.write_users(self.load, self.directory, number)
        load = ["--users", number, "--window", WINDOW, "--settle", self.settle, "--duration", self.short]
        self.start(
            contestants.strowger(self.strowger, conf),
            (
                {"what": "register", "number": number, "kind": kind, "label": f"REGISTER, {kind}"},
                "register",
                [*auth, *load, "--register-first", *self.warming],
            ),
            ({"what": "call", "number": number, "kind": kind, "label": f"call, {kind}"}, "call", [*auth, *load]),
        )

    def run_workers(self):
        """Core 1 is the generator's and the second worker's: it sleeps when idle, in both cases."""
        load = [
            "--register-first",
            "--sockets",
            udp.K1_SOCKETS,
            "--wait",
            "sleep",
            *self.warming,
            "--rate",
            f"{RATE},{udp.K1_RATE}",
            "--window",
            2 * WINDOW,
            "--settle",
            self.settle,
            "--duration",
            self.short,
        ]
        for workers, conf in [(1, "udp.toml"), (2, "udp-two-cores.toml")]:
            self.progress.step(f"strowger: {workers} worker(s)")
            self.start(
                contestants.strowger(self.strowger, conf, cores=workers),
                ({"what": "workers", "number": workers, "label": f"{workers} workers"}, "call", load),
            )

    def micro(self, name):
        """perf/connections and perf/users: what is measured without a socket."""
        self.progress.step(f"perf/{name}")
        most = ["--most", "1000000"] if name == "users" and self.arguments.quick else []
        done = subprocess.run([os.path.join(PERF, name), "--json", *most], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"perf/{name}:\n{done.stderr}")
        rows = json.loads(done.stdout)["rows"]
        self.report.raw.append({"label": f"perf/{name}", "rows": rows})
        return rows

    def bench(self, kind, **more):
        """Another command's measurements, for ours."""
        given = {
            **vars(self.arguments),
            "strowger": self.strowger,
            "load": self.load,
            "no_build": True,
            "only": list(PEERS),
            "rounds": None,
            "duration": None,
            **more,
        }
        return kind(argparse.Namespace(**given), self.directory)

    def run_connection_bytes(self):
        bench = self.bench(
            connections_memory.Bench, connections=connections_memory.CONNECTIONS, rows=list(connections_memory.KINDS)
        )
        for row, (_, _, case) in connections_memory.KINDS.items():
            for name in PEERS:
                self.progress.step(f"{name}: memory of an {case.label} connection")
                bench.measure(row, name)
            self.bytes.append((f"{case.label} connection", {name: bench.series(row, name).median for name in PEERS}))
        self.report.raw += bench.results

    def run_binding_bytes(self):
        """Growth of both servers' memory with 200,000 registrations that come."""
        found = {}
        for name, contestant in [
            ("strowger", contestants.strowger(self.strowger)),
            ("kamailio", contestants.kamailio(self.directory)),
        ]:
            self.progress.step(f"{name}: memory of a binding")
            process = contestant.start(self.directory)
            try:
                sizes = []
                for number in BINDINGS:
                    # Registered first, and then a moment of refreshing a few.
                    options = ["--users", number, "--register-first", "--rate", 100, "--settle", 0, "--duration", 1]
                    result = self.generator.run("register", contestant, process, *options)[0]
                    sizes.append(memory(process.pid)["Pss"])
                    result.update(what="binding", number=number, label="memory of bindings", memory=sizes[-1])
                    self.report.raw.append(result)
                found[name] = (sizes[1] - sizes[0]) / (BINDINGS[1] - BINDINGS[0])
            finally:
                process.stop()
        self.bytes.append((f"binding, growth of the process to {BINDINGS[1]:,}", found))

    def run_footprint(self):
        self.progress.step("memory of a binding, by the allocator's account")
        size = targets.footprint(self.report)
        if size is None:
            raise RuntimeError("the footprint test failed")
        self.bytes.append(("binding, allocator's account, at most", {"strowger": size}))

    def run_linger(self):
        self.progress.step("strowger: memory of a completed transaction")
        bench = self.bench(udp.Bench, rows=["M4"], only=["strowger"])
        bench.run_linger()
        bench.tell_linger()
        self.report.rows += bench.report.rows
        self.report.raw += bench.results
        steps, before = bench.find("linger", "strowger-long-linger"), bench.find("linger start", "strowger-long-linger")
        calls = sum(step["counts"]["completed"] for step in steps)
        if calls:
            grown = steps[-1]["server_resident_bytes"][1] - before[-1]["server_resident_bytes"][1]
            self.bytes.append(("completed transaction", {"strowger": grown / (2 * calls)}))

    def of(self, what, value=cpu, load=None, name=None, **fields):
        """`load`: "window", or a rate."""

        def is_at(result):
            if load is None:
                return True
            is_window = result["load"] == "window"
            return is_window if load == "window" else not is_window and result["rate_or_window"] == load

        found = [
            result
            for result in self.results
            if result.get("what") == what
            and all(result.get(key) == wanted for key, wanted in fields.items())
            and name in (None, result["contestant"])
            and is_at(result)
        ]
        return Series(found, value)

    # What it says.

    def tell(self):
        for what in [self.tell_idle, self.tell_table, self.tell_users, self.tell_lookups, self.tell_workers, self.tell_bytes]:
            what()

    def draw(self, name, title, how):
        # Loaded late: what is measured does not need it, nor do the tests.
        import plots

        chart, axes = plots.figure()
        how(axes, plots)
        plots.save(chart, Report.directory(PERF), name)
        self.report.figure(name, title)

    def idle_series(self, key, name, load):
        return [(number, found) for number in self.idle if (found := self.of("idle", load=load, key=key, name=name, number=number))]

    def tell_idle(self):
        curves = []
        for load, at in [("window", "at saturation"), (float(RATE), f"at {RATE:,}/s")]:
            lines = []
            for key, case in CASES.items():
                for name in self.arguments.only:
                    found = self.idle_series(key, name, load)
                    if not found:
                        continue
                    first = found[0][1]
                    lines += [
                        [
                            case.label,
                            PEERS[name],
                            f"{number:,}",
                            each.text(),
                            f"{each.median / first.median:.3f}",
                            self.of("idle", lambda result: 100 * result["generator_busy"], load, name, key=key, number=number).text(
                                0
                            ),
                        ]
                        for number, each in found
                    ]
                    who = "" if name == "strowger" else "Kamailio, "
                    curves.append((f"{who}{case.label}, {at}", [(number / 1000, each.median) for number, each in found], name))
                    if name == "strowger" and load == RATE and found[-1][0] == IDLE[-1]:
                        most, beside = found[-1]
                        ratio = beside.median / first.median
                        self.report.row(
                            "I1",
                            f"call {at} beside {most:,} {case.label} ÷ beside none",
                            "≤ 1.03",
                            f"{ratio:.3f} ({beside.median:.1f} ÷ {first.median:.1f} µs)",
                            ratio <= 1.03 if beside.is_sound and first.is_sound else None,
                            "".join(sorted(set(beside.marks + first.marks))),
                        )
            self.report.table(
                f"Server CPU, µs for each TCP call {at}, beside idle connections",
                ["beside", "server", "how many", "CPU of a call", "÷ none", "generator's core, % busy"],
                lines,
            )
        if curves:

            def how(axes, plots):
                for number, (label, points, name) in enumerate(curves):
                    (plots.ours if name == "strowger" else plots.theirs)(axes, number, points, label)
                axes.set_ylim(0, 1.15 * max(y for _, points, _ in curves for _, y in points))
                plots.label(axes, "Idle connections, thousands", "Server CPU for each call, µs")
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)

            self.draw("scale-idle", "Server CPU for each TCP call beside idle connections in the same server", how)

    def tell_table(self):
        if not self.table:
            return
        few, many = self.table[0], self.table[-1]
        lines = []
        for step, words in STEP_NAMES.items():
            lines.append([words, *(f"{row['steps'][step]['ns']:.1f}" for row in self.table)])
        lines.append(["one cache miss in as much memory", *(f"{row['miss_ns']:.1f}" for row in self.table)])
        lines.append(["bytes each, with both indices", *(f"{row['bytes_each']:.0f}" for row in self.table)])
        self.report.table(
            "The table of connections without sockets, ns (perf/connections)",
            ["", *(f"{row['connections']:,}" for row in self.table)],
            lines,
        )
        sweep, swept = sweeps(self.table)
        self.report.row(
            "I1",
            f"sweep of the table alone among {many['connections']:,} connections ÷ among {few['connections']:,}",
            f"≤ {SWEEP_FLAT}",
            f"{sweep:.3f} ({swept[1]:.2f} ÷ {swept[0]:.2f} ns)",
            sweep <= SWEEP_FLAT,
            "without sockets; the least of the rounds",
        )
        ratio, step, cost, bound = worst_step(self.table)
        misses = f"{many['steps'][step]['lines']} misses of {many['miss_ns']:.0f} ns"
        what = f"worst step in the table alone among {many['connections']:,} ÷ (among {few['connections']:,}, and its cache misses)"
        self.report.row(
            "I1",
            what,
            f"≤ {FLAT:g}",
            f"{ratio:.2f} ({cost:.0f} ÷ {bound:.0f} ns)",
            ratio <= FLAT,
            f"{STEP_NAMES[step]}; {misses}; without sockets",
        )

        def how(axes, plots):
            for number, (step, words) in enumerate(STEP_NAMES.items()):
                plots.ours(axes, number, [(row["connections"], row["steps"][step]["ns"]) for row in self.table], words)
            axes.plot(
                [row["connections"] for row in self.table],
                [row["miss_ns"] for row in self.table],
                color=plots.GREY,
                linestyle=":",
                label="one cache miss",
            )
            axes.set_xscale("log")
            axes.set_yscale("log")
            thousands(axes, "x", "y")
            plots.label(axes, "Connections in the table", "Time, ns")
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)

        self.draw("scale-table", "Steps in the table of connections, without sockets", how)

    def tell_users(self):
        kinds = {"none": "no challenge", "new": "a challenge each"}
        curves, lines = [], []
        for what, title in [("register", "REGISTER"), ("call", "call")]:
            for kind, words in kinds.items():
                found = [(number, each) for number in self.numbers if (each := self.of(what, number=number, kind=kind))]
                if not found:
                    continue
                curves.append((f"{title}, {words}", [(number, each.median) for number, each in found]))
                for number, each in found:
                    lines.append(
                        [
                            title,
                            words,
                            f"{number:,}",
                            each.text(),
                            f"{each.median / found[0][1].median:.2f}",
                            self.of(what, lambda result: result["completed_per_second"], number=number, kind=kind).text(0),
                            self.of(what, lambda result: result["memory"] / 1e6, number=number, kind=kind).text(0),
                            self.of(what, lambda result: 100 * result["generator_busy"], number=number, kind=kind).text(0),
                        ]
                    )
        self.report.table(
            "REGISTER and calls of all users in turn, at saturation over UDP",
            [
                "",
                "",
                "users and bindings",
                "server CPU, µs",
                "÷ the fewest",
                "each s",
                "server's memory, MB",
                "generator's core, % busy",
            ],
            lines,
        )
        if curves:

            def how(axes, plots):
                for number, (label, points) in enumerate(curves):
                    plots.ours(axes, number, points, label)
                axes.set_xscale("log")
                thousands(axes, "x")
                axes.set_ylim(0, 1.15 * max(y for _, points in curves for _, y in points))
                plots.label(axes, "Users, each with one binding", "Server CPU, µs")
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

            self.draw("scale-users", "Server CPU for each registration and call against users and bindings", how)

    def tell_lookups(self):
        if not self.lookups:
            return
        keys = ("lookup_ns", "miss_ns", "check_ns", "bytes_each")
        self.report.table(
            "A user's lookup in memory, ns (perf/users)",
            ["users", "one lookup", "one cache miss in a table of that size", "lookup and check of a digest", "bytes each"],
            [[f"{row['users']:,}", *(f"{row[key]:.0f}" for key in keys)] for row in self.lookups],
        )

    def tell_workers(self):
        lines = []
        for load, title in [(float(RATE), f"{RATE:,}/s"), (float(udp.K1_RATE), f"{udp.K1_RATE:,}/s"), ("window", "saturation")]:
            one, two = (self.of("workers", load=load, number=number) for number in (1, 2))
            if one and two:
                speeds = [
                    self.of("workers", lambda result: result["completed_per_second"], load, number=number).text(0)
                    for number in (1, 2)
                ]
                lines.append([title, one.text(), two.text(), f"{two.median / one.median:.3f}", *speeds])
        self.report.table(
            "Server CPU, µs for each UDP call, all workers together; the second worker shares its core with the generator",
            ["load", "one worker", "two workers", "÷", "one, calls/s", "two, calls/s"],
            lines,
        )

    def tell_bytes(self):
        if not self.bytes:
            return
        self.report.table(
            "Bytes for each",
            ["", "strowger", "Kamailio"],
            [[what, *(f"{sizes[name]:,.0f}" if name in sizes else "—" for name in PEERS)] for what, sizes in self.bytes],
        )

        def how(axes, plots):
            names = [what.replace(", ", ",\n", 1) for what, _ in self.bytes]
            height = 0.4
            for number, name in enumerate(PEERS):
                rows = [
                    (place + (number - 0.5) * height, sizes[name]) for place, (_, sizes) in enumerate(self.bytes) if name in sizes
                ]
                if not rows:
                    continue
                axes.barh(
                    [y for y, _ in rows], [size for _, size in rows], 0.92 * height, color=plots.COLOURS[number], label=PEERS[name]
                )
                for y, size in rows:
                    axes.annotate(f" {size:,.0f}", (size, y), va="center", fontsize=9)
            axes.set_xscale("log")
            thousands(axes, "x")
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_xlim(100, 3 * max(size for _, sizes in self.bytes for size in sizes.values()))
            plots.label(axes, "Bytes for each", None)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

        self.draw("scale-bytes", "Memory of the server for each connection, binding and transaction", how)


def thousands(axes, *names):
    """A logarithmic axis in plain numbers."""
    for name in names:
        getattr(axes, f"{name}axis").set_major_formatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value:,.0f}")


def main():
    parser = study.options("perf/scale", __doc__)
    parser.add_argument("--parts", type=study.words(PARTS), help=f"some of {','.join(PARTS)}")
    study.run(parser, Scale)


if __name__ == "__main__":
    main()

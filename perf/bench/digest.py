"""Rows R2, A1, A2 and A3 of perf/udp: what it costs to ask who somebody is, and to keep what was registered."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

import contestants
from contestants import PERF

ROWS = ["R2", "A1", "A2", "A3"]
REALM = "bench"
USERS = 10_000
# Row A2, through the server.
FEW, MANY = 100, 1_000_000
# Row A3: so many registrations outstanding that one commit serves thousands. They fit the receive buffer that strowger asks for, if
# the kernel grants it (net.core.rmem_max).
GROUP = 4_096
# Cache lines that a lookup touches.
MISSES = 3
# Seconds in which each of the users has called or registered once, and has a nonce to keep.
KEPT_SETTLE = 5
KINDS = ["none", "new", "kept"]


def write_users(generator, directory, number):
    """What `conf/udp-auth.toml` reads: the users of the generator, with the hashes that it will prove."""
    with open(os.path.join(directory, "users.txt"), "w") as text:
        subprocess.run([generator, "users", "--users", str(number), "--realm", REALM], stdout=text, check=True)


def rate(result):
    return result["completed_per_second"]


class Digest:
    """Measures for a `Bench` of perf/udp, and adds to its report."""

    def __init__(self, bench):
        self.bench = bench
        self.lookups = []

    def run(self):
        bench = self.bench
        if bench.wants("R2", "A1"):
            self.run_challenges()
            self.tell_challenges()
        if bench.has("strowger") and bench.wants("A2"):
            self.run_lookups()
            self.run_many_users()
            self.tell_users()
        if bench.has("strowger") and bench.wants("A3"):
            self.run_durable()
            self.tell_durable()

    # What is run.

    def measure(self, contestant, *runs):
        """As the bench does. A result counts only if as many requests were challenged as was meant."""
        before = len(self.bench.results)
        self.bench.measure(contestant, *runs)
        for result in self.bench.results[before:]:
            why = complaint(result)
            if why:
                result["clean"], result["complaint"] = False, why
                self.bench.say(f"    {result['label']}: {why}")

    def run_challenges(self):
        """Both servers, without and with challenges, in turn."""
        bench = self.bench
        write_users(bench.relay, bench.directory, USERS)
        load = ["--window", bench.window, "--duration", bench.duration]
        modes = [mode for row, mode in [("A1", "call"), ("R2", "register")] if bench.wants(row)]
        for number in range(bench.rounds):
            bench.say(f"digest, round {number + 1} of {bench.rounds}")
            for contestant, kinds in self.contestants():
                runs = []
                for mode in modes:
                    for kind in kinds:
                        auth = [] if kind == "none" else ["--auth", kind]
                        if kind == "kept":
                            auth += ["--settle", KEPT_SETTLE]
                        first = ["--register-first"] if mode == "call" else []
                        # Once: the server is then as warm as it will be.
                        warm = [] if runs else bench.warm
                        runs.append((f"{mode}, {kind}", mode, [*auth, *first, *warm, *load]))
                self.measure(contestant, *runs)

    def contestants(self):
        bench = self.bench
        if bench.has("strowger"):
            yield contestants.strowger(bench.strowger), ["none"]
            yield contestants.strowger(bench.strowger, "udp-auth.toml"), ["new", "kept"]
        if bench.has("kamailio"):
            yield contestants.kamailio(bench.directory), ["none"]
            peer = contestants.kamailio(bench.directory, ["AUTH_REG", "AUTH_INVITE"])
            peer.name = "kamailio-auth"
            yield peer, ["new", "kept"]

    def run_lookups(self):
        """The lookup alone, in memory."""
        options = ["--most", "1000000"] if self.bench.arguments.quick else []
        done = subprocess.run([os.path.join(PERF, "users"), "--json", *options], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"perf/users:\n{done.stderr}")
        self.lookups = json.loads(done.stdout)["rows"]
        self.bench.report.raw.append({"label": "lookups", "rows": self.lookups})

    def run_many_users(self):
        bench = self.bench
        for _ in range(bench.rounds):
            for number in [FEW, MANY]:
                write_users(bench.relay, bench.directory, number)
                for contestant, auth in [
                    (contestants.strowger(bench.strowger), []),
                    (contestants.strowger(bench.strowger, "udp-auth.toml"), ["--auth", "new"]),
                ]:
                    kind = "new" if auth else "none"
                    options = [
                        *auth,
                        "--users",
                        number,
                        "--register-first",
                        *bench.warm,
                        "--window",
                        bench.window,
                        "--duration",
                        bench.duration,
                    ]
                    self.measure(contestant, (f"{number} users, {kind}", "register", options))

    def run_durable(self):
        """Beside the results, since a temporary directory may be in memory. The worker is on core 0; what writes to disk may share
        core 1 with the generator, which then sleeps when it is idle."""
        bench = self.bench
        load = ["--users", 2 * USERS, "--window", GROUP, "--wait", "sleep", "--duration", bench.duration]
        os.makedirs(os.path.join(PERF, "results"), exist_ok=True)
        directory = tempfile.mkdtemp(prefix="durable-", dir=os.path.join(PERF, "results"))
        own = bench.directory
        try:
            bench.directory = directory
            self.sync_us = sync_us(directory)
            for _ in range(bench.rounds):
                for durability in ["batched", "acknowledged"]:
                    contestant = contestants.strowger(bench.strowger, f"udp-{durability}.toml", cores=2)
                    bench.measure(contestant, (durability, "register", [*bench.warm, *load]))
                    for name in os.listdir(directory):
                        if name.startswith("bindings.db"):
                            os.unlink(os.path.join(directory, name))
        finally:
            bench.directory = own
            for name in os.listdir(directory):
                if name.endswith(".log"):
                    shutil.copy(os.path.join(directory, name), own)
            shutil.rmtree(directory)

    # What it says.

    def series(self, label, name, value=None):
        value = value or (lambda result: result["server_cpu_us_each"])
        return self.bench.series(label, name, None, value)

    def of_kind(self, mode, kind, name, value=None):
        return self.series(f"{mode}, {kind}", name if kind == "none" else f"{name}-auth", value)

    def tell_challenges(self):
        bench, lines = self.bench, []
        for mode, title in [("register", "REGISTER"), ("call", "call")]:
            for kind in KINDS:
                cells = []
                for name in ["strowger", "kamailio"]:
                    each, none = self.of_kind(mode, kind, name), self.of_kind(mode, "none", name)
                    ratio = f"{each.median / none.median:.2f}" if each and none else "—"
                    cells += [each.text(), ratio, self.of_kind(mode, kind, name, rate).text(0)]
                own = self.of_kind(mode, kind, "strowger", lambda result: result["generator_us_each"])
                if any(cell != "—" for cell in cells):
                    lines.append([title, kind, *cells, own.text()])
        bench.report.table(
            "Digest (MD5, qop=auth) at saturation: server CPU, µs for each call or registration. *new*: each request is "
            "challenged; "
            "*kept*: a nonce is used again and again",
            ["", "challenge", "strowger", "÷ none", "each s", "Kamailio", "÷ none", "each s", "generator's µs against strowger"],
            lines,
        )
        for row, mode, kind, title, target in [
            ("R2", "register", "new", "REGISTER, new challenge each time ÷ none", 2.1),
            ("R2", "register", "kept", "REGISTER, kept nonce ÷ none", 1.2),
            ("A1", "call", "new", "call with INVITE digest ÷ without", 1.35),
        ]:
            if bench.wants(row):
                ours, none = self.of_kind(mode, kind, "strowger"), self.of_kind(mode, "none", "strowger")
                bench.ratio_row(row, title, target, ours, none)

    def tell_users(self):
        bench = self.bench
        bench.report.table(
            "A user's lookup in memory, ns (perf/users)",
            ["users", "one lookup", "one cache miss in a table of that size", "lookup and check of a digest"],
            [
                [f"{row['users']:,}", f"{row['lookup_ns']:.0f}", f"{row['miss_ns']:.0f}", f"{row['check_ns']:.0f}"]
                for row in self.lookups
            ],
        )
        few, many = self.lookups[0], self.lookups[-1]
        # The hash table's marks, its entry, and the user's hash each lie in a cache line of their own.
        missing = few["lookup_ns"] + MISSES * many["miss_ns"]
        ratio = many["lookup_ns"] / missing
        bench.report.row(
            "A2",
            f"a lookup among {many['users']:,} users ÷ (among {few['users']:,}, and {MISSES} cache misses)",
            "≤ 2",
            f"{ratio:.2f} ({many['lookup_ns']:.0f} ÷ {missing:.0f} ns)",
            ratio <= 2,
            f"a miss: {many['miss_ns']:.0f} ns; ÷ among {few['users']:,} alone: {many['lookup_ns'] / few['lookup_ns']:.1f}",
        )
        lines = []
        for number in [FEW, MANY]:
            none, new = (
                self.series(f"{number} users, {kind}", name) for kind, name in [("none", "strowger"), ("new", "strowger-auth")]
            )
            speed = self.series(f"{number} users, new", "strowger-auth", rate)
            lines.append([f"{number:,}", none.text(), new.text(), speed.text(0)])
        bench.report.table(
            "REGISTER of all users in turn, server CPU, µs",
            ["users", "no challenge", "new challenge each time", "the latter, each s"],
            lines,
        )
        bench.ratio_row(
            "A2",
            f"REGISTER with digest, {MANY:,} users ÷ {FEW:,}",
            2,
            *(self.series(f"{number} users, new", "strowger-auth") for number in [MANY, FEW]),
        )

    def tell_durable(self):
        bench, lines = self.bench, []
        name = {durability: f"strowger-{durability}" for durability in ["batched", "acknowledged"]}
        for durability, contestant in name.items():
            lines.append(
                [durability, self.series(durability, contestant, rate).text(0), self.series(durability, contestant).text()]
                + [
                    self.series(durability, contestant, lambda result, q=quantile: result["latency_us"]["to_200"][q] / 1000).text()
                    for quantile in ["p50", "p99", "max"]
                ]
            )
        bench.report.table(
            f"Registrations on disk, {GROUP:,} outstanding; writing 4 KiB through to this disk takes {self.sync_us:.0f} µs",
            ["durability", "each s", "server CPU, µs each", "answered after ms, p50", "p99", "max"],
            lines,
        )
        ours, theirs = (self.series(durability, name[durability], rate) for durability in ["acknowledged", "batched"])
        if ours and theirs:
            ratio = ours.median / theirs.median
            met = ratio >= 0.8 if ours.is_sound and theirs.is_sound else None
            bench.report.row(
                "A3",
                "registrations/s, acknowledged ÷ batched",
                "≥ 0.8",
                f"{ratio:.3f} ({ours.median:,.0f} ÷ {theirs.median:,.0f})",
                met,
                "".join(sorted(set(ours.marks + theirs.marks))),
            )


def complaint(result):
    """Whether as many requests were challenged as the run was to have."""
    counts = result["counts"]
    done, challenges = max(counts["completed"], 1), counts["challenges_received"]
    kind = result["label"].rsplit(", ", 1)[-1]
    expected = done if kind == "new" else 0
    if abs(challenges - expected) > 100 + 0.01 * done:
        return f"{challenges} challenges in {done}"
    return None


def sync_us(directory):
    """Median of writing a page through to the disk."""
    path = os.path.join(directory, "sync")
    times = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e6)
    os.unlink(path)
    return statistics.median(times)

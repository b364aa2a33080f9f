"""The frame of the laboratory: a server, legitimate traffic, an attack beside it, and what became of both."""

import collections
import contextlib
import fcntl
import json
import multiprocessing
import os
import re
import select
import threading
import time
import urllib.request

import certificates
from machine import Process

from attack import legit, net, sip, verdicts
from attack.verdicts import Check

SCRAPE = (sip.SERVER[0], 9464)
DNS = "198.18.0.53"
SETTLE = 1.0
MEGABYTE = 1 << 20
# What an operator looks at: of the counters, those that say that something was refused, dropped or lost.
TELLING = re.compile(
    r"limit|drop|lost|ban|guess|refus|reject|unfinished|displaced|unframed|failed|error|failure|slow|long|turn_|unusable|held|auth_total"
)
SCENARIOS = {}


class Scenario:
    """One attack. Subclasses say what they are, and override what they need."""

    # As `perf/attack NAME` calls it, in a line; the row or RFC; and what must hold.
    name = what = source = must = ""
    conf = {}
    rates = {"calls": 25, "refreshed": 5, "new": 5}
    # Seconds of the attack and of the time after it; None: the command's.
    during = rest = None
    # Who must be served about as fast as usual: kinds of `rates`.
    quick_kinds = ()
    environment = {}
    # The log goes through a pipe, which the scenario may stop reading.
    piped = False

    def __init__(self, **more):
        for name, value in more.items():
            setattr(self, name, value)
        if self.name in SCENARIOS:
            raise ValueError(f"two scenarios {self.name}")
        SCENARIOS[self.name] = self

    def files(self, directory):
        """Before the server starts, in its folder."""

    def prepare(self, lab):
        """Before any legitimate traffic; what it opens by `lab.phone` and `lab.last` lasts."""

    def attack(self, lab):
        """Until `lab.until` at most; what it saw goes into `lab.seen`."""

    def end(self, lab):
        """When the time after the attack is over, with the server still there."""

    def checks(self, lab):
        """Beside those of the legitimate traffic."""
        return []


class Server:
    """strowger with a conf made of the laboratory's and the scenario's."""

    def __init__(self, binary, directory, conf=None, environment=None, piped=False, core=0):
        self.binary, self.directory, self.core = binary, directory, core
        self.environment, self.piped = environment or {}, piped
        self.log = os.path.join(directory, "strowger.log")
        with open(os.open(os.path.join(directory, "users.txt"), os.O_WRONLY | os.O_CREAT, 0o600), "w") as text:
            text.write(sip.users_file([*legit.USERS, *ACCOUNTS]))
        with open(os.path.join(directory, "strowger.toml"), "w") as text:
            text.write(toml(merged(base(), conf or {})))
        self.start()

    def start(self):
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        # What else the machine does must not look like what the attack does.
        command = ["nice", "-n", "-10", "env", *variables, self.binary, "run", "-c", "strowger.toml"]
        written = self.log
        if self.piped:
            written = self.pipe = LogPipe(self.directory, self.log)
        self.process = Process(command, self.core, self.directory, str(written))
        self.pid = self.process.pid
        until = time.monotonic() + 20
        while not self.scrape():
            if self.process.child.poll() is not None or time.monotonic() > until:
                self.process.stop()
                with open(self.log, errors="replace") as text:
                    raise RuntimeError(f"the server did not start:\n{text.read()[-2000:]}")
            time.sleep(0.05)

    def is_alive(self):
        return self.process.child.poll() is None

    def stop(self):
        self.process.stop()

    def scrape(self, timeout=2.0):
        """The metrics, or {}."""
        try:
            with urllib.request.urlopen(f"http://{SCRAPE[0]}:{SCRAPE[1]}/metrics", timeout=timeout) as answer:
                return parsed(answer.read().decode())
        except OSError:
            return {}


class LogPipe:
    """A pipe of 4 KiB that is read into a file while `reads` is set."""

    def __init__(self, directory, log):
        self.path = os.path.join(directory, "log.pipe")
        os.mkfifo(self.path)
        self.end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, 4096)
        self.reads = threading.Event()
        self.reads.set()
        threading.Thread(target=self.copy, args=(log,), daemon=True).start()

    def __str__(self):
        return self.path

    def copy(self, log):
        with open(log, "wb", buffering=0) as file:
            while True:
                self.reads.wait()
                if select.select([self.end], [], [], 0.1)[0]:
                    with contextlib.suppress(BlockingIOError):
                        file.write(os.read(self.end, 65536))
                time.sleep(0.005)


# Beside those of the legitimate phones: an attacker's and its victims'.
ACCOUNTS = ["mallory", "accomplice", "victim", "friend", *(f"zombie{number}" for number in range(100))]


def parsed(text):
    """Samples by name and labels."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            with contextlib.suppress(ValueError):
                found[name] = float(value)
    return found


def base():
    host = sip.SERVER[0]
    return {
        "server": {"cores": [0], "domains": [sip.DOMAIN], "drain_deadline": "0s"},
        "[listen]": [
            {"transport": transport, "address": f"{host}:{port}"}
            for transport, port in [("udp", sip.SERVER[1]), ("tcp", sip.SERVER[1]), ("tls", sip.TLS_PORT)]
        ],
        "tls": {
            "certificate": certificates.path("ec.pem"),
            "private_key": certificates.path("ec.key"),
            "trusted_ca": certificates.path("ca.pem"),
        },
        "registrar": {"database": ""},
        "auth": {
            "realm": sip.REALM,
            "challenge_register": True,
            "challenge_proxy": True,
            "algorithms": ["MD5"],
            "users": "users.txt",
        },
        "dns": {"servers": [f"{DNS}:53"]},
        "metrics": {"address": f"{SCRAPE[0]}:{SCRAPE[1]}"},
    }


def merged(conf, more):
    """Sections of `more` change single keys; lists of sections take the place of those before."""
    found = dict(conf)
    for name, section in more.items():
        found[name] = {**conf.get(name, {}), **section} if isinstance(section, dict) else section
    return found


def toml(conf):
    lines = []
    for name, sections in conf.items():
        for section in sections if isinstance(sections, list) else [sections]:
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def risen(before, after):
    """The counters that have risen, by how much."""
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if re.match(r"[a-z_]+_total\b", name) and value > before.get(name, 0)
    }


def of(metrics, name):
    """The sum over all labels."""
    return sum(value for key, value in metrics.items() if key == name or key.startswith(name + "{"))


def told(text, most=6):
    """The kinds of lines of a log, each with the first of its kind and how many there were, warnings first."""
    kinds, counts = {}, collections.Counter()
    for line in text.splitlines():
        line = re.sub(r"^\[?\S*\d\d:\d\d:\d\dZ? ?", "", line)
        kind = re.sub(r"[0-9a-f]*\d[0-9a-f.:]*", "#", line)
        kinds.setdefault(kind, line)
        counts[kind] += 1
    order = sorted(kinds, key=lambda kind: not re.search("WARN|ERROR", kind))
    return [f"{kinds[kind][:260]}" + (f" (and {counts[kind] - 1} like it)" if counts[kind] > 1 else "") for kind in order[:most]]


class Lab:
    """One run of one scenario."""

    def __init__(self, scenario, binary, directory, before, during, after):
        self.scenario, self.binary, self.directory = scenario, binary, directory
        self.before_s, self.during_s, self.after_s = before, scenario.during or during, scenario.rest or after
        self.seen, self.metrics, self.open, self.lasting = {}, {}, [], []

    # For scenarios.

    def agent(self, user, address=net.ATTACKER, port=0, **more):
        found = net.Agent(user, address, port, **more)
        self.open.append(found)
        return found

    def phone(self, user, address, port=5060, **more):
        """As `agent`, for the whole of the scenario."""
        return self.last(net.Agent(user, address, port, **more))

    def keep(self, *sockets):
        """Closed when the attack is over."""
        self.open += sockets
        return sockets[0]

    def last(self, *sockets):
        """Closed when the scenario is over."""
        self.lasting += sockets
        return sockets[0]

    def release(self):
        close(self.open)

    def left(self):
        return self.until - time.monotonic()

    def flood(self, rate, send):
        """Until the end of the attack."""
        self.seen.update(net.paced(rate, self.until, send))

    def restart(self):
        """The server, with a log of its own; what it had logged before stays in `logged`."""
        self.logged = self.log_text()
        self.server.stop()
        self.server.log += ".again"
        self.log_from = 0
        self.server.start()

    def log_text(self):
        with open(self.server.log, errors="replace") as text:
            text.seek(self.log_from)
            return text.read()

    # The run.

    def run(self):
        scenario = self.scenario
        scenario.files(self.directory)
        self.server = Server(self.binary, self.directory, scenario.conf, scenario.environment, scenario.piped)
        self.log_from, self.logged = 0, ""
        ours, theirs = multiprocessing.Pipe()
        background = multiprocessing.Process(
            target=legit.main, args=(theirs, scenario.rates, self.server.pid, certificates.path("ca.pem"))
        )
        began = False
        try:
            scenario.prepare(self)
            background.start()
            began = True
            if not ours.poll(30) or ours.recv() != "ready":
                raise RuntimeError("the legitimate phones did not start")
            self.follow(ours)
            background.join(5)
        finally:
            if began and background.is_alive():
                background.kill()
                background.join()
            self.release()
            close(self.lasting)
            self.server.stop()
        return self.result()

    def follow(self, pipe):
        time.sleep(SETTLE)
        marks = self.marks = {"before": time.monotonic()}
        time.sleep(self.before_s)
        self.metrics["before"] = self.server.scrape()
        self.log_from = os.path.getsize(self.server.log)
        marks["during"] = time.monotonic()
        self.until = marks["during"] + self.during_s
        self.scenario.attack(self)
        time.sleep(max(0.0, self.left()))
        marks["over"] = time.monotonic()
        self.metrics["during"] = self.server.scrape()
        self.release()
        time.sleep(SETTLE)
        marks["after"] = time.monotonic()
        time.sleep(self.after_s)
        marks["end"] = time.monotonic()
        self.metrics["after"] = self.server.scrape()
        self.scenario.end(self)
        self.lives = self.server.is_alive()
        self.log = self.logged + self.log_text()
        pipe.send("stop")
        if not pipe.poll(2 * legit.PATIENCE + 2):
            raise RuntimeError("the legitimate phones did not end")
        self.records, self.samples = pipe.recv()

    def result(self):
        marks = self.marks
        windows = {
            "before": (marks["before"], marks["during"]),
            "during": (marks["during"], marks["over"]),
            "after": (marks["after"], marks["end"]),
        }
        self.phases = {name: verdicts.phase(self.records, *window) for name, window in windows.items()}
        self.machine = {name: usage(self.samples, *window) for name, window in windows.items()}
        checks = [*self.usual_checks(), *self.scenario.checks(self)]
        counters = risen(self.metrics["before"], self.metrics["after"] or self.metrics["during"])
        return {
            "scenario": self.scenario.name,
            "what": self.scenario.what,
            "source": self.scenario.source,
            "must": self.scenario.must,
            "verdict": verdicts.joined(check.held for check in checks),
            "checks": [check._asdict() for check in checks],
            "legitimate": self.phases,
            "machine": self.machine,
            "seconds": {name: end - begin for name, (begin, end) in windows.items()},
            "attack": self.seen,
            "counters": counters,
            "log": told(self.log),
        }

    def usual_checks(self):
        found = [Check("the server lives", "yes" if self.lives else "it has ended", self.lives)]
        before, during, after = (self.phases[name] for name in ["before", "during", "after"])
        for kind in before:
            for word, beside in [("during", during[kind]), ("after", after[kind])]:
                held = verdicts.told_apart(verdicts.goes_on(before[kind], beside), self.machine[word]["waited"])
                found.append(Check(f"{kind} go on {word}", f"{beside['done']} of {beside['tried']}", held))
            if kind in self.scenario.quick_kinds:
                found.append(
                    Check(
                        f"{kind} as fast as usual (×{verdicts.PATIENT:g})",
                        f"{ms(before[kind]['p50_ms'])} → {ms(during[kind]['p50_ms'])} ms",
                        verdicts.told_apart(verdicts.waits(before[kind], during[kind]), self.machine["during"]["waited"]),
                    )
                )
        if "asked" in self.seen:
            found.append(
                Check(
                    "the attack was as strong as meant",
                    f"{self.seen['sent']:,} of {self.seen['asked']:,}",
                    verdicts.offered(self.seen["sent"], self.seen["asked"]),
                )
            )
        return found

    @property
    def memory(self):
        """MB before, at most and at the end."""
        return [
            None if value is None else value / MEGABYTE
            for value in (self.machine["before"]["rss"], self.peak(), self.machine["after"]["rss"])
        ]

    def peak(self):
        return max((each["peak"] for each in self.machine.values() if each["peak"] is not None), default=None)

    def memory_check(self):
        before, peak, after = self.machine["before"]["rss"], self.peak(), self.machine["after"]["rss"]
        seen = " → ".join("—" if value is None else f"{value:.0f}" for value in self.memory)
        return Check("memory comes back", f"{seen} MB (before, most, at the end)", verdicts.comes_back(before, peak, after))


def close(sockets):
    for each in sockets:
        with contextlib.suppress(OSError):
            each.close()
    sockets.clear()


def usage(samples, begin, end):
    """Of a time: the last resident bytes, the most, and the shares of it for which the server ran and waited for its core."""
    mine = [sample for sample in samples if begin <= sample[0] <= end and sample[1] is not None]
    if len(mine) < 2:
        return {"rss": None, "peak": None, "cpu": None, "waited": None}
    seconds = mine[-1][0] - mine[0][0]
    return {
        "rss": mine[-1][1],
        "peak": max(sample[1] for sample in mine),
        **{name: (mine[-1][place] - mine[0][place]) / seconds for name, place in [("cpu", 2), ("waited", 3)]},
    }


def ms(value):
    return "—" if value is None else f"{value:.1f}"

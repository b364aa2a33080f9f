"""The frame of the laboratory: a server, legitimate traffic, an attack beside it, and what became of both."""

import collections
import contextlib
import dataclasses
import fcntl
import json
import multiprocessing
import os
import re
import select
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypedDict, TypeVar

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
SCENARIOS: dict[str, "Scenario"] = {}

Conf = dict[str, Any]
Metrics = dict[str, float]


class Closable(Protocol):
    def close(self) -> None: ...


Socket = TypeVar("Socket", bound=Closable)


class Usage(TypedDict):
    rss: int | None
    peak: int | None
    cpu: float | None
    waited: float | None


@dataclasses.dataclass
class Scenario:
    """One attack. It registers itself, and decorates what runs it: that opens what lasts, attacks within `lab.attack()`, and says
    what must hold."""

    # As `perf/attack NAME` calls it; in a line; the row or RFC; and what must hold.
    name: str
    what: str
    source: str
    must: str
    run: Callable[["Lab"], object] | None = None
    conf: Conf = dataclasses.field(default_factory=dict)
    rates: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"calls": 25, "refreshed": 5, "new": 5})
    # Seconds of the attack and of the time after it; None: the command's.
    during: float | None = None
    rest: float | None = None
    # Who must be served about as fast as usual: kinds of `rates`.
    quick_kinds: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    # The log goes through a pipe, which the scenario may stop reading.
    piped: bool = False
    # Writes what is in the server's folder before it starts.
    files: Callable[[str], None] = lambda directory: None

    def __post_init__(self) -> None:
        if self.name in SCENARIOS:
            raise ValueError(f"two scenarios {self.name}")
        SCENARIOS[self.name] = self

    def __call__(self, run: Callable[["Lab"], None]) -> Callable[["Lab"], None]:
        self.run = run
        return run


class Server:
    """strowger with a conf made of the laboratory's and the scenario's."""

    def __init__(self, binary: str, directory: str, scenario: Scenario) -> None:
        self.binary, self.directory, self.scenario = binary, directory, scenario
        self.log = os.path.join(directory, "strowger.log")
        with open(os.open(os.path.join(directory, "users.txt"), os.O_WRONLY | os.O_CREAT, 0o600), "w") as text:
            text.write(sip.users_file([*legit.USERS, *ACCOUNTS]))
        with open(os.path.join(directory, "strowger.toml"), "w") as text:
            text.write(toml(merged(base(), scenario.conf)))
        self.start()

    def start(self) -> None:
        variables = [f"{name}={value}" for name, value in self.scenario.environment.items()]
        # What else the machine does must not look like what the attack does.
        command = ["nice", "-n", "-10", "env", *variables, self.binary, "run", "-c", "strowger.toml"]
        written: str | LogPipe = self.log
        if self.scenario.piped:
            written = self.pipe = LogPipe(self.directory, self.log)
        self.process = Process(command, 0, self.directory, str(written))
        self.pid = self.process.pid
        until = time.monotonic() + 20
        while not self.scrape():
            if self.process.child.poll() is not None or time.monotonic() > until:
                self.process.stop()
                with open(self.log, errors="replace") as text:
                    raise RuntimeError(f"the server did not start:\n{text.read()[-2000:]}")
            time.sleep(0.05)

    def is_alive(self) -> bool:
        return self.process.child.poll() is None

    def stop(self) -> None:
        self.process.stop()

    def scrape(self, timeout: float = 2.0) -> Metrics:
        """The metrics, or {}."""
        try:
            with urllib.request.urlopen(f"http://{SCRAPE[0]}:{SCRAPE[1]}/metrics", timeout=timeout) as answer:
                return parsed(answer.read().decode())
        except OSError:
            return {}


class LogPipe:
    """A pipe of 4 KiB that is read into a file while `reads` is set."""

    def __init__(self, directory: str, log: str) -> None:
        self.path = os.path.join(directory, "log.pipe")
        os.mkfifo(self.path)
        self.end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, 4096)
        self.reads = threading.Event()
        self.reads.set()
        threading.Thread(target=self.copy, args=(log,), daemon=True).start()

    def __str__(self) -> str:
        return self.path

    def copy(self, log: str) -> None:
        with open(log, "wb", buffering=0) as file:
            while True:
                self.reads.wait()
                if select.select([self.end], [], [], 0.1)[0]:
                    with contextlib.suppress(BlockingIOError):
                        file.write(os.read(self.end, 65536))
                time.sleep(0.005)


# Beside those of the legitimate phones: an attacker's and its victims'.
ACCOUNTS = ["mallory", "accomplice", "victim", "friend", *(f"zombie{number}" for number in range(100))]


def parsed(text: str) -> Metrics:
    """Samples by name and labels."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            with contextlib.suppress(ValueError):
                found[name] = float(value)
    return found


def base() -> Conf:
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


def merged(conf: Conf, more: Conf) -> Conf:
    """Sections of `more` change single keys; lists of sections take the place of those before."""
    found = dict(conf)
    for name, section in more.items():
        found[name] = {**conf.get(name, {}), **section} if isinstance(section, dict) else section
    return found


def toml(conf: Conf) -> str:
    lines = []
    for name, sections in conf.items():
        for section in sections if isinstance(sections, list) else [sections]:
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def risen(before: Metrics, after: Metrics) -> Metrics:
    """The counters that have risen, by how much."""
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if re.match(r"[a-z_]+_total\b", name) and value > before.get(name, 0)
    }


def of(metrics: Metrics, name: str) -> float | None:
    """The sum over all labels; None if the server did not say its metrics."""
    return sum_of(metrics, lambda key: key == name or key.startswith(name + "{"))


def sum_of(metrics: Metrics, counts: Callable[[str], bool]) -> float | None:
    """Of the metrics that count; None if there are none at all, which is not the same as 0."""
    return sum(value for key, value in metrics.items() if counts(key)) if metrics else None


def more(after: float | None, before: float | None) -> float | None:
    """By how much the first is more, if both are known."""
    return None if after is None or before is None else after - before


def told(text: str, most: int = 6) -> list[str]:
    """The kinds of lines of a log, each with the first of its kind and how many there were, warnings first."""
    kinds: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for line in text.splitlines():
        line = re.sub(r"^\[?\S*\d\d:\d\d:\d\dZ? ?", "", line)
        kind = re.sub(r"[0-9a-f]*\d[0-9a-f.:]*", "#", line)
        kinds.setdefault(kind, line)
        counts[kind] += 1
    order = sorted(kinds, key=lambda kind: not re.search("WARN|ERROR", kind))
    return [f"{kinds[kind][:260]}" + (f" (and {counts[kind] - 1} like it)" if counts[kind] > 1 else "") for kind in order[:most]]


class Lab:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario, binary: str, directory: str, before: float, during: float, after: float) -> None:
        self.scenario, self.binary, self.directory = scenario, binary, directory
        self.before_s, self.during_s, self.after_s = before, scenario.during or during, scenario.rest or after
        self.seen: dict[str, Any] = {}
        self.metrics: dict[str, Metrics] = {}
        self.checks: list[Check] = []
        self.open: list[Closable] = []
        self.lasting: list[Closable] = []
        self.log_from, self.logged = 0, ""

    # What a scenario opens.

    def agent(self, user: str, address: str = net.ATTACKER, port: int = 0, **more: sip.Credentials | None) -> net.Agent:
        """Closed when the attack is over, as all of `keep`."""
        return self.keep(net.Agent(user, address, port, **more))

    def phone(self, user: str, address: str, port: int = 5060, **more: sip.Credentials | None) -> net.Agent:
        """Closed when the scenario is over, as all of `last`."""
        return self.last(net.Agent(user, address, port, **more))

    def keep(self, *sockets: Socket) -> Socket:
        self.open += sockets
        return sockets[0]

    def last(self, *sockets: Socket) -> Socket:
        self.lasting += sockets
        return sockets[0]

    # What it does.

    @contextlib.contextmanager
    def attack(self) -> Iterator[None]:
        """The legitimate phones begin; what is within attacks until `until`, or shorter; then the time after it passes."""
        self.phones.start()
        if not self.pipe.poll(30) or self.pipe.recv() != "ready":
            raise RuntimeError("the legitimate phones did not start")
        time.sleep(SETTLE)
        before = time.monotonic()
        time.sleep(self.before_s)
        self.metrics["before"] = self.server.scrape()
        self.log_from = os.path.getsize(self.server.log)
        during = time.monotonic()
        self.until = during + self.during_s
        yield
        time.sleep(max(0.0, self.left()))
        over = time.monotonic()
        self.metrics["during"] = self.server.scrape()
        close(self.open)
        time.sleep(SETTLE)
        after = time.monotonic()
        time.sleep(self.after_s)
        end = time.monotonic()
        self.metrics["after"] = self.server.scrape()
        self.windows = {"before": (before, during), "during": (during, over), "after": (after, end)}
        self.pipe.send("stop")
        if not self.pipe.poll(2 * legit.PATIENCE + 2):
            raise RuntimeError("the legitimate phones did not end")
        records, samples = self.pipe.recv()
        self.phases = {name: verdicts.phase(records, *window) for name, window in self.windows.items()}
        self.machine = {name: usage(samples, *window) for name, window in self.windows.items()}

    def left(self) -> float:
        return self.until - time.monotonic()

    def flood(self, rate: float, send: Callable[[int], int], most: int | None = None) -> None:
        """Until the end of the attack, or until so many are sent."""
        self.seen |= net.paced(rate, self.until, send, most)

    def restart(self) -> None:
        """The server, with a file of its own for what it logs."""
        self.logged = self.log
        self.server.stop()
        self.server.log += ".again"
        self.log_from = 0
        self.server.start()

    @property
    def log(self) -> str:
        """Since the attack began."""
        with open(self.server.log, errors="replace") as text:
            text.seek(self.log_from)
            return self.logged + text.read()

    # What must hold, beside what `usual_checks` says of the legitimate traffic.

    def check(self, what: str, seen: object, held: bool | None) -> None:
        self.checks.append(Check(what, seen, held))

    def none(self, what: str, count: int) -> None:
        self.check(what, f"{count:,}", count == 0)

    def some(self, what: str, seen: object, well: object) -> None:
        """Without that nothing is told."""
        self.check(what, f"{seen}", True if well else None)

    def same(self, what: str, before: object, after: object) -> None:
        self.check(what, f"{before} → {after}" if before != after else f"{after}", before == after if before else None)

    def at_most(self, what: str, value: float | None, most: float, shown: str = "{:,.0f}") -> None:
        self.check(what, "—" if value is None else shown.format(value), verdicts.at_most(value, most))

    def is_counted(self, what: str, names: Sequence[str]) -> None:
        """By one of the metrics' names."""
        self.check(what, ", ".join(names) or "none", bool(names))

    def memory_comes_back(self) -> None:
        seen = " → ".join("—" if value is None else f"{value:.0f}" for value in self.memory)
        self.check("memory comes back", f"{seen} MB (before, most, at the end)", verdicts.comes_back(*self.memory))

    def memory_grows_by_at_most(self, megabytes: int) -> None:
        before, most, _ = self.memory
        grown = None if before is None or most is None else most - before
        self.at_most(f"memory grows by at most {megabytes} MB", grown, megabytes, "{:.0f} MB")

    @property
    def memory(self) -> list[float | None]:
        """MB before, at most and at the end."""
        peaks = [each["peak"] for each in self.machine.values() if each["peak"] is not None]
        values = (self.machine["before"]["rss"], max(peaks, default=None), self.machine["after"]["rss"])
        return [None if value is None else value / MEGABYTE for value in values]

    # The run.

    def run(self) -> dict[str, Any]:
        scenario = self.scenario
        assert scenario.run
        scenario.files(self.directory)
        self.server = Server(self.binary, self.directory, scenario)
        self.pipe, theirs = multiprocessing.Pipe()
        of_phones = (theirs, scenario.rates, self.server.pid, certificates.path("ca.pem"))
        self.phones = multiprocessing.Process(target=legit.main, args=of_phones)
        try:
            scenario.run(self)
            self.phones.join(5)
            return self.result()
        finally:
            if self.phones.is_alive():
                self.phones.kill()
                self.phones.join()
            close(self.open)
            close(self.lasting)
            self.server.stop()

    def result(self) -> dict[str, Any]:
        checks = [*self.usual_checks(), *self.checks]
        return {
            "scenario": self.scenario.name,
            "what": self.scenario.what,
            "source": self.scenario.source,
            "must": self.scenario.must,
            "verdict": verdicts.joined(check.held for check in checks),
            "checks": [check._asdict() for check in checks],
            "legitimate": self.phases,
            "machine": self.machine,
            "seconds": {name: end - begin for name, (begin, end) in self.windows.items()},
            "attack": self.seen,
            "counters": risen(self.metrics["before"], self.metrics["after"] or self.metrics["during"]),
            "log": told(self.log),
        }

    def usual_checks(self) -> Iterator[Check]:
        lives = self.server.is_alive()
        yield Check("the server lives", "yes" if lives else "it has ended", lives)
        before, waited = self.phases["before"], {name: machine["waited"] for name, machine in self.machine.items()}
        for kind in before:
            for word in ["during", "after"]:
                beside = self.phases[word][kind]
                held = verdicts.told_apart(verdicts.goes_on(before[kind], beside), waited[word])
                yield Check(f"{kind} go on {word}", f"{beside['done']} of {beside['tried']}", held)
            if kind in self.scenario.quick_kinds:
                during = self.phases["during"][kind]
                held = verdicts.told_apart(verdicts.waits(before[kind], during), waited["during"])
                seen = f"{ms(before[kind]['p50_ms'])} → {ms(during['p50_ms'])} ms"
                yield Check(f"{kind} as fast as usual (×{verdicts.PATIENT:g})", seen, held)
        if "asked" in self.seen:
            sent, asked = self.seen["sent"], self.seen["asked"]
            yield Check("the attack was as strong as meant", f"{sent:,} of {asked:,}", verdicts.offered(sent, asked))


def close(sockets: list[Closable]) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.close()
    sockets.clear()


def usage(samples: Iterable[legit.Sample], begin: float, end: float) -> Usage:
    """Of a time: the last resident bytes, the most, and the shares of it for which the server ran and waited for its core."""
    mine = [sample for sample in samples if begin <= sample[0] <= end and sample[1] is not None]
    if len(mine) < 2:
        return {"rss": None, "peak": None, "cpu": None, "waited": None}
    seconds = mine[-1][0] - mine[0][0]
    return {
        "rss": mine[-1][1],
        "peak": max(sample[1] for sample in mine if sample[1] is not None),
        "cpu": (mine[-1][2] - mine[0][2]) / seconds,
        "waited": (mine[-1][3] - mine[0][3]) / seconds,
    }


def ms(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}"

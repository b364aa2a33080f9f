"""perf/soak: everything at once for a long time. Memory stays flat, no call fails, and when all is quiet nothing is left over."""

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import certificates
from attack import legit, net, sip, verdicts
from attack.lab import MEGABYTE, Metrics, base, merged, of, parsed, toml
from attack_command import binary, server_options
from machine import Process

# Seconds until tables, caches and the allocator have what they need: transactions linger for 32, used nonces for twice NONCES.
WARM_UP = 60
# Memory is flat if its median over the last fifth is not more than this above that of the first fifth after the warm-up.
GROWTH, GROWTH_SHARE = 3 * MEGABYTE, 0.05
EXPIRES = 20
NONCES = 20
RELOAD_EVERY, USERS_EVERY, SAMPLE_EVERY = 5.0, 2.0, 1.0
# How soon a change of the users must be known.
KNOWN_WITHIN = 4.0
# Linger, expiry, and the sweep, which takes a minute and more.
REST = 150
# A second in which the phones or the server waited for a core for so long says nothing of the server, nor do those that come before
# what was due ends.
DISTURBED = 0.25
# A second, before they are multiplied: as many as bring the phones or the server, whichever is busier, to the share that was asked
# for.
RATES = {"calls": 20, "refreshed": 5, "new": 5, "tcp": 3, "tls": 3}
MEASURED_S = 5
# What must be as it was before the first message. Where a gauge has a label for each listener or side, all of them.
LEFT_OVER = [
    "strowger_transactions",
    "strowger_requests_pending",
    "strowger_requests_parked",
    "strowger_timers",
    "strowger_connections",
    "strowger_bindings",
    "strowger_registrations_held",
    "strowger_udp_send_queue_bytes",
    "strowger_users",
]
# Each worker that has said what it has has one.
WORKER = "strowger_worker_cpu_seconds_total{"
# What must not rise at all.
NEVER = re.compile(
    r"strowger_(limit_hits|connections_(failed|banned|unfinished|displaced|unframed|accept_errors)|udp_kernel_drops|"
    r"store_failures|bindings_unusable|log_lines_lost|registrations_unstored)_total"
)


# Where somebody else has the core, the server says so, and cannot tell it from too many messages.
OTHERS = re.compile(r"one turn of its loop took .*the process was stopped, others h|stack::overload")

Told = tuple[str, str, bool | None]


class Phone(legit.Phone):
    """One that forgets what is a minute old: an hour's calls are many."""

    # What there was when it tidied last.
    old: tuple[dict[str, bytes], dict[str, bytes], set[str]] = ({}, {}, set())

    def tidy(self) -> None:
        answered, unacknowledged, dialogs = self.old
        for kept, old in [(self.answered, answered), (self.unacknowledged, unacknowledged)]:
            for key in old:
                kept.pop(key, None)
        self.dialogs -= dialogs
        self.old = dict(self.answered), dict(self.unacknowledged), set(self.dialogs)


class Soak(legit.Background):
    expires = new_expires = EXPIRES
    phone = Phone
    pid: int
    callers: Sequence[Phone]
    callees: Sequence[Phone]
    others: Sequence[Phone]

    def __init__(self, arguments: argparse.Namespace, program: str, directory: str) -> None:
        super().__init__(RATES, None, certificates.path("ca.pem"))
        self.arguments, self.program, self.directory = arguments, program, directory
        self.reloads = 0
        self.gauges: list[tuple[float, Metrics]] = []
        self.memory: list[tuple[float, int | None]] = []
        self.waits: list[tuple[float, list[float]]] = []
        self.certificates: set[bytes] = set()

    # The server.

    def conf(self, contacts: int = 10) -> None:
        more = {
            "registrar": {
                "database": "strowger.db",
                "min_expires": "5s",
                "default_expires": f"{EXPIRES}s",
                "max_expires": f"{EXPIRES}s",
                "max_contacts": contacts,
            },
            # Nonces that were used are remembered for two lifetimes: that is when memory is level.
            "auth": {"users": "strowger.db", "nonce_lifetime": f"{NONCES}s"},
            "tls": {"certificate": "server.pem", "private_key": "server.key"},
            "server": {"drain_deadline": "5s"},
        }
        with open(self.path("next.toml"), "w") as text:
            text.write(toml(merged(base(), more)))
        os.replace(self.path("next.toml"), self.path("strowger.toml"))

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def certificate(self, kind: str) -> None:
        for end in ["pem", "key"]:
            shutil.copy(certificates.path(f"{kind}.{end}"), self.path(f"next.{end}"))
            os.replace(self.path(f"next.{end}"), self.path(f"server.{end}"))

    async def command(self, *words: str, text: str = "") -> None:
        pipe, both = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        command = [self.program, *words, "-c", "strowger.toml"]
        child = await asyncio.create_subprocess_exec(*command, cwd=self.directory, stdin=pipe, stdout=pipe, stderr=both)
        said, _ = await child.communicate(text.encode())
        if child.returncode:
            raise RuntimeError(f"strowger {' '.join(words)}: {said.decode()}")

    async def scrape(self) -> Metrics:
        """The metrics. A worker that is not asked in time (two seconds) is left out of them, as if it had nothing: then again."""
        for _ in range(10):
            reader, writer = await asyncio.open_connection(sip.SERVER[0], 9464)
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = await reader.read()
            writer.close()
            found = parsed(text.decode().replace("\r\n", "\n"))
            if any(name.startswith(WORKER) for name in found):
                return found
        raise RuntimeError("the worker does not say what it has")

    async def start(self) -> Metrics:
        self.conf()
        self.certificate("ec")
        await self.command("user", "import", "-", "--create", text=sip.users_file(legit.USERS))
        self.process = Process([self.program, "run", "-c", "strowger.toml"], None, self.directory, self.path("log"))
        self.pid = self.process.pid
        for _ in range(200):
            with contextlib.suppress(OSError):
                return await self.scrape()
            await asyncio.sleep(0.1)
        raise RuntimeError("the server did not start")

    def held(self) -> dict[str, int]:
        """Files and threads of the server."""
        return {kind: len(os.listdir(f"/proc/{self.pid}/{kind}")) for kind in ["fd", "task"]}

    # What goes on beside the calls.

    def note(self, kind: str, due: float, why: str = "") -> None:
        self.records.append((kind, due, 0.0, None if why else time.monotonic() - due, why))

    async def one(self, kind: str, due: float) -> None:
        """Where its own time and that of a retransmission end in one turn of a loop that is late, Python's timeouts cancel the
        whole task."""
        try:
            await super().one(kind, due)
        except asyncio.CancelledError:
            self.note(kind, due, "no answer")

    async def users(self) -> None:
        """A user that is added can register, one that is removed cannot."""
        for number in itertools.count():
            await asyncio.sleep(USERS_EVERY)
            name, phone = f"churn{number}", self.others[number % legit.PHONES]
            # The soak may end at any moment: whoever was added, or is being added, is removed all the same.
            adding = asyncio.create_task(self.command("user", "add", name, "--password-stdin", text=sip.password(name) + "\n"))
            removed = False
            try:
                await asyncio.shield(adding)
                await self.becomes(phone, name, "add", True)
                removed = True
                await asyncio.shield(asyncio.create_task(self.command("user", "rm", name)))
                await self.becomes(phone, name, "rm", False)
            finally:
                if not removed:
                    await adding
                    await self.command("user", "rm", name)

    async def becomes(self, phone: Phone, name: str, word: str, wanted: bool) -> None:
        """Whether the server knows within a while that a user is there, or is gone."""
        due, known = time.monotonic(), False
        while not known and time.monotonic() < due + KNOWN_WITHIN:
            # Fewer wrong passwords than would be a guess too many.
            await asyncio.sleep(0.5)
            try:
                async with asyncio.timeout(legit.PATIENCE):
                    await phone.register(name, expires=EXPIRES)
                known = wanted
            except legit.Failed:
                known = not wanted
            except TimeoutError:
                break
        self.note("users changed", due, "" if known else f"user {word} is not known")

    async def reload(self) -> None:
        half = time.monotonic() + self.arguments.minutes * 30
        replaced = False
        for number in itertools.count():
            await asyncio.sleep(RELOAD_EVERY)
            self.conf(contacts=10 + number % 2)
            if not replaced and time.monotonic() > half:
                self.certificate("rsa")
                replaced = True
            os.kill(self.pid, signal.SIGHUP)
            self.reloads += 1
            for phone in [*self.callers, *self.callees, *self.others] if number % 12 == 11 else []:
                phone.tidy()

    async def lasting(self, kind: str) -> None:
        """One connection for the whole time, over which its phone registers every two seconds."""
        stream = await legit.Stream(f"fresh{int(kind == 'tls')}", self.contexts[kind]).open()
        name = f"one {kind} connection"
        try:
            while True:
                due, why = time.monotonic(), ""
                try:
                    async with asyncio.timeout(legit.PATIENCE):
                        await stream.register(EXPIRES)
                except legit.Failed as failed:
                    why = str(failed)
                except (TimeoutError, OSError, asyncio.IncompleteReadError) as failed:
                    self.note(name, due, type(failed).__name__)
                    return
                self.note(name, due, why)
                await asyncio.sleep(2)
        finally:
            stream.close()

    async def watch(self) -> None:
        """Memory every second, the gauges every five, the certificate as it is shown."""
        for number in itertools.count():
            self.memory.append((time.monotonic(), legit.resident(self.pid)))
            self.waits.append((time.monotonic(), [legit.scheduled(pid)[1] for pid in (os.getpid(), self.pid)]))
            if number % 5 == 0:
                metrics = await self.scrape()
                self.gauges.append((time.monotonic(), {name: of(metrics, name) or 0 for name in LEFT_OVER}))
                self.certificates.add(await self.shown())
            await asyncio.sleep(SAMPLE_EVERY)

    async def shown(self) -> bytes:
        """The certificate."""
        stream = await legit.Stream("nobody", self.contexts["tls"]).open()
        certificate = stream.writer.get_extra_info("ssl_object").getpeercert(True)
        stream.close()
        return certificate

    def used(self) -> Callable[[], list[float]]:
        """What tells the shares of a core that the phones and the server have had since now."""
        pids, began = (os.getpid(), self.pid), time.monotonic()
        before = [legit.cpu_seconds(pid) for pid in pids]
        return lambda: [(legit.cpu_seconds(pid) - cpu) / (time.monotonic() - began) for pid, cpu in zip(pids, before)]

    async def whole(self) -> None:
        self.first = await self.start()
        self.first_held = self.held()
        await self.open_phones()
        paced = self.paced()
        # Whoever is busiest, the phones (one thread) or the server (one core), is to be busy for the share of its core.
        used = self.used()
        await asyncio.sleep(MEASURED_S)
        self.factor = min(50.0, max(0.2, self.arguments.share / max(used())))
        used = self.used()
        tasks = [self.users(), self.reload(), self.watch(), self.lasting("tcp"), self.lasting("tls")]
        beside = [asyncio.create_task(one) for one in tasks]
        try:
            done, _ = await asyncio.wait(beside, timeout=self.arguments.minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self.cpu = used()
            for task in [*paced, *beside]:
                task.cancel()
        await asyncio.gather(*paced, *beside, return_exceptions=True)
        if self.tasks:
            await asyncio.wait(self.tasks)
        await self.rest()

    async def rest(self) -> None:
        """Until nothing is left over, or no longer is waited."""
        began = time.monotonic()
        while True:
            self.last, self.last_held = await self.scrape(), self.held()
            left = self.left_over()
            self.rested = time.monotonic() - began
            if not left or self.rested > REST:
                return
            await asyncio.sleep(2)

    def left_over(self) -> list[tuple[str, float, float]]:
        """Name, before, after. The scrape is itself a connection, of another kind."""
        # Metrics that were not read say nothing of what is left.
        after = {name: of(self.last, name) for name in LEFT_OVER}
        found = [(name, of(self.first, name) or 0, math.inf if more is None else more) for name, more in after.items()]
        found += [(f"/proc/…/{kind}", self.first_held[kind], self.last_held[kind]) for kind in self.last_held]
        return [(name, before, after) for name, before, after in found if after > before]

    # What became of it.

    def disturbed(self) -> list[tuple[float, float]]:
        """The times in which the phones or the server waited for a core."""
        return [
            (at, until)
            for (at, before), (until, after) in itertools.pairwise(self.waits)
            if max(b - a for a, b in zip(before, after)) > DISTURBED * (until - at)
        ]

    def checks(self) -> Iterator[Told]:
        waited = self.disturbed()
        share = sum(until - at for at, until in waited) / max(1.0, self.waits[-1][0] - self.waits[0][0])
        shown = f"the phones or the server waited for a core in {share:.0%} of the time"
        yield "the machine was ours", shown, None if waited else True
        for kind in sorted({record[0] for record in self.records}):
            yield self.went_well(kind, [record for record in self.records if record[0] == kind], waited)
        yield from self.memory_checks()
        left = "; ".join(f"{name} {before:g} → {after:g}" for name, before, after in self.left_over())
        yield "nothing is left over", left or f"nothing, {self.rested:.0f} s after the last call", not left
        risen = "; ".join(
            f"{name} +{value - self.first.get(name, 0):g}"
            for name, value in self.last.items()
            if NEVER.match(name) and value > self.first.get(name, 0) and not (waited and 'limit="overload"' in name)
        )
        yield "nothing refused, lost or displaced", risen or "none of it", not risen
        with open(self.path("log"), errors="replace") as text:
            log = text.read().splitlines()
        wrong = [line for line in log if re.search(r"\b(WARN|ERROR)\b|panicked", line) and not (waited and OTHERS.search(line))]
        shown = f"{wrong[0][:200]} ({len(wrong)} lines)" if wrong else f"{len(log)} lines"
        yield "the log has no warning", shown, not wrong
        number = len(self.certificates)
        yield "the certificate was replaced", f"{number} were shown; {self.reloads} reloads", number == 2
        yield "the server ends well", str(self.ended), self.ended == 0

    @staticmethod
    def went_well(kind: str, records: Sequence[legit.Record], waited: Sequence[tuple[float, float]]) -> Told:
        """Those that failed beside a wait for a core are not to be told."""
        lost = [record for record in records if record[3] is None]
        failed = [
            record
            for record in lost
            if not any(until > record[1] - 1 and at < record[1] + legit.PATIENCE + 1 for at, until in waited)
        ]
        times = sorted(1000 * record[3] for record in records if record[3] is not None) or [0.0]
        beside = f", {len(lost) - len(failed)} not to be told (no core)" if len(lost) > len(failed) else ""
        shown = (
            f"{len(records) - len(lost)} of {len(records)}{beside}; ms: median {statistics.median(times):.1f}, 99th "
            f"{times[int(0.99 * (len(times) - 1))]:.0f}, most {times[-1]:.0f}"
        )
        whys = ", ".join(sorted({record[4] for record in failed}))
        return f"{kind} go well", shown + (f" ({whys})" if whys else ""), not failed

    def memory_checks(self) -> Iterator[Told]:
        start = self.memory[0][0] + min(WARM_UP, (self.memory[-1][0] - self.memory[0][0]) / 2)

        def ends(series: Sequence[tuple[float, float | None]]) -> tuple[float, float, float]:
            """The medians of the first and of the last fifth of what is warm, and the most."""
            warm = [value for at, value in series if at >= start and value is not None]
            fifth = max(1, len(warm) // 5)
            return statistics.median(warm[:fifth]), statistics.median(warm[-fifth:]), max(warm)

        first, last, most = ends(self.memory)
        bound = max(GROWTH, GROWTH_SHARE * first)
        mb = [None if size is None else f"{size / MEGABYTE:.1f}" for size in (most, self.memory[0][1], self.rest_memory)]
        shown = (
            f"{first / MEGABYTE:.1f} MB → {last / MEGABYTE:.1f} MB (most {mb[0]}, at the start {mb[1]}, at rest {mb[2] or '—'}); "
            f"bound +{bound / MEGABYTE:.1f}"
        )
        yield "memory is flat", shown, last - first <= bound
        for name in ["strowger_transactions", "strowger_timers", "strowger_bindings"]:
            first, last, most = ends([(at, gauges[name]) for at, gauges in self.gauges])
            yield f"{name} is flat", f"{first:g} → {last:g} (most {most:g})", last <= 1.25 * first + 20

    def end(self) -> None:
        self.rest_memory = legit.resident(self.pid)
        self.process.child.terminate()
        self.ended = self.process.child.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(prog="perf/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of calls; the rest takes up to two and a half more [60]")
    parser.add_argument("--share", type=float, default=0.7, help="of its core, for whoever is busier, phones or server [0.7]")
    server_options(parser)
    arguments = parser.parse_args()
    if arguments.minutes < 2:
        parser.error("less than 2 minutes are not long enough to be warm")
    program = binary(arguments)
    certificates.make()
    net.enter()
    # Whoever ends us ends the server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="strowger-soak-") as directory:
        soak = Soak(arguments, program, directory)
        try:
            asyncio.run(soak.whole())
            soak.end()
            held = True
            rates = ", ".join(f"{kind} {rate * soak.factor:.0f}" for kind, rate in RATES.items())
            phones, server = soak.cpu
            print(f"{arguments.minutes:g} minutes; a second: {rates}; CPU: phones {phones:.0%}, server {server:.0%} of a core")
            for what, seen, well in soak.checks():
                print(f"    {verdicts.line(what, seen, well)}")
                held &= well is not False
        finally:
            if getattr(soak, "process", None):
                soak.process.stop()
        if not held:
            kept = os.path.join(tempfile.gettempdir(), "strowger-soak.log")
            shutil.copy(soak.path("log"), kept)
            print(f"the server's log: {kept}")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()

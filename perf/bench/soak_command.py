"""perf/soak: everything at once for a long time. Memory stays flat, no call fails, and when all is quiet nothing is left over."""

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import ssl
import statistics
import sys
import tempfile
import time

import certificates
from attack import legit, net, sip
from attack.lab import base, merged, of, parsed, toml
from attack_command import binary
from machine import Process

MEGABYTE = 1 << 20
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


class Phone(legit.Phone):
    """One that forgets what is a minute old: an hour's calls are many."""

    def tidy(self):
        for kept in (self.answered, self.unacknowledged):
            old = getattr(self, "old", {}).get(id(kept), set())
            for key in [key for key in kept if key in old]:
                del kept[key]
        self.dialogs -= getattr(self, "old", {}).get("dialogs", set())
        self.old = {id(kept): set(kept) for kept in (self.answered, self.unacknowledged)} | {"dialogs": set(self.dialogs)}


class Soak(legit.Background):
    def __init__(self, arguments, program, directory):
        super().__init__(RATES, None, certificates.path("ca.pem"))
        self.arguments, self.program, self.directory = arguments, program, directory
        self.factor, self.reloads, self.gauges, self.memory, self.waits = 1.0, 0, [], [], []
        self.serials, self.refreshed = set(), itertools.count()

    # The server.

    def conf(self, contacts=10):
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

    def path(self, name):
        return os.path.join(self.directory, name)

    def certificate(self, kind):
        for end in ["pem", "key"]:
            shutil.copy(certificates.path(f"{kind}.{end}"), self.path(f"next.{end}"))
            os.replace(self.path(f"next.{end}"), self.path(f"server.{end}"))

    async def command(self, *words, text=""):
        child = await asyncio.create_subprocess_exec(
            self.program,
            *words,
            "-c",
            "strowger.toml",
            cwd=self.directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await child.communicate(text.encode())
        if child.returncode:
            raise RuntimeError(f"strowger {' '.join(words)}: {said.decode()}")

    async def scrape(self):
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

    async def start(self):
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

    def held(self):
        """Files and threads of the server."""
        return {kind: len(os.listdir(f"/proc/{self.pid}/{kind}")) for kind in ["fd", "task"]}

    # What goes on beside the calls.

    def begin(self, kind):
        if kind == "refreshed":
            return self.callees[next(self.refreshed) % legit.PHONES].register(expires=EXPIRES)
        if kind == "new":
            self.number += 1
            return self.others[self.number % legit.PHONES].register(f"fresh{self.number % legit.FRESH}", expires=EXPIRES)
        return super().begin(kind)

    async def pace(self, kind, rate):
        due = time.monotonic()
        while True:
            due += 1 / (rate * self.factor)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.one(kind, due))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def note(self, kind, due, why=""):
        self.records.append((kind, due, 0.0, None if why else time.monotonic() - due, why))

    async def one(self, kind, due):
        """Where its own time and that of a retransmission end in one turn of a loop that is late, Python's timeouts cancel the
        whole task."""
        try:
            await super().one(kind, due)
        except asyncio.CancelledError:
            self.note(kind, due, "no answer")

    async def users(self):
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

    async def becomes(self, phone, name, word, wanted):
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

    async def reload(self):
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

    async def lasting(self, kind):
        """One connection for the whole time, over which its phone registers every two seconds."""
        context = self.contexts[kind]
        more = {"ssl": context, "server_hostname": sip.SERVER[0]} if context else {}
        reader, writer = await asyncio.open_connection(sip.SERVER[0], sip.TLS_PORT if context else sip.SERVER[1], **more)
        user, mine = f"fresh{int(kind == 'tls')}", writer.get_extra_info("sockname")
        credentials, cseq, call_id, uri = sip.Credentials(user), 0, sip.unique(), f"sip:{sip.DOMAIN}"
        try:
            while True:
                due, status = time.monotonic(), 401
                try:
                    for _ in range(3):
                        cseq += 1
                        writer.write(
                            sip.request(
                                "REGISTER",
                                uri,
                                mine,
                                sip.aor(user),
                                sip.aor(user),
                                f"Expires: {EXPIRES}",
                                *credentials.lines("REGISTER", uri),
                                call_id=call_id,
                                cseq=cseq,
                                transport=kind.upper(),
                                contact=f"<sip:{user}@{mine[0]}:{mine[1]};transport={kind}>",
                            )
                        )
                        async with asyncio.timeout(legit.PATIENCE):
                            answer = sip.Message(await reader.readuntil(b"\r\n\r\n"))
                        status = answer.status
                        if status != 401 or not credentials.take(answer):
                            break
                    self.note(f"one {kind} connection", due, "" if status == 200 else f"REGISTER {status}")
                except (TimeoutError, OSError, asyncio.IncompleteReadError) as failed:
                    self.note(f"one {kind} connection", due, type(failed).__name__)
                    return
                await asyncio.sleep(2)
        finally:
            writer.transport.abort()

    async def watch(self):
        """Memory every second, the gauges every five, the serial numbers of certificates as they are shown."""
        for number in itertools.count():
            self.memory.append((time.monotonic(), legit.resident(self.pid)))
            self.waits.append((time.monotonic(), [legit.scheduled(pid)[1] for pid in (os.getpid(), self.pid)]))
            if number % 5 == 0:
                metrics = await self.scrape()
                self.gauges.append((time.monotonic(), {name: of(metrics, name) for name in LEFT_OVER}))
                self.serials.add(await self.serial())
            await asyncio.sleep(SAMPLE_EVERY)

    async def serial(self):
        _, writer = await asyncio.open_connection(
            sip.SERVER[0], sip.TLS_PORT, ssl=self.contexts["tls"], server_hostname=sip.SERVER[0]
        )
        shown = ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(True))
        writer.transport.abort()
        return hash(shown)

    async def find_rate(self):
        """The factor by which whoever is busiest, the phones (one thread) or the server (one core), is busy for the share of its
        core."""
        own, server, began = legit.cpu_seconds(os.getpid()), legit.cpu_seconds(self.pid), time.monotonic()
        await asyncio.sleep(MEASURED_S)
        took = time.monotonic() - began
        self.cost = [(legit.cpu_seconds(os.getpid()) - own) / took, (legit.cpu_seconds(self.pid) - server) / took]
        self.factor = min(50.0, max(0.2, self.arguments.share / max(self.cost)))

    async def whole(self):
        self.first = await self.start()
        self.first_held = self.held()
        self.callers = [await Phone(user, legit.caller_place(number)).open() for number, user in enumerate(legit.CALLERS)]
        self.callees = [await Phone(user, legit.callee_place(number)).open() for number, user in enumerate(legit.CALLEES)]
        self.others = [await Phone("other", (f"198.18.3.{number + 1}", 5060)).open() for number in range(legit.PHONES)]
        for callee in self.callees:
            await callee.register(expires=EXPIRES)
        paced = [asyncio.create_task(self.pace(kind, rate)) for kind, rate in self.rates.items()]
        await self.find_rate()
        cpu, began = (legit.cpu_seconds(os.getpid()), legit.cpu_seconds(self.pid)), time.monotonic()
        beside = [
            asyncio.create_task(one)
            for one in [self.users(), self.reload(), self.watch(), self.lasting("tcp"), self.lasting("tls")]
        ]
        try:
            done, _ = await asyncio.wait(beside, timeout=self.arguments.minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            took = time.monotonic() - began
            self.cpu = [(legit.cpu_seconds(pid) - before) / took for pid, before in zip((os.getpid(), self.pid), cpu)]
            for task in [*paced, *beside]:
                task.cancel()
        await asyncio.gather(*paced, *beside, return_exceptions=True)
        if self.tasks:
            await asyncio.wait(self.tasks)
        await self.rest()

    async def rest(self):
        """Until nothing is left over, or no longer is waited."""
        began = time.monotonic()
        while True:
            self.last, self.last_held = await self.scrape(), self.held()
            left = self.left_over()
            self.rested = time.monotonic() - began
            if not left or self.rested > REST:
                return
            await asyncio.sleep(2)

    def left_over(self):
        """Name, before, after. The scrape is itself a connection, of another kind."""
        found = [(name, of(self.first, name), of(self.last, name)) for name in LEFT_OVER]
        found += [(f"/proc/…/{kind}", self.first_held[kind], self.last_held[kind]) for kind in self.last_held]
        return [(name, before, after) for name, before, after in found if after > before]

    # What became of it.

    def disturbed(self):
        """The times in which the phones or the server waited for a core."""
        return [
            (at, until)
            for (at, before), (until, after) in itertools.pairwise(self.waits)
            if max(b - a for a, b in zip(before, after)) > DISTURBED * (until - at)
        ]

    def checks(self):
        kinds = sorted({record[0] for record in self.records})
        waited = self.disturbed()
        share = sum(until - at for at, until in waited) / max(1.0, self.waits[-1][0] - self.waits[0][0])
        yield (
            "the machine was ours",
            f"the phones or the server waited for a core in {share:.0%} of the time",
            None if waited else True,
        )
        for kind in kinds:
            mine = [record for record in self.records if record[0] == kind]
            failed = [
                record
                for record in mine
                if record[3] is None
                and not any(until > record[1] - 1 and at < record[1] + legit.PATIENCE + 1 for at, until in waited)
            ]
            disturbed = len([record for record in mine if record[3] is None]) - len(failed)
            times = sorted(1000 * record[3] for record in mine if record[3] is not None) or [0.0]
            beside = f", {disturbed} not to be told (no core)" if disturbed else ""
            shown = (
                f"{len(mine) - len(failed) - disturbed} of {len(mine)}{beside}; ms: median {statistics.median(times):.1f}, 99th "
                f"{times[int(0.99 * (len(times) - 1))]:.0f}, most {times[-1]:.0f}"
            )
            whys = ", ".join(sorted({record[4] for record in failed}))
            yield f"{kind} go well", shown + (f" ({whys})" if whys else ""), not failed and len(mine) > 0
        yield from self.memory_checks()
        left = self.left_over()
        shown = (
            "; ".join(f"{name} {before:g} → {after:g}" for name, before, after in left)
            or f"nothing, {self.rested:.0f} s after the last call"
        )
        yield "nothing is left over", shown, not left
        risen = {
            name: value - self.first.get(name, 0)
            for name, value in self.last.items()
            if NEVER.match(name) and value > self.first.get(name, 0) and not (waited and 'limit="overload"' in name)
        }
        yield (
            "nothing refused, lost or displaced",
            "; ".join(f"{name} +{value:g}" for name, value in risen.items()) or "none of it",
            not risen,
        )
        with open(self.path("log"), errors="replace") as text:
            log = text.read()
        wrong = [
            line
            for line in log.splitlines()
            if re.search(r"\b(WARN|ERROR)\b|panicked", line) and not (waited and OTHERS.search(line))
        ]
        yield (
            "the log has no warning",
            wrong[0][:200] + f" ({len(wrong)} lines)" if wrong else f"{len(log.splitlines())} lines",
            not wrong,
        )
        yield "the certificate was replaced", f"{len(self.serials)} were shown; {self.reloads} reloads", len(self.serials) == 2
        yield "the server ends well", str(self.ended), self.ended == 0

    def memory_checks(self):
        start = self.memory[0][0] + min(WARM_UP, (self.memory[-1][0] - self.memory[0][0]) / 2)
        warm = [size for at, size in self.memory if at >= start]
        fifth = max(1, len(warm) // 5)
        first, last = statistics.median(warm[:fifth]), statistics.median(warm[-fifth:])
        bound = max(GROWTH, GROWTH_SHARE * first)
        shown = (
            f"{first / MEGABYTE:.1f} MB → {last / MEGABYTE:.1f} MB (most {max(warm) / MEGABYTE:.1f}, at the start "
            f"{self.memory[0][1] / MEGABYTE:.1f}, "
            f"at rest {legit_or(self.rest_memory)}); bound +{bound / MEGABYTE:.1f}"
        )
        yield "memory is flat", shown, last - first <= bound
        for name in ["strowger_transactions", "strowger_timers", "strowger_bindings"]:
            values = [gauges[name] for at, gauges in self.gauges if at >= start]
            fifth = max(1, len(values) // 5)
            first, last = statistics.median(values[:fifth]), statistics.median(values[-fifth:])
            yield f"{name} is flat", f"{first:g} → {last:g} (most {max(values):g})", last <= 1.25 * first + 20

    def end(self):
        self.rest_memory = legit.resident(self.pid)
        self.process.child.terminate()
        self.ended = self.process.child.wait(30)


def legit_or(size):
    return f"{size / MEGABYTE:.1f}" if size else "—"


def main():
    parser = argparse.ArgumentParser(prog="perf/soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=60, help="of calls; the rest after them takes up to two and a half more [60]"
    )
    parser.add_argument(
        "--share", type=float, default=0.7, help="of its core, for the phones or the server, whichever is busier [0.7]"
    )
    parser.add_argument("--binary", type=os.path.abspath, help="this server instead of the release build")
    parser.add_argument("--no-build", action="store_true", help="take the binary that there is")
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
            print(
                f"{arguments.minutes:g} minutes; a second: {rates}; CPU: phones {soak.cpu[0]:.0%}, server {soak.cpu[1]:.0%} of a "
                f"core"
            )
            for what, seen, well in soak.checks():
                print(f"    [{ {True: 'yes', False: 'NO', None: '—'}[well] }] {what}: {seen}")
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

"""The legitimate traffic beside an attack, in a process of its own: calls, registrations and connections on a schedule that nothing
received can move, with retransmissions as RFC 3261 asks; and what the server takes meanwhile of memory and CPU."""

import asyncio
import contextlib
import glob
import itertools
import os
import ssl
import time
from collections.abc import Awaitable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

from attack import sip
from attack.sip import SERVER, Credentials, Message, Place

T1, T2 = 0.5, 4.0
# A call or registration that has not ended well after so long has failed: three retransmissions fit in.
PATIENCE = 4.0
HOLD = 0.05
PHONES = 10
FRESH = 4000
CALLERS = [f"caller{number}" for number in range(PHONES)]
CALLEES = [f"callee{number}" for number in range(PHONES)]
USERS = [*CALLERS, *CALLEES, *(f"fresh{number}" for number in range(FRESH))]

Record = tuple[str, float, float, float | None, str]
Sample = tuple[float, int | None, float, float]


def caller_place(number: int) -> Place:
    return (f"198.18.1.{number + 1}", 5060)


def callee_place(number: int) -> Place:
    return (f"198.18.2.{number + 1}", 5060)


class Failed(Exception):
    pass


class Phone(asyncio.DatagramProtocol):
    def __init__(self, user: str, place: Place) -> None:
        self.user, self.place = user, place
        self.credentials = Credentials(user)
        self.waiting: dict[str, asyncio.Queue[Message]] = {}
        self.answered: dict[str, bytes] = {}
        self.unacknowledged: dict[str, bytes] = {}
        self.dialogs: set[str] = set()

    @property
    def contact(self) -> str:
        return f"<sip:{self.user}@{self.place[0]}:{self.place[1]}>"

    async def open(self) -> Self:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.place)
        return self

    def send(self, data: bytes) -> None:
        self.transport.sendto(data, SERVER)

    # As a client.

    async def transact(self, data: bytes, method: str, branch: str) -> Message:
        """The final answer."""
        queue: asyncio.Queue[Message] = asyncio.Queue()
        self.waiting[branch] = queue
        invites, interval, provisional = method == "INVITE", T1, False
        try:
            self.send(data)
            while True:
                try:
                    async with asyncio.timeout(None if provisional and invites else interval):
                        answer = await queue.get()
                except TimeoutError:
                    self.send(data)
                    interval = interval * 2 if invites else min(interval * 2, T2)
                    continue
                if answer.status and answer.status >= 200:
                    return answer
                provisional = True
        finally:
            del self.waiting[branch]

    async def ask(self, method: str, uri: str, to: str, credentials: Credentials, *lines: str, **more: Any) -> Message:
        """The same with digest: at most two challenges, the second where the nonce has grown old."""
        frm = f"<{sip.aor(credentials.name)}>;tag={sip.unique('f')}"
        dialog: dict[str, Any] = {"call_id": sip.unique()}
        for cseq in [1, 2, 3]:
            dialog |= {"cseq": cseq, "branch": sip.MAGIC + sip.unique()}
            proof = credentials.lines(method, uri)
            data = sip.request(method, uri, self.place, frm, to, *lines, *proof, **dialog, **more)
            answer = await self.transact(data, method, dialog["branch"])
            if method == "INVITE" and answer.status and answer.status >= 300:
                self.send(sip.request("ACK", uri, self.place, frm, answer.get("to"), **dialog))
            if answer.status not in (401, 407) or not credentials.take(answer):
                break
        if answer.status and answer.status >= 300:
            raise Failed(f"{method} {answer.status}")
        return answer

    async def call(self, uri: str) -> float:
        """The time to its 200; the call is well when its BYE is answered, too."""
        began = time.monotonic()
        answer = await self.ask("INVITE", uri, uri, self.credentials, contact=self.contact, body=sip.SDP)
        took = time.monotonic() - began
        number, branch = answer.cseq[0], sip.MAGIC + sip.unique()

        def within(method: str, **more: Any) -> bytes:
            sides, call_id = (answer.get("from"), answer.get("to")), answer.get("call-id")
            return sip.request(method, answer.contacts[0], self.place, *sides, *answer.routes(), call_id=call_id, **more)

        self.send(within("ACK", cseq=number))
        await asyncio.sleep(HOLD)
        ended = await self.transact(within("BYE", cseq=number + 1, branch=branch), "BYE", branch)
        if ended.status != 200:
            raise Failed(f"BYE {ended.status}")
        return took

    async def register(self, user: str | None = None, expires: int = 300) -> float:
        began = time.monotonic()
        credentials = Credentials(user) if user else self.credentials
        name = credentials.name
        contact = f"<sip:{name}@{self.place[0]}:{self.place[1]}>"
        await self.ask("REGISTER", sip.HOME, sip.aor(name), credentials, f"Expires: {expires}", contact=contact)
        return time.monotonic() - began

    # As a server.

    def datagram_received(self, data: bytes, _: Place) -> None:
        try:
            message = Message(data)
        except (ValueError, IndexError):
            return
        if message.status:
            queue = self.waiting.get(message.branch)
            if queue:
                queue.put_nowait(message)
        elif message.method == "INVITE":
            self.invited(message)
        elif message.method == "ACK":
            self.unacknowledged.pop(message.get("call-id"), None)
        else:
            known = message.method != "BYE" or message.get("call-id") in self.dialogs
            self.send(sip.response(message, *((200, "OK") if known else (481, "No Such Call"))))

    def invited(self, message: Message) -> None:
        key = message.branch
        if key in self.answered:
            return self.send(self.answered[key])
        own, call_id = sip.unique("t"), message.get("call-id")
        self.dialogs.add(call_id)
        self.send(sip.response(message, 180, "Ringing", to_tag=own, contact=self.contact))
        final = self.answered[key] = sip.response(message, 200, "OK", to_tag=own, contact=self.contact, body=sip.SDP)
        self.unacknowledged[call_id] = final
        self.send(final)
        asyncio.get_running_loop().call_later(T1, self.again, call_id, T1)

    def again(self, call_id: str, interval: float) -> None:
        data = self.unacknowledged.get(call_id)
        if data and interval < 64 * T1:
            self.send(data)
            interval = min(2 * interval, T2)
            asyncio.get_running_loop().call_later(interval, self.again, call_id, interval)

    def error_received(self, why: Exception) -> None:
        pass


class Stream:
    """A phone that registers over one connection, with TLS if there is a context."""

    def __init__(self, user: str, context: ssl.SSLContext | None) -> None:
        self.credentials, self.context = Credentials(user), context
        self.cseq, self.call_id = 0, sip.unique()

    async def open(self, place: Place | None = None) -> Self:
        port = sip.TLS_PORT if self.context else SERVER[1]
        more: dict[str, Any] = {"ssl": self.context, "server_hostname": SERVER[0]} if self.context else {}
        self.reader, self.writer = await asyncio.open_connection(SERVER[0], port, local_addr=place, **more)
        return self

    async def register(self, expires: int) -> None:
        """After at most two challenges."""
        kind, mine = "TLS" if self.context else "TCP", self.writer.get_extra_info("sockname")
        user = sip.aor(self.credentials.name)
        contact = f"<sip:{self.credentials.name}@{mine[0]}:{mine[1]};transport={kind.lower()}>"
        for _ in range(3):
            self.cseq += 1
            lines = [f"Expires: {expires}", *self.credentials.lines("REGISTER", sip.HOME)]
            dialog: dict[str, Any] = {"call_id": self.call_id, "cseq": self.cseq, "transport": kind, "contact": contact}
            self.writer.write(sip.request("REGISTER", sip.HOME, mine, user, user, *lines, **dialog))
            answer = Message(await self.reader.readuntil(b"\r\n\r\n"))
            if answer.status != 401 or not self.credentials.take(answer):
                break
        if answer.status != 200:
            raise Failed(f"REGISTER {answer.status}")

    def close(self) -> None:
        self.writer.transport.abort()


async def stream_registration(user: str, place: Place, context: ssl.SSLContext | None) -> float:
    """A new connection, and a registration over it."""
    began = time.monotonic()
    stream = await Stream(user, context).open((place[0], 0))
    try:
        await stream.register(300)
        return time.monotonic() - began
    finally:
        stream.close()


class Background:
    """`rates` are a second, by kind: calls, refreshed and new registrations over UDP, new connections over TCP and TLS, calls to
    fresh names."""

    # A callee's registrations, and those of others, seconds.
    expires, new_expires = 3600, 300
    phone: type[Phone] = Phone
    # All rates are multiplied by it.
    factor = 1.0
    callers: Sequence[Phone]
    callees: Sequence[Phone]
    others: Sequence[Phone]

    def __init__(self, rates: Mapping[str, float], pid: int | None, authority: str) -> None:
        self.rates, self.pid = rates, pid
        self.records: list[Record] = []
        self.samples: list[Sample] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.contexts: dict[str, ssl.SSLContext | None] = {"tcp": None, "tls": None}
        if rates.get("tls"):
            context = self.contexts["tls"] = ssl.create_default_context(cafile=authority)
            context.check_hostname = False
        self.numbers, self.refreshed = itertools.count(1), itertools.count()

    async def run(self, pipe: Connection) -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), stopped.set)
        await self.open_phones()
        pipe.send("ready")
        paced, sampled = self.paced(), asyncio.create_task(self.sample())
        await stopped.wait()
        for task in paced:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        sampled.cancel()
        pipe.send((self.records, self.samples))

    async def open_phones(self) -> None:
        self.callers = [await self.phone(user, caller_place(number)).open() for number, user in enumerate(CALLERS)]
        self.callees = [await self.phone(user, callee_place(number)).open() for number, user in enumerate(CALLEES)]
        self.others = [await self.phone("other", (f"198.18.3.{number + 1}", 5060)).open() for number in range(PHONES)]
        for callee in self.callees:
            with contextlib.suppress(Failed, TimeoutError):
                await asyncio.wait_for(callee.register(expires=self.expires), PATIENCE)

    def paced(self) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.pace(kind, rate)) for kind, rate in self.rates.items() if rate]

    async def pace(self, kind: str, rate: float) -> None:
        due = time.monotonic()
        while True:
            due += 1 / (rate * self.factor)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.one(kind, due))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def begin(self, kind: str) -> Awaitable[float]:
        turn = next(self.numbers)
        number, user = turn % PHONES, f"fresh{turn % FRESH}"
        match kind:
            case "calls":
                return self.callers[number].call(sip.aor(CALLEES[turn // PHONES % PHONES]))
            case "names":
                return self.callers[number].call(f"sip:out-{CALLEES[number]}@n{number}-{sip.unique()}.good.test")
            case "refreshed":
                return self.callees[next(self.refreshed) % PHONES].register(expires=self.expires)
            case "new":
                return self.others[number].register(user, expires=self.new_expires)
            case _:
                return stream_registration(user, self.others[number].place, self.contexts[kind])

    async def one(self, kind: str, due: float) -> None:
        lag, took, why = time.monotonic() - due, None, ""
        try:
            async with asyncio.timeout(PATIENCE):
                took = await self.begin(kind)
        except TimeoutError:
            why = "no answer"
        except Failed as failed:
            why = str(failed)
        except (OSError, asyncio.IncompleteReadError, IndexError) as failed:
            why = type(failed).__name__
        self.records.append((kind, due, lag, took, why))

    async def sample(self) -> None:
        while True:
            self.samples.append((time.monotonic(), resident(self.pid), *scheduled(self.pid)))
            await asyncio.sleep(0.1)


def resident(pid: int | None) -> int | None:
    try:
        with open(f"/proc/{pid}/statm") as text:
            return int(text.read().split()[1]) * 4096
    except (OSError, IndexError):
        return None


def scheduled(pid: int | None) -> tuple[float, float]:
    """Seconds for which its threads ran, and for which they waited for the core."""
    ran = waited = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with contextlib.suppress(OSError, IndexError):
            with open(path) as text:
                one, other = text.read().split()[:2]
            ran, waited = ran + int(one), waited + int(other)
    return ran / 1e9, waited / 1e9


def cpu_seconds(pid: int) -> float:
    return scheduled(pid)[0]


def main(pipe: Connection, rates: Mapping[str, float], pid: int, authority: str) -> None:
    """In the process of its own: before whoever attacks, where both want the core."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)

    asyncio.run(Background(rates, pid, authority).run(pipe))

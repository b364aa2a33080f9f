"""The legitimate traffic beside an attack, in a process of its own: calls, registrations and connections on a schedule that nothing
received can move, with retransmissions as RFC 3261 asks; and what the server takes meanwhile of memory and CPU."""

import asyncio
import contextlib
import glob
import os
import ssl
import time

from attack import sip
from attack.sip import SERVER, Credentials, Message

T1, T2 = 0.5, 4.0
# A call or registration that has not ended well after so long has failed: three retransmissions fit in.
PATIENCE = 4.0
HOLD = 0.05
PHONES = 10
FRESH = 4000
CALLERS = [f"caller{number}" for number in range(PHONES)]
CALLEES = [f"callee{number}" for number in range(PHONES)]
USERS = [*CALLERS, *CALLEES, *(f"fresh{number}" for number in range(FRESH))]


def caller_place(number):
    return (f"198.18.1.{number + 1}", 5060)


def callee_place(number):
    return (f"198.18.2.{number + 1}", 5060)


class Failed(Exception):
    pass


class Phone(asyncio.DatagramProtocol):
    def __init__(self, user, place):
        self.user, self.place = user, place
        self.credentials = Credentials(user)
        self.waiting, self.answered, self.unacknowledged, self.dialogs = {}, {}, {}, set()

    @property
    def contact(self):
        return f"<sip:{self.user}@{self.place[0]}:{self.place[1]}>"

    async def open(self):
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.place)
        return self

    def send(self, data):
        self.transport.sendto(data, SERVER)

    # As a client.

    async def transact(self, data, method, branch):
        """The final answer."""
        queue = self.waiting[branch] = asyncio.Queue()
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
                if answer.status >= 200:
                    return answer
                provisional = True
        finally:
            del self.waiting[branch]

    async def ask(self, method, uri, to, credentials, **more):
        """The same with digest: at most two challenges, the second where the nonce has grown old."""
        frm, call_id = f"<{sip.aor(credentials.name)}>;tag={sip.unique('f')}", sip.unique()
        lines = more.pop("lines", [])
        for cseq in [1, 2, 3]:
            branch = sip.MAGIC + sip.unique()
            data = sip.request(
                method,
                uri,
                self.place,
                frm,
                to,
                *lines,
                *credentials.lines(method, uri),
                call_id=call_id,
                cseq=cseq,
                branch=branch,
                **more,
            )
            answer = await self.transact(data, method, branch)
            if method == "INVITE" and answer.status >= 300:
                self.send(sip.request("ACK", uri, self.place, frm, answer.get("to"), call_id=call_id, cseq=cseq, branch=branch))
            if answer.status not in (401, 407) or not credentials.take(answer):
                break
        if answer.status >= 300:
            raise Failed(f"{method} {answer.status}")
        return answer

    async def call(self, uri):
        """The time to its 200; the call is well when its BYE is answered, too."""
        began = time.monotonic()
        answer = await self.ask("INVITE", uri, uri, self.credentials, contact=self.contact, body=sip.SDP)
        took = time.monotonic() - began
        dialog = dict(call_id=answer.get("call-id"))
        target, routes = answer.contacts[0], sip.route_set(answer.all("record-route"), True)
        number = answer.cseq[0]
        self.send(sip.request("ACK", target, self.place, answer.get("from"), answer.get("to"), *routes, cseq=number, **dialog))
        await asyncio.sleep(HOLD)
        branch = sip.MAGIC + sip.unique()
        data = sip.request(
            "BYE", target, self.place, answer.get("from"), answer.get("to"), *routes, cseq=number + 1, branch=branch, **dialog
        )
        answer = await self.transact(data, "BYE", branch)
        if answer.status != 200:
            raise Failed(f"BYE {answer.status}")
        return took

    async def register(self, user=None, expires=300):
        began = time.monotonic()
        credentials = Credentials(user) if user else self.credentials
        name = credentials.name
        await self.ask(
            "REGISTER",
            f"sip:{sip.DOMAIN}",
            sip.aor(name),
            credentials,
            lines=[f"Expires: {expires}"],
            contact=f"<sip:{name}@{self.place[0]}:{self.place[1]}>",
        )
        return time.monotonic() - began

    # As a server.

    def datagram_received(self, data, _):
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

    def invited(self, message):
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

    def again(self, call_id, interval):
        data = self.unacknowledged.get(call_id)
        if data and interval < 64 * T1:
            self.send(data)
            interval = min(2 * interval, T2)
            asyncio.get_running_loop().call_later(interval, self.again, call_id, interval)

    def error_received(self, why):
        pass


async def stream_registration(user, place, context):
    """A new connection, and a registration over it."""
    began = time.monotonic()
    port = sip.TLS_PORT if context else SERVER[1]
    name = {"server_hostname": SERVER[0]} if context else {}
    reader, writer = await asyncio.open_connection(SERVER[0], port, local_addr=(place[0], 0), ssl=context, **name)
    try:
        credentials, mine, call_id = Credentials(user), writer.get_extra_info("sockname"), sip.unique()
        kind = "TLS" if context else "TCP"
        for cseq in [1, 2]:
            uri = f"sip:{sip.DOMAIN}"
            writer.write(
                sip.request(
                    "REGISTER",
                    uri,
                    mine,
                    sip.aor(user),
                    sip.aor(user),
                    "Expires: 300",
                    *credentials.lines("REGISTER", uri),
                    call_id=call_id,
                    cseq=cseq,
                    transport=kind,
                    contact=f"<sip:{user}@{mine[0]}:{mine[1]};transport={kind.lower()}>",
                )
            )
            head = await reader.readuntil(b"\r\n\r\n")
            answer = Message(head)
            if answer.status != 401 or not credentials.take(answer):
                break
        if answer.status != 200:
            raise Failed(f"REGISTER {answer.status}")
        return time.monotonic() - began
    finally:
        writer.transport.abort()


def client_context(authority):
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    return context


class Background:
    """`rates` are a second, by kind: calls, refreshed and new registrations over UDP, new connections over TCP and TLS, calls to
    fresh names."""

    def __init__(self, rates, pid, authority):
        self.rates, self.pid = rates, pid
        self.records, self.samples, self.tasks = [], [], set()
        self.contexts = {"tcp": None, "tls": client_context(authority) if rates.get("tls") else None}
        self.stopped = asyncio.Event()
        self.number = 0

    async def run(self, pipe):
        self.callers = [await Phone(user, caller_place(number)).open() for number, user in enumerate(CALLERS)]
        self.callees = [await Phone(user, callee_place(number)).open() for number, user in enumerate(CALLEES)]
        self.others = [await Phone("other", (f"198.18.3.{number + 1}", 5060)).open() for number in range(PHONES)]
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), self.stopped.set)
        for callee in self.callees:
            with contextlib.suppress(Failed, TimeoutError):
                await asyncio.wait_for(callee.register(expires=3600), PATIENCE)
        pipe.send("ready")
        paced = [asyncio.create_task(self.pace(kind, rate)) for kind, rate in self.rates.items() if rate]
        paced.append(asyncio.create_task(self.sample()))
        await self.stopped.wait()
        for task in paced[:-1]:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        pipe.send((self.records, self.samples))

    async def pace(self, kind, rate):
        due = time.monotonic()
        while True:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.one(kind, due))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def begin(self, kind):
        self.number += 1
        number = self.number % PHONES
        if kind == "calls":
            return self.callers[number].call(sip.aor(CALLEES[self.number // PHONES % PHONES]))
        if kind == "names":
            return self.callers[number].call(f"sip:out-{CALLEES[number]}@n{number}-{sip.unique()}.good.test")
        if kind == "refreshed":
            return self.callees[number].register(expires=3600)
        user = f"fresh{self.number % FRESH}"
        if kind == "new":
            return self.others[number].register(user)
        return stream_registration(user, self.others[number].place, self.contexts[kind])

    async def one(self, kind, due):
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

    async def sample(self):
        while True:
            self.samples.append((time.monotonic(), resident(self.pid), *scheduled(self.pid)))
            await asyncio.sleep(0.1)


def resident(pid):
    try:
        with open(f"/proc/{pid}/statm") as text:
            return int(text.read().split()[1]) * 4096
    except (OSError, IndexError):
        return None


def scheduled(pid):
    """Seconds for which its threads ran, and for which they waited for the core."""
    ran = waited = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with contextlib.suppress(OSError, IndexError):
            with open(path) as text:
                one, other = text.read().split()[:2]
            ran, waited = ran + int(one), waited + int(other)
    return ran / 1e9, waited / 1e9


def cpu_seconds(pid):
    return scheduled(pid)[0]


def main(pipe, rates, pid, authority):
    """In the process of its own: before whoever attacks, where both want the core."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)

    async def run():
        await Background(rates, pid, authority).run(pipe)

    asyncio.run(run())

"""How long a change of the location table takes from one server to another, seen from outside.

Phones register at one server at a steady rate, each once. For some of them the other server is asked, again and again, with an
OPTIONS for their address; it answers itself until it knows the binding, and then forwards to the phone. The time from the 200 to
the REGISTER until the first OPTIONS leaves that reaches the phone is the delay, to within the interval between two questions."""

import random
import re
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from attack import net, sip

Address = tuple[str, int]
INTERVAL = 0.001
# So long one phone is asked for that nobody knows.
PATIENCE = 5.0


@dataclass
class Phone:
    """When its REGISTER had its 200, when it is to be asked for next, and when each question left."""

    known: float
    due: float
    questions: list[float] = field(default_factory=list)


def measure(at: Address, asked: Address, domain: str, rate: float, seconds: float, sampled: int) -> tuple[list[float], int]:
    """The delays in seconds, sorted, and how many REGISTERs and phones got no answer. One phone of `sampled` is asked for."""
    registering, asking, phones = sockets = [opened() for _ in range(3)]
    # Names that no run before has registered.
    salt, count, sent, answered, lost = random.getrandbits(32), int(rate * seconds), 0, 0, 0
    waiting: dict[int, Phone] = {}
    delays: list[float] = []
    start = now = time.perf_counter()
    while sent < count or (now <= start + seconds + PATIENCE and (waiting or answered < count)):
        while sent < count and start + sent / rate <= now:
            user, port = f"p{salt:x}n{sent}", phones.getsockname()[1]
            contact = f"<sip:{user}@127.0.0.1:{port}>;expires=3600"
            ask("REGISTER", f"sip:{domain}", sip.aor(user, domain), registering, sent, at, contact=contact)
            sent += 1
        select.select(sockets, [], [], 0.0002)
        for text, _ in received(registering):
            if text.startswith(b"SIP/2.0 200"):
                answered, number, now = answered + 1, call_id(text), time.perf_counter()
                if number % sampled == 0:
                    waiting.setdefault(number, Phone(now, now))
        for text, sender in received(phones):
            phones.sendto(sip.response(sip.Message(text), 200, "OK"), sender)
            number, question = divmod(call_id(text), 1 << 16)
            if phone := waiting.pop(number, None):
                delays.append(phone.questions[question] - phone.known)
        # The other server's own answers: not yet.
        list(received(asking))
        now = time.perf_counter()
        for number, phone in list(waiting.items()):
            if now - phone.known > PATIENCE:
                lost += 1
                del waiting[number]
            elif phone.due <= now:
                user = sip.aor(f"p{salt:x}n{number}", domain)
                ask("OPTIONS", user, user, asking, number << 16 | len(phone.questions), asked)
                phone.questions.append(time.perf_counter())
                phone.due = now + INTERVAL
    for one in sockets:
        one.close()
    return sorted(delays), lost + count - answered


def opened() -> socket.socket:
    one = net.udp("127.0.0.1", buffer=4 << 20)
    one.setblocking(False)
    return one


def received(one: socket.socket) -> Iterator[tuple[bytes, Address]]:
    """All that has come."""
    while True:
        try:
            yield one.recvfrom(65536)
        except BlockingIOError:
            return


def ask(method: str, uri: str, user: str, own: socket.socket, number: int, to: Address, **more: Any) -> None:
    """The Call-ID carries the number: responses are matched by it alone."""
    own.sendto(sip.request(method, uri, own.getsockname(), user, user, call_id=f"{number}", **more), to)


def call_id(text: bytes) -> int:
    found = re.search(rb"^call-id: *(\d+)", text, re.MULTILINE | re.IGNORECASE)
    if not found:
        raise RuntimeError(f"without a Call-ID: {text!r}")
    return int(found[1])

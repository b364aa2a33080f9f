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
            contact = [f"Contact: <sip:p{salt:x}n{sent}@127.0.0.1:{phones.getsockname()[1]}>", "Expires: 3600"]
            ask("REGISTER", f"sip:{domain}", f"p{salt:x}n{sent}@{domain}", registering, sent, at, *contact)
            sent += 1
        select.select(sockets, [], [], 0.0002)
        for text, _ in received(registering):
            if text.startswith(b"SIP/2.0 200"):
                answered, number, now = answered + 1, call_id(text), time.perf_counter()
                if number % sampled == 0:
                    waiting.setdefault(number, Phone(now, now))
        for text, sender in received(phones):
            phones.sendto(ok(text), sender)
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
                user = f"p{salt:x}n{number}@{domain}"
                ask("OPTIONS", f"sip:{user}", user, asking, number << 16 | len(phone.questions), asked)
                phone.questions.append(time.perf_counter())
                phone.due = now + INTERVAL
    for one in sockets:
        one.close()
    return sorted(delays), lost + count - answered


def opened() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    one.bind(("127.0.0.1", 0))
    one.setblocking(False)
    return one


def received(one: socket.socket) -> Iterator[tuple[bytes, Address]]:
    """All that has come."""
    while True:
        try:
            yield one.recvfrom(65536)
        except BlockingIOError:
            return


def ask(method: str, uri: str, user: str, own: socket.socket, number: int, to: Address, *more: str) -> None:
    """The Call-ID carries the number: responses are matched by it alone."""
    host, port = own.getsockname()
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{number:x}{random.getrandbits(48):x}",
        f"From: <sip:{user}>;tag={number:x}",
        f"To: <sip:{user}>",
        f"Call-ID: {number}",
        f"CSeq: 1 {method}",
        "Max-Forwards: 70",
        *more,
        "Content-Length: 0",
    ]
    own.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), to)


def ok(text: bytes) -> bytes:
    """The answer of a phone."""
    kept = re.findall(rb"^(?:via|from|to|call-id|cseq):[^\r\n]*\r\n", text, re.MULTILINE | re.IGNORECASE)
    return b"SIP/2.0 200 OK\r\n" + b"".join(kept) + b"Content-Length: 0\r\n\r\n"


def call_id(text: bytes) -> int:
    found = re.search(rb"^call-id: *(\d+)", text, re.MULTILINE | re.IGNORECASE)
    if not found:
        raise RuntimeError(f"without a Call-ID: {text!r}")
    return int(found[1])

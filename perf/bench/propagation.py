"""How long a change of the location table takes from one server to another, seen from outside.

Phones register at one server at a steady rate, each once. For some of them the other server is asked, again and again, with an
OPTIONS for their address; it answers itself until it knows the binding, and then forwards to the phone. The time from the 200 to
the REGISTER until the first OPTIONS leaves that reaches the phone is the delay, to within the interval between two questions."""

from __future__ import annotations

import random
import selectors
import socket
import time

Address = tuple[str, int]
INTERVAL = 0.001
# Questions to be outstanding at most for one phone that nobody knows.
PATIENCE = 5.0


def request(method: str, user: str, domain: str, own: Address, number: int, to_port: int) -> bytes:
    """The Call-ID carries the number: responses are matched by it alone."""
    uri = f"sip:{domain}" if method == "REGISTER" else f"sip:{user}@{domain}"
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP {own[0]}:{own[1]};branch=z9hG4bK{number:x}{random.getrandbits(48):x}",
        f"From: <sip:{user}@{domain}>;tag={number:x}",
        f"To: <sip:{user}@{domain}>",
        f"Call-ID: {number}",
        f"CSeq: 1 {method}",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ]
    if method == "REGISTER":
        lines[-1:-1] = [f"Contact: <sip:{user}@{own[0]}:{to_port}>", "Expires: 3600"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Probe:
    def __init__(self, at: Address, asked: Address, domain: str = "127.0.0.1", host: str = "127.0.0.1"):
        self.at, self.asked, self.domain = at, asked, domain
        self.registering, self.asking, self.phone = (self.open(host) for _ in range(3))
        self.selector = selectors.DefaultSelector()
        for one, handle in [(self.registering, self.registered), (self.asking, None), (self.phone, self.rang)]:
            self.selector.register(one, selectors.EVENT_READ, handle)
        # By number: when its 200 came; when each question left.
        self.known_at: dict[int, float] = {}
        self.questions: dict[int, list[float]] = {}
        self.delays: list[float] = []
        self.answered = self.unanswered = 0
        self.next_question: list[tuple[float, int]] = []

    @staticmethod
    def open(host: str) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        one.bind((host, 0))
        one.setblocking(False)
        return one

    def run(self, rate: float, seconds: float, sampled: int) -> tuple[list[float], int]:
        """Returns the delays in seconds, sorted, and how many REGISTERs were not answered. One of `sampled` phones is asked for."""
        start = time.perf_counter()
        count, own = int(rate * seconds), self.registering.getsockname()
        port = self.phone.getsockname()[1]
        # Names that no run before has registered.
        salt, sent = random.getrandbits(32), 0
        self.salt, self.sampled = salt, sampled
        while True:
            now = time.perf_counter()
            while sent < count and start + sent / rate <= now:
                user = f"p{salt:x}n{sent}"
                self.registering.sendto(request("REGISTER", user, self.domain, own, sent, port), self.at)
                sent += 1
            self.receive()
            self.ask(time.perf_counter())
            if sent == count and (now > start + seconds + PATIENCE or (not self.next_question and self.answered == count)):
                break
        return sorted(self.delays), count - self.answered

    def receive(self) -> None:
        for key, _ in self.selector.select(0.0002):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            while True:
                try:
                    text, sender = one.recvfrom(65536)
                except BlockingIOError:
                    break
                if key.data:
                    key.data(text, sender)

    def registered(self, text: bytes, _: Address) -> None:
        if not text.startswith(b"SIP/2.0 200"):
            return
        self.answered += 1
        number = call_id(text)
        if number % self.sampled == 0 and number not in self.known_at:
            now = time.perf_counter()
            self.known_at[number] = now
            self.questions[number] = []
            self.next_question.append((now, number))

    def rang(self, text: bytes, sender: Address) -> None:
        """A question has reached the phone: the one that left last, at the latest."""
        lines = text.split(b"\r\n\r\n")[0].split(b"\r\n")
        kept = [line for line in lines if line.split(b":")[0].lower() in (b"via", b"from", b"to", b"call-id", b"cseq")]
        self.phone.sendto(b"SIP/2.0 200 OK\r\n" + b"\r\n".join(kept) + b"\r\nContent-Length: 0\r\n\r\n", sender)
        number = call_id(text)
        which, question = number >> 16, number & 0xFFFF
        known = self.known_at.pop(which, None)
        if known is not None:
            self.delays.append(self.questions.pop(which)[question] - known)

    def ask(self, now: float) -> None:
        left, own = [], self.asking.getsockname()
        for due, number in self.next_question:
            if number not in self.known_at:
                continue
            if now - self.known_at[number] > PATIENCE:
                self.unanswered += 1
                del self.known_at[number]
                continue
            if due > now:
                left.append((due, number))
                continue
            questions = self.questions[number]
            user = f"p{self.salt:x}n{number}"
            self.asking.sendto(request("OPTIONS", user, self.domain, own, number << 16 | len(questions), 0), self.asked)
            questions.append(time.perf_counter())
            left.append((now + INTERVAL, number))
        self.next_question = left


def call_id(text: bytes) -> int:
    for line in text.split(b"\r\n"):
        if line[:8].lower() == b"call-id:":
            return int(line[8:])
    raise RuntimeError(f"without a Call-ID: {text!r}")

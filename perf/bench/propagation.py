"""How long a change of the location table takes from one server to another, seen from outside.

Phones register at one server at a steady rate, each once. For some of them the other server is asked, again and again, with an
OPTIONS for their address; it answers itself until it knows the binding, and then forwards to the phone. The time from the 200 to
the REGISTER until the first OPTIONS leaves that reaches the phone is the delay, to within the interval between two questions."""

from __future__ import annotations

import random
import selectors
import socket
import time

from attack import net, sip

Address = tuple[str, int]
INTERVAL = 0.001
# Questions to be outstanding at most for one phone that nobody knows.
PATIENCE = 5.0


class Probe:
    def __init__(self, at: Address, asked: Address, domain: str):
        self.at, self.asked, self.domain = at, asked, domain
        self.registering, self.asking, self.phone = (self.open() for _ in range(3))
        self.selector = selectors.DefaultSelector()
        for one, handle in [(self.registering, self.registered), (self.asking, None), (self.phone, self.rang)]:
            self.selector.register(one, selectors.EVENT_READ, handle)
        # Names that no run before has registered.
        self.salt = random.getrandbits(32)
        # By number: when its 200 came; when each question left.
        self.known_at: dict[int, float] = {}
        self.questions: dict[int, list[float]] = {}
        self.delays: list[float] = []
        self.answered = self.unanswered = 0
        self.next_question: list[tuple[float, int]] = []

    @staticmethod
    def open() -> socket.socket:
        one = net.udp("127.0.0.1", buffer=4 << 20)
        one.setblocking(False)
        return one

    def run(self, rate: float, seconds: float, sampled: int) -> tuple[list[float], int]:
        """Returns the delays in seconds, sorted, and how many REGISTERs were not answered. One of `sampled` phones is asked for."""
        start, count, sent, self.sampled = time.perf_counter(), int(rate * seconds), 0, sampled
        host, port = self.phone.getsockname()
        while True:
            now = time.perf_counter()
            while sent < count and start + sent / rate <= now:
                user = f"p{self.salt:x}n{sent}"
                more = {"contact": f"<sip:{user}@{host}:{port}>;expires=3600", "call_id": f"{sent}"}
                self.send(self.registering, self.at, "REGISTER", f"sip:{self.domain}", sip.aor(user, self.domain), **more)
                sent += 1
            self.receive()
            self.ask(time.perf_counter())
            if sent == count and (now > start + seconds + PATIENCE or (not self.next_question and self.answered == count)):
                break
        return sorted(self.delays), count - self.answered

    @staticmethod
    def send(by: socket.socket, at: Address, method: str, uri: str, user: str, **more: str) -> None:
        """The Call-ID carries a number: responses are matched by it alone."""
        by.sendto(sip.request(method, uri, by.getsockname(), user, user, **more), at)

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
        self.phone.sendto(sip.response(sip.Message(text), 200, "OK"), sender)
        number = call_id(text)
        which, question = number >> 16, number & 0xFFFF
        known = self.known_at.pop(which, None)
        if known is not None:
            self.delays.append(self.questions.pop(which)[question] - known)

    def ask(self, now: float) -> None:
        left = []
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
            user = sip.aor(f"p{self.salt:x}n{number}", self.domain)
            self.send(self.asking, self.asked, "OPTIONS", user, user, call_id=f"{number << 16 | len(questions)}")
            questions.append(time.perf_counter())
            left.append((now + INTERVAL, number))
        self.next_question = left


def call_id(text: bytes) -> int:
    for line in text.split(b"\r\n"):
        if line[:8].lower() == b"call-id:":
            return int(line[8:])
    raise RuntimeError(f"without a Call-ID: {text!r}")

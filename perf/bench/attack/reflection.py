"""Reflection and amplification: bytes out, towards whoever has not proved to be there, for bytes in; forking, loops, Route,
maddr."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attack import net, sip, verdicts
from attack.lab import SETTLE, Lab, Metrics, Scenario, more, of, sum_of

# Timers as of RFC 3261 in a fifth of the time: all that is repeated has been repeated after 6.4 s.
TIMERS = {"timers": {"t1": "100ms", "t2": "800ms", "linger": "6400ms"}}
STRANGER = "sip:x@elsewhere.example"
# A phone of somebody else that answers.
BUSY = "198.18.5.3"
AT_MOST = f"at most {verdicts.REFLECTED:g} bytes out for each byte in"
Form = tuple[str, str, str | None, list[str]]


def reflection(name: str, what: str, source: str, run: Callable[[Lab], None], must: str = AT_MOST, **conf: dict[str, Any]) -> None:
    """Few requests, since each is repeated for long, by a source that never answers."""
    Scenario(name, what, source, must, run, {**TIMERS, **conf}, {"calls": 10, "refreshed": 3}, during=8.0, rest=2.0)


class Third:
    """The machine at which all that comes is counted. Nobody there answers."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.socket = lab, lab.last(net.udp(net.THIRD, 5060, buffer=16 << 20))
        self.datagrams = self.bytes = 0

    def count(self) -> None:
        datagrams, size = net.drain(self.socket)
        self.datagrams += datagrams
        self.bytes += size

    def attack(
        self, request: Callable[[int], int], most: int = 10, rate: float = 10, idle: Callable[[], None] = lambda: None
    ) -> None:
        """`request(number)` sends one and returns its bytes; `idle()`, between two, is what other phones of the attacker do."""
        with self.lab.attack():
            sent = 0
            for number in range(most):
                sent += request(number)
                time.sleep(1 / rate)
                idle()
                self.count()
            while self.lab.left() > 0:
                idle()
                self.count()
                time.sleep(0.02)
            self.factor = verdicts.factor(self.bytes, sent)
            self.lab.seen |= {
                "requests": most,
                "bytes in": sent,
                "datagrams out": self.datagrams,
                "bytes out": self.bytes,
                "bytes out / in": self.factor,
            }

    def check(self) -> None:
        what = f"bytes out for bytes in (at most {verdicts.REFLECTED:g})"
        self.lab.at_most(what, self.factor, verdicts.REFLECTED, "{:.1f}")


def contacts(lab: Lab, padding: str) -> None:
    third, phone, uri = Third(lab), lab.phone("mallory", net.ATTACKER), sip.aor("mallory")
    answers = [phone.register(f"<sip:m{number}@{net.THIRD}:5060{padding}>") for number in range(10)]
    bound = len(phone.bindings() or []) or sum(1 for each in answers if each and each.status == 200)

    def request(number: int) -> int:
        if number == 0:
            phone.take_challenge("INVITE", uri, uri)
        return phone.send(phone.request("INVITE", uri, contact=phone.contact))

    third.attack(request)
    lab.seen["contacts bound"] = bound
    third.check()


def short(lab: Lab, method: str, bound: int = 0) -> None:
    """Requests as short as can be, about an address-of-record with so many contacts."""
    third, phone, name = Third(lab), lab.phone("victim", "198.18.5.1"), sip.aor("victim")
    for number in range(bound):
        phone.register(f"<sip:victim@198.18.5.1:5060;x={'y' * 200}{number}>")
    uri, contact = (sip.HOME, "") if method == "REGISTER" else (name, "m: <sip:a@b>\r\n")

    def request(number: int) -> int:
        return third.socket.sendto(
            f"{method} {uri} SIP/2.0\r\nv: SIP/2.0/UDP {net.THIRD};branch={sip.MAGIC}{number}\r\nf: {name};tag=1\r\nt: {name}\r\n"
            f"i: {number}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n{contact}\r\n".encode(),
            sip.SERVER,
        )

    third.attack(request)
    third.check()


def answered(lab: Lab, status: int) -> None:
    third, phone = Third(lab), lab.phone("friend", BUSY)
    again: list[list[Any]] = []
    phone.register(phone.contact)
    phone.socket.setblocking(False)

    def request(number: int) -> int:
        uri, contact = sip.aor("friend"), f"<sip:x@{net.THIRD}>"
        data = sip.request("INVITE", uri, (net.THIRD, 5060), STRANGER, uri, contact=contact, body=sip.SDP)
        return third.socket.sendto(data, sip.SERVER)

    def idle() -> None:
        """A phone repeats its 2xx by T1, 2·T1 … up to T2 until the ACK comes, for 64·T1; other answers the proxy acknowledges."""
        now = time.monotonic()
        while message := phone.receive(0.001):
            if message.method == "INVITE":
                body = sip.SDP if status == 200 else b""
                data = sip.response(message, status, "Answer", to_tag="callee", contact=phone.contact, body=body)
                phone.send(data)
                if status == 200:
                    again.append([now + 0.1, 0.1, now + 6.4, data])
        for each in again:
            due, interval, end, data = each
            if due <= now < end:
                phone.send(data)
                each[:2] = due + min(2 * interval, 0.8), min(2 * interval, 0.8)

    third.attack(request, idle=idle)
    third.check()


def relayed(lab: Lab, forms: Sequence[Form]) -> None:
    third, stranger = Third(lab), lab.phone("mallory", net.ATTACKER, credentials=None)

    def request(number: int) -> int:
        method, uri, via, lines = forms[number % len(forms)]
        data = sip.request(method, uri, stranger.place, STRANGER, uri, *lines, contact=stranger.contact)
        return stranger.send(data.replace(b"Via: SIP/2.0/UDP 198.18.9.1:5060;", via.encode()) if via else data)

    third.attack(request, most=200, rate=40)
    lab.none("datagrams at the third machine", third.datagrams)


ROUTE = f"Route: <sip:{net.THIRD};lr>"
OWN = f"sip:{sip.SERVER[0]}"
ROUTES: list[Form] = [
    (method, uri, None, lines)
    for method in ["INVITE", "OPTIONS", "BYE", "ACK", "CANCEL"]
    for uri, lines in [
        (f"sip:x@{net.THIRD}", []),
        (sip.aor("nobody"), [ROUTE]),
        (OWN, [ROUTE, f"Route: <{OWN};lr>"]),
        (sip.aor("nobody"), [f"Route: <{OWN};lr>", ROUTE]),
        (f"{sip.aor('nobody')};maddr={net.THIRD}", []),
        (f"sip:nobody@{sip.SERVER[0]};maddr={net.THIRD};transport=udp", []),
        (sip.aor("nobody"), [f"Record-Route: <sip:{net.THIRD};lr>"]),
        (sip.aor("nobody"), [f"Route: <{OWN};maddr={net.THIRD};lr>"]),
    ]
]
VIAS: list[Form] = [
    ("OPTIONS", OWN, via, [])
    for via in [
        f"Via: SIP/2.0/UDP {net.THIRD}:5060;",
        f"Via: SIP/2.0/UDP 198.18.9.1:5060;maddr={net.THIRD};",
        f"Via: SIP/2.0/UDP 198.18.9.1:5060;received={net.THIRD};",
        f"Via: SIP/2.0/UDP 198.18.9.1:5060;maddr={net.THIRD};ttl=255;received={net.THIRD};rport=5060;",
    ]
]


# 60 branches, each sent eleven times, and as much again for the spirals through ourselves.
MOST_SENT = 2 * 60 * 11


def aor(number: int) -> str:
    """Such contacts lead to other users of ours only by an address of ours: a name would be taken for a phone behind a NAT."""
    return sip.aor(f"zombie{number}", sip.SERVER[0])


def forks(lab: Lab, contacts: Callable[[int], list[str]]) -> None:
    """One INVITE to the first of ten users, of which each has `contacts(number)`."""
    lab.last(net.udp(net.THIRD, 5060, buffer=4096))
    phones = [lab.phone(f"zombie{number}", f"198.18.9.{20 + number}") for number in range(10)]
    for number, phone in enumerate(phones):
        for contact in contacts(number):
            phone.ask("REGISTER", OWN, aor(number), f"Contact: {contact}", "Expires: 300", frm=f"<{aor(number)}>;tag=z")
    with lab.attack():
        caller, uri = phones[0], aor(0)
        most: float = 0
        caller.take_challenge("INVITE", uri, uri, frm=f"<{uri}>;tag=z")
        sent = caller.send(caller.request("INVITE", uri, frm=uri, contact=caller.contact))
        while lab.left() > 0.2:
            most = max(most, of(lab.server.scrape(), "strowger_transactions") or 0)
            time.sleep(0.1)
        lab.seen |= {"INVITEs": 1, "bytes": sent, "most transactions": most}
    before, during, after = (messages(lab.metrics[name]) for name in ["before", "during", "after"])
    # What others cause meanwhile is what they cause afterwards.
    usual, risen = more(after, during), more(during, before)
    extra = None if usual is None or risen is None else risen - usual * lab.during_s / (lab.after_s + SETTLE)
    lab.seen["messages sent for it"] = extra
    lab.at_most(f"messages sent for one INVITE (at most {MOST_SENT:,})", extra, MOST_SENT)


def messages(metrics: Metrics) -> float | None:
    return sum_of(metrics, lambda name: name.startswith("strowger_messages_total") and 'direction="out"' in name)


CONTACTS = "contacts at third machines: plain, or of 60 kB (×169, ×5,985)"
reflection(
    "reflect-contacts",
    "INVITEs to a user's own address-of-record with 10 contacts at a third machine, which never answers",
    CONTACTS,
    partial(contacts, padding=""),
)
reflection(
    "reflect-contacts-long",
    "the same under contact_size = 60KiB, with contacts of 6 kB",
    CONTACTS,
    partial(contacts, padding=f";x={'y' * 6000}"),
    limits={"contact_size": "60KiB"},
)
reflection(
    "reflect-query",
    "queries of an address-of-record with 10 contacts, where no password is asked, by a source that never answers",
    "REGISTER query (×202)",
    partial(short, method="REGISTER", bound=10),
    auth={"challenge_register": False},
)
for status, method in [(401, "REGISTER"), (407, "INVITE")]:
    reflection(
        f"reflect-{status}",
        f"short {method}s of a user without credentials, by a source that never answers",
        "401/407 (×3)",
        partial(short, method=method),
        auth={"algorithms": ["SHA-256", "MD5"]},
    )
for status in [486, 200]:
    reflection(
        f"reflect-{status}",
        f"a stranger's INVITEs to a phone that answers {status}, by a source that never sends an ACK",
        "INVITE → 486 (×21), → 200 (×33)",
        partial(answered, status=status),
    )
for name, what, forms in [
    ("route-third", "a stranger's requests with Route, maddr, Record-Route or Request-URI of a third machine", ROUTES),
    ("via-third", "requests whose Via names a third machine by sent-by, maddr and received", VIAS),
]:
    reflection(
        name,
        what,
        "amplification by Route and Record-Route; Route and maddr tricks",
        partial(relayed, forms=forms),
        "not one datagram comes to the third machine",
    )
for name, what, of_one in [
    (
        "fork-loops",
        "ten users who each forward to two others, in circles; one INVITE",
        lambda number: [f"<{aor((number + step) % 10)}>" for step in [1, 2]],
    ),
    (
        "fork-wide",
        "a user who forwards to five others, who each have ten contacts at a machine that never answers; one INVITE",
        lambda number: [
            f"<{aor(other)}>" if number == 0 else f"<sip:z{other}@{net.THIRD}:5060>"
            for other in (range(1, 6) if number == 0 else range(10))
        ],
    ),
]:
    Scenario(
        name,
        what,
        "amplification by forking and loops between AORs",
        "one INVITE opens at most 60 branches at a time (max_breadth), and calls go on",
        partial(forks, contacts=of_one),
        TIMERS,
        during=8.0,
        rest=8.0,
    )

"""Floods of datagrams: of one source and of 50,000, well-formed or not."""

from collections.abc import Callable
from functools import partial

from attack import net, sip
from attack.lab import Lab, Scenario
from attack.legit import PHONES, caller_place

RATE = 20_000
HEAD = (
    "{first} SIP/2.0\r\nVia: SIP/2.0/UDP 198.18.9.1:5060;branch=z9hG4bKf%d;rport\r\nMax-Forwards: 70\r\nFrom: <{frm}>;tag=f%d\r\n"
    "To: <{to}>\r\nCall-ID: f%d\r\nCSeq: 1 {method}\r\nContact: <sip:x@198.18.9.1>\r\n{more}Content-Length: 0\r\n\r\n"
)


def template(method: str, uri: str, frm: str, to: str, more: str = "") -> bytes:
    return HEAD.format(first=f"{method} {uri}", method=method, frm=frm, to=to, more=more).encode()


VICTIM, STRANGER = sip.aor("callee0"), "sip:x@elsewhere.example"
KINDS = {
    "options": ("OPTIONS to the server", template("OPTIONS", sip.HOME, STRANGER, sip.HOME)),
    "invite": ("INVITEs of a user without credentials", template("INVITE", VICTIM, sip.aor("caller0"), VICTIM)),
    "register": ("REGISTERs without credentials", template("REGISTER", sip.HOME, VICTIM, VICTIM)),
    "malformed": (
        "malformed requests",
        template("INVITE", VICTIM, "<<@", VICTIM, "Content-Length: -%d\r\nVia\r\n: :\r\n").replace(b"CSeq: 1", b"CSeq: x"),
    ),
    "garbage": ("bytes that are not SIP", bytes(range(1, 37)) * 8 + b"%d" * 3),
    "unknown": ("INVITEs of strangers to nobody", template("INVITE", sip.aor("nobody%d"), STRANGER, sip.aor("nobody"))),
}


def numbered(kind: str) -> Callable[[int], bytes]:
    """The `number`th message of its kind."""
    text = KINDS[kind][1]
    fields = text.count(b"%d")
    return lambda number: text % ((number,) * fields)


def from_one(lab: Lab, kind: str, rate: float = RATE) -> None:
    message, where = numbered(kind), lab.keep(net.udp(net.ATTACKER, buffer=4096))
    where.setblocking(False)
    lab.flood(rate, lambda number: where.sendto(message(number), sip.SERVER))


def from_many(lab: Lab, kind: str) -> None:
    message, forger = numbered(kind), lab.keep(net.Forger())
    lab.flood(RATE, lambda number: forger.send(message(number), net.source(number)))


def flood(lab: Lab, kind: str, send: Callable[[Lab, str], None]) -> None:
    with lab.attack():
        send(lab, kind)


def spoofed(lab: Lab, knows_port: bool) -> None:
    message = numbered("options")
    with lab.attack():
        forger = lab.keep(net.Forger())

        def send(number: int) -> int:
            address, port = caller_place(number % PHONES)
            return forger.send(message(number), address, port if knows_port else 1024 + number * 7919 % 60_000)

        lab.flood(300 * PHONES, send)


for kind, (what, _) in KINDS.items():
    for name, words, send in [("one", "one source", from_one), ("many", f"{net.MANY:,} sources", from_many)]:
        Scenario(
            f"flood-{kind}-{name}",
            f"{RATE:,} {what} a second from {words}",
            "floods: valid, malformed, unauthenticated",
            "calls and registrations go on",
            partial(flood, kind=kind, send=send),
        )
for name, words, knows in [
    ("spoofed-source", "from any port", False),
    ("spoofed-source-port", "from the port that the caller uses", True),
]:
    Scenario(
        name,
        f"under requests_per_source = 100: 300 OPTIONS a second forged from each of ten callers' addresses, {words}",
        "spoofed source under requests_per_source",
        "proved sources have a share that forgers cannot take: their owners' calls go on",
        partial(spoofed, knows_port=knows),
        {"limits": {"requests_per_source": 100}},
    )

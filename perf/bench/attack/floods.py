"""Floods of datagrams: of one source and of 50,000, well-formed or not."""

from attack import net, sip
from attack.lab import Scenario
from attack.legit import PHONES, caller_place

RATE = 20_000
HEAD = (
    "{first} SIP/2.0\r\nVia: SIP/2.0/UDP 198.18.9.1:5060;branch=z9hG4bKf%d;rport\r\nMax-Forwards: 70\r\nFrom: <{frm}>;tag=f%d\r\n"
    "To: <{to}>\r\nCall-ID: f%d\r\nCSeq: 1 {method}\r\nContact: <sip:x@198.18.9.1>\r\n{more}Content-Length: 0\r\n\r\n"
)


def template(method, uri, frm, to, more=""):
    return HEAD.format(first=f"{method} {uri}", method=method, frm=frm, to=to, more=more).encode()


VICTIM, DOMAIN = sip.aor("callee0"), f"sip:{sip.DOMAIN}"
KINDS = {
    "options": ("OPTIONS to the server", template("OPTIONS", DOMAIN, "sip:x@elsewhere.example", DOMAIN)),
    "invite": ("INVITEs of a user without credentials", template("INVITE", VICTIM, sip.aor("caller0"), VICTIM)),
    "register": ("REGISTERs without credentials", template("REGISTER", DOMAIN, VICTIM, VICTIM)),
    "malformed": (
        "malformed requests",
        template("INVITE", VICTIM, "<<@", VICTIM, "Content-Length: -%d\r\nVia\r\n: :\r\n").replace(b"CSeq: 1", b"CSeq: x"),
    ),
    "garbage": ("bytes that are not SIP", bytes(range(1, 37)) * 8 + b"%d" * 3),
    "unknown": (
        "INVITEs of strangers to nobody",
        template("INVITE", sip.aor("nobody%d"), "sip:x@elsewhere.example", sip.aor("nobody")),
    ),
}


class Flood(Scenario):
    source = "floods: valid, malformed, unauthenticated"
    must = "calls and registrations go on"

    def __init__(self, kind, sources):
        what, self.text = KINDS[kind]
        self.sources = sources
        super().__init__(
            name=f"flood-{kind}-{'one' if sources == 1 else 'many'}",
            what=f"{RATE:,} {what} a second from {'one source' if sources == 1 else f'{sources:,} sources'}",
        )

    def attack(self, lab):
        text, fields = self.text, self.text.count(b"%d")
        if self.sources == 1:
            where = lab.keep(net.udp(net.ATTACKER, buffer=4096))
            where.setblocking(False)
            lab.flood(RATE, lambda number: where.sendto(text % ((number,) * fields), sip.SERVER))
        else:
            forger = net.Forger()
            lab.keep(forger.socket)

            def send(number):
                data = text % ((number,) * fields)
                forger.send(data, net.source(number))
                return len(data)

            lab.flood(RATE, send)


class Spoofed(Scenario):
    source = "spoofed source under requests_per_source"
    must = "proved sources have a share that forgers cannot take: their owners' calls go on"
    conf = {"limits": {"requests_per_source": 100}}

    def __init__(self, name, what, knows_port):
        self.name, self.knows_port = name, knows_port
        self.what = f"under requests_per_source = 100: 300 OPTIONS a second forged from each of ten callers' addresses, {what}"
        super().__init__()

    def attack(self, lab):
        forger = net.Forger()
        lab.keep(forger.socket)
        text = KINDS["options"][1]

        def send(number):
            address, port = caller_place(number % PHONES)
            if not self.knows_port:
                port = 1024 + number * 7919 % 60_000
            data = text % ((number,) * 3)
            forger.send(data, address, port)
            return len(data)

        lab.flood(300 * PHONES, send)


for name in KINDS:
    for count in [1, net.MANY]:
        Flood(name, count)
Spoofed("spoofed-source", "from any port", False)
Spoofed("spoofed-source-port", "from the port that the caller uses", True)

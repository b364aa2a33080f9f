"""Reflection and amplification: bytes out, towards whoever has not proved to be there, for bytes in; forking, loops, Route,
maddr."""

import time

from attack import net, sip, verdicts
from attack.lab import SETTLE, Scenario, of
from attack.verdicts import Check

# Timers as of RFC 3261 in a fifth of the time: all that is repeated has been repeated after 6.4 s.
TIMERS = {"timers": {"t1": "100ms", "t2": "800ms", "linger": "6400ms"}}
STRANGER = "sip:x@elsewhere.example"
# A phone of somebody else that answers.
BUSY = "198.18.5.3"


class Reflection(Scenario):
    """Each request is sent as often as it takes, by a source that never answers; all that then comes to the third machine is
    counted."""

    must = f"at most {verdicts.REFLECTED:g} bytes out for each byte in"
    rates = {"calls": 10, "refreshed": 3}
    conf = TIMERS
    during = 8.0
    rest = 2.0
    # How often a second, and how many in all: few, since each is repeated for long.
    rate, most = 10, 10

    def prepare(self, lab):
        self.third = lab.last(net.udp(net.THIRD, 5060, buffer=16 << 20))
        self.got = [0, 0]
        self.arrange(lab)

    def arrange(self, lab):
        """Bindings, mostly."""

    def request(self, lab, number):
        """Sends one; returns its bytes."""

    def idle(self, lab):
        """Between two: what other phones of the attacker do."""

    def attack(self, lab):
        sent = 0
        for number in range(self.most):
            sent += self.request(lab, number)
            time.sleep(1 / self.rate)
            self.count(lab)
        while lab.left() > 0:
            self.count(lab)
            time.sleep(0.02)
        lab.seen.update(
            {
                "requests": self.most,
                "bytes in": sent,
                "datagrams out": self.got[0],
                "bytes out": self.got[1],
                "bytes out / in": verdicts.factor(self.got[1], sent),
            }
        )

    def count(self, lab):
        self.idle(lab)
        datagrams, size = net.drain(self.third)
        self.got[0] += datagrams
        self.got[1] += size

    def checks(self, lab):
        factor = lab.seen["bytes out / in"]
        return [
            Check(
                f"bytes out for bytes in (at most {verdicts.REFLECTED:g})",
                f"{factor:.1f}",
                verdicts.at_most(factor, verdicts.REFLECTED),
            )
        ]


def from_third(method, uri, *more, body=b""):
    """As if the third machine had sent it: its own socket does, and nobody there answers."""
    return sip.request(method, uri, (net.THIRD, 5060), STRANGER, uri, *more, contact=f"<sip:x@{net.THIRD}>", body=body)


class Contacts(Reflection):
    source = "contacts at third machines: plain, or of 60 kB (×169, ×5,985)"

    def __init__(self, name, what, padding, conf):
        self.padding = padding
        super().__init__(name=name, what=what, conf={**TIMERS, **conf})

    def arrange(self, lab):
        self.phone = lab.phone("mallory", net.ATTACKER)
        self.answers = [self.phone.register(f"<sip:m{number}@{net.THIRD}:5060{self.padding}>") for number in range(10)]
        self.bound = len(self.phone.bindings() or []) or sum(1 for each in self.answers if each and each.status == 200)

    def request(self, lab, number):
        uri = sip.aor("mallory")
        if not self.phone.credentials.nonce or number == 0:
            challenge = self.phone.ask("INVITE", uri, uri, digest=False)
            self.phone.credentials.take(challenge)
        data = sip.request(
            "INVITE", uri, self.phone.place, uri, uri, *self.phone.credentials.lines("INVITE", uri), contact=self.phone.contact
        )
        return self.phone.send(data)

    def checks(self, lab):
        lab.seen["contacts bound"] = self.bound
        return super().checks(lab)


class Short(Reflection):
    """Requests as short as can be, by a source that never answers, about an address-of-record with so many contacts."""

    def __init__(self, name, what, source, method, auth, bound=0):
        self.method, self.bound = method, bound
        super().__init__(name=name, what=f"{what}, by a source that never answers", source=source, conf={**TIMERS, "auth": auth})

    def arrange(self, lab):
        phone = lab.phone("victim", "198.18.5.1")
        for number in range(self.bound):
            phone.register(f"<sip:victim@198.18.5.1:5060;x={'y' * 200}{number}>")

    def request(self, lab, number):
        name = sip.aor("victim")
        uri, contact = (f"sip:{sip.DOMAIN}", "") if self.method == "REGISTER" else (name, "m: <sip:a@b>\r\n")
        return self.third.sendto(
            f"{self.method} {uri} SIP/2.0\r\nv: SIP/2.0/UDP {net.THIRD};branch={sip.MAGIC}{number}\r\nf: {name};tag=1\r\nt: "
            f"{name}\r\n"
            f"i: {number}\r\nCSeq: 1 {self.method}\r\nMax-Forwards: 70\r\n{contact}\r\n".encode(),
            sip.SERVER,
        )


class Answered(Reflection):
    source = "INVITE → 486 (×21), → 200 (×33)"

    def __init__(self, status):
        self.status = status
        super().__init__(
            name=f"reflect-{status}",
            what=f"a stranger's INVITEs to a phone that answers {status}, by a source that never sends an ACK",
        )

    def arrange(self, lab):
        self.phone = lab.phone("friend", BUSY)
        self.phone.register(self.phone.contact)
        self.phone.socket.setblocking(False)
        self.again = []

    def request(self, lab, number):
        return self.third.sendto(from_third("INVITE", sip.aor("friend"), body=sip.SDP), sip.SERVER)

    def idle(self, lab):
        """A phone repeats its 2xx by T1, 2·T1 … up to T2 until the ACK comes, for 64·T1; other answers the proxy acknowledges."""
        now = time.monotonic()
        while message := self.phone.receive(0.001):
            if message.method == "INVITE":
                sip_answer = sip.response(
                    message,
                    self.status,
                    "Answer",
                    to_tag="callee",
                    contact=self.phone.contact,
                    body=sip.SDP if self.status == 200 else b"",
                )
                self.phone.send(sip_answer)
                if self.status == 200:
                    self.again.append([now + 0.1, 0.1, now + 6.4, sip_answer])
        for each in self.again:
            due, interval, end, data = each
            if due <= now < end:
                self.phone.send(data)
                each[0], each[1] = due + min(2 * interval, 0.8), min(2 * interval, 0.8)


class Relayed(Reflection):
    """Nothing may come to the third machine at all."""

    must = "not one datagram comes to the third machine"
    most = 200
    rate = 40
    source = "amplification by Route and Record-Route; Route and maddr tricks"

    def __init__(self, name, what, forms):
        self.forms = forms
        super().__init__(name=name, what=what)

    def arrange(self, lab):
        self.stranger = lab.phone("mallory", net.ATTACKER, credentials=None)

    def request(self, lab, number):
        method, uri, via, lines = self.forms[number % len(self.forms)]
        data = sip.request(method, uri, self.stranger.place, STRANGER, uri, *lines, contact=self.stranger.contact)
        if via:
            data = data.replace(b"Via: SIP/2.0/UDP 198.18.9.1:5060;", via.encode())
        return self.stranger.send(data)

    def checks(self, lab):
        return [Check("datagrams at the third machine", f"{self.got[0]:,}", self.got[0] == 0)]


ROUTE = f"Route: <sip:{net.THIRD};lr>"
OWN = f"sip:{sip.SERVER[0]}"
ROUTES = [
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
VIAS = [
    ("OPTIONS", OWN, via, [])
    for via in [
        f"Via: SIP/2.0/UDP {net.THIRD}:5060;",
        f"Via: SIP/2.0/UDP 198.18.9.1:5060;maddr={net.THIRD};",
        f"Via: SIP/2.0/UDP 198.18.9.1:5060;received={net.THIRD};",
        f"Via: SIP/2.0/UDP 198.18.9.1:5060;maddr={net.THIRD};ttl=255;received={net.THIRD};rport=5060;",
    ]
]


def aor(number):
    """Such contacts lead to other users of ours only by an address of ours: a name would be taken for a phone behind a NAT."""
    return sip.aor(f"zombie{number}", sip.SERVER[0])


class Forks(Scenario):
    must = "one INVITE opens at most 60 branches at a time (max_breadth), and calls go on"
    source = "amplification by forking and loops between AORs"
    conf = TIMERS
    during = 8.0
    rest = 8.0
    # 60 branches, each sent eleven times, and as much again for the spirals through ourselves.
    most_sent = 2 * 60 * 11

    def __init__(self, name, what, contacts):
        self.contacts = contacts
        super().__init__(name=name, what=what)

    def prepare(self, lab):
        lab.last(net.udp(net.THIRD, 5060, buffer=4096))
        self.phones = [lab.phone(f"zombie{number}", f"198.18.9.{20 + number}") for number in range(10)]
        for number, phone in enumerate(self.phones):
            for contact in self.contacts(number):
                phone.ask("REGISTER", OWN, aor(number), f"Contact: {contact}", "Expires: 300", frm=f"<{aor(number)}>;tag=z")

    def attack(self, lab):
        caller, uri = self.phones[0], aor(0)
        challenge = caller.ask("INVITE", uri, uri, frm=f"<{uri}>;tag=z", digest=False)
        caller.credentials.take(challenge)
        sent = caller.send(
            sip.request("INVITE", uri, caller.place, uri, uri, *caller.credentials.lines("INVITE", uri), contact=caller.contact)
        )
        most = 0
        while lab.left() > 0.2:
            most = max(most, of(lab.server.scrape(), "strowger_transactions"))
            time.sleep(0.1)
        lab.seen.update({"INVITEs": 1, "bytes": sent, "most transactions": most})

    def checks(self, lab):
        times = [messages(lab.metrics[name]) for name in ["before", "during", "after"]]
        # What others cause meanwhile is what they cause afterwards.
        extra = times[1] - times[0] - (times[2] - times[1]) * lab.during_s / (lab.after_s + SETTLE)
        lab.seen["messages sent for it"] = extra
        return [
            Check(
                f"messages sent for one INVITE (at most {self.most_sent:,})",
                f"{extra:,.0f}",
                verdicts.at_most(extra, self.most_sent),
            )
        ]


def messages(metrics):
    return sum(value for name, value in metrics.items() if name.startswith("strowger_messages_total") and 'direction="out"' in name)


Contacts(
    "reflect-contacts", "INVITEs to a user's own address-of-record with 10 contacts at a third machine, which never answers", "", {}
)
Contacts(
    "reflect-contacts-long",
    "the same under contact_size = 60KiB, with contacts of 6 kB",
    f";x={'y' * 6000}",
    {"limits": {"contact_size": "60KiB"}},
)
Short(
    "reflect-query",
    "queries of an address-of-record with 10 contacts, where no password is asked",
    "REGISTER query (×202)",
    "REGISTER",
    {"challenge_register": False},
    10,
)
for status, method in [(401, "REGISTER"), (407, "INVITE")]:
    Short(
        f"reflect-{status}",
        f"short {method}s of a user without credentials",
        "401/407 (×3)",
        method,
        {"algorithms": ["SHA-256", "MD5"]},
    )
for each in [486, 200]:
    Answered(each)
Relayed("route-third", "a stranger's requests with Route, maddr, Record-Route or Request-URI of a third machine", ROUTES)
Relayed("via-third", "requests whose Via names a third machine by sent-by, maddr and received", VIAS)
Forks(
    "fork-loops",
    "ten users who each forward to two others, in circles; one INVITE",
    lambda number: [f"<{aor((number + step) % 10)}>" for step in [1, 2]],
)
Forks(
    "fork-wide",
    "a user who forwards to five others, who each have ten contacts at a machine that never answers; one INVITE",
    lambda number: (
        [f"<{aor(other)}>" for other in range(1, 6)] if number == 0 else [f"<sip:z{other}@{net.THIRD}:5060>" for other in range(10)]
    ),
)

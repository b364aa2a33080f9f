"""Names: servers that never answer, and servers that answer what nobody asked for."""

import contextlib
import multiprocessing
import os
import re
import socket
import struct

from attack import net, sip
from attack.lab import DNS, Scenario
from attack.legit import PHONES, callee_place

ANY_HOST = {"[route]": [{"to_user_prefix": "out-", "action": "relay", "from": "users"}]}
A, CNAME, SRV, NAPTR = 1, 5, 33, 35
# Where a hostile server says that its names are: this server, nowhere, everywhere, the inside.
PLACES = ["198.18.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.0.0.1", net.THIRD]


def encoded(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(kind, data, ttl=60):
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def asked(query):
    """(name, kind, end of the question)."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    return ".".join(labels), struct.unpack("!H", query[at + 1 : at + 3])[0], at + 5


def reply(query, end, answers, flags=0x8180, code=0):
    return query[:2] + struct.pack("!HHHHH", flags | code, 1, len(answers), 0, 0) + query[12:end] + b"".join(answers)


def hostile(query, name, kind, end, number):
    """One of many ways to answer."""
    forms = [
        lambda: os.urandom(2) + reply(query, end, [record(A, socket.inet_aton(net.THIRD))])[2:],
        lambda: reply(query, end, [], flags=0x8380),
        lambda: reply(query, end, [record(CNAME, encoded(name))]),
        lambda: reply(
            query, end, [record(SRV, struct.pack("!HHH", each, 1, 5060) + encoded(f"t{each}.{name}")) for each in range(300)]
        ),
        lambda: reply(query, end, [record(A, socket.inet_aton(PLACES[number // 9 % len(PLACES)]), 0)]),
        lambda: reply(query, end, [record(NAPTR, struct.pack("!HH", 1, 1) + b"\x01s\x07SIP+D2U\x00" + encoded(name))]),
        lambda: query[:2] + os.urandom(400),
        lambda: query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01",
        lambda: reply(query, end, [record(A, socket.inet_aton("198.18.9.9"))] * 3000),
    ]
    return forms[number % len(forms)]()[:65_000]


def serve():
    """good.test: an address of a legitimate phone, at once. hostile.test: see above. Anything else: silence."""
    where = net.udp(DNS, 53)
    number = 0
    while True:
        query, peer = where.recvfrom(4096)
        with contextlib.suppress(AttributeError, IndexError, struct.error, OSError):
            name, kind, end = asked(query)
            if name.endswith(".good.test"):
                place = callee_place(int(re.search(r"\bn(\d+)-", name).group(1)) % PHONES)[0]
                where.sendto(reply(query, end, [record(A, socket.inet_aton(place))] if kind == A else []), peer)
            elif name.endswith(".hostile.test"):
                number += 1
                where.sendto(hostile(query, name, kind, end, number), peer)


class Names(Scenario):
    rates = {"calls": 15, "refreshed": 3, "new": 3, "names": 8}
    conf = ANY_HOST
    rate = 300
    must = "fresh good names that others call still resolve; all calls go on"

    def prepare(self, lab):
        self.server = multiprocessing.Process(target=serve, daemon=True)
        self.server.start()
        self.phone = lab.phone("mallory", net.ATTACKER)
        challenge = self.phone.ask("INVITE", sip.aor("callee0"), sip.aor("callee0"), digest=False)
        self.phone.credentials.take(challenge)

    def invite(self, uri):
        phone = self.phone
        return phone.send(
            sip.request(
                "INVITE", uri, phone.place, sip.aor("mallory"), uri, *phone.credentials.lines("INVITE", uri), contact=phone.contact
            )
        )

    def send(self, number):
        raise NotImplementedError

    def attack(self, lab):
        def send(number):
            net.drain(self.phone.socket)
            return self.send(number)

        lab.flood(self.rate, send)

    def end(self, lab):
        self.server.kill()
        self.server.join()


class Silent(Names):
    name = "dns-silent"
    what = "one user calls 300 names a second whose servers never answer"
    source = "one user's contacts under silent DNS names (all 512 questions taken; fresh good names fail)"

    def send(self, number):
        return self.invite(f"sip:out-x@{sip.unique('s')}.silent.test")


class SilentContacts(Names):
    name = "dns-silent-paths"
    what = "one user registers 100 times a second by a Path under a name whose servers never answer, and calls itself each time"
    source = Silent.source
    rate = 100

    def send(self, number):
        phone, uri = self.phone, f"sip:{sip.DOMAIN}"
        size = phone.send(
            sip.request(
                "REGISTER",
                uri,
                phone.place,
                sip.aor("mallory"),
                sip.aor("mallory"),
                "Expires: 300",
                "Supported: path",
                f"Path: <sip:{sip.unique('p')}.silent.test;lr>",
                register(phone, uri),
                contact=f"<sip:m{number % 10}@198.18.9.9>",
            )
        )
        return size + self.invite(sip.aor("mallory"))


def register(phone, uri):
    """A nonce is one for both kinds of challenge, the header is not."""
    return phone.credentials.line("REGISTER", uri).replace("Proxy-Authorization", "Authorization")


class Hostile(Names):
    name = "dns-hostile"
    what = (
        "one user calls 100 names a second whose server forges, truncates, loops, floods, breaks its answers, or points at this "
        "server and inside"
    )
    source = "hostile DNS answers"
    rate = 100

    def send(self, number):
        return self.invite(f"sip:out-x@{sip.unique('h')}.hostile.test")


Silent()
SilentContacts()
Hostile()

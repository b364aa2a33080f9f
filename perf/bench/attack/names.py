"""Names: servers that never answer, and servers that answer what nobody asked for."""

import contextlib
import multiprocessing
import os
import re
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial

from attack import net, sip
from attack.lab import DNS, Lab, Scenario
from attack.legit import PHONES, callee_place

ANY_HOST = {"[route]": [{"to_user_prefix": "out-", "action": "relay", "from": "users"}]}
A, CNAME, SRV, NAPTR = 1, 5, 33, 35
# Where a hostile server says that its names are: this server, nowhere, everywhere, the inside.
PLACES = ["198.18.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.0.0.1", net.THIRD]


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(kind: int, data: bytes, ttl: int = 60) -> bytes:
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def asked(query: bytes) -> tuple[str, int, int]:
    """(name, kind, end of the question)."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    return ".".join(labels), struct.unpack("!H", query[at + 1 : at + 3])[0], at + 5


def reply(query: bytes, end: int, answers: Sequence[bytes], flags: int = 0x8180, code: int = 0) -> bytes:
    return query[:2] + struct.pack("!HHHHH", flags | code, 1, len(answers), 0, 0) + query[12:end] + b"".join(answers)


def hostile(query: bytes, name: str, kind: int, end: int, number: int) -> bytes:
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


def serve() -> None:
    """good.test: an address of a legitimate phone, at once. hostile.test: see above. Anything else: silence."""
    where = net.udp(DNS, 53)
    number = 0
    while True:
        query, peer = where.recvfrom(4096)
        with contextlib.suppress(IndexError, struct.error, OSError):
            name, kind, end = asked(query)
            if name.endswith(".good.test") and (numbered := re.search(r"\bn(\d+)-", name)):
                place = callee_place(int(numbered[1]) % PHONES)[0]
                where.sendto(reply(query, end, [record(A, socket.inet_aton(place))] if kind == A else []), peer)
            elif name.endswith(".hostile.test"):
                number += 1
                where.sendto(hostile(query, name, kind, end, number), peer)


def asks_for_names(lab: Lab, rate: float, send: Callable[[net.Agent, int], int]) -> None:
    """One user's requests, `send(phone, number)`, beside a DNS server that does as it is asked."""
    server = multiprocessing.Process(target=serve, daemon=True)
    server.start()
    try:
        phone = lab.phone("mallory", net.ATTACKER)
        phone.take_challenge("INVITE", sip.aor("callee0"), sip.aor("callee0"))

        def send_one(number: int) -> int:
            net.drain(phone.socket)
            return send(phone, number)

        with lab.attack():
            lab.flood(rate, send_one)
    finally:
        server.kill()
        server.join()


def invite(phone: net.Agent, uri: str) -> int:
    return phone.send(phone.request("INVITE", uri, contact=phone.contact))


def silent(phone: net.Agent, number: int) -> int:
    return invite(phone, f"sip:out-x@{sip.unique('s')}.silent.test")


def hostile_names(phone: net.Agent, number: int) -> int:
    return invite(phone, f"sip:out-x@{sip.unique('h')}.hostile.test")


def silent_path(phone: net.Agent, number: int) -> int:
    lines = ["Expires: 300", "Supported: path", f"Path: <sip:{sip.unique('p')}.silent.test;lr>"]
    user, contact = sip.aor("mallory"), f"<sip:m{number % 10}@198.18.9.9>"
    return phone.send(phone.request("REGISTER", sip.HOME, *lines, to=user, contact=contact)) + invite(phone, user)


SILENT = "one user's contacts under silent DNS names (all 512 questions taken; fresh good names fail)"
for name, what, source, rate, send in [
    ("dns-silent", "one user calls 300 names a second whose servers never answer", SILENT, 300, silent),
    (
        "dns-silent-paths",
        "one user registers 100 times a second by a Path under a name whose servers never answer, and calls itself each time",
        SILENT,
        100,
        silent_path,
    ),
    (
        "dns-hostile",
        "one user calls 100 names a second whose server forges, truncates, loops, floods, breaks its answers, or points at this "
        "server and inside",
        "hostile DNS answers",
        100,
        hostile_names,
    ),
]:
    Scenario(
        name,
        what,
        source,
        "fresh good names that others call still resolve; all calls go on",
        partial(asks_for_names, rate=rate, send=send),
        ANY_HOST,
        {"calls": 15, "refreshed": 3, "new": 3, "names": 8},
    )

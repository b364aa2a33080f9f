"""Connections: floods of them, half-open and slow handshakes, renegotiation, slow senders and readers, giants, lies, fragments,
garbage."""

import contextlib
import errno
import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial

from attack import net, sip
from attack.lab import Lab, Metrics, Scenario, more, sum_of

RATES = {"calls": 15, "refreshed": 3, "new": 3, "tcp": 5, "tls": 5}
# Above what the server took before.
GROWTH_MB = 64
OTHERS = "others go on"


def begun(port: int) -> socket.socket | None:
    """A connection begun and not waited for, or None where that is not possible."""
    found = socket.socket()
    found.setblocking(False)
    try:
        found.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: as many ports as there are to this server
        found.bind((net.ATTACKER, 0))
        if found.connect_ex((sip.SERVER[0], port)) in (0, errno.EINPROGRESS):
            return found
    except OSError:
        pass
    found.close()
    return None


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        net.tls_client().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


def held(lab: Lab, step: Callable[[int], bytes], count: int, pause: float = 0.5, port: int = sip.SERVER[1]) -> tuple[int, int]:
    """So many connections of one address at a time, each of which sends `step(number)` in its `number`th turn, with so many seconds
    between two; those that the server closes are opened again. Returns how many were opened and closed."""
    streams: dict[int, tuple[socket.socket | None, int]] = {}
    opened = closed = sent = 0
    with lab.attack():
        while lab.left() > 0:
            began = time.monotonic()
            for place in range(count):
                if place % 64 == 0 and lab.left() <= 0:
                    break
                stream, steps = streams.get(place, (None, 0))
                if stream and net.is_closed(stream):
                    stream.close()
                    stream, closed = None, closed + 1
                if not stream:
                    stream, steps = begun(port), 0
                    opened += bool(stream)
                elif data := step(steps):
                    with contextlib.suppress(OSError):
                        sent += stream.send(data)
                    steps += 1
                streams[place] = (stream, steps)
            time.sleep(max(0.01, pause - (time.monotonic() - began)))
        left = [stream for stream, _ in streams.values() if stream]
        still = sum(1 for stream in left if not net.is_closed(stream))
        lab.open += left
        lab.seen |= {"connections opened": opened, "closed by the server": closed, "open at the end": still, "bytes sent": sent}
    return opened, closed


HELLO = client_hello()
for number in [1000, 5000]:
    Scenario(
        f"tls-half-open-{number}",
        f"{number:,} TLS connections of one address that stop in the middle of their ClientHello",
        "1,000 and 5,000 half-open TLS connections from one address (others wait 2.2 s; 31 of 82 served)",
        "others are served, and within twice their usual time",
        partial(held, step=lambda step: HELLO[: len(HELLO) // 2] if step == 0 else b"", count=number, port=sip.TLS_PORT),
        rates=RATES,
        quick_kinds=("tls",),
    )
OF_OTHERS = "new connections of others, calls and registrations go on"
Scenario(
    "tls-slow",
    "500 TLS connections of one address that send a byte of their ClientHello each 50 ms",
    "slow handshakes",
    OF_OTHERS,
    partial(held, step=lambda step: HELLO[step : step + 1], count=500, pause=0.05, port=sip.TLS_PORT),
    rates=RATES,
    quick_kinds=("tls",),
)
Scenario(
    "connection-places",
    "one address takes all of 300 places for connections, and takes again what is closed",
    "one address takes all places for connections (new TCP 3 of 41)",
    OF_OTHERS,
    partial(held, step=lambda step: b"", count=600),
    {"connections": {"max": 300}},
    RATES,
    quick_kinds=("tcp",),
)


@Scenario(
    "tls-renegotiation",
    "eight clients of TLS 1.2 that ask for renegotiation again and again",
    "renegotiation",
    "the server renegotiates with none; others go on",
    rates=RATES,
)
def renegotiation(lab: Lab) -> None:
    command = ["openssl", "s_client", "-connect", f"{sip.SERVER[0]}:{sip.TLS_PORT}", "-bind", f"{net.ATTACKER}:0"]
    command += ["-tls1_2", "-legacy_renegotiation"]
    clients: list[subprocess.Popen[bytes] | None] = [None] * 8
    asked = started = 0
    with lab.attack():
        while lab.left() > 0:
            for place, client in enumerate(clients):
                if client and client.stdin and client.poll() is None:
                    with contextlib.suppress(OSError):
                        client.stdin.write(b"R\n")
                        asked += 1
                elif lab.left() > 1:
                    null = subprocess.DEVNULL
                    clients[place] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null, bufsize=0)
                    started += 1
            time.sleep(0.1)
        for client in filter(None, clients):
            client.kill()
            client.wait()
        lab.seen |= {"clients": started, "renegotiations asked for": asked}
    done = more(of_server(lab.metrics["during"]), of_server(lab.metrics["before"]))
    expected = lab.phases["during"]["tls"]["tried"] + started + 5
    lab.at_most(f"TLS handshakes of the server (at most the {expected} that connected)", done, expected)


def of_server(metrics: Metrics) -> float | None:
    def counts(name: str) -> bool:
        return name.startswith("strowger_tls_handshakes_total") and 'side="server"' in name and "failed" not in name

    return sum_of(metrics, counts)


def options(*lengths: bytes, body: bytes = b"") -> bytes:
    """With so many Content-Lengths."""
    text = sip.request("OPTIONS", sip.HOME, (net.ATTACKER, 5060), "sip:x@y.example", sip.HOME, transport="TCP")
    return text.replace(b"Content-Length: 0\r\n", b"".join(b"Content-Length: %s\r\n" % each for each in lengths)) + body


@Scenario(
    "slow-senders",
    "3,000 connections of one address that each hold 62 kB of an unfinished message, and send a byte each second; idle_timeout "
    "= 4s",
    "3,000 senders holding 62 kB of unfinished message (180 MB)",
    "a deadline for the whole message; memory comes back; others go on",
    conf={"connections": {"idle_timeout": "4s"}},
    rates=RATES,
    during=12.0,
    rest=12.0,
)
def slow_senders(lab: Lab) -> None:
    count, start = 3000, options(b"64000", body=b"x" * 62_000)
    opened, closed = held(lab, lambda step: start if step == 0 else b"x", count, 1.0)
    lab.memory_comes_back()
    seen = f"{closed:,} of {count:,}"
    lab.check("closed by the server in that time, of those open at a time", seen, closed >= count if opened >= count else None)


@Scenario(
    "slow-readers",
    "200 connections of one address that send 20 OPTIONS at a time and never read an answer",
    "slow readers",
    "memory is bounded; others go on",
    rates=RATES,
)
def slow_readers(lab: Lab) -> None:
    text, sent = b"".join(options(b"0") for _ in range(20)), 0
    with lab.attack():
        # is_closed() would read.
        streams = [stream for _ in range(200) if (stream := begun(sip.SERVER[1]))]
        lab.open += streams
        for stream in streams:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while lab.left() > 0:
            for stream in streams:
                with contextlib.suppress(OSError):
                    sent += stream.send(text)
            time.sleep(0.05)
        lab.seen |= {"connections": len(streams), "bytes sent": sent}
    lab.memory_grows_by_at_most(GROWTH_MB)


@Scenario(
    "crlf-pings",
    "CRLF pings as fast as they go over four connections of one address, whose answers are read",
    "CRLF pings at 268 MB/s (calls 10 of 48); RFC 5626 4.4.1",
    "pings count as messages do; others go on",
    rates=RATES,
)
def crlf_pings(lab: Lab) -> None:
    streams: list[socket.socket] = []
    sent, got, closed, data = 0, 0, 0, b"\r\n\r\n" * 16_384
    with lab.attack():
        while lab.left() > 0:
            while len(streams) < 4:
                streams.append(net.tcp())
                streams[-1].setblocking(False)
            for stream in list(streams):
                try:
                    with contextlib.suppress(BlockingIOError):
                        sent += stream.send(data)
                    with contextlib.suppress(BlockingIOError):
                        got += len(stream.recv(1 << 20))
                except OSError:
                    stream.close()
                    streams.remove(stream)
                    closed += 1
        lab.open += streams
        sent_mb = sent / 1e6
        lab.seen |= {"closed by the server": closed, "MB sent": sent_mb, "MB/s": sent_mb / lab.during_s, "MB back": got / 1e6}


@Scenario(
    "connection-resets",
    "connections of one address, opened and reset as fast as they go, to the TCP and TLS ports",
    "connection floods, resets",
    OTHERS,
    rates=RATES,
)
def resets(lab: Lab) -> None:
    count = 0
    with lab.attack():
        while lab.left() > 0:
            for port in [sip.SERVER[1], sip.TLS_PORT]:
                with contextlib.suppress(OSError):
                    stream = net.tcp(port=port)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    stream.close()
                    count += 1
        lab.seen |= {"connections": count, "a second": count / lab.during_s}


def forms(lab: Lab, forms: Sequence[bytes | list[bytes]], port: int = sip.SERVER[1]) -> None:
    """New connections, each of which sends one of the forms, whole or in parts, and is then read until it is closed or silent."""
    counts, size, number = dict.fromkeys(["closed", "refused", "answered", "left open"], 0), 0, 0
    with lab.attack():
        while lab.left() > 0.3:
            data = forms[number % len(forms)]
            number += 1
            try:
                stream = net.tcp(port=port, timeout=0.5)
            except OSError:
                continue
            with stream:
                with contextlib.suppress(OSError):
                    for part in data if isinstance(data, list) else [data]:
                        size += stream.send(part)
                found = net.read(stream, 0.15)
                if found.startswith(b"SIP/2.0"):
                    counts["refused" if found.startswith((b"SIP/2.0 4", b"SIP/2.0 5")) else "answered"] += 1
                else:
                    counts["closed" if net.is_closed(stream) else "left open"] += 1
        lab.seen |= {"connections": number, "bytes sent": size, **counts}
    lab.none("answered otherwise, or left open", counts["answered"] + counts["left open"])
    lab.memory_grows_by_at_most(GROWTH_MB)


LIES = [
    options(length, body=b"x" * 100)
    for length in [b"-1", b"99999999999999999999", b"4294967296", b"0x10", b"1e3", b"12 34", b"+5", b"", b"1048576"]
]
LIES += [options(b"10", b"20", body=b"x" * 20), options(b"0", b"5", body=b"x" * 5), options(body=b"x" * 50)]
# The same head first, the rest in many parts: without end.
GIANTS = [
    [options()[:-4] + b"\r\nSubject: "] + [b"y" * 65_536] * 64,
    [options()[:-4] + b"\r\n"] + [b"X-Line: " + b"z" * 56 + b"\r\n"] * 4096,
    [options(b"67108864")] + [b"b" * 65_536] * 64,
    [b"OPTIONS sip:" + b"u" * 65_536] * 8,
    [b"\r\n" * 32_768] * 8 + [b"x"],
]
TLS_GARBAGE = [
    os.urandom(2000),
    b"\x17\x03\x03\x40\x00" + os.urandom(16_384),
    b"\x16\x03\x01\xff\xff" + os.urandom(3000),
    b"\x15\x03\x03\x00\x02\x02\x28",
    HELLO[:60] + os.urandom(200),
    b"\x16\x03\x03\x00\x00" * 2000,
    options(b"0"),
]
for name, what, source, run in [
    (
        "length-lies",
        "Content-Length that is negative, too large, no number, repeated, missing or beyond the message",
        "Content-Length lies",
        partial(forms, forms=LIES),
    ),
    (
        "giants",
        "messages without end: one header line, many header lines, a body of 64 MB, a Request-URI, empty lines",
        "giants, endless headers",
        partial(forms, forms=GIANTS),
    ),
    (
        "tls-garbage",
        "bytes that are no TLS, records of the wrong kind, too long ones, and a handshake cut in two, at the TLS port",
        "garbage records",
        partial(forms, forms=TLS_GARBAGE, port=sip.TLS_PORT),
    ),
]:
    must = "each is closed or answered 4xx or 5xx, memory is bounded, others go on"
    Scenario(name, what, source, must, run, rates=RATES)


@Scenario(
    "udp-fragments", "2,000 first fragments of datagrams a second, whose rest never comes, from 50,000 sources", "fragments", OTHERS
)
def fragments(lab: Lab) -> None:
    data = struct.pack("!HHHH", 5060, 5060, 4008, 0) + options()[:500].ljust(1392, b"x")
    with lab.attack():
        forger = lab.keep(net.Forger())
        # More fragments follow, it says.
        lab.flood(2000, lambda number: forger.send_packet(data, net.source(number), number % 65_535 + 1, 0x2000))


@Scenario(
    "tcp-segments",
    "OPTIONS over 40 connections, each byte in a segment of its own",
    "fragments",
    "each is answered as if it had come in one piece; others go on",
    rates=RATES,
)
def segments(lab: Lab) -> None:
    with lab.attack():
        streams, whole = [lab.keep(net.tcp()) for _ in range(40)], 0
        for stream in streams:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while lab.left() > 1.0:
            text = options(b"0")
            for byte in range(len(text)):
                for stream in streams:
                    stream.send(text[byte : byte + 1])
                if lab.left() < 0.5:
                    break
            else:
                whole += len(streams)
        time.sleep(0.2)
        answers = sum(net.read(stream, 0.05).count(b"SIP/2.0 200") for stream in streams)
        lab.seen |= {"whole": whole, "answered 200": answers}
    lab.check("answered", f"{answers} of {whole}", answers >= whole if whole else None)


@Scenario(
    "contact-inside",
    "a user elsewhere registers contacts at the server's own loopback and at a private network, over TCP and UDP, and calls itself",
    "contact at the server's own loopback or private networks over TCP (a stranger's body reaches that service)",
    "not a byte reaches those services",
)
def inside(lab: Lab) -> None:
    addresses, uri, calls = ["127.0.0.1", "10.0.0.1"], sip.aor("mallory"), 0
    got = dict.fromkeys(addresses, 0)

    def take(address: str, stream: socket.socket) -> None:
        got[address] += len(stream.recv(65536)) or 1

    for address in addresses:
        net.serve(lab.last(socket.create_server((address, 8080))), partial(take, address))
    datagrams = [lab.last(net.udp(address, 8080)) for address in addresses]
    phone = lab.phone("mallory", net.ATTACKER)
    contacts = [f"<sip:m@{host}:8080{way}>" for way in [";transport=tcp", ""] for host in [*addresses, "127.1.2.3"]]
    bound = [phone.register(contact) for contact in contacts]
    with lab.attack():
        while lab.left() > 0:
            body = b"GET / HTTP/1.1\r\nHost: inside\r\n\r\n"
            phone.ask("INVITE", uri, uri, contact=phone.contact, seconds=0.3, body=body)
            calls += 1
        sizes = [net.drain(each)[1] for each in datagrams]
        lab.seen |= {
            "contacts bound": sum(1 for answer in bound if answer and answer.status == 200),
            "calls": calls,
            **{f"bytes at {address} by TCP": size for address, size in got.items()},
            **{f"by UDP at {address}": size for address, size in zip(addresses, sizes)},
        }
    lab.none("bytes that reached a service inside, by TCP", sum(got.values()))
    lab.none("and by UDP", sum(sizes))

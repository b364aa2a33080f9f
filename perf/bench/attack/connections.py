"""Connections: floods of them, half-open and slow handshakes, renegotiation, slow senders and readers, giants, lies, fragments,
garbage."""

import contextlib
import errno
import os
import socket
import ssl
import struct
import subprocess
import threading
import time

from attack import net, sip
from attack.lab import Scenario
from attack.verdicts import Check

RATES = {"calls": 15, "refreshed": 3, "new": 3, "tcp": 5, "tls": 5}
# Above what the server took before.
GROWTH_MB = 64


def ways(address=net.ATTACKER, port=sip.SERVER[1]):
    """A connection begun and not waited for, or None where that is not possible."""
    found = socket.socket()
    found.setblocking(False)
    try:
        found.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: as many ports as there are to this server
        found.bind((address, 0))
        if found.connect_ex((sip.SERVER[0], port)) in (0, errno.EINPROGRESS):
            return found
    except OSError:
        pass
    found.close()
    return None


def hello():
    """A ClientHello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


def growth(lab):
    before, most, _ = lab.memory
    return Check(
        f"memory grows by at most {GROWTH_MB} MB",
        "—" if None in (before, most) else f"{most - before:.0f} MB",
        None if None in (before, most) else most - before <= GROWTH_MB,
    )


class Held(Scenario):
    """So many connections of one address at a time, each of which does what `step` says; those that the server closes are opened
    again."""

    rates = RATES
    port = sip.SERVER[1]
    count = 1000
    source = "connection floods"
    must = "new connections of others, calls and registrations go on"
    # Seconds between two steps of a connection.
    pause = 0.5

    def step(self, stream, number):
        """The `number`th: what to send."""
        return b""

    def attack(self, lab):
        streams, opened, closed, sent = {}, 0, 0, 0
        while lab.left() > 0:
            began = time.monotonic()
            for place in range(self.count):
                if place % 64 == 0 and lab.left() <= 0:
                    break
                stream, steps = streams.get(place, (None, 0))
                if stream and net.is_closed(stream):
                    stream.close()
                    stream, closed = None, closed + 1
                if not stream:
                    stream, steps = ways(port=self.port), 0
                    opened += bool(stream)
                elif data := self.step(stream, steps):
                    with contextlib.suppress(OSError):
                        sent += stream.send(data)
                    steps += 1
                streams[place] = (stream, steps)
            time.sleep(max(0.01, self.pause - (time.monotonic() - began)))
        self.opened, self.closed = opened, closed
        self.open = sum(1 for stream, _ in streams.values() if stream and not net.is_closed(stream))
        lab.keep(*(stream for stream, _ in streams.values() if stream))
        lab.seen.update(
            {"connections opened": opened, "closed by the server": closed, "open at the end": self.open, "bytes sent": sent}
        )


class SlowSenders(Held):
    name = "slow-senders"
    what = (
        "3,000 connections of one address that each hold 62 kB of an unfinished message, and send a byte each second; idle_timeout "
        "= 4s"
    )
    source = "3,000 senders holding 62 kB of unfinished message (180 MB)"
    must = "a deadline for the whole message; memory comes back; others go on"
    conf = {"connections": {"idle_timeout": "4s"}}
    count, pause = 3000, 1.0
    during = 12.0
    rest = 12.0
    start = (
        f"OPTIONS sip:{sip.DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP 198.18.9.1;branch=z9hG4bKslow\r\nFrom: "
        f"<sip:x@y.example>;tag=1\r\nTo: <sip:{sip.DOMAIN}>\r\n"
        "Call-ID: slow\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 64000\r\n\r\n"
    ).encode() + b"x" * 62_000

    def step(self, stream, number):
        return self.start if number == 0 else b"x"

    def checks(self, lab):
        return [
            lab.memory_check(),
            Check(
                "closed by the server in that time, of those open at a time",
                f"{self.closed:,} of {self.count:,}",
                self.closed >= self.count if self.opened >= self.count else None,
            ),
        ]


class SlowReaders(Scenario):
    rates = RATES
    name = "slow-readers"
    what = "200 connections of one address that send 20 OPTIONS at a time and never read an answer"
    source = "slow readers"
    must = "memory is bounded; others go on"
    count = 200
    text = b"".join(
        sip.request("OPTIONS", f"sip:{sip.DOMAIN}", (net.ATTACKER, 5060), "sip:x@y.example", f"sip:{sip.DOMAIN}", transport="TCP")
        for _ in range(20)
    )

    def attack(self, lab):
        # is_closed() would read.
        streams = [stream for _ in range(self.count) if (stream := ways())]
        for stream in streams:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = 0
        while lab.left() > 0:
            for stream in streams:
                with contextlib.suppress(OSError):
                    sent += stream.send(self.text)
            time.sleep(0.05)
        lab.keep(*streams)
        lab.seen.update({"connections": len(streams), "bytes sent": sent})

    def checks(self, lab):
        return [growth(lab)]


class Crlf(Scenario):
    name = "crlf-pings"
    what = "CRLF pings as fast as they go over four connections of one address, whose answers are read"
    source = "CRLF pings at 268 MB/s (calls 10 of 48); RFC 5626 4.4.1"
    must = "pings count as messages do; others go on"
    rates = RATES

    def attack(self, lab):
        streams, sent, got, closed, data = [], 0, 0, 0, b"\r\n\r\n" * 16_384
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
        lab.keep(*streams)
        lab.seen["closed by the server"] = closed
        lab.seen.update({"MB sent": sent / 1e6, "MB/s": sent / 1e6 / lab.during_s, "MB back": got / 1e6})


class Resets(Scenario):
    name = "connection-resets"
    what = "connections of one address, opened and reset as fast as they go, to the TCP and TLS ports"
    source = "connection floods, resets"
    must = "others go on"
    rates = RATES

    def attack(self, lab):
        count = 0
        while lab.left() > 0:
            for port in [sip.SERVER[1], sip.TLS_PORT]:
                with contextlib.suppress(OSError):
                    stream = net.tcp(port=port)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    stream.close()
                    count += 1
        lab.seen.update({"connections": count, "a second": count / lab.during_s})


class Renegotiation(Scenario):
    name = "tls-renegotiation"
    what = "eight clients of TLS 1.2 that ask for renegotiation again and again"
    source = "renegotiation"
    must = "the server renegotiates with none; others go on"
    rates = RATES

    def attack(self, lab):
        command = [
            "openssl",
            "s_client",
            "-connect",
            f"{sip.SERVER[0]}:{sip.TLS_PORT}",
            "-bind",
            f"{net.ATTACKER}:0",
            "-tls1_2",
            "-legacy_renegotiation",
        ]
        asked, started, clients = 0, 0, [None] * 8
        while lab.left() > 0:
            for place, client in enumerate(clients):
                if client and client.poll() is None:
                    with contextlib.suppress(OSError):
                        client.stdin.write(b"R\n")
                        asked += 1
                elif lab.left() > 1:
                    clients[place] = subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, bufsize=0
                    )
                    started += 1
            time.sleep(0.1)
        for client in clients:
            if client:
                client.kill()
                client.wait()
        lab.seen.update({"clients": started, "renegotiations asked for": asked})

    def checks(self, lab):
        done = of_sides(lab.metrics["during"]) - of_sides(lab.metrics["before"])
        expected = lab.phases["during"]["tls"]["tried"] + lab.seen["clients"] + 5
        return [Check("TLS handshakes of the server, of those that connected", f"{done:,.0f} of {expected}", done <= expected)]


def of_sides(metrics):
    return sum(
        value
        for name, value in metrics.items()
        if name.startswith("strowger_tls_handshakes_total") and 'side="server"' in name and "failed" not in name
    )


class Forms(Scenario):
    """New connections, each of which sends one of `forms` and is then read until it is closed or silent."""

    rates = RATES
    port = sip.SERVER[1]
    must = "each is closed or answered 4xx or 5xx, memory is bounded, others go on"

    def __init__(self, name, what, source, forms, **more):
        self.forms = forms
        super().__init__(name=name, what=what, source=source, **more)

    def attack(self, lab):
        counts = dict.fromkeys(["closed", "refused", "answered", "left open"], 0)
        size, number = 0, 0
        while lab.left() > 0.3:
            data = self.forms[number % len(self.forms)]
            number += 1
            try:
                stream = net.tcp(port=self.port, timeout=0.5)
            except OSError:
                continue
            with stream:
                with contextlib.suppress(OSError):
                    for part in data if isinstance(data, list) else [data]:
                        size += stream.send(part)
                found = net.read(stream, 0.15)
                if found.startswith((b"SIP/2.0 4", b"SIP/2.0 5")):
                    counts["refused"] += 1
                elif found.startswith(b"SIP/2.0"):
                    counts["answered"] += 1
                else:
                    counts["closed" if net.is_closed(stream) else "left open"] += 1
        self.counts = counts
        lab.seen.update({"connections": number, "bytes sent": size, **counts})

    def checks(self, lab):
        bad = self.counts["answered"] + self.counts["left open"]
        return [Check("answered otherwise, or left open", f"{bad}", bad == 0), growth(lab)]


def options(*lines, length=None, body=b""):
    text = sip.request(
        "OPTIONS", f"sip:{sip.DOMAIN}", (net.ATTACKER, 5060), "sip:x@y.example", f"sip:{sip.DOMAIN}", *lines, transport="TCP"
    )
    return text.replace(b"Content-Length: 0\r\n", b"".join(b"Content-Length: %s\r\n" % each for each in length or []) or b"") + body


LIES = [
    options(length=[length], body=b"x" * 100)
    for length in [b"-1", b"99999999999999999999", b"4294967296", b"0x10", b"1e3", b"12 34", b"+5", b"", b"1048576"]
]
LIES += [options(length=[b"10", b"20"], body=b"x" * 20), options(length=[b"0", b"5"], body=b"x" * 5), options(body=b"x" * 50)]
# The same head first, the rest in many parts: without end.
GIANTS = [
    [options()[:-4] + b"\r\nSubject: "] + [b"y" * 65_536] * 64,
    [options()[:-4] + b"\r\n"] + [b"X-Line: " + b"z" * 56 + b"\r\n"] * 4096,
    [options(length=[b"67108864"])] + [b"b" * 65_536] * 64,
    [b"OPTIONS sip:" + b"u" * 65_536] * 8,
    [b"\r\n" * 32_768] * 8 + [b"x"],
]


class GarbageRecords(Forms):
    port = sip.TLS_PORT


class Fragments(Scenario):
    name = "udp-fragments"
    what = "2,000 first fragments of datagrams a second, whose rest never comes, from 50,000 sources"
    source = "fragments"
    must = "others go on"

    def attack(self, lab):
        forger = lab.keep(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        server, body = (
            socket.inet_aton(sip.SERVER[0]),
            struct.pack("!HHHH", 5060, 5060, 4008, 0) + options()[:500].ljust(1392, b"x"),
        )

        def send(number):
            # More fragments follow, it says.
            head = struct.pack(
                "!BBHHHBBH4s4s",
                0x45,
                0,
                0,
                number % 65_535 + 1,
                0x2000,
                64,
                socket.IPPROTO_UDP,
                0,
                socket.inet_aton(net.source(number)),
                server,
            )
            return forger.sendto(head + body, sip.SERVER)

        lab.flood(2000, send)


class Segments(Scenario):
    name = "tcp-segments"
    what = "OPTIONS over 40 connections, each byte in a segment of its own"
    source = "fragments"
    must = "each is answered as if it had come in one piece; others go on"
    rates = RATES

    def attack(self, lab):
        streams = [lab.keep(net.tcp()) for _ in range(40)]
        for stream in streams:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = 0
        while lab.left() > 1.0:
            text = options(length=[b"0"])
            for byte in range(len(text)):
                for stream in streams:
                    stream.send(text[byte : byte + 1])
                if lab.left() < 0.5:
                    break
            else:
                whole += len(streams)
        time.sleep(0.2)
        answers = sum(net.read(stream, 0.05).count(b"SIP/2.0 200") for stream in streams)
        lab.seen.update({"whole": whole, "answered 200": answers})

    def checks(self, lab):
        return [
            Check(
                "answered",
                f"{lab.seen['answered 200']} of {lab.seen['whole']}",
                lab.seen["answered 200"] >= lab.seen["whole"] if lab.seen["whole"] else None,
            )
        ]


class Inside(Scenario):
    name = "contact-inside"
    what = (
        "a user elsewhere registers contacts at the server's own loopback and at a private network, over TCP and UDP, and calls "
        "itself"
    )
    source = "contact at the server's own loopback or private networks over TCP (a stranger's body reaches that service)"
    must = "not a byte reaches those services"
    addresses = ["127.0.0.1", "10.0.0.1"]

    def prepare(self, lab):
        self.got = dict.fromkeys(self.addresses, 0)
        for address in self.addresses:
            listener = lab.last(socket.create_server((address, 8080)))
            threading.Thread(target=self.serve, args=(listener, address), daemon=True).start()
        self.datagrams = [lab.last(net.udp(address, 8080)) for address in self.addresses]
        self.phone = lab.phone("mallory", net.ATTACKER)
        self.bound = [
            self.phone.register(f"<sip:m@{host}:8080{way}>")
            for way in [";transport=tcp", ""]
            for host in [*self.addresses, "127.1.2.3"]
        ]

    def serve(self, listener, address):
        while True:
            try:
                stream, _ = listener.accept()
                stream.settimeout(2)
                self.got[address] += len(stream.recv(65536)) or 1
                stream.close()
            except TimeoutError:
                continue
            except OSError:
                return

    def attack(self, lab):
        uri, calls = sip.aor("mallory"), 0
        while lab.left() > 0:
            self.phone.ask(
                "INVITE", uri, uri, contact=self.phone.contact, seconds=0.3, body=b"GET / HTTP/1.1\r\nHost: inside\r\n\r\n"
            )
            calls += 1
        size = [net.drain(each)[1] for each in self.datagrams]
        lab.seen.update(
            {
                "contacts bound": sum(1 for answer in self.bound if answer and answer.status == 200),
                "calls": calls,
                **{f"bytes at {address} by TCP": self.got[address] for address in self.addresses},
                **{f"by UDP at {address}": size[number] for number, address in enumerate(self.addresses)},
            }
        )
        self.size = sum(size)

    def checks(self, lab):
        total = sum(self.got.values())
        return [
            Check("bytes that reached a service inside, by TCP", f"{total:,}", total == 0),
            Check("and by UDP", f"{self.size:,}", self.size == 0),
        ]


HELLO, AT_TLS = hello(), {"port": sip.TLS_PORT, "quick_kinds": ("tls",)}
for number in [1000, 5000]:
    Held(
        name=f"tls-half-open-{number}",
        what=f"{number:,} TLS connections of one address that stop in the middle of their ClientHello",
        count=number,
        **AT_TLS,
        source="1,000 and 5,000 half-open TLS connections from one address (others wait 2.2 s; 31 of 82 served)",
        must="others are served, and within twice their usual time",
        step=lambda _, step: HELLO[: len(HELLO) // 2] if step == 0 else b"",
    )
Held(
    name="tls-slow",
    what="500 TLS connections of one address that send a byte of their ClientHello each 50 ms",
    source="slow handshakes",
    count=500,
    pause=0.05,
    step=lambda _, step: HELLO[step : step + 1],
    **AT_TLS,
)
Held(
    name="connection-places",
    what="one address takes all of 300 places for connections, and takes again what is closed",
    count=600,
    quick_kinds=("tcp",),
    source="one address takes all places for connections (new TCP 3 of 41)",
    conf={"connections": {"max": 300}},
)
Renegotiation()
SlowSenders()
SlowReaders()
Crlf()
Resets()
Forms(
    "length-lies",
    "Content-Length that is negative, too large, no number, repeated, missing or beyond the message",
    "Content-Length lies",
    LIES,
)
Forms(
    "giants",
    "messages without end: one header line, many header lines, a body of 64 MB, a Request-URI, empty lines",
    "giants, endless headers",
    GIANTS,
)
GarbageRecords(
    "tls-garbage",
    "bytes that are no TLS, records of the wrong kind, too long ones, and a handshake cut in two, at the TLS port",
    "garbage records",
    [
        os.urandom(2000),
        b"\x17\x03\x03\x40\x00" + os.urandom(16_384),
        b"\x16\x03\x01\xff\xff" + os.urandom(3000),
        b"\x15\x03\x03\x00\x02\x02\x28",
        hello()[:60] + os.urandom(200),
        b"\x16\x03\x03\x00\x00" * 2000,
        options(length=[b"0"]),
    ],
)
Fragments()
Segments()
Inside()

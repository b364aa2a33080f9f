"""What fills tables and memory: bindings of one address-of-record and of many, transactions, large messages, one REGISTER that
costs much."""

import re
import socket
import time

from attack import net, sip, verdicts
from attack.lab import Scenario, of
from attack.legit import cpu_seconds
from attack.verdicts import Check

# What one source may have of a small table, so that it is full in seconds.
SMALL = 3000
OPEN = {"challenge_register": False}
# Timer B is over in 6.4 s, so that what an attack has left can be seen to go.
FAST = {"t1": "100ms", "linger": "2s"}


def gauges(lab, pattern):
    """Metrics of bytes that are held."""
    return [name for name in lab.metrics["during"] if "bytes" in name and "limit_hits" not in name and re.search(pattern, name)]


def long_turns(lab):
    return [name for name in lab.metrics["during"] if re.search("(long|slow|stall).*turn|turn.*(long|slow|stall)", name)]


class Removal(Scenario):
    name = "register-removals"
    what = "REGISTERs of 57 kB that remove 7,200 short contacts, of an address-of-record with 10 long ones"
    source = "REGISTER of 57 kB removing 7,200 short contacts (29.7 s of CPU)"
    must = (
        "the CPU of a message is linear in its bytes (8 times as many: at most 16 times the CPU); no message holds the others up; "
        "turns longer than 100 ms are counted"
    )
    quick_kinds = ("calls",)

    def register(self, phone, count):
        contacts = ",".join(f"s:x{number:x}" for number in range(count))
        uri = f"sip:{sip.DOMAIN}"
        return sip.request(
            "REGISTER",
            uri,
            phone.place,
            sip.aor("mallory"),
            sip.aor("mallory"),
            "Expires: 0",
            f"m: {contacts}",
            *phone.credentials.lines("REGISTER", uri),
            call_id=sip.unique(),
            cseq=2,
        )

    def prepare(self, lab):
        self.phone = lab.phone("mallory", net.ATTACKER)
        for number in range(10):
            self.phone.register(f"<sip:mallory@198.18.9.1:5060;x={'y' * 900}{number}>")
        self.bound = len(self.phone.bindings() or [])

    def cpu(self, lab, count, times):
        """Milliseconds of each message, above what the server takes meanwhile for others, and its bytes."""
        messages = [self.register(self.phone, count) for _ in range(times)]
        began, used = time.monotonic(), cpu_seconds(lab.server.pid)
        for data in messages:
            self.phone.send(data)
            time.sleep(0.02)
        took = cpu_seconds(lab.server.pid) - used - lab.usual * (time.monotonic() - began)
        return 1000 * max(took, 1e-6) / times, len(messages[0])

    def attack(self, lab):
        began, used = time.monotonic(), cpu_seconds(lab.server.pid)
        time.sleep(1.0)
        lab.usual = (cpu_seconds(lab.server.pid) - used) / (time.monotonic() - began)
        times = max(10, int(lab.left() / 0.07))
        (small, small_bytes), (large, large_bytes) = self.cpu(lab, 900, times), self.cpu(lab, 7200, times)
        self.growth = (large / small) / (large_bytes / small_bytes)
        answers = [message.status for message in self.phone.received(0.1) if message.status]
        lab.seen.update(
            {
                "bytes": large_bytes,
                "sent": 2 * times,
                "ms of CPU each": large,
                "of an eighth": small,
                "answers": dict.fromkeys(answers),
            }
        )
        self.large = large

    def checks(self, lab):
        return [
            Check("long contacts bound", f"{self.bound}", True if self.bound >= 5 else None),
            Check(
                "CPU for a byte, of the large ÷ of an eighth of it (at most 2)",
                f"{self.growth:.2f}",
                verdicts.at_most(self.growth, 2),
            ),
            Check("a counter of turns longer than 100 ms", ", ".join(long_turns(lab)) or "none", bool(long_turns(lab))),
            Check("CPU of one message (at most 20 ms)", f"{self.large:.2f} ms", verdicts.at_most(self.large, 20)),
        ]


class OneAor(Scenario):
    name = "bindings-one-aor"
    what = "one user binds ever new contacts to its address-of-record, 300 a second"
    source = "floods of bindings, on one AOR"
    must = "no more than max_contacts are bound"

    def prepare(self, lab):
        self.phone = lab.phone("mallory", net.ATTACKER)
        self.phone.register(self.phone.contact)

    def attack(self, lab):
        uri, phone = f"sip:{sip.DOMAIN}", self.phone

        def send(number):
            return phone.send(
                sip.request(
                    "REGISTER",
                    uri,
                    phone.place,
                    sip.aor("mallory"),
                    sip.aor("mallory"),
                    *phone.credentials.lines("REGISTER", uri),
                    contact=f"<sip:m{number}@198.18.9.1:5060>",
                )
            )

        lab.flood(300, send)
        net.drain(phone.socket)

    def end(self, lab):
        self.bound = len(self.phone.bindings() or [])

    def checks(self, lab):
        return [Check("bound (at most 10)", f"{self.bound}", verdicts.at_most(self.bound, 10) if self.bound else None)]


class ManyAors(Scenario):
    name = "bindings-many-aors"
    what = (
        "one source, of which no password is asked, binds a contact to each of 15,000 addresses-of-record; the table has 3,000 "
        "places"
    )
    source = "one source fills the binding table (new phones 503)"
    must = "new phones at other places still register"
    conf = {"auth": OPEN, "limits": {"bindings": SMALL}}

    def attack(self, lab):
        where = lab.keep(net.udp(net.ATTACKER))
        place = where.getsockname()
        lab.flood(
            min(5000, 5 * SMALL / lab.during_s),
            lambda number: where.sendto(
                sip.request(
                    "REGISTER",
                    f"sip:{sip.DOMAIN}",
                    place,
                    sip.aor(f"m{number}"),
                    sip.aor(f"m{number}"),
                    contact=f"<sip:m{number}@198.18.9.1>",
                ),
                sip.SERVER,
            ),
        )

    def checks(self, lab):
        bindings = of(lab.metrics["during"], "strowger_bindings")
        return [Check("contacts bound in all", f"{bindings:,.0f}", True if bindings <= SMALL else False)]


class SilentPhone(Scenario):
    name = "transactions-silent-phone"
    what = "one user's INVITEs to a phone of its own that never answers, 2,000 a second; the table has 3,000 places"
    source = "one source fills the transaction table with INVITEs to a silent phone"
    must = "the others' calls go on"
    conf = {"limits": {"transactions": SMALL}}
    body = b""

    def prepare(self, lab):
        self.phone = lab.phone("mallory", net.ATTACKER)
        # By TCP too: large requests go that way. It takes connections, and reads nothing.
        lab.last(net.udp("198.18.9.3", 5060, buffer=4096), socket.create_server(("198.18.9.3", 5060)))
        self.phone.register("<sip:mallory@198.18.9.3:5060>")
        uri = sip.aor("mallory")
        challenge = self.phone.ask("INVITE", uri, uri, digest=False)
        self.phone.credentials.take(challenge)
        self.rate = 2000

    def attack(self, lab):
        uri, phone = sip.aor("mallory"), self.phone
        phone.socket.setblocking(False)

        def send(number):
            net.drain(phone.socket)
            if number >= self.most:
                return 0
            return phone.send(
                sip.request(
                    "INVITE",
                    uri,
                    phone.place,
                    sip.aor("mallory"),
                    uri,
                    *phone.credentials.lines("INVITE", uri),
                    contact=phone.contact,
                    body=self.body,
                )
            )

        lab.flood(self.rate, send)
        lab.seen["sent"] = min(lab.seen["sent"], self.most)
        lab.seen["asked"] = min(lab.seen["asked"], self.most)

    most = 10**9

    def checks(self, lab):
        held = of(lab.metrics["during"], "strowger_transactions")
        return [Check("transactions held when the attack ended", f"{held:,.0f}", True)]


class LargeInvites(SilentPhone):
    name = "memory-invites"
    what = "8,000 INVITEs of 60 kB to a phone that never answers (Timer B: 6.4 s)"
    source = "8,000 INVITEs of 60 kB (1 GB, by default no end)"
    must = "bytes are counted; memory comes back; calls go on"
    conf = {"timers": FAST}
    body = b"a=" + b"x" * 60_000
    most = 8000
    rest = 18.0

    def prepare(self, lab):
        super().prepare(lab)
        self.rate = self.most / (0.8 * lab.during_s)

    def checks(self, lab):
        counted = gauges(lab, "transaction|held|stored")
        return [lab.memory_check(), Check("a metric of the bytes held", ", ".join(counted) or "none", bool(counted))]


class LargeBindings(Scenario):
    name = "memory-bindings"
    what = "under contact_size = 60KiB and no passwords: 3,000 bindings of 56 kB, that expire after 5 s"
    source = "12,500 bindings of 60 kB (1 GB, by default no end)"
    must = "bytes are counted; memory comes back; calls go on"
    conf = {"auth": OPEN, "limits": {"contact_size": "60KiB"}, "registrar": {"min_expires": "1s"}}
    rest = 18.0
    most = 3000

    def attack(self, lab):
        where = lab.keep(net.udp(net.ATTACKER))
        place, padding = where.getsockname(), "y" * 56_000

        def send(number):
            if number >= self.most:
                return 0
            return where.sendto(
                sip.request(
                    "REGISTER",
                    f"sip:{sip.DOMAIN}",
                    place,
                    sip.aor(f"m{number}"),
                    sip.aor(f"m{number}"),
                    "Expires: 5",
                    contact=f"<sip:m{number}@198.18.9.1;x={padding}>",
                ),
                sip.SERVER,
            )

        lab.flood(self.most / (0.8 * lab.during_s), send)
        self.bound = lab.server.scrape().get("strowger_bindings", 0)
        lab.seen.update({"sent": min(lab.seen["sent"], self.most), "asked": min(lab.seen["asked"], self.most), "bound": self.bound})

    def checks(self, lab):
        counted = gauges(lab, "binding")
        left = of(lab.metrics["after"], "strowger_bindings")
        return [
            lab.memory_check(),
            Check("bindings at the end", f"{self.bound:,.0f} → {left:,.0f}", left <= self.bound / 2 if self.bound > 1000 else None),
            Check("a metric of the bytes held", ", ".join(counted) or "none", bool(counted)),
        ]


Removal()
OneAor()
ManyAors()
SilentPhone()
LargeInvites()
LargeBindings()

"""What fills tables and memory: bindings of one address-of-record and of many, transactions, large messages, one REGISTER that
costs much."""

import re
import socket
import time

from attack import net, sip
from attack.lab import Lab, Scenario, of
from attack.legit import cpu_seconds

# What one source may have of a small table, so that it is full in seconds.
SMALL = 3000
OPEN = {"challenge_register": False}
# Timer B is over in 6.4 s, so that what an attack has left can be seen to go.
FAST = {"t1": "100ms", "linger": "2s"}


def gauges(lab: Lab, pattern: str) -> list[str]:
    """Metrics of bytes that are held."""
    return [name for name in lab.metrics["during"] if "bytes" in name and "limit_hits" not in name and re.search(pattern, name)]


@Scenario(
    "register-removals",
    "REGISTERs of 57 kB that remove 7,200 short contacts, of an address-of-record with 10 long ones",
    "REGISTER of 57 kB removing 7,200 short contacts (29.7 s of CPU)",
    "the CPU of a message is linear in its bytes (8 times as many: at most 16 times the CPU); no message holds the others up; "
    "turns longer than 100 ms are counted",
    quick_kinds=("calls",),
)
def removals(lab: Lab) -> None:
    phone = lab.phone("mallory", net.ATTACKER)
    for number in range(10):
        phone.register(f"<sip:mallory@198.18.9.1:5060;x={'y' * 900}{number}>")
    bound = len(phone.bindings() or [])

    def register(count: int) -> bytes:
        lines = ["Expires: 0", f"m: {','.join(f's:x{number:x}' for number in range(count))}"]
        return phone.request("REGISTER", sip.HOME, *lines, to=sip.aor("mallory"), cseq=2)

    def cpu(count: int, times: int, usual: float) -> tuple[float, int]:
        """Milliseconds of each message, above what the server takes meanwhile for others, and its bytes."""
        messages = [register(count) for _ in range(times)]
        began, used = time.monotonic(), cpu_seconds(lab.server.pid)
        for data in messages:
            phone.send(data)
            time.sleep(0.02)
        took = cpu_seconds(lab.server.pid) - used - usual * (time.monotonic() - began)
        return 1000 * max(took, 1e-6) / times, len(messages[0])

    with lab.attack():
        began, used = time.monotonic(), cpu_seconds(lab.server.pid)
        time.sleep(1.0)
        usual = (cpu_seconds(lab.server.pid) - used) / (time.monotonic() - began)
        times = max(10, int(lab.left() / 0.07))
        (small, small_bytes), (large, large_bytes) = cpu(900, times, usual), cpu(7200, times, usual)
        answers = dict.fromkeys(message.status for message in phone.received(0.1) if message.status)
        lab.seen |= {"bytes": large_bytes, "sent": 2 * times, "ms of CPU each": large, "of an eighth": small, "answers": answers}
    lab.some("long contacts bound", bound, bound >= 5)
    growth = (large / small) / (large_bytes / small_bytes)
    lab.at_most("CPU for a byte, of the large ÷ of an eighth of it (at most 2)", growth, 2, "{:.2f}")
    long_turns = [name for name in lab.metrics["during"] if re.search("(long|slow|stall).*turn|turn.*(long|slow|stall)", name)]
    lab.is_counted("a counter of turns longer than 100 ms", long_turns)
    lab.at_most("CPU of one message (at most 20 ms)", large, 20, "{:.2f} ms")


@Scenario(
    "bindings-one-aor",
    "one user binds ever new contacts to its address-of-record, 300 a second",
    "floods of bindings, on one AOR",
    "no more than max_contacts are bound",
)
def one_aor(lab: Lab) -> None:
    phone = lab.phone("mallory", net.ATTACKER)
    phone.register(phone.contact)

    def send(number: int) -> int:
        contact = f"<sip:m{number}@198.18.9.1:5060>"
        return phone.send(phone.request("REGISTER", sip.HOME, to=sip.aor("mallory"), contact=contact))

    with lab.attack():
        lab.flood(300, send)
        net.drain(phone.socket)
    bound = len(phone.bindings() or [])
    lab.at_most("bound (at most 10)", bound or None, 10)


def binds(where: socket.socket, number: int, *lines: str, more: str = "") -> int:
    """A contact of a user for whom no password is asked."""
    user, contact = sip.aor(f"m{number}"), f"<sip:m{number}@198.18.9.1{more}>"
    return where.sendto(sip.request("REGISTER", sip.HOME, where.getsockname(), user, user, *lines, contact=contact), sip.SERVER)


@Scenario(
    "bindings-many-aors",
    "one source, of which no password is asked, binds a contact to each of 15,000 addresses-of-record; the table has 3,000 places",
    "one source fills the binding table (new phones 503)",
    "new phones at other places still register",
    conf={"auth": OPEN, "limits": {"bindings": SMALL}},
)
def many_aors(lab: Lab) -> None:
    with lab.attack():
        where = lab.keep(net.udp(net.ATTACKER))
        lab.flood(min(5000, 5 * SMALL / lab.during_s), lambda number: binds(where, number))
    bindings = of(lab.metrics["during"], "strowger_bindings")
    lab.at_most("contacts bound in all", bindings, SMALL)


def calls_silent_phone(lab: Lab, rate: float, body: bytes = b"", most: int | None = None) -> None:
    phone, uri = lab.phone("mallory", net.ATTACKER), sip.aor("mallory")
    # By TCP too: large requests go that way. It takes connections, and reads nothing.
    lab.last(net.udp("198.18.9.3", 5060, buffer=4096), socket.create_server(("198.18.9.3", 5060)))
    phone.register("<sip:mallory@198.18.9.3:5060>")
    phone.take_challenge("INVITE", uri, uri)

    def send(number: int) -> int:
        net.drain(phone.socket)
        return phone.send(phone.request("INVITE", uri, contact=phone.contact, body=body))

    with lab.attack():
        phone.socket.setblocking(False)
        lab.flood(rate, send, most)


@Scenario(
    "transactions-silent-phone",
    "one user's INVITEs to a phone of its own that never answers, 2,000 a second; the table has 3,000 places",
    "one source fills the transaction table with INVITEs to a silent phone",
    "the others' calls go on",
    conf={"limits": {"transactions": SMALL}},
)
def silent_phone(lab: Lab) -> None:
    calls_silent_phone(lab, 2000)
    # Without them the attack was none.
    held = of(lab.metrics["during"], "strowger_transactions")
    lab.some("transactions held when the attack ended", "—" if held is None else f"{held:,.0f}", held)


@Scenario(
    "memory-invites",
    "8,000 INVITEs of 60 kB to a phone that never answers (Timer B: 6.4 s)",
    "8,000 INVITEs of 60 kB (1 GB, by default no end)",
    "bytes are counted; memory comes back; calls go on",
    conf={"timers": FAST},
    rest=18.0,
)
def large_invites(lab: Lab) -> None:
    calls_silent_phone(lab, 8000 / (0.8 * lab.during_s), b"a=" + b"x" * 60_000, 8000)
    lab.memory_comes_back()
    lab.is_counted("a metric of the bytes held", gauges(lab, "transaction|held|stored"))


@Scenario(
    "memory-bindings",
    "under contact_size = 60KiB and no passwords: 3,000 bindings of 56 kB, that expire after 5 s",
    "12,500 bindings of 60 kB (1 GB, by default no end)",
    "bytes are counted; memory comes back; calls go on",
    conf={"auth": OPEN, "limits": {"contact_size": "60KiB"}, "registrar": {"min_expires": "1s"}},
    rest=18.0,
)
def large_bindings(lab: Lab) -> None:
    most, padding = 3000, f";x={'y' * 56_000}"
    with lab.attack():
        where = lab.keep(net.udp(net.ATTACKER))
        lab.flood(most / (0.8 * lab.during_s), lambda number: binds(where, number, "Expires: 5", more=padding), most)
        bound = of(lab.server.scrape(), "strowger_bindings")
        lab.seen["bound"] = bound
    left = of(lab.metrics["after"], "strowger_bindings")
    lab.memory_comes_back()
    known = bound is not None and bound > 1000 and left is not None
    lab.check("bindings at the end", f"{bound or 0:,.0f} → {left or 0:,.0f}", (left or 0) <= (bound or 0) / 2 if known else None)
    lab.is_counted("a metric of the bytes held", gauges(lab, "binding"))

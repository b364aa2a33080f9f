"""perf/rows: what a call and a registration cost over UDP, TCP and TLS, beside the floor of the same path and Kamailio: the rows of
the targets, and tables of every case."""

from __future__ import annotations

import argparse
from typing import Any

import tasks
from bench import SYSTEM_OPENSSL, main
from cases import TODAY, Case, registrations
from report import Report
from samples import Quantity, Row, Samples, compare, ratio, single
from study import Plan, Task
from tasks import Load, key, rate, served, window

RATES = (1_000, 2_000)
# Sockets on each side where two workers share the load: each socket's traffic stays with one. Core 1 is the generator's and the
# second worker's, so that the generator sleeps when idle; with one worker too, to compare.
SOCKETS = ("--sockets", "16", "--wait", "sleep")
# Both must be bound by the same: a floor is never more than what carries on beside it.
FLOORS = ("strowger", "floor")
ALL = ("strowger", "floor", "kamailio")

UDP = Case()
REGISTERED = Case(routed=False)
STATELESS = Case(routed=False, conf={"proxy": {"mode": "stateless"}}, suffix="stateless")
ONE_WORKER = Case(routed=False, extra=SOCKETS, suffix="one worker")
TWO_WORKERS = Case(routed=False, extra=SOCKETS, cores=(0, 1), suffix="two workers")
DIGEST = REGISTERED.with_(auth="call")
KEPT = REGISTERED.with_(auth="call", nonce="kept", suffix="kept")
SHA256 = REGISTERED.with_(auth="call", algorithm="sha-256")
TCP = Case("tcp", "tcp")
TCP_LEFT, TCP_RIGHT, TCP_BOTH = Case("tcp/call", "udp"), Case("udp", "tcp/call", False), Case("tcp/call", "tcp/call", False)
TLS_CHAIN = Case("tls", "tls", version="1.3")
REGISTER = {digest: registrations("udp", digest) for digest in ("none", "new", "kept")}
CALL, REGISTRATION = window(), window(mode="register")
REGISTER_RATE = rate(4_000, "register")
# Messages of a call and of a registration that the server receives and sends, without and with a challenge.
MESSAGES = {"call": (13, 16), "register": (2, 4)}


def tls(left: str, right: str, **how: Any) -> Case:
    """With TLS 1.2 what is negotiated today."""
    return Case(left, right, routed=right == "udp", **{"suite": TODAY, **how})


# Row S2: TLS for each call, as server (the callers' side) and as client (the answerers'), by version and kind.
KINDS: dict[str, dict[str, Any]] = {"full": {}, "resumed": {"reuse": True}, "mutual": {"mutual": True}}
SECURE = {
    (version, kind, side): tls(*(("tls/call", "udp") if side == "server" else ("udp", "tls/call")), version=version, **how)
    for version in ("1.2", "1.3")
    for kind, how in KINDS.items()
    for side in ("server", "client")
}
LOCAL = {
    "full": tls("tls/call", "tls/call"),
    "resumed": tls("tls/call", "tls/call", reuse=True),
    "mutual": tls("tls/call", "tls/call", mutual=True),
    "mutual, P-256": tls("tls/call", "tls/call", mutual=True, key="ec"),
}


def memory(case: Case, side: str) -> Quantity:
    return Quantity(f"{tasks.memory_name(case)}|memory|handshake", f"{side}_us")


def secure_row(version: str, kind: str, side: str) -> Row:
    case, plain = SECURE[version, kind, side], TCP_LEFT if side == "server" else TCP_RIGHT
    return Row(
        "S2" if kind == "full" else "S3",
        f"(TLS {version} {kind} for each call, as {side} − TCP the same) ÷ handshake in memory",
        1.2,
        {"cost": Quantity(key(case)), "plain": Quantity(key(plain)), "memory": memory(case, side)},
        lambda cost, plain, memory: (cost - plain) / memory,
    )


def messages_row(name: str, what: str, over: str, under: str, kind: str) -> Row:
    without, with_ = MESSAGES[kind]
    quantities = {"over": Quantity(over), "under": Quantity(under)}
    return Row(name, what, 1.1, quantities, lambda over, under: over / (under * with_ / without))


def rows() -> list[Row]:
    floor = "floor"
    found = [
        compare("U1", "UDP call at saturation ÷ floor", 1.25, key(REGISTERED), key(REGISTERED, floor)),
        compare("U1", "UDP call at saturation ÷ Kamailio", 0.10, key(REGISTERED), key(REGISTERED, "kamailio")),
    ]
    for each, limit in zip(RATES, (1.4, 1.25)):
        at = rate(each)
        found.append(compare("U1b", f"UDP call at {each:,}/s ÷ floor", limit, key(REGISTERED, load=at), key(REGISTERED, floor, at)))
    found += [
        compare("U2", "stateless UDP call ÷ floor of 6 in, 6 out", 1.15, key(STATELESS), key(STATELESS, floor)),
        compare(
            "R1",
            "REGISTER at saturation ÷ floor",
            1.25,
            key(REGISTER["none"], load=REGISTRATION),
            key(REGISTER["none"], floor, REGISTRATION),
        ),
        messages_row("A1", "call, INVITE challenged ÷ (call without × messages)", key(DIGEST), key(REGISTERED), "call"),
        messages_row(
            "R2",
            "REGISTER, challenged ÷ (REGISTER without × messages)",
            key(REGISTER["new"], load=REGISTRATION),
            key(REGISTER["none"], load=REGISTRATION),
            "register",
        ),
        compare("K1", "CPU of a call, two workers ÷ one", 1.1, key(TWO_WORKERS), key(ONE_WORKER)),
        compare(
            "G1",
            "generator's CPU ÷ server's, UDP call at saturation",
            0.8,
            key(REGISTERED),
            key(REGISTERED),
            path="generator_us_each / server_cpu_us_each",
            formula=lambda over, under: over + 0 * under,
        ),
        Row(
            "T1",
            "our own part of a call: TCP, one connection each side (call − floor) ÷ the same over UDP",
            1.0,
            {
                name: Quantity(each)
                for name, each in [
                    ("tcp", key(TCP)),
                    ("tcp_floor", key(TCP, floor)),
                    ("udp", key(UDP)),
                    ("udp_floor", key(UDP, floor)),
                ]
            },
            lambda tcp, tcp_floor, udp, udp_floor: (tcp - tcp_floor) / (udp - udp_floor),
        ),
        compare("T2", "TCP for each call, callers' side ÷ floor", 1.3, key(TCP_LEFT), key(TCP_LEFT, floor)),
        compare("T2", "TCP for each call, answerers' side ÷ floor", 1.3, key(TCP_RIGHT), key(TCP_RIGHT, floor)),
        compare("T3", "TCP for each call, both sides ÷ floor", 1.3, key(TCP_BOTH), key(TCP_BOTH, floor)),
        compare("S1", "TLS 1.3 kept open, both sides ÷ TCP", 1.2, key(TLS_CHAIN), key(TCP)),
        *(secure_row(*which) for which in SECURE),
        compare("S4", "local, TLS 1.2, RSA-2048: resumed on both sides ÷ full", 0.2, key(LOCAL["resumed"]), key(LOCAL["full"])),
        compare(
            "S7",
            "local mutual, P-256: AWS-LC ÷ the system's OpenSSL",
            0.45,
            key(LOCAL["mutual, P-256"]),
            key(LOCAL["mutual, P-256"], SYSTEM_OPENSSL),
        ),
    ]
    for case in KAMAILIO:
        found.append(compare("P1", f"{case.label} ÷ Kamailio", 0.25, key(case), key(case, "kamailio")))
    return found


# Beside whom, at the same load.
KAMAILIO = [
    DIGEST,
    TCP,
    TCP_LEFT,
    TCP_BOTH,
    *(SECURE["1.2", kind, "server"] for kind in KINDS),
    SECURE["1.3", "full", "server"],
    SECURE["1.2", "full", "client"],
    LOCAL["mutual"],
]


def plan(options: argparse.Namespace) -> Plan:
    calls = [window()]
    found: list[Task] = [served(REGISTERED, who, [*map(rate, RATES), *calls], "udp") for who in ALL]
    found += [served(UDP, who, calls, "udp chain") for who in ALL]
    for who in FLOORS:
        found += [served(case, who, calls) for case in (STATELESS, TCP, TCP_LEFT, TCP_RIGHT, TCP_BOTH)]
    for who in ALL:
        found.append(served(REGISTER["none"], who, [REGISTER_RATE, REGISTRATION], "register"))
    found += [served(case, "strowger", calls, "udp") for case in (DIGEST, KEPT, SHA256)]
    found += [served(REGISTER[digest], "strowger", [REGISTRATION], "register") for digest in ("new", "kept")]
    found.append(served(REGISTER["new"], "kamailio", [REGISTRATION], "register"))
    found += [served(case, "strowger", calls, "workers") for case in (ONE_WORKER, TWO_WORKERS)]
    found += [served(case, "strowger", calls, "streams") for case in (TLS_CHAIN, *SECURE.values(), *LOCAL.values())]
    found += [served(case, "kamailio", calls) for case in KAMAILIO]
    found.append(served(LOCAL["mutual, P-256"], SYSTEM_OPENSSL, calls))
    found += [tasks.handshakes(case) for case in SECURE.values()]
    return Plan("rows", "What a call costs, row by row", found, rows(), tell)


def tell(report: Report, samples: Samples) -> None:
    """Every case beside the floor and Kamailio, and what the generator was doing."""
    lines, generator = [], []
    loads: list[tuple[Case, Load]] = [(REGISTERED, rate(each)) for each in RATES]
    loads += [
        (case, CALL) for case in (REGISTERED, UDP, STATELESS, DIGEST, KEPT, SHA256, TCP, TCP_LEFT, TCP_RIGHT, TCP_BOTH, TLS_CHAIN)
    ]
    loads += [(case, CALL) for case in (*SECURE.values(), *LOCAL.values(), ONE_WORKER, TWO_WORKERS)]
    loads += [(REGISTER["none"], REGISTER_RATE), *((case, REGISTRATION) for case in REGISTER.values())]
    for case, load in loads:
        ours, floor, peer = (key(case, who, load) for who in ALL)
        costs = [single(samples, each) for each in (floor, ours, peer)]
        if any(costs):
            name = f"{case.label}, {load.name}"
            lines.append([name, *costs, ratio(samples, ours, floor), ratio(samples, ours, peer)])
            busy = [
                single(samples, ours, path, scale)
                for path, scale in [("generator_us_each", 1), ("generator_busy", 100), ("server_busy", 100)]
            ]
            generator.append(
                [name, *busy, single(samples, ours, "completed_per_second"), single(samples, peer, "completed_per_second")]
            )
    head = ["case", "floor", "strowger", "Kamailio", "÷ floor", "÷ Kamailio"]
    report.table("Server CPU, µs for each call or registration", head, lines)
    head = [
        "case",
        "generator, µs each",
        "its core, % busy",
        "server's core, % busy",
        "strowger, each second",
        "Kamailio, each second",
    ]
    report.table("The generator beside strowger, and rates", head, generator)


if __name__ == "__main__":
    main("rows", __doc__, 30, plan)

"""perf/rows: what a call and a registration cost over UDP, TCP and TLS, beside the floor of the same path and Kamailio: the rows of
the targets, and tables of every case. perf/udp and perf/streams are its parts."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy
import tasks
from bench import SYSTEM_OPENSSL, Bench, main
from cases import TODAY, Case, registrations
from machine import Process
from report import PERF, Report
from samples import FEWEST, Quantity, Result, Row, Samples, compare, figure, highest, ratio, single
from study import HOST, Plan, Task
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
# Messages of a call and of a registration that the server receives and sends, without and with a challenge.
MESSAGES = {"call": (13, 16), "register": (2, 4)}


def tls(left: str, right: str, **how: Any) -> Case:
    """With TLS 1.2 what is negotiated today. The server's key is RSA; the generator signs with P-256, which is cheap: with RSA it
    would be the limit where the server only verifies."""
    return Case(left, right, routed=right == "udp", **how) if "suite" in how else tls(left, right, suite=TODAY, **how)


# The same without TLS, by whose handshakes are looked at.
PLAIN = {"server": TCP_LEFT, "client": TCP_RIGHT}
# Rows S2 and S3: TLS for each call, as server (the callers' side) and as client (the answerers'), by version and kind.
KINDS: dict[str, dict[str, Any]] = {"full": {}, "resumed": {"reuse": True}, "mutual": {"mutual": True}}
VERSIONS = ("1.2", "1.3")
SIDES: dict[str, tuple[str, str]] = {"server": ("tls/call", "udp"), "client": ("udp", "tls/call")}
SECURE = {
    # Who connects shows a certificate only if it is mutual.
    (version, kind, side): tls(*ends, **{"version": version, "peer": "ec" if side == "client" or kind == "mutual" else "", **how})
    for version in VERSIONS
    for kind, how in KINDS.items()
    for side, ends in SIDES.items()
}
LOCAL = {kind: tls("tls/call", "tls/call", peer="ec", **how) for kind, how in KINDS.items()}
LOCAL |= {f"{kind}, 1.3": tls("tls/call", "tls/call", peer="ec", version="1.3", **KINDS[kind]) for kind in ("full", "resumed")}
LOCAL["mutual, P-256"] = tls("tls/call", "tls/call", mutual=True, key="ec")
LOCAL["mutual resumed, P-256"] = tls("tls/call", "tls/call", mutual=True, reuse=True, key="ec")
# Row S6: how often a side must look at what came, or begin, until its handshake is done.
FLIGHTS = {("1.2", "full", "client"): 3}
FEWEST_FLIGHTS = 2
# Row S8.
GROUPS = {group: tls(*SIDES["server"], version="1.3", key="ec", group=group) for group in ("X25519", "X25519MLKEM768")}
# Beside whom, at the same load.
KAMAILIO_UDP = [
    *((REGISTERED, rate(each)) for each in RATES),
    (DIGEST, CALL),
    (REGISTER["none"], REGISTRATION),
    (REGISTER["new"], REGISTRATION),
]
KAMAILIO_STREAMS = [
    TCP,
    TCP_LEFT,
    TCP_BOTH,
    *(SECURE["1.2", kind, "server"] for kind in KINDS),
    SECURE["1.3", "full", "server"],
    SECURE["1.2", "full", "client"],
    LOCAL["mutual"],
]
# It is so far away that a few runs tell.
KAMAILIO_RUNS = 2
RUNS = {"kamailio": KAMAILIO_RUNS, "strowger": FEWEST, "floor": FEWEST}
# Row L1: half of the peak, Poisson; beside the floor of UDP, and of TCP for TLS, which has none of its own.
HALF = "half the peak, poisson"
LATENCY = {"UDP": (REGISTERED, REGISTERED, 500), "TLS 1.3 kept open": (TLS_CHAIN, TCP, 1_000)}
SPANS = {"to_100": "INVITE to 100", "to_180": "INVITE to 180", "to_200": "INVITE to 200", "bye_to_200": "BYE to 200"}
# Row A3: so many registrations outstanding that one commit serves thousands. They fit the receive buffer that strowger asks for, if
# the kernel grants it (net.core.rmem_max); refused ones would ask again at once, as no phone does.
GROUP = 4_096
DURABLE = {
    durability: registrations("udp", users=20_000, extra=("--wait", "sleep")).with_(suffix=f"register-{durability}")
    for durability in ("batched", "acknowledged")
}
OUTSTANDING = window(GROUP, "register")


# What is measured.


def durable(durability: str) -> Task:
    """Beside the results, since a temporary folder may be in memory. Its worker has core 0; what writes to disk may share core 1
    with the generator, which then sleeps when it is idle."""
    case, kept = DURABLE[durability], key(DURABLE[durability], load=OUTSTANDING)

    def measure(bench: Bench) -> dict[str, Result]:
        (PERF / "results").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="durable-", dir=PERF / "results") as disk:
            store = {"database": os.path.join(disk, "bindings.db"), "durability": durability}
            conf = {"registrar": store, "limits": {"overload": "0s"}}
            # Two cores: it is not pinned as a whole.
            stored = case.with_(conf={**conf, "server": {"cores": [0]}}, cores=(0, 1))
            sync = sync_us(disk)
            with bench.server("strowger", stored) as process:
                options = ["--users", case.users, *OUTSTANDING.options, "--settle", bench.settle, "--duration", bench.measure]
                found = bench.run_load("strowger", stored, process, "register", *options)[0]
        return {kept: {**found, "sync_us": sync}}

    return Task(f"{case.name}, strowger", [kept], measure, "durable", 9, who="strowger", minds=HOST)


def sync_us(directory: str) -> float:
    """The median of writing a page through to the disk."""
    times = []
    with open(os.path.join(directory, "sync"), "wb", buffering=0) as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(bytes(4_096))
            os.fdatasync(file.fileno())
            times.append(1e6 * (time.perf_counter() - start))
    return statistics.median(times)


def count_handshake_calls(bench: Bench, process: Process, found: dict[str, Result]) -> None:
    counters = bench.counters("strowger_tls")
    calls = {side: each for side in SIDES if (each := tasks.handshake_calls(counters, side))}
    for result in found.values():
        result["handshake_calls"] = calls


def udp_tasks() -> list[Task]:
    calls = [CALL]
    found: list[Task] = [served(REGISTERED, who, [*map(rate, RATES), CALL], "udp", RUNS[who]) for who in ALL]
    found += [served(UDP, who, calls, "udp chain") for who in FLOORS]
    found += [served(STATELESS, who, calls) for who in FLOORS]
    found += [served(REGISTER["none"], who, [REGISTRATION], "register", RUNS[who]) for who in ALL]
    found += [served(DIGEST, who, calls, "udp", RUNS[who]) for who in ("strowger", "kamailio")]
    found += [served(case, "strowger", calls, "udp", least=2) for case in (KEPT, SHA256)]
    found += [served(REGISTER["new"], who, [REGISTRATION], "register", RUNS[who]) for who in ("strowger", "kamailio")]
    found.append(served(REGISTER["kept"], "strowger", [REGISTRATION], "register", least=2))
    found.append(served(ONE_WORKER, "strowger", calls, "workers"))
    # The second worker has the generator's core.
    found.append(replace(served(TWO_WORKERS, "strowger", calls, "workers"), minds=HOST))
    return found + latency_tasks("UDP") + [durable(each) for each in DURABLE]


def latency_tasks(name: str) -> list[Task]:
    """At half of what strowger does in a closed window, as it is known by then."""
    case, floor, _ = LATENCY[name]
    how: dict[str, Any] = {"block": f"{case.name}, {HALF}", "most": 12}
    return [
        tasks.at_half(case, who, key(case, who, HALF), [key(case)], measured_as=asked, name=f"{case.name}, {who}, {HALF}", **how)
        for who, asked in zip(FLOORS, (case, floor))
    ]


def stream_tasks() -> list[Task]:
    calls = [CALL]
    found: list[Task] = [served(UDP, who, calls, "udp chain") for who in FLOORS]
    found += [served(case, who, calls) for who in FLOORS for case in (TCP, TCP_LEFT, TCP_RIGHT, TCP_BOTH)]
    needed = [TLS_CHAIN, *SECURE.values(), LOCAL["full"], LOCAL["resumed"], LOCAL["mutual"], LOCAL["mutual, P-256"]]
    for case in dict.fromkeys([*needed, *LOCAL.values()]):
        least = 3 if case in needed else 1
        found.append(served(case, "strowger", calls, "streams", least, count_handshake_calls))
    found += [served(case, "kamailio", calls, least=KAMAILIO_RUNS) for case in KAMAILIO_STREAMS]
    found.append(served(LOCAL["mutual, P-256"], SYSTEM_OPENSSL, calls))
    found += [tasks.handshakes(case, side) for (_, _, side), case in SECURE.items()]
    found += [tasks.handshakes(case) for case in GROUPS.values()]
    return found + latency_tasks("TLS 1.3 kept open")


# What must hold.


def to_floor(name: str, what: str, limit: float, case: Case, load: Load = CALL) -> Row:
    return compare(name, f"{what} ÷ floor", limit, key(case, load=load), key(case, "floor", load))


def to_kamailio(case: Case, load: Load = CALL, name: str = "P1", limit: float = 0.25) -> Row:
    what = f"{case.label}, {load.name} ÷ Kamailio"
    return compare(name, what, limit, key(case, load=load), key(case, "kamailio", load), fewest=KAMAILIO_RUNS)


def messages_row(name: str, what: str, over: str, under: str, kind: str) -> Row:
    without, with_ = MESSAGES[kind]
    quantities = {"over": Quantity(over), "under": Quantity(under)}
    return Row(name, what, 1.1, quantities, lambda over, under: over / (under * with_ / without))


def secure_rows(version: str, kind: str, side: str) -> list[Row]:
    """What TLS adds beside its handshake; and all that it costs beside all that it cannot do without. The records' encryption is in
    neither divisor."""
    case, plain = SECURE[version, kind, side], PLAIN[side]
    name, what = "S2" if kind == "full" else "S3", f"TLS {version} {kind} for each call, as {side}"
    measured = {"cost": Quantity(key(case)), "memory": Quantity(tasks.memory_key(case, side), f"{side}_us")}
    return [
        Row(
            name,
            f"({what} − TCP the same) ÷ handshake in memory",
            1.2,
            {**measured, "plain": Quantity(key(plain))},
            lambda cost, memory, plain: (cost - plain) / memory,
        ),
        Row(
            name,
            f"{what} ÷ (floor of the same with TCP + handshake in memory)",
            1.2,
            {**measured, "floor": Quantity(key(plain, "floor"))},
            lambda cost, memory, floor: cost / (floor + memory),
        ),
    ]


def flights_row(version: str) -> Row:
    which = [(version, kind, side) for kind in ("full", "resumed") for side in SIDES]
    least = {"_".join(each[1:]): FLIGHTS.get(each, FEWEST_FLIGHTS) for each in which}
    return Row(
        "S6",
        f"TLS {version}: calls of SSL_do_handshake ÷ flights, worst of full and resumed, server and client",
        1.01,
        {"_".join(each[1:]): Quantity(key(SECURE[each]), f"handshake_calls.{each[2]}") for each in which},
        lambda **calls: highest([found / least[name] for name, found in calls.items()]),
        fewest=1,
    )


def latency_row(name: str) -> Row:
    case, floor, most = LATENCY[name]
    ends = {"ours": "strowger", "floor": "floor"}
    return Row(
        "L1",
        f"{name}, half the peak, p99: added − the {'TCP ' if floor is TCP else ''}floor's own, worst of {len(SPANS)} spans",
        most,
        {f"{end}_{span}": Quantity(key(case, who, HALF), f"latency_us.{span}.p99") for end, who in ends.items() for span in SPANS},
        lambda **p99: highest([p99[f"ours_{span}"] - 2 * p99[f"floor_{span}"] for span in SPANS]),
        unit="µs",
    )


def udp_rows() -> list[Row]:
    register, challenged = (key(REGISTER[digest], load=REGISTRATION) for digest in ("none", "new"))
    return [
        to_floor("U1", "UDP call at saturation", 1.25, REGISTERED),
        to_kamailio(REGISTERED, CALL, "U1", 0.10),
        *(to_floor("U1b", f"UDP call at {at:,}/s", limit, REGISTERED, rate(at)) for at, limit in zip(RATES, (1.4, 1.25))),
        to_floor("U2", "stateless UDP call, floor of 6 in, 6 out:", 1.15, STATELESS),
        to_floor("R1", "REGISTER at saturation", 1.25, REGISTER["none"], REGISTRATION),
        messages_row("A1", "call, INVITE challenged ÷ (call without × messages)", key(DIGEST), key(REGISTERED), "call"),
        messages_row("R2", "REGISTER, challenged ÷ (REGISTER without × messages)", challenged, register, "register"),
        compare(
            "A3",
            f"registrations a second, acknowledged ÷ batched, {GROUP:,} outstanding",
            0.9,
            key(DURABLE["acknowledged"], load=OUTSTANDING),
            key(DURABLE["batched"], load=OUTSTANDING),
            "completed_per_second",
            at_least=True,
        ),
        compare("K1", "CPU of a call at saturation, two workers ÷ one", 1.1, key(TWO_WORKERS), key(ONE_WORKER)),
        latency_row("UDP"),
        figure(
            "G1",
            "generator's CPU ÷ server's, UDP call at saturation",
            0.8,
            key(REGISTERED),
            "generator_us_each / server_cpu_us_each_all",
        ),
        *(to_kamailio(case, load) for case, load in KAMAILIO_UDP),
    ]


def stream_rows() -> list[Row]:
    system = key(LOCAL["mutual, P-256"], SYSTEM_OPENSSL)
    hybrid, plain = [tasks.memory_key(GROUPS[group]) for group in ("X25519MLKEM768", "X25519")]
    return [
        Row(
            "T1",
            "our own part of a call (cost − floor), one connection each side: TCP ÷ UDP",
            1.0,
            {f"{name}_{who}": Quantity(key(case, who)) for name, case in (("tcp", TCP), ("udp", UDP)) for who in FLOORS},
            lambda tcp_strowger, tcp_floor, udp_strowger, udp_floor: (tcp_strowger - tcp_floor) / (udp_strowger - udp_floor),
        ),
        to_floor("T2", "TCP for each call, callers' side", 1.3, TCP_LEFT),
        to_floor("T2", "TCP for each call, answerers' side", 1.3, TCP_RIGHT),
        to_floor("T3", "TCP for each call, both sides", 1.3, TCP_BOTH),
        compare("S1", "TLS 1.3 kept open, both sides ÷ TCP", 1.2, key(TLS_CHAIN), key(TCP)),
        *(row for which in SECURE for row in secure_rows(*which)),
        compare("S4", "local, TLS 1.2, RSA-2048: resumed on both sides ÷ full", 0.2, key(LOCAL["resumed"]), key(LOCAL["full"])),
        *map(flights_row, VERSIONS),
        compare("S7", "local mutual, P-256: AWS-LC ÷ the system's OpenSSL", 0.45, key(LOCAL["mutual, P-256"]), system),
        *(
            compare("S8", f"TLS 1.3 handshake in memory, {side}: X25519MLKEM768 ÷ X25519", 1.3, hybrid, plain, f"{side}_us")
            for side in SIDES
        ),
        latency_row("TLS 1.3 kept open"),
        *map(to_kamailio, KAMAILIO_STREAMS),
    ]


# What is said.

LOADS: list[tuple[Case, Load]] = [
    *((REGISTERED, rate(each)) for each in RATES),
    *((case, CALL) for case in (REGISTERED, UDP, STATELESS, DIGEST, KEPT, SHA256, TCP, TCP_LEFT, TCP_RIGHT, TCP_BOTH, TLS_CHAIN)),
    *((case, CALL) for case in (*SECURE.values(), *LOCAL.values())),
    *((case, CALL) for case in (ONE_WORKER, TWO_WORKERS)),
    *((case, REGISTRATION) for case in REGISTER.values()),
]


def tell(report: Report, samples: Samples) -> None:
    tell_costs(report, samples)
    tell_digest(report, samples)
    tell_latency(report, samples)
    tell_durable(report, samples)
    tell_handshakes(report, samples)


def tell_costs(report: Report, samples: Samples) -> None:
    """Every case beside the floor and Kamailio, and what the generator was doing."""
    costs, generator = [], []
    for case, load in LOADS:
        ours, floor, peer = (key(case, who, load) for who in ALL)
        found = [single(samples, each) for each in (floor, ours, peer)]
        if any(found):
            name = f"{case.label}, {load.name}"
            rates = [single(samples, each, "completed_per_second") for each in (ours, peer)]
            costs.append([name, *found, ratio(samples, ours, floor), ratio(samples, ours, peer), *rates])
        generator += [line for who in ALL if (line := generator_line(samples, case, who, load))]
    columns = ["case", "floor", "strowger", "Kamailio", "÷ floor", "÷ Kamailio", "strowger, each second", "Kamailio, each second"]
    report.table("Server CPU, µs for each call or registration", columns, costs)
    columns = [
        "case",
        "against",
        "its µs each",
        "its core, % busy",
        "server's core, % busy",
        "bytes received each",
        "bytes sent each",
    ]
    columns += ["connections each, opened · accepted", "handshakes each, as client · as server", "TLS agreed"]
    report.table("The generator, and what happened for each", columns, generator)


def generator_line(samples: Samples, case: Case, who: str, load: Load) -> list[Any] | None:
    kept = key(case, who, load)
    if not samples.of(kept):
        return None

    def each(*names: str) -> str:
        values = [samples.values(kept, f"counts.{name} / counts.completed") for name in names]
        return " · ".join(f"{numpy.median(found):.2f}" if len(found) else "—" for found in values)

    figures = [("generator_us_each", 1), ("generator_busy", 100), ("server_busy", 100), ("bytes_in_each", 1), ("bytes_out_each", 1)]
    return [
        f"{case.label}, {load.name}",
        who,
        *(single(samples, kept, path, scale) for path, scale in figures),
        each("connections_opened", "connections_accepted") if case.transports != ("udp", "udp") else "",
        each(*(f"tls_{side}_{'resumed' if case.reuse else 'full'}" for side in ("client", "server"))) if case.is_tls else "",
        samples.of(kept)[-1].get("tls") or "",
    ]


def tell_digest(report: Report, samples: Samples) -> None:
    lines = []
    kinds = [(DIGEST, REGISTERED, CALL, "call, each challenged"), (KEPT, REGISTERED, CALL, "call, a nonce used again and again")]
    kinds.append((SHA256, REGISTERED, CALL, "call, each challenged, SHA-256"))
    words = {"new": "REGISTER, each challenged", "kept": "REGISTER, a nonce used again and again"}
    kinds += [(REGISTER[digest], REGISTER["none"], REGISTRATION, text) for digest, text in words.items()]
    for case, none, load, text in kinds:
        if samples.of(key(case, load=load)):
            pairs = [ratio(samples, key(case, who, load), key(none, who, load)) for who in ("strowger", "kamailio")]
            lines.append([text, single(samples, key(case, load=load)), *pairs])
    report.table("What digest costs at saturation", ["", "strowger, µs", "÷ without", "Kamailio, ÷ without"], lines)


def tell_latency(report: Report, samples: Samples) -> None:
    for name, (case, _, _) in LATENCY.items():
        ours, floor = (key(case, who, HALF) for who in ("strowger", "floor"))
        lines = []
        for span, words in SPANS.items():
            for quantile in ("p50", "p99", "p999"):
                path = f"latency_us.{span}.{quantile}"
                added = Row("", "", 0, {"a": Quantity(ours, path), "b": Quantity(floor, path)}, lambda a, b: a - b).estimate(
                    samples
                )
                if added:
                    lines.append([words, quantile, single(samples, floor, path), single(samples, ours, path), added])
        at = single(samples, ours, "rate_or_window")
        head = ["", "", "floor", "strowger", "added"]
        report.table(
            f"Latency, {name}, at {at.value if at else 0:,.0f} calls/s (half the peak), µs from the scheduled time", head, lines
        )


def tell_durable(report: Report, samples: Samples) -> None:
    lines = []
    for durability, case in DURABLE.items():
        kept = key(case, load=OUTSTANDING)
        if samples.of(kept):
            times = [single(samples, kept, f"latency_us.to_200.{quantile}", 0.001) for quantile in ("p50", "p99", "max")]
            paths = ("completed_per_second", "server_cpu_us_each")
            lines.append([durability, *(single(samples, kept, path) for path in paths), *times, single(samples, kept, "sync_us")])
    head = ["durability", "each second", "server CPU, µs each", "answered after ms, p50", "p99", "max", "4 KiB to this disk, µs"]
    report.table(f"Registrations on disk, {GROUP:,} outstanding", head, lines)


def tell_handshakes(report: Report, samples: Samples) -> None:
    found = dict.fromkeys([tasks.memory_key(case, side) for (_, _, side), case in SECURE.items()])
    found |= dict.fromkeys([tasks.memory_key(case) for case in GROUPS.values()])
    lines = [
        [kept.split("|")[0], *(single(samples, kept, f"{side}_us") for side in SIDES), samples.of(kept)[-1]["library"]]
        for kept in found
        if samples.of(kept)
    ]
    report.table("Handshakes in memory, µs", ["handshake: its listener's key, the other's", "server", "client", "library"], lines)


# The commands.


def plan(options: argparse.Namespace) -> Plan:
    return Plan("rows", "What a call costs, row by row", [*udp_tasks(), *stream_tasks()], [*udp_rows(), *stream_rows()], tell)


def udp(options: argparse.Namespace) -> Plan:
    return Plan("udp", "What a call and a registration cost over UDP", udp_tasks(), udp_rows(), tell)


def streams(options: argparse.Namespace) -> Plan:
    return Plan("streams", "What a call costs over TCP and TLS", stream_tasks(), stream_rows(), tell)


COMMANDS = {"rows": (40, plan), "udp": (20, udp), "streams": (25, streams)}

if __name__ == "__main__":
    command = sys.argv.pop(1)
    main(command, __doc__, *COMMANDS[command])

"""The kinds of things that are measured: servers under loads, peaks, handshakes in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import study
from bench import CORE, MEASURE, SETTLE, Bench
from cases import WINDOW, Case
from machine import Process, run
from samples import Result

# The server forgets a transaction so many seconds after its end: what a fuller load has left must not be counted with the next.
FORGET = 1.5
# The studies' rule: the peak is the highest rate at which no more than this share of the calls fails.
FAILURES = 0.04
# How near the search comes to it, and how long each of its steps takes, and the load before each.
RESOLUTION, STEP, BEFORE = 0.065, 1.0, 0.5
# From this share of its time on a core counts as full.
FULL = 0.95


@dataclass(frozen=True)
class Load:
    """What is asked of a server: `name` is that of its key. `rests`: whether what an earlier load has left must be forgotten
    first."""

    name: str
    options: tuple[Any, ...]
    mode: str = "call"
    seconds: float = 1
    rests: bool = False


def window(number: int = WINDOW, mode: str = "call") -> Load:
    """So many outstanding: the server always has something to do, never sleeps, and nothing is lost. The marginal cost of a
    call."""
    name = "window" if number == WINDOW else f"window {number}"
    return Load(f"{mode} {name}" if mode != "call" else name, ("--window", number), mode)


def rate(each_second: float, mode: str = "call", poisson: bool = False) -> Load:
    """An open loop: calls leave on a schedule that nothing received can move."""
    name = f"{each_second:g}/s" + (" poisson" if poisson else "")
    options = ("--rate", f"{each_second:g}", *(["--poisson"] if poisson else []))
    return Load(f"{mode} {name}" if mode != "call" else name, options, mode, seconds=2, rests=True)


def key(case: Case | str, who: str = "strowger", load: Load | str = "window") -> str:
    """What the results of one contestant in one case under one load are kept by."""
    return f"{case if isinstance(case, str) else case.name}|{who}|{load if isinstance(load, str) else load.name}"


AfterEach = Callable[[Bench, Process, dict[str, Result]], None]


def both(one: AfterEach | None, other: AfterEach | None) -> AfterEach | None:
    """What each of two plans wants to see of a server at the end."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    first, second = one, other

    def look(bench: Bench, process: Process, found: dict[str, Result]) -> None:
        first(bench, process, found)
        second(bench, process, found)

    return look


@dataclass
class Served(study.Task):
    """A server, started for a case and ended again, under one load after the other. Two plans that want other loads of the same
    server get them from the same runs."""

    case: Case = field(default_factory=Case)
    loads: Sequence[Load] = ()
    after_each: AfterEach | None = None

    def joined(self, other: study.Task) -> Served:
        assert isinstance(other, Served)
        loads = list(dict.fromkeys([*self.loads, *other.loads]))
        found = served(self.case, self.who, loads, block=self.block, after_each=both(self.after_each, other.after_each))
        return replace(found, least=max(self.least, other.least), most=max(self.most, other.most))


def served(
    case: Case,
    who: str = "strowger",
    loads: Sequence[Load] = (window(),),
    block: str = "",
    least: int = study.FEWEST,
    after_each: AfterEach | None = None,
) -> Served:
    """Slow loads first, since a full one leaves transactions behind. `after_each` looks at the server at the end, and may add to
    the results."""
    loads = sorted(loads, key=lambda load: not load.rests)
    # To start and end it, and to register its users; to warm it up and let it rest; then each load.
    seconds = 1.5 + (SETTLE + FORGET) * loads[0].rests
    seconds += sum((FORGET if load.rests else SETTLE) + MEASURE * load.seconds for load in loads)

    def measure(bench: Bench) -> dict[str, Result]:
        found: dict[str, Result] = {}
        with bench.server(who, case) as process:
            users = ["--users", case.users]
            warm = ["--warm", bench.settle, "--warm-window", WINDOW, "--rest", FORGET] if loads[0].rests else []
            for number, load in enumerate(loads):
                settle = FORGET if load.rests else bench.settle
                options = [*users, *(warm if number == 0 else []), *load.options, "--settle", settle]
                duration = bench.measure * load.seconds
                options += ["--duration", duration]
                found[key(case, who, load)] = bench.run_load(who, case, process, load.mode, *options, is_sliced=True)[0]
            if after_each:
                after_each(bench, process, found)
        return found

    keys = [key(case, who, load) for load in loads]
    return Served(
        f"{case.name}, {who}",
        keys,
        measure,
        block or case.name,
        seconds,
        least,
        case=case,
        prepare=lambda bench: bench.prepare(who, case),
        is_sliced=len(case.cores) == 1,
        who=who,
        loads=loads,
        after_each=after_each,
    )


def peak(case: Case, who: str = "strowger", least: int = 1) -> study.Task:
    """The highest open-loop rate at which at most FAILURES of the calls fail or are left over, found by the generator around the
    capacity of a closed window. A rate, not a cost: for rates beside the studies'."""

    def measure(bench: Bench) -> dict[str, Result]:
        search = ["--search-failures", FAILURES, "--search-step", STEP, "--search-resolution", RESOLUTION, "--drain", 4]
        # The closed window from which it starts warms the server up.
        options = ["--users", case.users, *search, "--settle", BEFORE, "--duration", bench.measure]
        with bench.server(who, case) as process:
            found = bench.run_load(who, case, process, "call", *options)[0]
        if found["generator_busy"] + found["generator_waited"] > FULL > found["server_busy"] + found["server_waited"]:
            found["generator_bound"] = True
        # By its definition some calls fail at it; wrong answers are another matter.
        found["clean"] = found["counts"]["wrong"] == 0
        return {key(case, who, "peak"): found}

    return study.Task(f"{case.name}, {who}, peak", [key(case, who, "peak")], measure, case.name, 16, least, max(3, least), who=who)


def at_half(
    case: Case,
    who: str,
    kept: str,
    after: Sequence[str],
    mode: str = "call",
    measured_as: Case | None = None,
    after_each: AfterEach | None = None,
    **how: Any,
) -> study.Task:
    """At half of what the slowest of `after` can, in a server that has carried no fuller load, which would be in its memory."""
    asked = measured_as or case

    def measure(bench: Bench) -> dict[str, Result]:
        half = min(bench.samples.median(each, "completed_per_second") or 0 for each in after) / 2
        options = ["--users", case.users, "--rate", f"{half:.0f}", "--poisson"]
        options += ["--settle", bench.settle, "--duration", 2 * bench.measure]
        with bench.server(who, asked) as process:
            found = {kept: bench.run_load(who, asked, process, mode, *options)[0]}
            if after_each:
                after_each(bench, process, found)
        return found

    return study.Task(keys=[kept], measure=measure, after=after, who=who, **how)


def idle_command(bench: Bench, process: Process, case: Case, *more: object) -> list[object]:
    """The generator's that opens connections, as the callers of a case do, and leaves them idle."""
    transport = case.transports[0]
    command = [bench.load, "idle", "--server", bench.at(bench.port + (transport == "tls")), "--transport", transport]
    return [*command, "--server-pid", process.pid, *(case.tls_options(bench) if transport == "tls" else []), *more]


def handshakes(case: Case, side: str = "server", count: int = 200) -> study.Task:
    """Handshakes in memory, without sockets: what the TLS library itself costs each side, below which nothing can be. It must be
    the server's library. `side`: the server's in that case, for its key and its peer's may be two."""
    kept = memory_key(case, side)
    listener, connecting = in_memory(case, side).key, in_memory(case, side).peer or in_memory(case, side).key

    def measure(bench: Bench) -> dict[str, Result]:
        command = [bench.load, "handshake", "--count", count, *case.with_(key=connecting, peer="").tls_options(bench)]
        command += ["--callee-cert", bench.certificate(listener, "pem"), "--callee-key", bench.certificate(listener, "key")]
        # A server proves whom it connects to.
        command += ["--ca", bench.certificate("ca", "pem")]
        found = json.loads(on_core(*command, core=0))
        server = run(bench.strowger, "--version").strip()
        if found["library"] not in server:
            raise RuntimeError(
                f"the generator is built with {found['library']}, the server is {server}: handshakes cannot be compared"
            )
        wanted = "resumed" if case.reuse else "full"
        found["clean"] = found["resumed"] >= 0.95 * found["handshakes"] if case.reuse else found["resumed"] == 0
        return {kept: {**found, "kind": wanted}}

    return study.Task(f"{memory_name(case, side)}, in memory", [kept], measure, "handshakes", 1, is_sliced=True)


def in_memory(case: Case, side: str = "server") -> Case:
    """The handshake alone of a case in which the server is on that side: its key is the listener's, its peer who connects, if that
    shows a certificate."""
    listener, connecting = (case.key, case.peer or case.key) if side == "server" else (case.peer or case.key, case.key)
    alike = {name: getattr(case, name) for name in ("version", "suite", "group", "mutual", "reuse")}
    return Case("tls", "tls", key=listener, peer=connecting if case.mutual and connecting != listener else "", **alike)


def memory_name(case: Case, side: str = "server") -> str:
    return "handshake" + in_memory(case, side).name.removeprefix("chain-tls")


def memory_key(case: Case, side: str = "server") -> str:
    return key(memory_name(case, side), "memory", "handshake")


def handshake_calls(counters: Mapping[str, float], side: str) -> float | None:
    """How often strowger called SSL_do_handshake for each handshake on that side, by its counters."""

    def total(metric: str, *kinds: str) -> float:
        of_side = [name for name in counters if name.startswith(metric) and f'side="{side}"' in name]
        return sum(counters[name] for name in of_side if any(kind in name for kind in kinds))

    # A mutual one is a full or a resumed one too.
    number = total("strowger_tls_handshakes_total", 'kind="full"', 'kind="resumed"')
    return total("strowger_tls_handshake_calls_total", "") / number if number else None


def on_core(*command: object, core: int = CORE) -> str:
    """The output of a program that runs beside the server, or in its place."""
    return run("taskset", "-c", core, *command, ok=(0, 1))

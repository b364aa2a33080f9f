"""perf/model predict: what a load costs an operator, by the cost model that perf/model fit has made. Exit status 2: there is no
ground for an answer.

A call's CPU at saturation is a sum of the report's components, and how often each is in a call follows from the kind of call
alone (`Call.components`). Each side adds what its transport costs beyond UDP, whatever the other side has, with one exception:
datagrams are read and sent in batches, and a side with a connection for each call, whose messages come one by one, breaks these
up. UDP beside such a side has therefore a component of its own.

Below saturation the server sleeps, and is woken by what comes: `Waking`. Needs Python alone: what it costs to ask is nothing."""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import machine

PERF = Path(__file__).resolve().parent.parent
MODES = ("chain", "outbound", "inbound", "local")
TRANSPORTS = ("udp", "tcp", "tls")
VARIANTS = ("full", "mutual", "reuse", "3des")
UDP, TCP, BULK, OLD_BULK = "UDP data", "TCP data", "TLS bulk", "TLS bulk, 3DES"
BROKEN_UP = "UDP beside a connection for each call"
# In the order of the report.
ORDER = (
    *(UDP, TCP, BULK, OLD_BULK),
    *(f"digest, {transport.upper()}" for transport in TRANSPORTS),
    *(f"TCP handshake as {side}" for side in ("server", "client")),
    *(f"TLS handshake as {side}, {variant}" for side in ("server", "client") for variant in VARIANTS[:3]),
    BROKEN_UP,
)
# Messages in and out of a call and of a registration: a registration encrypts so many of a call's.
CALL_MESSAGES = 13
REGISTER_MESSAGES = {"none": 2, "new": 4, "kept": 2}
# Below this share of the core a saturated cost says too little, unless waking was measured.
WITHOUT_WAKING = 0.5
# For more than these, two workers say too little.
MOST_WORKERS = 64

Parts = dict[str, float]


class Refused(Exception):
    """Why there is no ground for an answer, and what would give it one."""


@dataclass(frozen=True)
class Call:
    """A kind of call: who has a connection for each (`mode`), over what, with which handshakes, and whether its INVITE is
    challenged."""

    mode: str
    left: str
    right: str
    variant: str = "full"
    auth: bool = False

    @property
    def per_call(self) -> tuple[bool, bool]:
        return self.mode in ("outbound", "local") and self.left != "udp", self.mode in ("inbound", "local") and self.right != "udp"

    @property
    def name(self) -> str:
        """As cases.Case has it."""
        sides = [self.left] if self.left == self.right else [self.left, self.right]
        return "-".join([self.mode, *sides, *[self.variant] * (self.variant != "full"), *["auth"] * self.auth])

    def components(self) -> Parts:
        """How often each component is in a call."""
        found: Parts = {UDP: 1}

        def add(name: str, count: float = 1) -> None:
            found[name] = found.get(name, 0) + count

        sides = zip((self.left, self.right), self.per_call, ("server", "client"), reversed(self.per_call))
        for transport, per_call, side, other_per_call in sides:
            if transport == "tls":
                add(OLD_BULK if self.variant == "3des" else BULK, 0.5)
            if per_call:
                add(f"TCP handshake as {side}")
                if transport == "tls":
                    add(f"TLS handshake as {side}, {self.variant}")
            elif transport != "udp":
                add(TCP, 0.5)
            elif other_per_call:
                add(BROKEN_UP)
        if self.auth:
            add(f"digest, {self.left.upper()}")
        return found

    def wakings(self) -> int:
        """How often something comes to a server that may be asleep: the INVITE, 180 and 200, ACK and BYE, the 200; the ACK of the
        407 and the next INVITE; the flights of a handshake that are not another's answer. What opens and closes a connection comes
        with a message."""
        flights = 1 if self.variant == "reuse" else 2
        return 4 + self.auth + sum(flights for side, each in zip((self.left, self.right), self.per_call) if each and side == "tls")


def cost(values: Mapping[str, Any], parts: Parts) -> Any:
    """µs; None if a component has no value."""
    return None if set(parts) - set(values) else sum(values[name] * count for name, count in parts.items())


def registration_name(transport: str, digest: str) -> str:
    """`transport` is udp, tcp, tls, or with -many for a connection of each phone's own."""
    return f"{transport}, {digest}"


def registration(known: Parts, values: Parts, transport: str, digest: str) -> Parts | None:
    """µs of parts of a registration; None if one has no value. TLS is as measured, or TCP and the bulk of so many messages of a
    call."""
    base = transport.replace("tls", "tcp")
    plain, challenged = (known.get(registration_name(base, each)) for each in ("none", digest))
    if plain is None or challenged is None:
        return None
    parts = {"REGISTER": plain}
    if digest != "none":
        parts[f"digest of REGISTER, {digest}"] = challenged - plain
    if base != transport:
        measured = known.get(registration_name(transport, digest))
        if measured is None and BULK not in values:
            return None
        bulk = values.get(BULK, 0) * REGISTER_MESSAGES[digest] / CALL_MESSAGES
        parts["TLS bulk of REGISTER"] = bulk if measured is None else measured - challenged
    return parts


class Waking:
    """µs of one waking by wakings each second. It falls as they come closer together: the core does not sleep as deeply, and caches
    are warm."""

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        self.points = sorted(tuple(point) for point in points)

    def __bool__(self) -> bool:
        return bool(self.points)

    def at(self, each_second: float) -> float:
        if each_second <= self.points[0][0]:
            return self.points[0][1]
        for (x0, y0), (x1, y1) in zip(self.points, self.points[1:]):
            # Beyond the last point its slope is followed if it falls: at saturation, the other end, there is no waking.
            if each_second <= x1 or (x1, y1) == self.points[-1]:
                slope = math.log(y1 / y0) / math.log(x1 / x0)
                return y1 * (each_second / x1) ** (slope if each_second <= x1 else min(0.0, slope))
        return self.points[-1][1]


def with_waking(work: float, wakings_us: float) -> float:
    """How busy a core is with so much work and so much waking, if it always slept: busy = work + waking × (1 − busy)."""
    return work if work >= 1 else (work + wakings_us) / (1 + wakings_us)


def factor_of(two: Sequence[float], workers: int) -> tuple[float, float, float]:
    """CPU of a call on so many workers ÷ on one, with what it may be, from the same of two (value, low, high). A message that comes
    to another worker than its call's is handed over: of n, (n − 1) ÷ n are. At most each further worker costs what the second
    did, as if all stood in each other's way."""
    value, low, high = (max(0.0, each - 1) for each in two)
    handed_over = 2 * (workers - 1) / workers
    return 1 + value * handed_over, 1 + low * handed_over, 1 + high * (workers - 1)


# What an operator asks.


@dataclass
class Load:
    """Calls and registrations each second and how they come."""

    calls: float = 0
    registrations: float = 0
    transport: str = "udp"
    mode: str = "local"
    auth: str = "no"
    mutual: bool = False
    reuse: float = 0
    hold: float = 0
    connections: float = 0
    registration_auth: str | None = None
    tls_version: str | None = None
    key: str | None = None
    suite: str | None = None
    cores_use: float = 0.7
    left: str | None = None
    right: str | None = None

    def __post_init__(self) -> None:
        self.registration_auth = self.registration_auth or ("new" if self.auth == "yes" else "none")
        self.left, self.right = self.left or self.transport, self.right or self.transport

    def call(self, variant: str = "full") -> Call:
        return Call(self.mode, str(self.left), str(self.right), variant, self.auth == "yes")

    @property
    def is_tls(self) -> bool:
        return "tls" in (self.left, self.right)

    @property
    def has_handshakes(self) -> bool:
        return any(each and side == "tls" for side, each in zip((self.left, self.right), self.call().per_call))

    def check(self) -> None:
        """Nonsense is refused before anything is computed."""
        for name in ("calls", "registrations", "hold", "connections"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise Refused(f"--{name} must be a number that is not negative, not {value:g}")
        if self.calls == 0 and self.registrations == 0:
            raise Refused("no load: give --calls, --registrations or both, each second")
        if not 0 <= self.reuse <= 1:
            raise Refused(f"--reuse is the share of handshakes that resume a session: from 0 to 1, not {self.reuse:g}")
        if not 0.05 <= self.cores_use <= 0.95:
            raise Refused(
                "--cores-use is the share of each core's capacity that may be used: from 0.05 to 0.95, not "
                f"{self.cores_use:g}. Above that waiting grows without bound"
            )
        for name in ("mutual", "reuse", "tls_version", "key", "suite"):
            if getattr(self, name) and not self.is_tls:
                raise Refused(f"--{name.replace('_', '-')} is of TLS, and neither side has it")
        if self.is_tls and not self.has_handshakes and (self.reuse or self.mutual):
            raise Refused(
                f"in {self.mode} mode the side with TLS keeps its connection: there is no handshake for each call to resume or to "
                "make mutual. What a handshake costs once is not in the model"
            )
        if self.mutual and self.reuse and self.has_handshakes:
            raise Refused("sessions resumed with mutual authentication were not measured: ask for each alone (--mutual, --reuse)")

    def kinds(self) -> list[tuple[Call, float]]:
        """Kinds of calls, and their share."""
        resumed = self.reuse if self.has_handshakes else 0
        found = [(self.call("reuse"), resumed), (self.call("mutual" if self.mutual else "full"), 1 - resumed)]
        return [(call, share) for call, share in found if share > 0]

    def registration_transport(self) -> str:
        """Phones have connections of their own in outbound and local mode; a chain and inbound calls come by one."""
        return f"{self.left}-many" if self.left != "udp" and self.mode in ("outbound", "local") else str(self.left)

    def open_connections(self) -> float:
        """What its calls keep open at any time, and what is open beside them."""
        return self.connections + self.calls * self.hold * sum(self.call().per_call)


class Model:
    """What perf/model fit has written."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data, self.ranges = data, data["ranges"]
        self.values: Parts = {name: each["us"] for name, each in data["components"].items()}
        self.registrations: Parts = data["registrations"]
        self.waking = {kind: Waking(points) for kind, points in data["waking"].items()}

    def check_machine(self, cpu: str) -> None:
        if cpu != self.data["cpu"]:
            raise Refused(
                f"the model was fitted on another machine ({self.data['cpu']}; this is {cpu}): run perf/model fit here, or say "
                "--any-machine if the answer is meant for that one"
            )

    def check(self, load: Load) -> None:
        """What is no ground, and what would be one."""
        load.check()
        if load.is_tls:
            self.check_tls(load)
        sides = f"{load.mode} {load.left} {load.right}"
        if load.left != load.right and sides not in self.ranges["sides"]:
            raise Refused(
                f"no run had {load.left} on the callers' side and {load.right} on the answerers' in {load.mode} mode: "
                "perf/model fit measures outbound mode to UDP and inbound mode from UDP"
            )
        for kind, value in [("call", load.calls), ("registration", load.registrations)]:
            lowest = self.ranges["lowest_per_second"].get(kind)
            if value and lowest is not None and value < lowest:
                raise Refused(
                    f"{value:g} {kind}s a second are fewer than the fewest measured ({lowest:g}/s). CPU of a {kind} rises as the "
                    f"load falls, since the server is woken for each message: at {lowest:g}/s and below this core is nearly idle. "
                    f"perf/model fit --rates {value:g} measures it"
                )
        if load.open_connections() > self.ranges["connections"]:
            raise Refused(
                f"{load.open_connections():,.0f} connections would be open at a time, and no more than "
                f"{self.ranges['connections']:,} were measured: perf/scale measures more; perf/model fit --connections N says that "
                "it has"
            )

    def check_tls(self, load: Load) -> None:
        tls = self.data["tls"]
        if tls is None:
            raise Refused("no run over TLS is in the model: perf/model fit measures it")
        for name, wanted, has, hint in [
            ("TLS version", load.tls_version, tls["version"], f"--tls-version {load.tls_version}"),
            ("key", load.key, tls["key"], f"--key {load.key}"),
            ("suite", load.suite, tls["suite"], "--suite today"),
        ]:
            if wanted and wanted.lower() != has.lower():
                raise Refused(f"the model was fitted with {name} {has}, not {wanted}: perf/model fit {hint} measures others")

    def check_rates(self, load: Load, workers: int) -> None:
        """No more than a run has reached: beyond that even the order of what fills up first is unknown."""
        calls = f"{load.mode}-{load.left}" if load.left != "udp" else "chain-udp"
        groups = [("calls", load.calls, calls), ("registrations", load.registrations, f"register-{load.left}")]
        for name, rate, group in groups:
            known = self.ranges["highest_per_second"].get(group)
            if known is not None and rate / workers > known:
                raise Refused(
                    f"{rate / workers:,.0f} {name} a second and core are more than any run reached ({known:,.0f}/s, {group}), "
                    "since the generator or the machine was at its end first: a generator on other cores or machines would be a "
                    "ground"
                )

    def parts(self, load: Load) -> Parts:
        """µs of CPU in each second by component, of the load on one core that never sleeps."""
        found: Parts = {}
        for call, share in load.kinds() if load.calls else []:
            for name, count in call.components().items():
                if name not in self.values:
                    raise Refused(f"the model has no “{name}”: perf/model fit with a run that has it ({wants(name)}) measures it")
                found[name] = found.get(name, 0) + load.calls * share * count * self.values[name]
        if load.registrations:
            how = load.registration_transport(), str(load.registration_auth)
            parts = registration(self.registrations, self.values, *how)
            if parts is None:
                raise Refused(
                    f"the model has no registrations of this kind ({registration_name(*how)}): perf/model fit measures them"
                )
            found.update({name: load.registrations * value for name, value in parts.items()})
        return found

    def busy(self, load: Load, scale: float = 1.0) -> float:
        """Share of a core with `scale` × the load, waking included."""
        work = scale * sum(self.parts(load).values()) / 1e6
        rates = {
            "call": scale * load.calls * sum(share * call.wakings() for call, share in load.kinds()),
            "registration": scale * load.registrations * (2 if load.registration_auth == "new" else 1),
        }
        together = sum(rates.values())
        wakings_us = sum(rate * curve.at(together) for kind, rate in rates.items() if rate and (curve := self.waking.get(kind)))
        return with_waking(work, wakings_us / 1e6)

    def predict(self, load: Load) -> dict[str, Any]:
        """The answer: what a core is busy with, how many cores, what dominates, what is left."""
        self.check(load)
        parts = {name: value / 1e6 for name, value in self.parts(load).items()}
        work = sum(parts.values())
        asked = {"call": load.calls, "registration": load.registrations}
        unmeasured = [kind for kind, rate in asked.items() if rate and not self.waking.get(kind)]
        if unmeasured and work < WITHOUT_WAKING:
            raise Refused(
                f"the load fills {100 * work:.1f} % of a core by what a {unmeasured[0]} costs at saturation, and what waking adds "
                "at so low a load was not measured: perf/model fit measures it at fixed rates"
            )
        workers, factor, between = self.workers(load, work)
        self.check_rates(load, workers)
        one = self.busy(load)
        if one > work:
            parts["waking"] = one - work
        return {
            "one_core": one,
            "work": work,
            "workers": workers,
            "workers_between": between,
            "factor": factor,
            "each_core_busy": self.busy(load, factor[0] / workers),
            "use": load.cores_use,
            "parts": parts,
            "us_per_call": 1e6 * one / load.calls if load.calls and not load.registrations else None,
            "headroom": [load.cores_use * workers / (each * work) for each in (factor[0], factor[2], factor[1])],
            "full_core_calls": load.calls / work if load.calls else None,
            "full_core_registrations": load.registrations / work if load.registrations else None,
        }

    def workers(self, load: Load, work: float) -> tuple[int, tuple[float, float, float], tuple[int, int | None]]:
        """How many, what a call costs on as many ÷ on one, and between which numbers the true one lies (None: no telling). Counted
        by the work: waking is given back when the core has more to do."""
        if work <= load.cores_use:
            return 1, (1.0, 1.0, 1.0), (1, 1)
        two = self.data["workers"]
        asked = f"the load is {work:.2f} cores' worth of work, of which a core is to have no more than {load.cores_use:.2f}"
        if not two:
            raise Refused(
                f"{asked}: it needs more than one, and what a second worker costs was not measured: perf/model fit measures it"
            )

        def least(which: int) -> int | None:
            numbers = range(2, MOST_WORKERS + 1)
            return next((each for each in numbers if work * factor_of(two, each)[which] / each <= load.cores_use), None)

        workers, low, high = (least(which) for which in range(3))
        if workers is None or low is None:
            raise Refused(f"{asked}: that is more than {MOST_WORKERS} workers carry, and two were measured, which says too little")
        return workers, factor_of(two, workers), (low, high)


def wants(component: str) -> str:
    """The simplest run that has it."""
    calls = (
        Call(mode, left, right, variant, auth)
        for left, right in [(each, each) for each in TRANSPORTS] + [("tcp", "udp")]
        for mode in MODES
        for auth in (False, True)
        for variant in VARIANTS
    )
    return next(call.name for call in calls if component in call.components())


def in_words(load: Load, parts: Parts) -> str:
    """What dominates, and what would help."""

    def greatest(parts: Parts) -> tuple[str, float]:
        name, value = max(parts.items(), key=lambda item: item[1])
        return name, 100 * value / sum(parts.values())

    name, share = greatest(parts)
    text = f"{name} dominates: {share:.0f} % of the CPU"
    if name == "waking":
        other = greatest({part: value for part, value in parts.items() if part != name})
        return text + (
            ", since the core is mostly idle; each call costs less as the load rises. "
            f"Of the work itself {other[0]} has most: {other[1]:.0f} %"
        )
    if name.startswith("TLS handshake") and ", reuse" not in name and load.reuse < 1 and not load.mutual:
        return text + ". Resumed sessions (--reuse) take most of that away"
    return text


def answer_text(load: Load, answer: dict[str, Any], data: dict[str, Any], path: Path) -> str:
    """For people."""

    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    use, workers, (low, high) = percent(answer["use"]), answer["workers"], answer["workers_between"]
    waking, headroom = answer["parts"].get("waking"), answer["headroom"]
    lines = [f"{data['contestant']} on {data['machine']}; model of {data['date']} ({os.path.relpath(path)})", ""]
    woken = (
        f"; busy {percent(answer['one_core'])}, {percent(waking)} of it waking, which it gives back under load" if waking else ""
    )
    lines.append(f"one core      {percent(answer['work'])} of its capacity{woken}")
    if workers == 1:
        lines.append(f"cores         1 at no more than {use} of its capacity")
    else:
        value, least, most = answer["factor"]
        between = "" if low == high else f" ({low} to {high})" if high else f" ({low} or more)"
        lines += [
            f"cores         {workers}{between} at no more than {use} of their capacity; each "
            f"{percent(answer['work'] * value / workers)}",
            f"              a call costs {value:.2f} times as much there as on one ({least:.2f} to {most:.2f}), "
            + ("as measured" if workers == 2 else "concluded from two workers"),
            "              (calls without digest, a location that no other server shares)",
        ]
    if answer["us_per_call"]:
        lines.append(f"a call        {answer['us_per_call']:.1f} µs at this load")
    between = "" if workers == 1 else f" ({headroom[1]:.2f} to {headroom[2]:.2f})"
    lines.append(f"headroom      {headroom[0]:.2f}{between} times this load before {use} is used")
    full = [f"{answer[f'full_core_{what}']:,.0f} {what}/s" for what in ("calls", "registrations") if answer[f"full_core_{what}"]]
    lines += [f"a full core   {' and '.join(full)} in this proportion", ""]
    width = max(map(len, answer["parts"]))
    for name, value in sorted(answer["parts"].items(), key=lambda item: -item[1]):
        lines.append(f"{name:<{width}}  {100 * value:8.2f} % of a core  {100 * value / answer['one_core']:6.1f} % of the sum")
    return "\n".join([*lines, "", in_words(load, answer["parts"]) + "."])


# The command.


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="perf/model predict", description="What a load costs: how much of a core, how many cores, which component dominates."
    )
    add = found.add_argument
    add("--calls", type=float, default=0, help="calls a second")
    add("--registrations", type=float, default=0, help="registrations a second")
    add("--transport", choices=TRANSPORTS, default="udp", help="of both sides [udp]")
    add("--left", choices=TRANSPORTS, help="the callers' side, if another")
    add("--right", choices=TRANSPORTS, help="the answerers' side, if another")
    add(
        "--mode",
        choices=MODES,
        default="local",
        help="who has a connection for each call: chain nobody, outbound the callers, inbound the callees, local both [local]",
    )
    add("--auth", choices=["yes", "no"], default="no", help="whether each INVITE is challenged")
    add(
        "--registration-auth",
        choices=list(REGISTER_MESSAGES),
        help="digest of REGISTER: a new challenge each time, or a nonce that is kept [as --auth: new or none]",
    )
    add("--mutual", action="store_true", help="both sides of each TLS handshake show certificates")
    add("--reuse", type=float, default=0, metavar="SHARE", help="share of the handshakes that resume a session, 0 to 1")
    add("--hold", type=float, default=0, metavar="SECONDS", help="how long a call lasts: its connections are open meanwhile")
    add("--connections", type=float, default=0, help="connections open beside those of the calls")
    add("--cores-use", type=float, default=0.7, help="share of a core that may be busy [0.7]")
    add("--tls-version")
    add("--key", help="rsa, or ec for P-256")
    add("--suite", help="as OpenSSL calls it")
    add("--model", type=Path, metavar="FILE.json", help="this model instead of the newest")
    add("--any-machine", action="store_true", help="answer for the machine of the model, though it is not this one")
    add("--json", metavar="FILE", help="write the answer here too; - for standard output alone")
    return found


def read_model(path: Path | None) -> tuple[Model, Path]:
    """The newest, if none is named."""
    found = [path] if path else sorted(PERF.glob("results/*/model.json"), key=os.path.getmtime)
    if not found:
        raise Refused("there is no model: perf/model fit makes one")
    try:
        return Model(json.loads(found[-1].read_text())["model"]), found[-1]
    except OSError as why:
        raise Refused(f"the model cannot be read: {why}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as why:
        raise Refused(f"{found[-1]} is not a model of perf/model fit ({why!r})") from None


def cpu_of(described: str) -> str:
    """The processor in a machine's line."""
    return re.sub(r", \d+ cores, Linux .*", "", described)


def main() -> None:
    arguments = parser().parse_args()
    load = Load(**{field.name: getattr(arguments, field.name) for field in fields(Load)})
    try:
        load.check()
        model, path = read_model(arguments.model)
        if not arguments.any_machine:
            model.check_machine(cpu_of(machine.describe()))
        answer = model.predict(load)
    except Refused as why:
        print(f"perf/model predict: {why}.", file=sys.stderr)
        sys.exit(2)
    if arguments.json != "-":
        print(answer_text(load, answer, model.data, path))
    if arguments.json:
        about = {"load": asdict(load), "machine": model.data["machine"], "model": str(path)}
        text = json.dumps({**about, **answer, "dominating": in_words(load, answer["parts"])}, indent=1) + "\n"
        if arguments.json == "-":
            print(text, end="")
        else:
            Path(arguments.json).write_text(text)


if __name__ == "__main__":
    main()

"""The cost model: what a call and a registration are made of, the fit of the parts to measurements, and what they foretell.

A call's CPU at saturation is a sum of the report's components. Those of a configuration follow from its name alone (`components`);
their values are fitted to the chain, outbound and inbound runs by least squares on the relative error. Local mode is never fitted:
it is what the model is tested on.

Where both sides have one connection for all calls, several messages share a read and a write, and TCP may be cheaper than UDP: `TCP
data` is then less than zero. A side with a connection for each call breaks that up for both sides, messages come one by one, and
the side with one connection costs something else again: `BESIDE`. Local mode has neither. What a connection for each call costs by
itself is therefore told by runs with UDP, which shares nothing, on the other side (outbound-tcp-udp, inbound-udp-tcp); without such
runs `BESIDE` is taken as zero.

Below saturation the server sleeps, and is woken by what comes: `Waking`. Nothing here starts a process or reads a file."""

import math
import random
import statistics

MODES = ["chain", "outbound", "inbound", "local"]
FITTED_MODES = ["chain", "outbound", "inbound"]
TRANSPORTS = ["udp", "tcp", "tls"]
VARIANTS = ["full", "mutual", "reuse"]
SUITES = {"3des": "TLS bulk, 3DES"}
# Row C1.
TARGET = 0.08
UDP, TCP, BULK = "UDP data", "TCP data", "TLS bulk"
BESIDE = {"tcp": "one TCP connection beside one a call", "tls": "one TLS connection beside one a call"}
# Messages in and out of a call and of a registration: a registration encrypts so many of a call's.
CALL_MESSAGES = 13
REGISTER_MESSAGES = {"none": 2, "new": 4, "kept": 2}
# Below this share of the core a saturated cost says too little, unless waking was measured.
WITHOUT_WAKING = 0.5


class ModelError(RuntimeError):
    """Why it cannot be fitted."""


class Refused(Exception):
    """Why there is no ground for an answer, and what would give it one."""


class Shape:
    """What a configuration is, from its name: chain-udp, local-tls-mutual-auth; outbound-tls-udp-auth has TLS on the callers' side
    and UDP on the other."""

    def __init__(self, mode, left, right=None, variant="full", auth=False):
        self.mode, self.left, self.right, self.variant, self.auth = mode, left, right or left, variant, auth
        self.left_per_call = mode in ("outbound", "local") and self.left != "udp"
        self.right_per_call = mode in ("inbound", "local") and self.right != "udp"

    @classmethod
    def parse(cls, name):
        """None where the name is of something else."""
        mode, *rest = name.split("-")
        auth = rest[-1:] == ["auth"]
        rest = rest[:-1] if auth else rest
        sides = [part for part in rest[:2] if part in TRANSPORTS]
        variant = rest[len(sides) :]
        if mode not in MODES or not sides or len(variant) > 1 or (variant and variant[0] not in [*VARIANTS, *SUITES]):
            return None
        return cls(mode, sides[0], sides[-1], *(variant or ["full"]), auth)

    @property
    def name(self):
        """For files and commands, as cases.Configuration has it."""
        sides = [self.left] if self.left == self.right else [self.left, self.right]
        variant = [] if self.variant == "full" else [self.variant]
        return "-".join([self.mode, *sides, *variant, *(["auth"] if self.auth else [])])

    @property
    def is_fitted(self):
        return self.mode in FITTED_MODES

    def components(self):
        """How often each component is in a call."""
        found = {UDP: 1}

        def add(name, count=1):
            found[name] = found.get(name, 0) + count

        for transport, per_call, side, other in [
            (self.left, self.left_per_call, "server", self.right_per_call),
            (self.right, self.right_per_call, "client", self.left_per_call),
        ]:
            if transport == "tls":
                add(SUITES.get(self.variant, BULK), 0.5)
            if per_call:
                add(f"TCP handshake as {side}")
                if transport == "tls":
                    add(f"TLS handshake as {side}, {self.variant}")
            elif transport != "udp":
                add(BESIDE[transport]) if other else add(TCP, 0.5)
        if self.auth:
            add(f"digest, {self.left.upper()}")
        return found

    def wakings(self):
        """How often something comes to a server that may be asleep: the INVITE, 180 and 200, ACK and BYE, the 200; the ACK of the
        407 and the next INVITE; the flights of a handshake that are not another's answer. What opens and closes a connection comes
        with a message."""
        found = 4 + (1 if self.auth else 0)
        for transport, per_call in [(self.left, self.left_per_call), (self.right, self.right_per_call)]:
            if per_call:
                found += (1 if self.variant == "reuse" else 2) if transport == "tls" else 0
        return found


# In the order of the report.
ORDER = [
    UDP,
    TCP,
    BULK,
    SUITES["3des"],
    "digest, UDP",
    "digest, TCP",
    "digest, TLS",
    "TCP handshake as server",
    "TCP handshake as client",
    *[f"TLS handshake as {side}, {variant}" for side in ("server", "client") for variant in VARIANTS],
    *BESIDE.values(),
]


# The fit.


def solve(rows):
    """Values of the components, from rows of (how often each, measured): the least sum of squared relative errors. Components that
    no row has are left out; those that the rows cannot tell apart are an error."""
    # Loaded late: a prediction does not need it, and is made on machines that do not have it.
    import numpy

    names = [name for name in ORDER if any(name in parts for parts, _ in rows)]
    counts = numpy.array([[parts.get(name, 0) for name in names] for parts, _ in rows], dtype=float)
    measured = numpy.array([value for _, value in rows], dtype=float)
    weighted = counts / measured[:, None]
    if len(rows) == 0 or numpy.linalg.matrix_rank(weighted) < len(names):
        raise ModelError(
            "the measurements do not tell these components apart: " + ", ".join(entangled(weighted, names) or ["there are none"])
        )
    found = numpy.linalg.lstsq(weighted, numpy.ones(len(rows)), rcond=None)[0]
    return dict(zip(names, map(float, found)))


def entangled(weighted, names):
    """Those with a part in what the rows do not see."""
    import numpy

    if not len(weighted):
        return []
    _, sizes, directions = numpy.linalg.svd(weighted)
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    return [name for place, name in enumerate(names) if numpy.abs(directions[rank:, place]).max(initial=0) > 1e-6]


def fit(measured):
    """Components from {configuration: [µs of each round]}; local mode is left out here, and nowhere else has it a way in."""
    shapes = [
        (shape, statistics.median(values))
        for name, values in measured.items()
        if values and (shape := Shape.parse(name)) and shape.is_fitted
    ]
    # Only against UDP on the other side does a side with a connection for each call show what it costs by itself.
    alone = {
        shape.left if shape.left_per_call else shape.right
        for shape, _ in shapes
        if shape.left != shape.right and shape.left_per_call != shape.right_per_call
    }
    untold = [name for transport, name in BESIDE.items() if transport not in alone]
    rows = [({name: count for name, count in shape.components().items() if name not in untold}, value) for shape, value in shapes]
    return {**solve(rows), **dict.fromkeys(untold, 0.0)}


def intervals(measured, draws=400, seed=1):
    """The middle 90 % of each component when the rounds are drawn anew; empty where there are fewer than three rounds."""
    if min((len(values) for name, values in measured.items() if fitted(name)), default=0) < 3:
        return {}
    dice = random.Random(seed)
    found = [fit({name: dice.choices(values, k=len(values)) for name, values in measured.items()}) for _ in range(draws)]
    bounds = {}
    for name in found[0]:
        values = sorted(each[name] for each in found)
        bounds[name] = (values[int(0.05 * draws)], values[int(0.95 * draws) - 1])
    return bounds


def fitted(name):
    shape = Shape.parse(name)
    return shape is not None and shape.is_fitted


def cost(values, parts):
    """µs; None where a component has no value."""
    if any(name not in values for name in parts):
        return None
    return sum(values[name] * count for name, count in parts.items())


def errors(values, measured):
    """{configuration: (predicted, measured, predicted ÷ measured − 1)} of all that can be predicted, local mode too."""
    found = {}
    for name, each in measured.items():
        shape = Shape.parse(name)
        predicted = cost(values, shape.components()) if shape else None
        if predicted is not None and each:
            median = statistics.median(each)
            found[name] = (predicted, median, predicted / median - 1)
    return found


def mean_error(found):
    return statistics.fmean(abs(error) for _, _, error in found.values()) if found else None


def worst(found):
    return max(found.items(), key=lambda item: abs(item[1][2])) if found else None


def across_rounds(measured):
    """Mean error when each round is predicted from the others: what the fit owes to chance is then against it. None with fewer than
    two rounds."""
    rounds = min((len(values) for values in measured.values()), default=0)
    if rounds < 2:
        return None
    found = []
    for number in range(rounds):
        others = {name: values[:number] + values[number + 1 :] for name, values in measured.items()}
        found += errors(fit(others), {name: [values[number]] for name, values in measured.items()}).values()
    return statistics.fmean(abs(error) for _, _, error in found)


# Registrations: what was measured, and TLS from TCP and the bulk of a call.

REGISTRATIONS = {"udp": "over UDP", "tcp": "over one TCP connection", "tcp-many": "over a TCP connection for each phone"}
DIGESTS = ["none", "new", "kept"]


def registration_name(transport, digest):
    return f"register-{transport}" + {"none": "", "new": "-auth", "kept": "-auth-kept"}[digest]


def registration(registrations, values, transport, digest):
    """µs of parts of a registration; None where one has no value. `transport` is udp, tcp, tcp-many, tls or tls-many. TLS is as
    measured, or the bulk of so many messages of a call."""
    base = transport.replace("tls", "tcp")
    plain, challenged = (registrations.get(registration_name(base, each)) for each in ("none", digest))
    if plain is None or challenged is None:
        return None
    parts = {"REGISTER": plain}
    if digest != "none":
        parts[f"digest of REGISTER, {digest}"] = challenged - plain
    if base != transport:
        measured = registrations.get(registration_name(transport, digest))
        if measured is None and BULK not in values:
            return None
        parts["TLS bulk of REGISTER"] = (
            values[BULK] * REGISTER_MESSAGES[digest] / CALL_MESSAGES if measured is None else measured - challenged
        )
    return parts


# Waking.


def waking(points):
    """µs of one waking, from points of (µs at saturation, wakings, rate, µs measured at that rate), all of about one rate: the
    least squares of the relative error of `saturated + µs × wakings × (1 − busy)`, since a server that is busy is not woken."""
    over = under = 0
    for saturated, wakings, rate, measured in points:
        part = wakings * (1 - min(1, rate * measured / 1e6)) / measured
        over += part * (1 - saturated / measured)
        under += part * part
    return over / under if under else None


class Waking:
    """µs of one waking by wakings each second. It falls as they come closer together: the core does not sleep as deeply, and caches
    are warm."""

    def __init__(self, points):
        self.points = sorted(tuple(point) for point in points)

    def __bool__(self):
        return bool(self.points)

    def at(self, each_second):
        if each_second <= self.points[0][0]:
            return self.points[0][1]
        for (x0, y0), (x1, y1) in zip(self.points, self.points[1:]):
            # Beyond the last point its slope is followed if it falls: at saturation, the other end, there is no waking.
            if each_second <= x1 or (x1, y1) == self.points[-1]:
                slope = math.log(y1 / y0) / math.log(x1 / x0)
                return y1 * (each_second / x1) ** (slope if each_second <= x1 else min(0.0, slope))
        return self.points[-1][1]


# What an operator asks.


class Load:
    """Calls and registrations each second and how they come."""

    def __init__(
        self,
        calls=0,
        registrations=0,
        transport="udp",
        mode="local",
        auth="no",
        mutual=False,
        reuse=0.0,
        hold=0.0,
        connections=0,
        registration_auth=None,
        version=None,
        key=None,
        suite=None,
        use=0.7,
        left=None,
        right=None,
    ):
        self.calls, self.registrations, self.transport, self.mode = calls, registrations, transport, mode
        self.auth, self.mutual, self.reuse, self.hold, self.connections = auth, mutual, reuse, hold, connections
        self.registration_auth = registration_auth or ("new" if auth == "yes" else "none")
        self.version, self.key, self.suite, self.use = version, key, suite, use
        self.left, self.right = left or transport, right or transport

    @property
    def is_tls(self):
        return "tls" in (self.left, self.right)

    @property
    def has_handshakes(self):
        shape = Shape(self.mode, self.left, self.right)
        return (self.left == "tls" and shape.left_per_call) or (self.right == "tls" and shape.right_per_call)

    def check(self):
        """Nonsense is refused before anything is computed."""
        for name in ("calls", "registrations", "hold", "connections"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise Refused(f"--{name} must be a number that is not negative, not {value:g}")
        if self.calls == 0 and self.registrations == 0:
            raise Refused("no load: give --calls, --registrations or both, each second")
        if not 0 <= self.reuse <= 1:
            raise Refused(f"--reuse is the share of handshakes that resume a session: from 0 to 1, not {self.reuse:g}")
        if not 0.05 <= self.use <= 0.95:
            raise Refused(
                f"--cores-use is the share of each core's capacity that may be used: from 0.05 to 0.95, not {self.use:g}. "
                "Above that waiting grows without bound"
            )
        if not self.is_tls:
            for name, value in [
                ("--mutual", self.mutual),
                ("--reuse", self.reuse),
                ("--tls-version", self.version),
                ("--key", self.key),
                ("--suite", self.suite),
            ]:
                if value:
                    raise Refused(f"{name} is of TLS, and neither side has it")
        if self.is_tls and not self.has_handshakes and (self.reuse or self.mutual):
            raise Refused(
                f"in {self.mode} mode the side with TLS keeps its connection: there is no handshake for each call to resume or to "
                f"make "
                "mutual. What a handshake costs once is not in the model"
            )

    def shapes(self):
        """Kinds of calls, and their share."""
        if self.has_handshakes and self.reuse:
            other = "mutual" if self.mutual else "full"
            kinds = [("reuse", self.reuse), (other, 1 - self.reuse)]
        else:
            kinds = [("mutual" if self.mutual else "full", 1.0)]
        return [
            (Shape(self.mode, self.left, self.right, variant, self.auth == "yes"), share) for variant, share in kinds if share > 0
        ]

    def registration_transport(self):
        """Phones have connections of their own in outbound and local mode; a chain and inbound calls come by one."""
        many = self.left != "udp" and self.mode in ("outbound", "local")
        return self.left + ("-many" if many else "")

    def open_connections(self):
        """What its calls keep open at any time, and what is open beside them."""
        shape = self.shapes()[0][0]
        return self.connections + self.calls * self.hold * (shape.left_per_call + shape.right_per_call)


class Model:
    """What perf/model fit has written."""

    def __init__(self, data):
        self.data = data
        self.values = {name: each["us"] for name, each in data["components"].items()}
        self.registrations = {name: each["us"] for name, each in data["registrations"].items()}
        self.waking = {kind: Waking(points) for kind, points in data["waking"].items()}

    def check_machine(self, cpu):
        if cpu != self.data["cpu"]:
            raise Refused(
                f"the model was fitted on another machine ({self.data['cpu']}; this is {cpu}): run perf/model fit here, or say "
                "--any-machine if the answer is meant for that one"
            )

    def check(self, load):
        """Where there is no ground, and what would be one."""
        load.check()
        if load.is_tls:
            self.check_tls(load)
        if load.left != load.right:
            self.check_sides(load)
        if load.mutual and load.reuse and load.has_handshakes:
            raise Refused("sessions resumed with mutual authentication were not measured: ask for each alone (--mutual, --reuse)")
        ranges = self.data["ranges"]
        for name, value in [("calls", load.calls), ("registrations", load.registrations)]:
            kind = name[:-1]
            lowest = ranges.get(f"lowest_{name}_per_second")
            if value and lowest is None:
                continue
            if value and value < lowest:
                raise Refused(
                    f"{value:g} {name} a second are fewer than the fewest measured ({lowest:g}/s). CPU of a {kind} rises as the "
                    f"load "
                    f"falls, since the server is woken for each message: at {lowest:g}/s and below this core is nearly idle. "
                    f"perf/model fit --rates {value:g} measures it"
                )
        open_connections, known = load.open_connections(), ranges["connections"]
        if open_connections > known:
            raise Refused(
                f"{open_connections:,.0f} connections would be open at a time, and no more than {known:,} were measured: "
                "perf/scale measures more; perf/model fit --connections N says that it has"
            )

    def check_rates(self, load, workers):
        """No more than a run has reached: beyond that even the order of what fills up first is unknown."""
        highest = self.data["ranges"]["highest_per_second"]
        for name, rate, group in [
            ("calls", load.calls, f"{load.mode}-{load.left}" if load.left != "udp" else "chain-udp"),
            ("registrations", load.registrations, f"register-{load.left}"),
        ]:
            known = highest.get(group)
            if known is not None and rate / workers > known:
                raise Refused(
                    f"{rate / workers:,.0f} {name} a second and core are more than any run reached ({known:,.0f}/s, {group}), "
                    "since the generator or the machine was at its end first: a generator on other cores or machines would be a "
                    "ground"
                )

    def check_sides(self, load):
        """Sides with different transports: only what a run has shown to add up."""
        wanted = Shape(load.mode, load.left, load.right)
        for name in self.data["ranges"]["configurations"]:
            shape = Shape.parse(name)
            if (shape.mode, shape.left, shape.right) == (wanted.mode, wanted.left, wanted.right):
                return
        raise Refused(
            f"no run had {load.left} on the callers' side and {load.right} on the answerers' in {load.mode} mode: "
            "perf/model fit measures outbound mode to UDP and inbound mode from UDP"
        )

    def check_tls(self, load):
        tls = self.data["tls"]
        if tls is None:
            raise Refused("no run over TLS is in the model: perf/model fit measures it")
        for name, wanted, has in [
            ("TLS version", load.version, tls["version"]),
            ("key", load.key, tls["key"]),
            ("suite", load.suite, tls["suite"]),
        ]:
            if wanted and wanted.lower() != has.lower():
                hint = {"TLS version": f"--tls-version {wanted}", "key": f"--key {wanted}", "suite": "--suite today"}[name]
                raise Refused(f"the model was fitted with {name} {has}, not {wanted}: perf/model fit {hint} measures others")

    def parts(self, load):
        """{component: µs of CPU in each second} of the load on one core that never sleeps."""
        found = {}
        for shape, share in load.shapes():
            for name, count in shape.components().items():
                if load.calls:
                    if name not in self.values:
                        raise Refused(
                            f"the model has no “{name}”: perf/model fit with a run that has it ({self.wants(name)}) measures it"
                        )
                    found[name] = found.get(name, 0) + load.calls * share * count * self.values[name]
        if load.registrations:
            parts = registration(self.registrations, self.values, load.registration_transport(), load.registration_auth)
            if parts is None:
                name = registration_name(load.registration_transport().replace("tls", "tcp"), load.registration_auth)
                raise Refused(f"the model has no registrations of this kind ({name}): perf/model fit measures them")
            for name, value in parts.items():
                found[name] = load.registrations * value
        return found

    @staticmethod
    def wants(component):
        """The simplest runs that have it."""
        shapes = [
            Shape(mode, transport, None, variant, auth)
            for transport in TRANSPORTS
            for mode in FITTED_MODES
            for auth in (False, True)
            for variant in [*VARIANTS, *SUITES]
        ]
        return next(shape.name for shape in shapes if component in shape.components())

    def busy(self, load, scale=1.0):
        """Share of a core with `scale` × the load, and what of it is waking: busy = work + waking × (1 − busy)."""
        work = scale * sum(self.parts(load).values()) / 1e6
        rates = [
            ("call", scale * load.calls * sum(share * shape.wakings() for shape, share in load.shapes())),
            ("registration", scale * load.registrations * (2 if load.registration_auth == "new" else 1)),
        ]
        total = sum(rate for _, rate in rates)
        full = sum(rate * curve.at(total) for kind, rate in rates if rate and (curve := self.waking.get(kind))) / 1e6
        if work >= 1:
            return work, 0.0
        busy = (work + full) / (1 + full)
        return busy, busy - work

    def predict(self, load):
        """The answer: what a core is busy with, how many cores, what dominates, what is left."""
        self.check(load)
        work = sum(self.parts(load).values()) / 1e6
        unmeasured = [
            kind
            for kind, rate in [("call", load.calls), ("registration", load.registrations)]
            if rate and not self.waking.get(kind)
        ]
        if unmeasured and work < WITHOUT_WAKING:
            raise Refused(
                f"the load fills {100 * work:.1f} % of a core by what a {unmeasured[0]} costs at saturation, and what waking adds "
                f"at so "
                "low a load was not measured: perf/model fit measures it at fixed rates"
            )
        workers, factor = self.workers(load, work)
        self.check_rates(load, workers)
        scale = factor / workers
        busy, _ = self.busy(load, scale)
        one, one_woken = self.busy(load)
        parts = {name: value / 1e6 for name, value in self.parts(load).items()}
        if one_woken:
            parts["waking"] = one_woken
        return {
            "one_core": one,
            "work": work,
            "workers": workers,
            "factor": factor,
            "each_core_busy": busy,
            "use": load.use,
            "parts": parts,
            "us_per_call": 1e6 * one / load.calls if load.calls and not load.registrations else None,
            "headroom": load.use / (scale * work),
            "full_core_calls": load.calls / work if load.calls else None,
            "full_core_registrations": load.registrations / work if load.registrations else None,
        }

    def workers(self, load, work):
        """How many, and what a call costs on as many ÷ on one. Counted by the work: waking is given back when the core has more to
        do."""
        if work <= load.use:
            return 1, 1.0
        known = {int(number): factor for number, factor in self.data["workers"].items()}
        asked = f"the load is {work:.2f} cores' worth of work, of which a core is to have no more than {load.use:.2f}"
        if not known:
            raise Refused(
                f"{asked}: it needs more than one, and what a second worker costs was not measured: "
                "perf/udp --rows K1 measures it, and perf/model fit takes it from there"
            )
        for number, factor in sorted(known.items()):
            if work * factor / number <= load.use:
                return number, factor
        raise Refused(
            f"{asked}: that is more than {max(known)} workers carry, and what more of them cost each was not measured, "
            "since the machine of the model has not the cores for it"
        )


def in_words(load, answer):
    """What dominates, and what would help."""

    def greatest(parts):
        name, value = max(parts.items(), key=lambda item: item[1])
        return name, 100 * value / sum(parts.values())

    name, share = greatest(answer["parts"])
    text = f"{name} dominates: {share:.0f} % of the CPU"
    if name == "waking":
        other = greatest({part: value for part, value in answer["parts"].items() if part != name})
        return text + (
            ", since the core is mostly idle; each call costs less as the load rises. "
            f"Of the work itself {other[0]} has most: {other[1]:.0f} %"
        )
    if name.startswith("TLS handshake") and ", reuse" not in name and load.reuse < 1 and not load.mutual:
        return text + ". Resumed sessions (--reuse) take most of that away"
    return text

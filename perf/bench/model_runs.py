"""The runs that the cost model is fitted to: what is wanted beside the report's configurations, and the measuring of what is
missing."""

import time

import cases
import model
from cases import Case, Configuration, report_configurations
from model import DIGESTS, Shape, registration_name
from modes import for_model
from reproduction import FORGET
from study import Progress, Study, rounds_of

# Calls and registrations each second at which waking is measured, and how full a core may be then.
RATES = [200, 1000, 4000, 16000]
NEAR_IDLE = 0.5
WAKING = [
    "chain-udp",
    "chain-tcp",
    "outbound-tcp-auth",
    "inbound-tcp",
    "outbound-tls-reuse-auth",
    "inbound-tls-reuse",
    "local-tls-reuse-auth",
    "register-udp",
    "register-tcp-many",
]
# Each of so many phones has a connection of its own.
PHONES = 1000
CPU, RATE = "server_cpu_us_each", "completed_per_second"


class Registrations(Case):
    """REGISTERs, by one connection or by one for each phone; each challenged (`new`), or with a nonce that is kept (`kept`)."""

    def __init__(self, kind, digest, version="1.2", key="rsa", suite="study"):
        self.kind, self.digest = kind, digest
        transport, _, many = kind.partition("-")
        self.many = bool(many)
        ciphers = {"study": cases.STUDY_CIPHERS, "today": cases.CIPHERS}[suite]
        super().__init__(
            registration_name(kind, digest),
            transport,
            transport,
            auth=False if digest == "none" else "register",
            version=version,
            key=key,
            ciphers=ciphers,
        )

    def options(self, contestant):
        options = super().options(contestant)
        if self.digest == "kept":
            # A nonce is counted with a qop only.
            place = options.index("--auth")
            options[place : place + 4] = ["--auth", "kept"]
        return options + (["--connections", PHONES] if self.many else [])

    def complaint(self, result, contestant):
        if self.digest != "kept":
            return super().complaint(result, contestant)
        challenges, done = result["counts"]["challenges_received"], max(result["counts"]["completed"], 1)
        return None if challenges < 0.02 * done else f"{challenges} challenges in {done} registrations with a kept nonce"


class ToUdp(Case):
    """One side as in outbound or inbound mode, and UDP on the other."""

    def __init__(self, mode, transport, auth=False, variant="full", version="1.2", key="rsa", suite="study"):
        sides = (transport, "udp") if mode == "outbound" else ("udp", transport)
        self.shape = Shape(mode, *sides, variant, auth)
        left, right = (side + ("/call" if side != "udp" else "") for side in sides)
        ciphers = {"study": cases.STUDY_CIPHERS, "today": cases.CIPHERS}[suite]
        super().__init__(
            self.shape.name,
            left,
            right,
            routed=mode == "outbound",
            version=version,
            key=key,
            auth=auth,
            mutual=variant == "mutual",
            reuse=variant == "reuse",
            ciphers=ciphers,
        )

    needs_old_suites = False


def to_udp(**how):
    """With digest where the report has it."""
    variants = [("tcp", "full"), ("tls", "full"), ("tls", "mutual"), ("tls", "reuse")]
    return [
        ToUdp(mode, transport, mode == "outbound", variant, **how)
        for mode in ("outbound", "inbound")
        for transport, variant in variants
    ]


def registrations(**how):
    """TLS is also foretold from TCP and the bulk of a call, and that compared."""
    kinds = [(kind, digest) for kind in model.REGISTRATIONS for digest in DIGESTS]
    kinds += [(kind, digest) for kind in ("tls", "tls-many") for digest in ("none", "new")]
    return [Registrations(kind, digest, **how) for kind, digest in kinds]


def beyond_the_report(**how):
    """Where the report has a configuration only without digest or only with it, the other."""
    return [Configuration(case.mode, case.transport, case.auth, case.variant, **how) for case in for_model()]


class Measurements:
    """Results by configuration, in the shape of perf/reproduce: `configuration`, `what`, the generator's figures. Those that a
    complaint says were of something else than meant are left out, and counted."""

    def __init__(self, results, contestant):
        mine = [each for each in results if each.get("contestant") == contestant and each.get("configuration")]
        self.results = [each for each in mine if not each.get("complaint")]
        self.left_out = len(mine) - len(self.results)

    def of(self, name, *whats):
        return [each for each in self.results if each["configuration"] == name and each["what"] in whats]

    def names(self, what):
        return list(dict.fromkeys(each["configuration"] for each in self.results if each["what"] == what))

    def saturated(self):
        """{configuration: [µs of each round]} of calls."""
        return {name: [each[CPU] for each in self.of(name, "saturation")] for name in self.names("saturation") if Shape.parse(name)}

    def registered(self):
        return {
            name: [each[CPU] for each in self.of(name, "saturation")]
            for name in self.names("saturation")
            if name.startswith("register-")
        }

    def tls(self):
        """What was agreed, without 3DES."""
        return sorted({each["tls"] for each in self.results if each.get("tls") and "3des" not in each["configuration"]})


class Measuring(Study):
    """Measures what `sources` lack of what a fit wants, and hands all to `then`."""

    def __init__(self, arguments, directory, sources, then):
        super().__init__(arguments, directory, "The cost model")
        self.sources, self.then = sources, then

    def run(self):
        steps = [
            (case, mode, number < missing, rates, self.rounds - missing + number if missing else number)
            for number in range(self.rounds)
            for case, mode, missing, rates in wanted(self.arguments, self.sources)
            if number < missing or rates
        ]
        self.progress = Progress(len(steps))
        for case, mode, is_missing, rates, number in steps:
            self.progress.step(f"{case.name}, round {number + 1}")
            self.attempt(self.measure, case, mode, is_missing, rates, number)
        self.progress.end()
        self.then(self.sources + self.results, self.report.machine, self.report.settings, self.failures)

    def measure(self, case, mode, is_missing, rates, number):
        """Saturation, which also warms the server up where it is known already, and the rates at which waking is measured."""
        settle = self.warm + (3 if getattr(case, "digest", None) == "kept" else 0)
        with self.server(case, self.arguments.only[0]) as (contestant, process):
            full = self.run_load(
                case,
                contestant,
                process,
                "--window",
                cases.WINDOW,
                "--settle",
                settle,
                "--duration",
                self.duration,
                mode=mode,
                what="saturation" if is_missing else "warm",
                round=number,
            )[0]
            if rates:
                # What saturation has left to be forgotten must not be counted here.
                time.sleep(FORGET)
            for rate in rates:
                if rate < NEAR_IDLE * full[RATE]:
                    self.run_load(
                        case,
                        contestant,
                        process,
                        "--rate",
                        f"{rate:g}",
                        "--settle",
                        1,
                        "--duration",
                        self.duration,
                        "--drain",
                        8,
                        mode=mode,
                        what="fixed rate",
                        round=number,
                    )
            if is_missing and mode == "call" and self.arguments.peaks:
                self.peak(case, contestant, process, full[RATE], round=number)


def wanted(arguments, sources):
    """What the sources lack: (case, mode of the generator, how many rounds of its saturation, the missing rates of waking)."""
    if arguments.no_measure:
        return []
    mine = [each for each in sources if each["contestant"] == arguments.only[0] and not each.get("complaint")]
    how = {"version": arguments.tls_version, "key": arguments.key, "suite": arguments.suite}
    calls = report_configurations(**how) + to_udp(**how) + ([] if arguments.quick else beyond_the_report(**how))
    with_old = bool(arguments.old_suites) or (not arguments.quick and arguments.tls_version == "1.2" and arguments.key == "rsa")
    calls = [case for case in calls if with_old or not case.needs_old_suites]
    found = []
    for case, mode in [*((case, "call") for case in calls), *((case, "register") for case in registrations(**how))]:
        capacities = [each[RATE] for each in mine if each["configuration"] == case.name and each["what"] == "saturation"]
        have = {each["rate_or_window"] for each in mine if each["configuration"] == case.name and each["what"] == "fixed rate"}
        rates = [rate for rate in arguments.rates if rate not in have and (not capacities or rate < NEAR_IDLE * max(capacities))]
        rates = rates if case.name in WAKING else []
        missing = max(0, rounds_of(arguments) - len(capacities))
        if rates or missing:
            found.append((case, mode, missing, rates))
    return found

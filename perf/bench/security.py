"""perf/security: what security costs a SIP server in 2026, beside 2010 and 2012. Digest, TLS kept open and made anew for each call,
kinds of keys and of handshakes, post-quantum key exchange: CPU of a call, in µs and in calls of the same server over UDP."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

import plots
import published
import tasks
from bench import main
from cases import Case
from report import Report
from rows import DIGEST, GROUPS, LOCAL, REGISTERED, SECURE, SHA256, TCP, TCP_BOTH, TCP_LEFT, TLS_CHAIN, UDP, tls
from samples import Estimate, Quantity, Samples, estimate, ratio, single
from study import FEWEST, Plan, Task
from tasks import key, served

HYBRID, CURVE = "X25519MLKEM768", "X25519"


def report_2010(name: str, digest: bool = False) -> float:
    """CPU of a call in one of the report's configurations, in its calls over UDP; less digest's part if it alone had digest."""
    of_digest = published.COMPONENTS[f"digest, {name.split('-')[1].upper()}"] if name.endswith("-auth") and not digest else 0
    return published.CYCLES[name] / published.CYCLES["chain-udp"] - of_digest


def thesis_2012(name: str) -> float:
    """The same of the thesis: a call costs the inverse of the peak."""
    return published.PROXY_PEAKS["udp"] / published.PROXY_PEAKS[name]


@dataclass(frozen=True)
class Way:
    """A line of the table. `peer`: whether Kamailio is measured too. `drawn`: whether it is in the figure."""

    label: str
    case: Case
    in_2010: float | None = None
    in_2012: float | None = None
    peer: bool = False
    drawn: bool = True

    @property
    def udp(self) -> Case:
        """The call over UDP that goes the same way: to a next hop, or to a registered user."""
        return UDP if self.case.routed else REGISTERED

    def units(self, samples: Samples, who: str = "strowger") -> Estimate | None:
        return ratio(samples, key(self.case, who), key(self.udp, who))

    def in_memory(self, samples: Samples) -> Estimate | None:
        """The server's part of the call's handshakes, without sockets and messages."""
        of = {side: Quantity(tasks.memory_key(self.case, side), f"{side}_us") for side in self.sides}
        return estimate(samples, lambda **us: sum(us.values()), of)

    @property
    def sides(self) -> list[str]:
        """On which the server has a handshake in each call: as server, as client."""
        return [side for side, wanted in zip(("server", "client"), self.case.per_call) if wanted and self.case.is_tls]


def left(version: str, key: str, **how: object) -> Case:
    return tls("tls/call", "udp", version=version, key=key, **how)


WAYS = [
    Way("UDP", REGISTERED, 1, 1, True),
    Way("TCP, kept open", TCP, report_2010("chain-tcp"), thesis_2012("tcp_mono"), True),
    Way("TCP, each call, callers' side", TCP_LEFT, report_2010("outbound-tcp-auth"), None, True, False),
    Way("TCP, each call, both sides", TCP_BOTH, report_2010("local-tcp-auth"), thesis_2012("tcp_multi"), True),
    Way("digest, MD5, UDP", DIGEST, 1 + published.COMPONENTS["digest, UDP"], None, True),
    Way("digest, SHA-256, UDP", SHA256),
    Way("TLS 1.3, kept open", TLS_CHAIN, report_2010("chain-tls"), None, True),
    # The callers' side, a connection for each call.
    *(
        Way(f"TLS 1.2, each call, RSA-2048{words}", SECURE["1.2", kind, "server"], report_2010(then), None, True, kind != "resumed")
        for words, kind, then in (
            ("", "full", "outbound-tls-auth"),
            (", resumed", "resumed", "outbound-tls-reuse-auth"),
            (", mutual", "mutual", "outbound-tls-mutual-auth"),
        )
    ),
    Way("TLS 1.2, each call, P-256", left("1.2", "ec")),
    Way("TLS 1.2, each call, P-256, mutual", left("1.2", "ec", mutual=True), drawn=False),
    Way("TLS 1.3, each call, RSA-2048", SECURE["1.3", "full", "server"], peer=True, drawn=False),
    Way("TLS 1.3, each call, RSA-2048, resumed", SECURE["1.3", "resumed", "server"]),
    Way("TLS 1.3, each call, RSA-2048, mutual", SECURE["1.3", "mutual", "server"], drawn=False),
    Way("TLS 1.3, each call, P-256", left("1.3", "ec")),
    Way("TLS 1.3, each call, P-256, mutual", left("1.3", "ec", mutual=True), drawn=False),
    Way("TLS 1.3, each call, P-256, mutual, chain of three", left("1.3", "chain", mutual=True)),
    Way("TLS 1.3, each call, Ed25519", left("1.3", "ed25519")),
    *(Way(f"TLS 1.3, each call, P-256, {group}", GROUPS[group]) for group in (CURVE, HYBRID)),
    # Both sides.
    *(
        Way(f"TLS 1.2, both sides, RSA-2048{words}", LOCAL[kind], report_2010(in_2010), thesis_2012(in_2012), True)
        for words, kind, in_2010, in_2012 in (
            (", resumed", "resumed", "local-tls-reuse-auth", "tls_local_client_session_reuse"),
            ("", "full", "local-tls-auth", "tls_local_client"),
            (", mutual", "mutual", "local-tls-mutual-auth", "tls_local_mutual"),
        )
    ),
    Way("TLS 1.2, both sides, P-256, mutual", LOCAL["mutual, P-256"]),
    Way(
        "the worst: mutual, RSA-2048, digest",
        LOCAL["mutual"].with_(auth="call"),
        report_2010("local-tls-mutual-auth", True),
        None,
        True,
    ),
]
BY_LABEL: Mapping[str, Way] = {way.label: way for way in WAYS}
# What one thing costs beside another that lacks it: (in words, with it, without it).
STEPS = [
    ("digest with SHA-256 ÷ with MD5", "digest, SHA-256, UDP", "digest, MD5, UDP"),
    ("TLS 1.3 kept open ÷ TCP kept open", "TLS 1.3, kept open", "TCP, kept open"),
    ("resumed ÷ full, TLS 1.2", "TLS 1.2, each call, RSA-2048, resumed", "TLS 1.2, each call, RSA-2048"),
    ("resumed ÷ full, TLS 1.3", "TLS 1.3, each call, RSA-2048, resumed", "TLS 1.3, each call, RSA-2048"),
    ("resumed ÷ full, both sides", "TLS 1.2, both sides, RSA-2048, resumed", "TLS 1.2, both sides, RSA-2048"),
    ("mutual ÷ full, RSA-2048", "TLS 1.2, each call, RSA-2048, mutual", "TLS 1.2, each call, RSA-2048"),
    ("mutual ÷ full, both sides", "TLS 1.2, both sides, RSA-2048, mutual", "TLS 1.2, both sides, RSA-2048"),
    ("mutual ÷ full, P-256, TLS 1.3", "TLS 1.3, each call, P-256, mutual", "TLS 1.3, each call, P-256"),
    ("chain of three ÷ of one, mutual", "TLS 1.3, each call, P-256, mutual, chain of three", "TLS 1.3, each call, P-256, mutual"),
    (f"TLS 1.3 ÷ 1.2, P-256, {CURVE}", f"TLS 1.3, each call, P-256, {CURVE}", "TLS 1.2, each call, P-256"),
    ("P-256 ÷ RSA-2048, TLS 1.3", "TLS 1.3, each call, P-256", "TLS 1.3, each call, RSA-2048"),
    ("Ed25519 ÷ P-256, TLS 1.3", "TLS 1.3, each call, Ed25519", "TLS 1.3, each call, P-256"),
    (f"{HYBRID} ÷ {CURVE}", f"TLS 1.3, each call, P-256, {HYBRID}", f"TLS 1.3, each call, P-256, {CURVE}"),
]
NOTE = (
    "Units: CPU of a call ÷ CPU of the same server's call over UDP, at saturation, 48 calls outstanding. In memory: the server's "
    "part of a call's handshakes, without sockets. 2010: Shen et al., thousands of cycles at 50 calls/s ÷ those over UDP, less "
    "what they give for digest where they had it (the worst case has it here too); their other side was one kept TLS connection "
    "where it is UDP here. 2012: Maguluri, peak over UDP ÷ peak. Both: OpenSIPS, TLS 1.0, AES128-SHA, RSA. Here TLS 1.2 has "
    "ECDHE and AES128-GCM; TLS 1.3, where no group is named, what both sides prefer, which the last columns say. Where the "
    "server's key is RSA-2048, the generator signs with P-256 when it must."
)


def plan(options: argparse.Namespace) -> Plan:
    found: list[Task] = [served(UDP, who, block="udp chain", least=FEWEST) for who in ("strowger", "kamailio")]
    for way in WAYS:
        block = "udp" if way.case.transports == ("udp", "udp") else ""
        found.append(served(way.case, "strowger", block=block))
        if way.peer:
            found.append(served(way.case, "kamailio", block=block, least=1))
        found += [tasks.handshakes(way.case, side) for side in way.sides]
    return Plan("security", "What security costs a SIP server in 2026, beside 2010 and 2012", found, (), tell)


def tell(report: Report, samples: Samples) -> None:
    lines, raw = [], []
    for way in WAYS:
        ours, peer = single(samples, key(way.case)), single(samples, key(way.case, "kamailio"))
        if not ours and not peer:
            continue
        units, peers_units = way.units(samples), way.units(samples, "kamailio")
        then = [None if it is None else f"{it:.1f}" for it in (way.in_2010, way.in_2012)]
        agreed = [(samples.of(key(way.case, who)) or [{}])[-1].get("tls") or "—" for who in ("strowger", "kamailio")]
        lines.append([way.label, ours, units, way.in_memory(samples), peer, peers_units, *then, *agreed])
        raw.append(
            {
                "way": way.label,
                "key": key(way.case),
                "us": [float(value) for value in samples.values(key(way.case), "server_cpu_us_each")],
                "units": units and [units.value, units.low, units.high],
                "kamailio_us": [float(value) for value in samples.values(key(way.case, "kamailio"), "server_cpu_us_each")],
                "2010": way.in_2010,
                "2012": way.in_2012,
            }
        )
    head = ["a call over", "strowger, µs", "units", "handshakes in memory, µs", "Kamailio, µs", "its units", "2010", "2012"]
    head += ["agreed with strowger", "with Kamailio"]
    report.table("CPU of a call", head, lines, NOTE)
    steps = []
    for words, with_, without in STEPS:
        over, under = key(BY_LABEL[with_].case), key(BY_LABEL[without].case)
        if found := ratio(samples, over, under):
            more = estimate(samples, lambda a, b: a - b, {"a": Quantity(over), "b": Quantity(under)})
            steps.append([words, found, more, then_and_now(with_, without)])
    report.table("One thing at a time", ["", "CPU of a call, ratio", "µs more", "2010; 2012"], steps)
    # Every single measurement, for whoever wants to compute something else.
    report.data["security"] = raw
    draw(report, samples)


def then_and_now(with_: str, without: str) -> str:
    """The same step in the studies."""
    over, under = BY_LABEL[with_], BY_LABEL[without]
    pairs = [(over.in_2010, under.in_2010), (over.in_2012, under.in_2012)]
    return "; ".join("—" if a is None or b is None else f"{a / b:.2f}" for a, b in pairs).replace("—; —", "—")


def draw(report: Report, samples: Samples) -> None:
    """Lying bars: today's server with its interval, today's peer, the studies'."""
    ways = [way for way in WAYS if way.drawn and way.units(samples)]
    if len(ways) < 2:
        return
    groups: list[tuple] = []
    for who, name in (("strowger", "strowger, 2026 (whisker: 95 %)"), ("kamailio", "Kamailio of Debian, 2026")):
        values, texts = [], []
        for way in ways:
            units, us = way.units(samples, who), single(samples, key(way.case, who))
            values.append(units and (units.value, units.low, units.high))
            texts.append(f"{units.value:.2g} · {us.value:,.0f} µs" if units and us else "")
        groups.append((name, values, texts, {"color": plots.WHO[who]}))
    for name, years, style in (
        ("OpenSIPS, 2012", [way.in_2012 for way in ways], plots.PUBLISHED_TOO),
        ("OpenSIPS, 2010", [way.in_2010 for way in ways], plots.PUBLISHED),
    ):
        groups.append((name, years, [f"{it:.2g}" if it else "" for it in years], style))
    chart, axes = plots.figure(10, 4)
    chart.set_figheight(1 + 0.18 * plots.lying(axes, [way.label for way in ways], groups))
    axes.set(xlabel="CPU of a call, in calls of the same server over UDP")
    axes.margins(x=0.14)
    axes.legend(loc="upper right")
    caption = "What a call costs in calls of the same server over UDP; of 2026 also in µs of one core"
    plots.add(report, chart, "security", caption)


if __name__ == "__main__":
    main("security", __doc__, 20, plan)

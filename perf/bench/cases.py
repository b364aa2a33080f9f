"""How a server is connected to, as data: what the conf and the generator's options are for a case follows from it. The
configurations of both studies are among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from samples import Result

# Calls outstanding: keeps a server busy, and their datagrams fit the 212,992 bytes of a receive buffer that nobody enlarged.
WINDOW = 48
USERS = 10_000
REALM = "bench"
# What RFC 3261 made mandatory and both studies measured; what one of them measured beside it; what is negotiated today with TLS
# 1.2.
STUDY, OLD, TODAY = "AES128-SHA", "DES-CBC3-SHA", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
SUITES = {STUDY: "", OLD: "3des", TODAY: "gcm"}
# With a connection for each call the callers' come from this many addresses, and the users' contacts are at this many: between two
# addresses the kernel has some 14,000 ports to connect from, and near as many connections a second it searches long for one.
ADDRESSES = 8
# Kamailio, which keeps one connection for each address, opens one for each call if each user's contact has an address of its own.
SPREAD = 10_000
KEYS = {"rsa": "", "ec": "P-256", "ed25519": "Ed25519", "chain": "chain of three"}
MODES = {(False, False): "chain", (True, False): "outbound", (False, True): "inbound", (True, True): "local"}


@dataclass(frozen=True)
class Case:
    """One way of connecting. `left` is the callers' side and `right` the answerers': udp, tcp or tls, with /call for a connection
    for each call. `routed`: calls go to a next hop, as in a chain of proxies; otherwise to the contacts of registered users. `key`
    is the server's, `peer` the generator's if it is to be another: where the generator would be the limit it has what is cheap for
    it. `auth`: each INVITE is challenged (`call`), or each REGISTER (`register`; `register, no qop` as the clients of the studies
    answer), or nothing. `nonce` new: each request is challenged; kept: a user counts the uses of one. `conf`: what else stands in
    strowger's conf, by section."""

    left: str = "udp"
    right: str = "udp"
    routed: bool = True
    version: str = "1.2"
    key: str = "rsa"
    peer: str = ""
    suite: str = STUDY
    group: str = ""
    mutual: bool = False
    reuse: bool = False
    auth: str = ""
    algorithm: str = "md5"
    nonce: str = "new"
    phones: int = 0
    users: int = USERS
    cores: tuple[int, ...] = (0,)
    conf: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    extra: tuple[str, ...] = ()
    suffix: str = ""

    @property
    def transports(self) -> tuple[str, str]:
        return self.left.removesuffix("/call"), self.right.removesuffix("/call")

    @property
    def per_call(self) -> tuple[bool, bool]:
        return self.left.endswith("/call"), self.right.endswith("/call")

    @property
    def mode(self) -> str:
        """One of the report's four. With one connection on each side, or UDP, it is a chain if calls go to a next hop."""
        if self.per_call == (False, False):
            return "chain" if self.routed else "local" if self.transports == ("udp", "udp") else "mono"
        return MODES[self.per_call]

    @property
    def is_tls(self) -> bool:
        return "tls" in self.transports

    @property
    def name(self) -> str:
        """For keys, files and commands: local-tls-mutual-auth."""
        left, right = self.transports
        parts = [self.mode, left] if left == right else [self.mode, left, right]
        if self.is_tls:
            parts += [
                "mutual" if self.mutual else "",
                "reuse" if self.reuse else "",
                "1.3" if self.version == "1.3" else SUITES[self.suite],
                self.key if self.key != "rsa" else "",
                f"peer-{self.peer}" if self.peer else "",
                self.group.lower(),
            ]
        parts += ["auth" if self.auth == "call" else "", "sha256" if self.algorithm != "md5" else "", self.suffix]
        return "-".join(filter(None, parts))

    @property
    def label(self) -> str:
        """For people: local, TLS 1.3 mutual, P-256, digest."""
        left, right = self.transports
        transport = left.upper() if left == right else f"{left.upper()} → {right.upper()}"
        if self.is_tls:
            kind = [f" {self.version}", " mutual" if self.mutual else "", " resumed" if self.reuse else ""]
            transport = transport.replace("TLS", "TLS" + "".join(kind))
        suite = {STUDY: "", OLD: "3DES", TODAY: "AES-GCM"}[self.suite] if self.is_tls and self.version == "1.2" else ""
        key = KEYS.get(self.key, self.key) if self.is_tls else ""
        peer = f"peers with {KEYS.get(self.peer, self.peer) or 'RSA'}" if self.is_tls and self.peer else ""
        digest = {"call": "digest", "": ""}.get(self.auth, "")
        if digest and self.algorithm != "md5":
            digest = f"digest {self.algorithm.upper()}"
        return ", ".join(filter(None, [self.mode, transport, suite, key, peer, self.group, digest, self.suffix]))

    def with_(self, **changes: Any) -> Case:
        return replace(self, **changes)

    def options(self, who: str, bench: Any) -> list[str]:
        """The generator's, for calls and registrations alike."""
        left, right = self.transports
        left_call, right_call = self.per_call
        options = ["--transport", left, "--callee-transport", right]
        if left_call:
            options += ["--connections", "per-call", "--sources", str(ADDRESSES)]
        elif self.phones:
            options += ["--connections", str(self.phones)]
        if right_call and who == "kamailio":
            options += ["--spread", str(SPREAD), "--callee-connections", "per-call"]
        elif right_call:
            options += ["--spread", str(ADDRESSES)]
        if self.auth:
            options += ["--auth", self.nonce, "--algorithm", self.algorithm]
            options += ["--qop", "none"] if self.auth.endswith("no qop") else []
        return [*options, *(self.tls_options(bench) if self.is_tls else []), *self.extra]

    def tls_options(self, bench: Any) -> list[str]:
        """The callers do not check the server's chain: that would be work of the generator's, and none of the server's."""
        own = self.peer or self.key
        ours = ["--cert", bench.certificate(own, "pem"), "--key", bench.certificate(own, "key")]
        options = ["--tls-version", self.version, "--callee-ca", bench.certificate("ca", "pem"), "--ciphers", self.suite, *ours]
        options += ["--groups", self.group] if self.group else []
        options += ["--callee-verify"] if self.mutual else []
        return options + (["--resume", "--callee-resume"] if self.reuse else [])

    def complaint(self, result: Result, who: str) -> str | None:
        """Whether what was meant is what happened: so many connections, handshakes and challenges for each call, and of the kind
        meant."""
        counts, each = result["counts"], max(result["counts"]["completed"], 1)
        # Those in flight at either end of the measured time belong half to it.
        near = WINDOW + 0.02 * each
        if result["mode"] == "call":
            for is_per_call, name in zip(self.per_call, ["connections_opened", "connections_accepted"]):
                if abs(counts[name] - each * is_per_call) > near:
                    return f"{counts[name]} {name} in {each} calls"
            for side, transport, is_per_call in zip(["client", "server"], self.transports, self.per_call):
                # Kamailio resumes nothing as a client.
                kind = "resumed" if self.reuse and not (side == "server" and who == "kamailio") else "full"
                if transport == "tls" and is_per_call and counts[f"tls_{side}_{kind}"] < 0.95 * each - near:
                    return f"only {counts[f'tls_{side}_{kind}']} {kind} handshakes of the generator as {side} in {each} calls"
        challenged = self.auth and self.nonce == "new" and (result["mode"] == "register") == self.auth.startswith("register")
        challenges = counts["challenges_received"]
        if who != "floor" and abs(challenges - each * bool(challenged)) > near:
            return f"{challenges} challenges in {each} of them"
        return "the server was not seen at work" if result["server_cpu_us_each"] < 0.5 else None


# The report's.

SIDES = {"chain": ("", ""), "outbound": ("/call", ""), "inbound": ("", "/call"), "local": ("/call", "/call")}
VARIANTS: dict[str, dict[str, Any]] = {"full": {}, "mutual": {"mutual": True}, "reuse": {"reuse": True}, "3des": {"suite": OLD}}


def configuration(mode: str, transport: str, auth: bool = False, variant: str = "full", **how: Any) -> Case:
    """One of the report's 20 by its words; the suite is the study's, so that its ratios and ours are of the same thing."""
    left, right = SIDES[mode] if transport != "udp" else ("", "")
    # Registered users' contacts are where inbound calls and local ones go.
    routed = mode in ("chain", "outbound")
    return Case(transport + left, transport + right, routed, auth="call" if auth else "", **{**VARIANTS[variant], **how})


def to_udp(mode: str, transport: str, auth: bool = False, variant: str = "full", **how: Any) -> Case:
    """One side as in outbound or inbound mode, and UDP on the other."""
    sides = (transport + "/call", "udp") if mode == "outbound" else ("udp", transport + "/call")
    return Case(*sides, mode == "outbound", auth="call" if auth else "", **{**VARIANTS[variant], **how})


def report_configurations(**how: Any) -> list[Case]:
    """The 20 of the report: chain in all transports without and with digest; the other modes as it measured them."""
    chain = [("udp", "full"), ("tcp", "full"), ("tls", "full"), ("tls", "3des")]
    if how.get("version", "1.2") == "1.3" or how.get("key", "rsa") != "rsa":
        # Neither knows that suite.
        chain.pop()
    others = [("tcp", "full"), ("tls", "full"), ("tls", "mutual"), ("tls", "reuse")]
    return [configuration("chain", transport, auth, variant, **how) for auth in (False, True) for transport, variant in chain] + [
        configuration(mode, transport, mode != "inbound", variant, **how)
        for mode in ("outbound", "inbound", "local")
        for transport, variant in others
    ]


# The thesis' six, by the names of its tables: local mode throughout, without digest. Its "one socket" in local mode is what a chain
# has on both sides, with registered users.
THESIS = {
    "udp": configuration("local", "udp"),
    "tcp_mono": Case("tcp", "tcp", routed=False),
    "tcp_multi": configuration("local", "tcp"),
    "tls_local_client": configuration("local", "tls"),
    "tls_local_client_session_reuse": configuration("local", "tls", variant="reuse"),
    "tls_local_mutual": configuration("local", "tls", variant="mutual"),
}


def registrations(transport: str, digest: str = "none", phones: int = 0, **how: Any) -> Case:
    """REGISTERs by one connection, or by one for each of so many phones: without digest, each challenged (`new`), each challenged
    and answered without qop as the studies' clients do (`study`), or with a nonce that is kept (`kept`)."""
    auth = {"none": "", "study": "register, no qop"}.get(digest, "register")
    suffix = "-".join(filter(None, ["register", "many" if phones else "", digest if digest != "none" else ""]))
    nonce = "kept" if digest == "kept" else "new"
    return Case(transport, transport, False, auth=auth, nonce=nonce, phones=phones, suffix=suffix, **how)

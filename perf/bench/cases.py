"""How a server is connected to, and what its conf and the generator's options are for that: the configurations of both studies
among them."""

import os

import certificates
import contestants

# Calls outstanding: keeps a server busy; with a connection for each call, as many are open at a time.
WINDOW = 48
ANSWERER_PORT = 15570
CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
# What RFC 3261 made mandatory and both studies measured, and what one of them measured beside it.
STUDY_CIPHERS = "AES128-SHA"
OLD_CIPHERS = "DES-CBC3-SHA"
# The contacts of as many users are at addresses of their own: Kamailio, which keeps one connection for each address, then opens one
# for each call.
SPREAD = 10_000
REALM = "bench"
USERS = 10_000
AUTH = f"""
[auth]
realm = "{REALM}"
challenge_proxy = true
algorithms = ["MD5"]
users = "users.txt"
"""
# What `auth` of a case turns on: every INVITE challenged, or every REGISTER.
CHALLENGES = {True: AUTH, "register": AUTH.replace("challenge_proxy", "challenge_register")}
KAMAILIO_CHALLENGES = {True: ["AUTH_INVITE"], "register": ["AUTH_REG"]}


class Case:
    """One way of connecting. `left` is the callers' side and `right` the answerers': udp, tcp or tls, with /call for a connection
    for each call. `routed`: calls go to a next hop, as in a chain of proxies; otherwise to the contacts of registered users.
    `auth`: each INVITE is challenged; "register": each REGISTER, answered without qop, as the clients of the studies do. `ciphers`
    are those of TLS 1.2."""

    def __init__(
        self, label, left, right, routed=False, version="1.2", key="rsa", mutual=False, reuse=False, auth=False, ciphers=CIPHERS
    ):
        self.label, self.routed, self.version, self.key = label, routed, version, key
        self.mutual, self.reuse, self.auth, self.ciphers = mutual, reuse, auth, ciphers
        # Connections that the server may have; 0: its default.
        self.connections = 0
        self.left, _, left_call = left.partition("/")
        self.right, _, right_call = right.partition("/")
        self.left_per_call, self.right_per_call = bool(left_call), bool(right_call)

    @property
    def name(self):
        """For files and commands."""
        return self.label

    @property
    def is_tls(self):
        return "tls" in (self.left, self.right)

    def next_hop(self):
        parameter = "" if self.right == "udp" else f";transport={self.right}"
        return f"sip:127.0.0.1:{ANSWERER_PORT}{parameter}"

    def values(self, directory):
        """What stands in the holes of both servers' confs."""
        route = ""
        if self.routed:
            route = f'\n[[route]]\nmethods = ["INVITE"]\naction = "relay"\ntarget = ["{self.next_hop()}"]\n'
        return {
            "CERTIFICATE": certificates.path(f"{self.key}.pem"),
            "PRIVATE_KEY": certificates.path(f"{self.key}.key"),
            "CA": certificates.path("ca.pem"),
            "VERSION": self.version,
            "CIPHERS": self.ciphers,
            "REUSE": "true" if self.reuse else "false",
            "OUTGOING": "per-call" if self.right_per_call else "reuse",
            "ROUTE": route + CHALLENGES.get(self.auth, ""),
            "CONNECTIONS": str(self.connections),
            "SOCKET": os.path.join(directory, "strowger.sock"),
        }

    def strowger(self, binary, directory):
        values = self.values(directory)
        values["VERIFY_CLIENT"] = "required" if self.mutual else "no"
        if self.version == "1.3":
            # Its suites are not chosen with this key, and the conf may not say what does nothing.
            values["CIPHERS"] = ""
        return contestants.strowger_streams(binary, directory, values)

    def kamailio(self, directory):
        values = self.values(directory)
        values["VERIFY_CLIENT"] = "yes" if self.mutual else "no"
        return contestants.kamailio_streams(
            directory, values, self.next_hop() if self.routed else None, KAMAILIO_CHALLENGES.get(self.auth, [])
        )

    def tls_options(self):
        ours = ["--cert", certificates.path(f"{self.key}.pem"), "--key", certificates.path(f"{self.key}.key")]
        # The callers do not check the server's chain: that would be work of the generator's, and none of the server's.
        options = ["--tls-version", self.version, "--callee-ca", certificates.path("ca.pem"), "--ciphers", self.ciphers, *ours]
        if self.mutual:
            options.append("--callee-verify")
        if self.reuse:
            options += ["--resume", "--callee-resume"]
        return options

    def options(self, contestant):
        options = ["--transport", self.left, "--callee-transport", self.right]
        if self.left_per_call:
            options += ["--connections", "per-call", "--sources", certificates.ADDRESSES]
        if self.right_per_call and contestant == "kamailio":
            options += ["--spread", SPREAD, "--callee-connections", "per-call"]
        elif self.right_per_call:
            options += ["--spread", certificates.ADDRESSES]
        options.append("--routed" if self.routed else "--register-first")
        if self.auth:
            options += ["--auth", "new", *(["--qop", "none"] if self.auth == "register" else [])]
        if self.is_tls:
            options += self.tls_options()
        return options

    def complaint(self, result, contestant):
        """Whether what was meant is what happened: so many connections, handshakes and challenges for each call, and of the kind
        meant."""
        counts, calls = result["counts"], max(result["counts"]["completed"], 1)
        # Those in flight at either end of the measured time belong half to it.
        near = WINDOW + 0.02 * calls
        if result["mode"] == "call":
            found = self.complaint_of_connections(counts, calls, near, contestant)
            if found:
                return found
        challenged = "register" if self.auth == "register" else "call" if self.auth else None
        challenges = counts["challenges_received"]
        if abs(challenges - (calls if result["mode"] == challenged else 0)) > near:
            return f"{challenges} challenges in {calls} of them"
        if result["server_cpu_us_each"] < 1:
            return "the server was not seen at work"
        return None

    def complaint_of_connections(self, counts, calls, near, contestant):
        for is_per_call, name in [(self.left_per_call, "connections_opened"), (self.right_per_call, "connections_accepted")]:
            expected = calls if is_per_call else 0
            if abs(counts[name] - expected) > near:
                return f"{counts[name]} {name} in {calls} calls"
        for side, transport, is_per_call in [
            ("client", self.left, self.left_per_call),
            ("server", self.right, self.right_per_call),
        ]:
            if transport != "tls" or not is_per_call:
                continue
            # Kamailio resumes nothing as a client.
            reuse = self.reuse and not (side == "server" and contestant == "kamailio")
            meant = "resumed" if reuse else "full"
            if counts[f"tls_{side}_{meant}"] < 0.95 * calls - near:
                return f"only {counts[f'tls_{side}_{meant}']} {meant} handshakes of the generator as {side} in {calls} calls"
        return None


MODES = ["chain", "outbound", "inbound", "local"]
# On each side: one connection, or one for each call.
SIDES = {"chain": ("", ""), "outbound": ("/call", ""), "inbound": ("", "/call"), "local": ("/call", "/call")}


class Configuration(Case):
    """One of the report's. `mode` is one of the four, `transport` udp, tcp or tls, `variant` full, mutual, reuse or 3des; the suite
    is the study's, so that its ratios and ours are of the same thing. `suite="today"` takes what clients negotiate today with this
    version."""

    def __init__(self, mode, transport, auth=False, variant="full", version="1.2", key="rsa", suite="study"):
        self.mode, self.transport, self.variant, self.suite = mode, transport, variant, suite
        left, right = SIDES[mode] if transport != "udp" else ("", "")
        name = transport.upper()
        if transport == "tls":
            name = {"full": "TLS", "mutual": "TLS mutual", "reuse": "TLS reuse", "3des": "TLS 3DES"}[variant]
        ciphers = {"study": STUDY_CIPHERS, "today": CIPHERS}[suite]
        super().__init__(
            f"{mode}, {name}{', auth' if auth else ''}",
            transport + left,
            transport + right,
            # Registered users' contacts are where inbound calls and local ones go.
            routed=mode in ("chain", "outbound"),
            version=version,
            key=key,
            auth=auth,
            mutual=variant == "mutual",
            reuse=variant == "reuse",
            ciphers=OLD_CIPHERS if variant == "3des" else ciphers,
        )

    @property
    def name(self):
        """For files and commands: chain-tls-mutual-auth."""
        variant = [] if self.variant == "full" else [self.variant]
        return "-".join([self.mode, self.transport, *variant, *(["auth"] if self.auth else [])])

    @property
    def needs_old_suites(self):
        return self.variant == "3des"


def report_configurations(**how):
    """The 20 of the report: chain in all transports without and with digest; the other modes as it measured them."""
    chain = [("udp", "full"), ("tcp", "full"), ("tls", "full"), ("tls", "3des")]
    others = [("tcp", "full"), ("tls", "full"), ("tls", "mutual"), ("tls", "reuse")]
    found = [Configuration("chain", transport, auth, variant, **how) for auth in (False, True) for transport, variant in chain]
    return found + [
        Configuration(mode, transport, mode != "inbound", variant, **how)
        for mode in ("outbound", "inbound", "local")
        for transport, variant in others
    ]


# The thesis' six, by the names of its tables: local mode throughout, without digest.
def thesis_configurations(**how):
    return {
        "udp": Configuration("local", "udp", **how),
        # Its "one socket" in local mode is what a chain has on both sides, with registered users.
        "tcp_mono": Case("TCP, one socket", "tcp", "tcp"),
        "tcp_multi": Configuration("local", "tcp", **how),
        "tls_local_client": Configuration("local", "tls", **how),
        "tls_local_client_session_reuse": Configuration("local", "tls", variant="reuse", **how),
        "tls_local_mutual": Configuration("local", "tls", variant="mutual", **how),
    }

"""What perf/RESULTS.md says: sentences to be filled with figures, and the questions that its sections answer."""

from __future__ import annotations

from dataclasses import dataclass

# Each: what it is about, then its clauses. The first must be there.
SENTENCES = [
    (
        "What a call costs over UDP",
        "A call over UDP, from INVITE to BYE, takes **{udp} µs of one core** of this machine through strowger when it is busy",
        ", {floor} times what a bare relay of the same datagrams takes",
        "; Debian's Kamailio, on the same core under the same load, takes {kamailio} µs",
        ".",
    ),
    (
        "Connections that are kept",
        "Where connections are kept open, a call **over TLS 1.3 costs {tls_chain} times** what it costs over UDP",
        ", and over TCP {tcp} times",
        " (two studies of OpenSIPS found {tls_chain_2010} and {tcp_2010} in 2010, and {tcp_2012} for TCP in 2012)",
        ".",
    ),
    (
        "A TLS handshake for each call",
        "A TLS connection for each call makes it **{left_13} times** as dear as over UDP on the callers' side with TLS 1.3 and "
        "P-256",
        ", {left_12} times with TLS 1.2 and RSA-2048",
        ", {local} times with RSA on both sides (2010: {local_2010}; 2012: {local_2012})",
        "; of the last, {memory_share} % are the two handshakes themselves, as they cost in memory",
        ".",
    ),
    (
        "Mutual authentication and session reuse",
        "If both sides of each handshake show a certificate, such a call costs **{mutual} times** as much "
        "(2010: {mutual_2010}; 2012: {mutual_2012})",
        ", and if each resumes a session, **{reuse} times** (2010: {reuse_2010}; 2012: {reuse_2012})",
        ".",
    ),
    (
        "Digest",
        "Digest authentication makes a call over UDP **{digest} times** as dear (2010: {digest_2010}, most of it a database query)",
        ", with SHA-256 {sha256} times",
        ", and a registration {register} times (2012: {register_2012})",
        ".",
    ),
    (
        "Targets",
        "Of {targets} targets {met} are met, {not_met} are not, and {not_decided} could not be decided in the time that was given",
        "; not met: {not_met_names}",
        ". [The end](#what-is-not-met) says why.",
    ),
]


@dataclass(frozen=True)
class Section:
    """A question, the figures that answer it first, and what one must know to read them. `figures`: those to be shown before
    others of the same reports."""

    question: str
    reports: tuple[str, ...]
    text: tuple[str, ...]
    figures: tuple[str, ...] = ()


SECTIONS = [
    Section(
        "What does a call cost, and beside whom?",
        ("compare", "rows", "udp", "streams"),
        (
            "A *call* is INVITE, 100, 180, 200, ACK, BYE, 200 through a proxy that stays in its path. The *floor* is a relay that "
            "receives and sends as many messages of the same size and reads none of them: no server can be below it. *Busy* means "
            "that 48 calls are always outstanding, so that the server never sleeps: it is the cost of one more call.",
            " A call challenged by digest costs {digest_us} µs, one with a TCP connection of its own on the callers' side "
            "{tcp_left_us} µs.",
        ),
        ("compare",),
    ),
    Section(
        "What does security cost in 2026, beside 2010 and 2012?",
        ("security",),
        (
            "The unit is a call of the same server over UDP, so that a factor can be carried to another machine and another year. "
            "*Kept open*: a connection for all calls; *each call*: one for each, on the callers' side or on both; *mutual*: both "
            "sides show a certificate; *resumed*: a session in place of a whole handshake.",
            " What a handshake costs is the TLS library's matter, then as now, and the rest of a call has become cheap beside it: "
            "connections that are kept cost {tls_chain} calls over UDP where it was {tls_chain_2010}, new ones on both sides "
            "{local} where it was {local_2010}.",
            " Key exchange that withstands a quantum computer (X25519MLKEM768, which TLS 1.3 has here by default) makes such a "
            "call {hybrid} times as dear as X25519 alone.",
            " An intermediate certificate on both sides makes a mutual call {chain} times as dear.",
        ),
        ("security",),
    ),
    Section(
        "Do the studies' results come again?",
        ("reproduce-modes", "reproduce-proxy", "reproduce-registrar"),
        (
            "*The report* (Shen, Nahum, Schulzrinne, Wright, 2010) and *the thesis* (Maguluri, 2012) measured OpenSIPS on one "
            "core. *Chain* has one connection on each side, *outbound* one for each call on the callers' side, *inbound* on the "
            "answerers', *local* on both. *Peak* is the highest rate at which at most 4 % of the calls fail. Published values are "
            "hatched or dashed.",
        ),
        ("reproduce-modes-peaks", "reproduce-proxy-peaks", "reproduce-registrar-degradation"),
    ),
    Section(
        "Where does the CPU go?",
        ("profile",),
        ("Samples of the CPU, each counted as one of the report's components.",),
        ("profile-costs", "profile-thesis"),
    ),
    Section(
        "Can the cost of a load be foretold?",
        ("model",),
        (
            "A model of the report's components is fitted to chain, outbound and inbound mode; local mode is foretold by it, never "
            "fitted. `perf/model predict` says what a load will take.",
            " It errs by {model_error} % over the report's configurations",
            ", and by {model_local} % over local mode alone.",
        ),
        ("model-predicted", "model-components"),
    ),
    Section(
        "Does it cost more beside many others?",
        ("scale", "memory"),
        (
            "Calls beside many idle connections, bindings and users: what must not grow with a table, and the bytes of each entry.",
            " A call beside the most idle TCP connections costs {beside_tcp} times what it costs beside none.",
            " A challenged REGISTER among the most users costs {among_users} times what it costs among the fewest.",
            " An idle TCP connection takes {idle_tcp} bytes.",
        ),
        ("scale-idle", "scale-users", "memory"),
    ),
    Section(
        "What is left when more is asked than can be done?",
        ("overload",),
        (
            "Calls leave on a schedule that nothing moves. *Goodput*: those of them that are done within their time.",
            " At three times the peak {goodput_udp} of it is left over UDP",
            ", and {goodput_tls} with a TLS handshake for each call.",
        ),
        ("overload",),
    ),
    Section(
        "Is the generator to be believed?",
        ("second-opinion",),
        (
            "The same server under SIPp and under our load generator, at equal rates, in SIPp's time.",
            " The server's CPU for a call is {sipp} times what SIPp finds.",
        ),
    ),
]
LOCAL = "TLS 1.2, both sides, RSA-2048"
# Figures of perf/security in calls over UDP, with the studies' of the same (NAME_2010, NAME_2012), by the labels of its table.
WAYS = {
    "tcp": "TCP, kept open",
    "tls_chain": "TLS 1.3, kept open",
    "digest": "digest, MD5, UDP",
    "sha256": "digest, SHA-256, UDP",
    "left_13": "TLS 1.3, each call, P-256",
    "left_12": "TLS 1.2, each call, RSA-2048",
    "local": LOCAL,
}
# The cost of one of them ÷ that of another.
STEPS = {
    "mutual": (LOCAL + ", mutual", LOCAL),
    "reuse": (LOCAL + ", resumed", LOCAL),
    "hybrid": ("TLS 1.3, each call, P-256, X25519MLKEM768", "TLS 1.3, each call, P-256, X25519"),
    "chain": ("TLS 1.3, each call, P-256, mutual, chain of three", "TLS 1.3, each call, P-256, mutual"),
}
# Figures that are rows': the row, and a part of what it says.
ROWS = {
    "model_error": ("C1", "configurations"),
    "model_local": ("C1", "local mode"),
    "beside_tcp": ("I1", "idle TCP connections"),
    "among_users": ("A2", "REGISTER"),
    "idle_tcp": ("M1", "TCP"),
    "goodput_udp": ("O1", "3 × the peak ÷ the peak, UDP"),
    "goodput_tls": ("O1", "3 × the peak ÷ the peak, TLS"),
    "sipp": ("G2", "SIPp"),
}
# The faults that the report found in its servers, how it is here, and the rows that show it.
FAULTS = [
    ("The idle sweep walked all connections on every wake-up: half of TCP's CPU", "once a tick, only what has expired", "I1"),
    ("`SSL_connect` on the wrong event, 44 times for one connection", "called when bytes have come", "S6"),
    (
        "A nonce index that ran out after 100,000 entries",
        "no index: a nonce is a time, a realm and a keyed MAC (`cargo test --profile checked --lib ten_million`)",
        "",
    ),
    ("A database query for each authentication", "users are in memory", "A2"),
    ("No session reuse, mutual authentication or connection for each call as a client", "all three, measured above", "S4"),
    ("More worker processes than cores", "one pinned worker for each core", "K1"),
]

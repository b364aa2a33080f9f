"""Who is measured: strowger, Kamailio, the floor. Each is started for a case from a conf made for it, on the ports of the bench."""

import glob
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import ADDRESSES, REALM, Case
from machine import Process, tcp_port_listens, udp_port_is_bound
from report import PERF

Conf = dict[str, Any]


def toml(conf: Conf) -> str:
    """Tables of values, and lists of tables."""
    out = []
    for name, section in conf.items():
        for table in section if isinstance(section, list) else [section]:
            out.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            # TOML's strings, lists, numbers and booleans are JSON's.
            out += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
            out.append("")
    return "\n".join(out)


def strowger_conf(case: Case, bench: Any) -> Conf:
    """Stateful proxy and registrar that stays in the path, as Kamailio's conf is; digest, TLS and the next hop as the case says."""
    conf: Conf = {
        "server": {"cores": list(case.cores), "domains": [bench.host]},
        "listen": [{"transport": "udp", "address": bench.at(bench.port)}],
        "proxy": {"mode": "stateful", "record_route": True},
        "registrar": {"max_contacts": 1, "database": ""},
        # Kamailio's wt_timer.
        "timers": {"linger": "1s"},
        "control": {"socket": os.path.join(bench.home, "strowger.sock")},
        "log": {"level": "error"},
    }
    if case.transports != ("udp", "udp"):
        conf["listen"].append({"transport": "tcp", "address": bench.at(bench.port)})
        conf["connections"] = {"outgoing": "per-call" if case.per_call[1] else "reuse", "idle_timeout": "1h"}
    if case.is_tls:
        conf["listen"].append({"transport": "tls", "address": bench.at(bench.port + 1)})
        conf["tls"] = {
            "certificate": [bench.certificate(case.key, "pem")],
            "private_key": [bench.certificate(case.key, "key")],
            "trusted_ca": bench.certificate("ca", "pem"),
            "verify_client": "required" if case.mutual else "no",
            "verify_server": True,
            "min_version": case.version,
            "max_version": case.version,
            # The suites of TLS 1.3 are not chosen with this key, and the conf may not say what does nothing.
            "ciphers": "" if case.version == "1.3" else case.suite,
            **({"groups": [case.group]} if case.group else {}),
            "server_session_reuse": case.reuse,
            "client_session_reuse": case.reuse,
        }
    if case.routed:
        conf["route"] = [{"methods": ["INVITE"], "action": "relay", "target": [bench.next_hop(case.transports[1])]}]
    if case.auth:
        algorithm = {"md5": "MD5", "sha-256": "SHA-256"}[case.algorithm]
        challenge = "challenge_register" if case.auth.startswith("register") else "challenge_proxy"
        conf["auth"] = {"realm": REALM, challenge: True, "algorithms": [algorithm], "users": "users.txt"}
    for name, section in case.conf.items():
        conf[name] = {**conf.get(name, {}), **section}
    return conf


def strowger(case: Case, bench: Any, binary: Path) -> list[str]:
    conf = Path(bench.home, "strowger.toml")
    conf.write_text(toml(strowger_conf(case, bench)))
    if case.auth:
        bench.write_users(case)
    return [str(binary), "run", "-c", str(conf)]


def kamailio(case: Case, bench: Any) -> list[str]:
    binary = shutil.which("kamailio") or "/usr/sbin/kamailio"
    modules = glob.glob("/usr/lib/*/kamailio/modules")
    if not os.path.exists(binary) or not modules:
        raise RuntimeError("Kamailio is not installed")
    if case.algorithm != "md5" or case.nonce == "kept" or case.conf or case.cores != (0,):
        raise RuntimeError(f"the conf of Kamailio cannot do {case.label}")
    conf = Path(bench.home, "kamailio.cfg")
    text = (PERF / "peers" / "kamailio.cfg").read_text()
    conf.write_text(text.replace("127.0.0.1:5060", bench.at(bench.port)).replace("127.0.0.1:5061", bench.at(bench.port + 1)))
    command = [binary, "-f", str(conf), "-L", modules[0], "-DD", "-m", "2048", "-M", "64", "-w", bench.home, "-Y", bench.home]
    defines = []
    if case.transports != ("udp", "udp"):
        defines.append("WITH_TCP")
    if case.is_tls:
        tls = Path(bench.home, "tls.cfg")
        verify = "yes" if case.mutual else "no"
        values = {"CIPHERS": case.suite, "VERIFY_CLIENT": verify, "CA": bench.certificate("ca", "pem")}
        values |= {"CERTIFICATE": bench.certificate(case.key, "pem"), "PRIVATE_KEY": bench.certificate(case.key, "key")}
        filled = (PERF / "peers" / "kamailio-tls.cfg.in").read_text()
        for name, value in values.items():
            filled = filled.replace(f"@{name}@", value)
        tls.write_text(filled)
        defines += ["WITH_TLS", f'TLSCFG="{tls}"']
    if case.routed:
        defines.append(f'NEXTHOP="{bench.next_hop(case.transports[1])}"')
    if case.auth:
        defines.append("AUTH_REG" if case.auth.startswith("register") else "AUTH_INVITE")
    return command + [word for define in defines for word in ("-A", define)]


def floor(case: Case, bench: Any) -> list[str]:
    """The bare relay of the same path, which accepts and opens connections as often as the server. As a stateless proxy it sends no
    100. TLS has no floor of its own: what is added to that over TCP is the handshakes'."""
    if case.is_tls:
        raise RuntimeError(f"there is no floor over TLS ({case.label}): that over TCP is beside it, and handshakes in memory")
    command = [str(bench.load), "relay", "--listen", bench.at(bench.port), *bench.generator_ports()]
    if "tcp" in case.transports:
        left, right = case.transports
        command += ["--transport", left, "--callee-transport", right]
        if right == "tcp":
            command += ["--answerers", "per-call", "--spread", str(ADDRESSES)] if case.per_call[1] else ["--answerers", "one"]
    return command + (["--no-trying"] if case.conf.get("proxy", {}).get("mode") == "stateless" else [])


def start(who: str, case: Case, bench: Any) -> Process:
    """Starts who is to be measured, and waits until it listens."""
    makers: dict[str, Callable[[], list[str]]] = {"kamailio": lambda: kamailio(case, bench), "floor": lambda: floor(case, bench)}
    command = makers[who]() if who in makers else strowger(case, bench, bench.binary(who, case))
    tcp_ports = [bench.port] * (case.transports != ("udp", "udp")) + [bench.port + 1] * case.is_tls
    for port in [bench.port, bench.port + 1, *bench.own_ports()]:
        if udp_port_is_bound(port, bench.address) or tcp_port_listens(port, bench.address):
            raise RuntimeError(f"port {port} of {bench.address} is taken by another process (--port chooses others)")
    process = Process(command, case.cores[0] if len(case.cores) == 1 else None, bench.home, os.path.join(bench.home, f"{who}.log"))
    try:
        process.wait_ready(bench.port, tcp_ports, address=bench.address)
    except BaseException as why:
        process.stop()
        if isinstance(why, RuntimeError):
            raise RuntimeError(f"{who}: {why}") from why
        raise
    return process

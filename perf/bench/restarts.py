"""perf/restart: restarts under load. Calls over UDP and calls over TLS, a connection for each, go on while the server is restarted
again and again; what fails, is lost, refused or sent again is counted, and how long each pause was."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import servers
from bench import CORE, Bench, main
from cases import Case
from cluster import wait
from machine import Process
from report import Report
from samples import Estimate, Quantity, Result, Row, Samples, single
from study import Plan, Task

# Of one run, and the seconds that each may take.
RESTARTS, INTERVAL = 10, 8
# Calls a second of each kind: over UDP to registered users, over TLS to a next hop by the host of their URI.
KINDS = {"calls over UDP": 2_000, "calls over TLS, a connection each": 200}
TLS = Case("tls/call", "udp", version="1.3", key="ec", reuse=True)
TLS_HOST, TLS_PORTS = "tls.example", (11_010, 11_510)
# Calls that could not begin, or ended in something other than their 200s.
FAILED = ("refused", "timed_out", "wrong", "cut_off", "skipped", "connections_broken", "tls_client_failed")
# Seconds that the predecessor of a restart may take to end: it remembers transactions for two.
PARTING = 60


def conf(bench: Bench) -> servers.Conf:
    found = servers.strowger_conf(TLS, bench)
    target = f"sip:{bench.at(bench.port + TLS_PORTS[1])}"
    return found | {"route": [{"to_host": TLS_HOST, "action": "relay", "target": [target]}]}


def control(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(bench.strowger), *words, "--control", os.path.join(bench.home, "strowger.sock")]
    return subprocess.run(command, capture_output=True, text=True)


def generate(bench: Bench, kind: str, seconds: float) -> tuple[subprocess.Popen, Path]:
    output = Path(bench.home, f"{kind}.json")
    output.unlink(missing_ok=True)
    command = ["taskset", "-c", str(CORE), bench.load, "call", "--json", output, "--wait", "sleep", "--rate", KINDS[kind]]
    command += ["--settle", 1, "--duration", seconds, "--callee-server", bench.at(bench.port)]
    if kind == "calls over UDP":
        command += ["--server", bench.at(bench.port), *bench.generator_ports(), "--register-first"]
    else:
        caller, answerer = (bench.port + port for port in TLS_PORTS)
        command += ["--server", bench.at(bench.port + 1), "--caller-port", caller, "--answerer-port", answerer]
        command += ["--domain", TLS_HOST, "--routed", "--transport", "tls", "--connections", "per-call", "--resume"]
        command += ["--callee-transport", "udp"]
    with open(Path(bench.home, f"{kind}.log"), "wb") as log:
        return subprocess.Popen([str(word) for word in command], stdout=log, stderr=log), output


def restart(bench: Bench, end: float) -> dict[str, list[Any]]:
    """Again and again, each when the predecessor of the last one has gone: the pauses in ms, and what was refused."""
    found: dict[str, list[Any]] = {"pauses_ms": [], "refused": []}

    def is_alone() -> bool:
        done = control(bench, "stats", "strowger_predecessor", "--json")
        return done.returncode == 0 and not json.loads(done.stdout).get("strowger_predecessor", 0)

    for _ in range(RESTARTS):
        if time.monotonic() > end:
            break
        wait(is_alone, PARTING, "a predecessor does not end", 0.25)
        done = control(bench, "restart", "--deadline", "30")
        pause = re.search(r"pause of ([0-9.]+) ms", done.stdout)
        found["pauses_ms" if pause else "refused"].append(float(pause[1]) if pause else done.stderr.strip())
    return found


def measure(bench: Bench) -> dict[str, Result]:
    path = Path(bench.home, "strowger.toml")
    path.write_text(servers.toml(conf(bench)))
    process = Process([str(bench.strowger), "run", "-c", str(path)], 0, bench.home, os.path.join(bench.home, "strowger.log"))
    # The process that is started here ends with the first restart; its successors are in its group, and are stopped with it.
    children: list[subprocess.Popen] = []
    try:
        process.wait_ready(bench.port, [bench.port, bench.port + 1], address=bench.address)
        seconds = 10 + RESTARTS * INTERVAL
        runs = {kind: generate(bench, kind, seconds) for kind in KINDS}
        children = [child for child, _ in runs.values()]
        time.sleep(5)
        restarts = restart(bench, time.monotonic() + seconds - 10)
        found: dict[str, Result] = {}
        for kind, (child, output) in runs.items():
            child.wait(seconds + 60)
            if not output.exists():
                raise RuntimeError(f"the generator of the {kind} has failed")
            found[kind] = counted(json.loads(output.read_text())[0])
    finally:
        for child in children:
            child.kill()
        process.stop()
    pauses = restarts["pauses_ms"]
    # The calls are not asked to be clean: what is not is what is counted.
    failed = sum(result["failed"] for result in found.values()) + len(restarts["refused"])
    return found | {"restarts": {**restarts, "restarts": len(pauses), "failed": failed, "clean": bool(pauses)}}


def counted(result: Result) -> Result:
    counts: Mapping[str, int] = result["counts"]
    failed = sum(counts.get(name, 0) for name in FAILED)
    repeated = sum(count for name, count in counts.items() if name.startswith("retransmitted"))
    return {**result, "failed": failed, "repeated": repeated}


class Never(Row):
    """Of what may never happen: all that did, in all runs. A median would hide it."""

    def estimate(self, samples: Samples) -> Estimate | None:
        values = [float(sum(samples.values(quantity.key, quantity.path))) for quantity in self.of.values()]
        runs = min(len(samples.of(quantity.key)) for quantity in self.of.values())
        clean = all(samples.is_clean(quantity.key) for quantity in self.of.values())
        return Estimate(sum(values), sum(values), sum(values), runs, clean) if runs else None


def plan(options: argparse.Namespace) -> Plan:
    keys = [*KINDS, "restarts"]
    row = Never(
        "X7",
        f"calls that failed and restarts that were refused, {RESTARTS} restarts a run",
        0,
        {"it": Quantity("restarts", "failed")},
    )
    task = Task("restarts", keys, measure, seconds=20 + RESTARTS * INTERVAL, least=10)
    return Plan("restart", "Restarts under load", [task], [row], tell)


def tell(report: Report, samples: Samples) -> None:
    paths = ("counts.completed", "failed", "repeated", "server_drops", "generator_drops")
    head = ["of one run", "completed", "failed", "messages repeated", "datagrams dropped at the server", "at the generator"]
    lines = [[kind, *(single(samples, kind, path) for path in paths)] for kind in KINDS if samples.of(kind)]
    report.table("What came of the calls", head, lines)
    pauses = [pause for result in samples.of("restarts") for pause in result["pauses_ms"]]
    refused = sum(len(result["refused"]) for result in samples.of("restarts"))
    if pauses:
        shares = [f"{numpy.quantile(pauses, share):.1f}" for share in (0.5, 0.9, 1)]
        report.table("Pauses, ms", ["restarts", "refused", "p50", "p90", "longest"], [[len(pauses), refused, *shares]])


if __name__ == "__main__":
    main("restart", __doc__, 20, plan)

"""How quiet the machine is: measured between any two runs, in a fraction of a second. A run beside which something else had the
cores, or in which they were slower than usual, is taken again."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from samples import FAR

SPIN_SECONDS = 0.04
DATAGRAMS = 200
# A pause of the spinning that long is somebody else's.
GAP_NS = 200_000
# What a calm machine stays below: the share of the spinning lost in gaps; the share stolen from the machine; how much slower it
# spins, and how much longer a datagram takes, than is usual in this run.
MOST_GAPS = 0.04
MOST_STEAL = 0.02
SLOWER = 1.25
SLOWER_DATAGRAM = 1.35
# So many readings are needed before a slower one can be told.
USUAL_OF = 5


class Reading(NamedTuple):
    gaps: float
    turns_per_us: float
    datagram_us: float
    steal: float

    def why_not_calm(self, usual: Reading | None) -> str | None:
        if self.gaps > MOST_GAPS:
            return f"{100 * self.gaps:.0f} % of the gauge's time went elsewhere"
        if self.steal > MOST_STEAL:
            return f"{100 * self.steal:.0f} % of the time was stolen from the machine"
        if usual and self.turns_per_us * SLOWER < usual.turns_per_us:
            return f"the core was {usual.turns_per_us / self.turns_per_us:.2f} times slower than usual"
        if usual and self.datagram_us > SLOWER_DATAGRAM * usual.datagram_us:
            return f"a datagram to itself took {self.datagram_us:.1f} µs where {usual.datagram_us:.1f} are usual"
        return None


class Gauge:
    """Its readings so far; `read` takes another, and says whether the time since the last one was calm."""

    def __init__(self, load: Path | None = None, cores: tuple[int, ...] = (0, 1)) -> None:
        self.load, self.distance_ns = load, None
        self.cores = [core for core in cores if core in os.sched_getaffinity(0)]
        self.readings: list[Reading] = []
        self.stolen = steal_jiffies()

    def usual(self) -> Reading | None:
        if len(self.readings) < USUAL_OF:
            return None
        return Reading(*(statistics.median(values) for values in zip(*self.readings)))

    def read(self) -> str | None:
        """Why the machine is not calm; None if it is."""
        before, self.stolen = self.stolen, steal_jiffies()
        all_jiffies = max(1, self.stolen[1] - before[1])
        steal = (self.stolen[0] - before[0]) / all_jiffies
        own = os.sched_getaffinity(0)
        whys = []
        try:
            for core in self.cores:
                os.sched_setaffinity(0, {core})
                reading = Reading(*spin(), datagram_us(), steal)
                whys.append(reading.why_not_calm(self.usual()))
                self.readings.append(reading)
        finally:
            os.sched_setaffinity(0, own)
        return next(filter(None, whys), None)

    def distance(self) -> tuple[float | None, str | None]:
        """How far the two cores are apart, and why it is not what it was when this was last asked: a host may move the cores of a
        virtual machine, and then what one writes and the other reads costs several times as much or as little."""
        if self.load is None:
            return None, None
        done = subprocess.run([self.load, "distance"], capture_output=True, text=True)
        before, now = self.distance_ns, json.loads(done.stdout)["round_trip_ns"] if done.returncode == 0 else None
        self.distance_ns = now
        if before and now and max(before, now) > FAR * min(before, now):
            return None, f"the host moved the cores: {before} ns from one to the other and back, then {now}"
        return now, None

    def summary(self) -> dict[str, dict[str, float]]:
        """Lowest, median and highest of each figure, for the report."""
        columns = dict(zip(Reading._fields, zip(*self.readings)))
        return {
            name: {"low": min(values), "median": statistics.median(values), "high": max(values)} for name, values in columns.items()
        }


def spin() -> tuple[float, float]:
    """Looks at the clock for a while: the share of the time lost in gaps, and how often it looked in a µs of the rest."""
    begin = last = time.perf_counter_ns()
    end, turns, lost = begin + int(SPIN_SECONDS * 1e9), 0, 0
    while last < end:
        now = time.perf_counter_ns()
        if now - last > GAP_NS:
            lost += now - last
        last = now
        turns += 1
    spent = last - begin
    return lost / spent, 1_000 * turns / max(1, spent - lost)


def datagram_us() -> float:
    """The median of how long a bare datagram to oneself takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.settimeout(1)
        address, times = own.getsockname(), []
        for _ in range(DATAGRAMS):
            begin = time.perf_counter_ns()
            own.sendto(b"x" * 500, address)
            own.recv(1_000)
            times.append(time.perf_counter_ns() - begin)
    return statistics.median(times) / 1_000


def steal_jiffies() -> tuple[int, int]:
    """Stolen from this machine since it started, and all that went by, over all cores."""
    with open("/proc/stat") as text:
        fields = [int(field) for field in text.readline().split()[1:9]]
    return fields[7], sum(fields)

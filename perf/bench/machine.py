"""The machine that is measured: its name, its cores, its ports, and processes pinned to a core."""

import contextlib
import ipaddress
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def describe() -> str:
    """One line that names the machine, since absolute figures mean nothing without it."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    return f"{model[1].strip() if model else 'unknown CPU'}, {cores} cores, Linux {platform.release()}"


def load_average() -> float:
    return os.getloadavg()[0]


def in_tables(address: str) -> tuple[str, str, str]:
    """How the kernel's tables write an address, and any address: another of 127/8 does not disturb us."""
    packed = ipaddress.ip_address(address).packed
    own = "".join(f"{word:08X}" for (word,) in struct.iter_unpack("<I" if sys.byteorder == "little" else ">I", packed))
    return own, "0" * 8, "0" * 32


def is_taken(protocol: str, port: int, address: str, states: str = "") -> bool:
    """Whether a socket of this protocol has the port, in this state if one is named."""
    for table in (Path("/proc/net", protocol), Path("/proc/net", f"{protocol}6")):
        for fields in map(str.split, table.read_text().splitlines()[1:] if table.exists() else []):
            host, bound = fields[1].rsplit(":", 1)
            if int(bound, 16) == port and host in in_tables(address) and fields[3] in (states or fields[3]):
                return True
    return False


def udp_port_is_bound(port: int, address: str = "127.0.0.1") -> bool:
    return is_taken("udp", port, address)


def tcp_port_listens(port: int, address: str = "127.0.0.1") -> bool:
    return is_taken("tcp", port, address, "0A")


def run(*command: object, ok: Sequence[int] = (0,), **how: Any) -> str:
    """The output of a program; if it fails, an error with the last that it said."""
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, **how)
    if done.returncode not in ok:
        raise RuntimeError(f"{' '.join(words)[:200]} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout


def cpu_ns(pids: Iterable[int]) -> tuple[int, int]:
    """Run and wait time of all threads of these processes, from the scheduler's account."""
    run = wait = 0
    for path in (path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")):
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            fields = path.read_text().split()
            run, wait = run + int(fields[0]), wait + int(fields[1])
    return run, wait


class Process:
    """A server under test: started pinned, ended by its own id, with everything it started."""

    def __init__(self, command: Sequence[str], core: int | None, directory: str, log: str) -> None:
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        self.log = open(log, "wb")
        # A session of its own: what it leaves behind is in its group and in no other.
        self.child = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.pid = self.child.pid

    def wait_ready(self, port: int, tcp_ports: Sequence[int] = (), seconds: float = 15, address: str = "127.0.0.1") -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise RuntimeError(f"it ended with {self.child.returncode}; {self.said()}")
            if udp_port_is_bound(port, address) and all(tcp_port_listens(each, address) for each in tcp_ports):
                time.sleep(0.2)
                return
            time.sleep(0.05)
        self.stop()
        named = "".join(f" and TCP port {port}" for port in tcp_ports)
        raise RuntimeError(f"it did not listen on UDP port {port}{named} within {seconds} s; {self.said()}")

    def said(self) -> str:
        """The end of its log, which may be gone with its folder before anybody can look."""
        return f"its log ends: {Path(self.log.name).read_text(errors='replace')[-1000:].strip() or 'it is empty'}"

    def pids(self) -> list[int]:
        """All its processes."""
        found = []
        for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
            with contextlib.suppress(ProcessLookupError):
                found += [pid] if os.getpgid(pid) == self.pid else []
        return found

    def cpu_seconds(self) -> float:
        return cpu_ns(self.pids())[0] / 1e9

    def memory(self) -> int:
        """Bytes that are its own, all its processes together; what they share is divided among those that share it."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += sum(1024 * int(size) for size in re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE))
        return total

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.log.close()

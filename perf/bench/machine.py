"""The machine that is measured: its name, its cores, its ports, and processes pinned to a core."""

import glob
import ipaddress
import os
import platform
import signal
import struct
import subprocess
import sys
import time


def describe():
    """One line that names the machine, since absolute figures mean nothing without it."""
    model = "unknown CPU"
    with open("/proc/cpuinfo") as text:
        for line in text:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, Linux {platform.release()}"


def load_average():
    return os.getloadavg()[0]


def in_tables(address):
    """How the kernel's tables write an address, and any address: another of 127/8 does not disturb us."""
    packed = ipaddress.ip_address(address).packed
    own = "".join(f"{word:08X}" for (word,) in struct.iter_unpack("<I" if sys.byteorder == "little" else ">I", packed))
    return own, "0" * 8, "0" * 32


def is_taken(tables, port, state=None, address="127.0.0.1"):
    here = in_tables(address)
    for path in tables:
        try:
            with open(path) as table:
                next(table)
                for line in table:
                    fields = line.split()
                    host, bound = fields[1].rsplit(":", 1)
                    if int(bound, 16) == port and host in here and state in (None, fields[3]):
                        return True
        except FileNotFoundError:
            pass
    return False


def udp_port_is_bound(port, address="127.0.0.1"):
    return is_taken(("/proc/net/udp", "/proc/net/udp6"), port, None, address)


def tcp_port_listens(port, address="127.0.0.1"):
    return is_taken(("/proc/net/tcp", "/proc/net/tcp6"), port, "0A", address)


class Process:
    """A server under test: started pinned, ended by its own id, with everything it started."""

    def __init__(self, command, core, directory, log):
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        self.log = open(log, "wb")
        # A session of its own: what it leaves behind is in its group and in no other.
        self.child = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.pid = self.child.pid

    def wait_ready(self, port, tcp_ports=(), seconds=15, address="127.0.0.1"):
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

    def said(self):
        """The end of its log, which may be gone with its folder before anybody can look."""
        with open(self.log.name, errors="replace") as text:
            return f"its log ends: {text.read()[-1000:].strip() or 'it is empty'}"

    def cpu_seconds(self):
        """Of all its processes and threads."""
        total = 0
        for path in glob.glob("/proc/[0-9]*"):
            try:
                if os.getpgid(int(path[len("/proc/") :])) != self.pid:
                    continue
                for task in glob.glob(path + "/task/*/schedstat"):
                    with open(task) as text:
                        total += int(text.read().split()[0])
            except (OSError, ValueError, IndexError):
                # It has ended meanwhile.
                pass
        return total / 1e9

    def memory(self):
        """Bytes that are its own, all its processes together; what they share is divided among those that share it."""
        total = 0
        for path in glob.glob("/proc/[0-9]*"):
            try:
                if os.getpgid(int(path[len("/proc/") :])) == self.pid:
                    with open(path + "/smaps_rollup") as text:
                        total += sum(1024 * int(line.split()[1]) for line in text if line.startswith("Pss:"))
            except (OSError, ValueError):
                # It has ended meanwhile.
                pass
        return total

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.log.close()

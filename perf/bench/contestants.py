"""Who is measured: the floor, strowger, Kamailio. Each starts on 127.0.0.1:5060 and nothing else is there."""

import glob
import os
import shutil

from machine import Process, tcp_port_listens, udp_port_is_bound

PORT = 5060
PERF = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Contestant:
    """`floor` tells the generator that no proxy stands between its two ends. `conf` is copied into the folder of the run: what it
    names by relative paths is there."""

    def __init__(self, name, command, core=0, floor=False, tcp_ports=(), conf=None):
        self.name, self.command, self.core, self.floor = name, command, core, floor
        self.tcp_ports, self.conf = tcp_ports, conf

    def start(self, directory):
        if udp_port_is_bound(PORT):
            raise RuntimeError(f"UDP port {PORT} is taken by another process")
        for port in self.tcp_ports:
            if tcp_port_listens(port):
                raise RuntimeError(f"TCP port {port} is taken by another process")
        if self.conf:
            shutil.copy(self.conf, directory)
        process = Process(self.command, self.core, directory, os.path.join(directory, f"{self.name}.log"))
        process.wait_ready(PORT, self.tcp_ports)
        return process


def floor(generator, sockets=1, stateless=False):
    command = [generator, "relay", "--sockets", str(sockets)]
    if stateless:
        command.append("--no-trying")
    return Contestant("floor-stateless" if stateless else "floor", command, floor=True)


def strowger(binary, conf="udp.toml", cores=1):
    name = "strowger" if conf == "udp.toml" else "strowger-" + conf[len("udp-") : -len(".toml")]
    command = [binary, "run", "-c", conf]
    return Contestant(name, command, core=0 if cores == 1 else None, conf=os.path.join(PERF, "conf", conf))


def kamailio(directory, defines=(), tcp_ports=()):
    binary = shutil.which("kamailio") or "/usr/sbin/kamailio"
    modules = glob.glob("/usr/lib/*/kamailio/modules")
    if not os.path.exists(binary) or not modules:
        raise RuntimeError("Kamailio is not installed")
    command = [
        binary,
        "-f",
        os.path.join(PERF, "peers", "kamailio.cfg"),
        "-L",
        modules[0],
        "-DD",
        "-m",
        "2048",
        "-M",
        "64",
        "-w",
        directory,
        "-Y",
        directory,
    ]
    for define in defines:
        command += ["-A", define]
    return Contestant("kamailio", command, tcp_ports=tcp_ports)


TLS_PORT = 5061
STREAM_PORTS = (PORT, TLS_PORT)


def strowger_streams(binary, directory, values):
    """`values` fill the holes of conf/streams.toml.in."""
    conf = os.path.join(directory, "streams.toml")
    fill(os.path.join(PERF, "conf", "streams.toml.in"), conf, values)
    return Contestant("strowger", [binary, "run", "-c", conf], tcp_ports=STREAM_PORTS)


def kamailio_streams(directory, values, next_hop=None, defines=()):
    conf = os.path.join(directory, "tls.cfg")
    fill(os.path.join(PERF, "peers", "kamailio-tls.cfg.in"), conf, values)
    defines = ["WITH_TCP", "WITH_TLS", f'TLSCFG="{conf}"', *defines]
    if next_hop:
        defines.append(f'NEXTHOP="{next_hop}"')
    return kamailio(directory, defines, STREAM_PORTS)


def fill(template, path, values):
    with open(template) as text:
        filled = text.read()
    for name, value in values.items():
        filled = filled.replace(f"@{name}@", value)
    with open(path, "w") as text:
        text.write(filled)

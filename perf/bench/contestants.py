"""Who is measured: the floor, strowger, Kamailio. Each starts on 127.0.0.1:5060 and nothing else is there."""

import glob
import os
import shutil

from machine import Process, udp_port_is_bound

PORT = 5060
PERF = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Contestant:
    """`floor` tells the generator that no proxy stands between its two ends."""

    def __init__(self, name, command, core=0, floor=False):
        self.name, self.command, self.core, self.floor = name, command, core, floor

    def start(self, directory):
        if udp_port_is_bound(PORT):
            raise RuntimeError(f"UDP port {PORT} is taken by another process")
        process = Process(self.command, self.core, directory,
                          os.path.join(directory, f"{self.name}.log"))
        process.wait_ready(PORT)
        return process


def floor(generator, sockets=1, stateless=False):
    command = [generator, "relay", "--sockets", str(sockets)]
    if stateless:
        command.append("--no-trying")
    return Contestant("floor-stateless" if stateless else "floor", command, floor=True)


def strowger(binary, conf="udp.toml", cores=1):
    name = "strowger" if conf == "udp.toml" else "strowger-" + conf[len("udp-"):-len(".toml")]
    command = [binary, "run", "-c", os.path.join(PERF, "conf", conf)]
    return Contestant(name, command, core=0 if cores == 1 else None)


def kamailio(directory):
    binary = shutil.which("kamailio") or "/usr/sbin/kamailio"
    modules = glob.glob("/usr/lib/*/kamailio/modules")
    if not os.path.exists(binary) or not modules:
        raise RuntimeError("Kamailio is not installed")
    command = [binary, "-f", os.path.join(PERF, "peers", "kamailio.cfg"), "-L", modules[0],
               "-DD", "-m", "2048", "-M", "64", "-w", directory, "-Y", directory]
    return Contestant("kamailio", command)

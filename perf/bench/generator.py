"""Runs strowger-load against a running contestant and returns what it measured."""

import json
import os
import subprocess

CORE = 1
# Brings the relay's datagrams to the mean size of those that a proxy sends and receives.
FLOOR_PAD = {"call": 85, "register": 24, "options": 24}


class Generator:
    def __init__(self, binary, directory, verbose=False):
        self.binary, self.directory, self.verbose = binary, directory, verbose

    def run(self, mode, contestant, process, *options):
        """Returns a list with one result for each load in `options`."""
        output = os.path.join(self.directory, "load.json")
        if os.path.exists(output):
            os.unlink(output)
        command = [
            "taskset",
            "-c",
            str(CORE),
            self.binary,
            mode,
            "--server-pid",
            str(process.pid),
            "--json",
            output,
            *map(str, options),
        ]
        if contestant.floor:
            command += ["--floor", "--pad", str(FLOOR_PAD[mode])]
        done = subprocess.run(command, stderr=None if self.verbose else subprocess.PIPE, text=True)
        # 1: it ran, and something was not clean; the results say what.
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the generator failed against {contestant.name}:\n{done.stderr or ''}")
        with open(output) as text:
            results = json.load(text)
        for result in results:
            result["contestant"] = contestant.name
            result["mode"] = mode
            if done.stderr and not result["clean"]:
                result["generator_said"] = done.stderr[-2000:]
        return results

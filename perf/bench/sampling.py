"""Samples of the server's CPU with `perf record`, and what they say: the function of each, the functions inlined there, and the
stack.

A sample is taken for each millisecond of CPU that the server uses (cpu-clock: these machines have no hardware counters). Shares are
counted from a recording without stacks, which costs the server least; the flame graph is drawn from another, shorter one with 8 KiB
of the stack copied into each sample and unwound by the DWARF tables afterwards, since the release build keeps no frame pointers."""

import collections
import os
import re
import subprocess

import components
from generator import CORE

FREQUENCY = 999
# From the loop's turn to the innermost function of TLS: what is cut off all the same is counted.
STACK_BYTES = 8_192
# Where our stacks begin: what lies outside of it is the start of a thread, the same for all.
ROOT = re.compile(r"strowger::worker::Worker<.*>::tick$")


class Sample(collections.namedtuple("Sample", "thread frames")):
    """`frames`: (place, symbol, file), innermost first. The place is the offset in the file, or an address in the kernel."""


def family(pid):
    """A process and all that it has started."""
    found = [pid]
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as text:
                for child in text.read().split():
                    found += family(int(child))
        except FileNotFoundError:
            pass
    return found


def record(pid, seconds, path, stacks=False):
    """Samples a process and its children for so long. perf itself runs beside the generator."""
    command = [
        "taskset",
        "-c",
        str(CORE),
        "perf",
        "record",
        "--quiet",
        "--no-buildid-cache",
        "-e",
        "cpu-clock",
        "-F",
        str(FREQUENCY),
        *(["--call-graph", f"dwarf,{STACK_BYTES}"] if stacks else []),
        "-p",
        ",".join(map(str, family(pid))),
        "-o",
        path,
        "--",
        "sleep",
        f"{seconds:.2f}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"perf record failed: {done.stderr.strip()[-500:]}")


def read(path):
    """The samples of a recording."""
    done = subprocess.run(
        ["perf", "script", "--no-inline", "--show-mmap-events", "-i", path, "-F", "comm,ip,sym,dso"], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"perf script failed: {done.stderr.strip()[-500:]}")
    return parse(done.stdout)


FRAME = re.compile(r"\s*([0-9a-f]+) (.*) \(([^()]*(?:\([^()]*\))?)\)\s*$")
# A sample without a stack: the thread, whose name may have spaces in it, and the frame.
LONE = re.compile(r"\s*(.*?)\s+([0-9a-f]{6,16} .* \(.*\))\s*$")
MAPPED = re.compile(r".*PERF_RECORD_MMAP2? -?\d+/\d+: \[0x([0-9a-f]+)\(0x([0-9a-f]+)\) @ (?:0x)?([0-9a-f]+)[ \]].*?: \S+ (.*)$")


def parse(text):
    """What `perf script -F comm,ip,sym,dso` prints: without stacks a line for each sample, with them a block of lines that begins
    with the thread's name."""
    samples, thread, frames, mapped = [], None, [], []

    def end():
        # An unwinder that knew no further says so with a last frame that is nowhere.
        while len(frames) > 1 and frames[-1][2] == "[unknown]":
            frames.pop()
        if frames:
            samples.append(Sample(thread, tuple(frames)))

    for line in text.splitlines():
        if "PERF_RECORD_" in line:
            match = MAPPED.match(line)
            if match:
                begin, size, offset = (int(number, 16) for number in match.groups()[:3])
                mapped.append((begin, begin + size, offset, match.group(4)))
        elif not line.strip():
            end()
            thread, frames = None, []
        elif line[0] == "\t":
            found = frame(line)
            if found:
                frames.append(found)
        elif LONE.match(line):
            thread, rest = LONE.match(line).groups()
            address, symbol, file = frame(rest)
            # Here, and not in stacks, perf prints the address in the process.
            for begin, after, offset, name in mapped:
                if begin <= address < after and name == file:
                    address += offset - begin
                    break
            samples.append(Sample(thread, ((address, symbol, file),)))
        else:
            end()
            thread, frames = line.strip(), []
    end()
    return samples


def frame(line):
    match = FRAME.match(line)
    if not match:
        return None
    address, symbol, file = match.groups()
    return int(address, 16), symbol.strip(), file


class Program:
    """What the server's binary says of its own addresses: the source files of its C functions, the functions inlined at a place."""

    def __init__(self, path):
        self.path = os.path.realpath(path) if path else None
        self.sources, self.segments, self.chains = {}, [], {}
        if self.path:
            self.sources = sources(readelf("--symbols", self.path))
            self.segments = segments(readelf("--segments", self.path))

    def is_in(self, file):
        return self.path is not None and os.path.realpath(file) == self.path

    def learn(self, samples):
        """Looks the addresses of the samples up in the debug information, all at once."""
        wanted = {}
        for sample in samples:
            for place, symbol, file in sample.frames:
                if place not in self.chains and self.is_in(file) and components.rust_path(symbol):
                    wanted[self.address(place)] = place, symbol
        if not wanted:
            return
        done = subprocess.run(
            ["addr2line", "-a", "-f", "-i", "-C", "-e", self.path],
            capture_output=True,
            text=True,
            input="\n".join(f"{address:x}" for address in sorted(wanted)),
        )
        if done.returncode:
            return
        for address, chain in chains(done.stdout).items():
            place, symbol = wanted.get(address, (None, None))
            # Where the two do not agree on the function, the debug information is of another place.
            self.chains[place] = chain if chain[-1] == symbol else [symbol]

    def address(self, offset):
        """Where the linker put what stands at this offset in the file."""
        for begin, address, size in self.segments:
            if begin <= offset < begin + size:
                return offset - begin + address
        return offset

    def expand(self, one):
        """The functions at a frame, innermost first: those inlined there, and the one whose symbol it is."""
        place, symbol, file = one
        return self.chains.get(place, [symbol]) if self.is_in(file) and components.rust_path(symbol) else [symbol]

    def component(self, one):
        place, symbol, file = one
        if self.is_in(file):
            chain = self.expand(one)
            if len(chain) > 1 or components.rust_path(chain[0]):
                return components.of_inlined(chain)
        return components.component(symbol, file, place, self.sources.get(symbol) if self.is_in(file) else None)


def readelf(what, path):
    return subprocess.run(["readelf", what, "--wide", "--demangle", path], capture_output=True, text=True).stdout


def segments(text):
    """(offset, address, size) of what is loaded, from `readelf --segments`."""
    found = re.findall(r"^\s+LOAD\s+0x([0-9a-f]+) 0x([0-9a-f]+) 0x[0-9a-f]+ 0x([0-9a-f]+)", text, re.MULTILINE)
    return [tuple(int(number, 16) for number in numbers) for numbers in found]


def sources(text):
    """Source files by local function, from `readelf --symbols`: those that follow a FILE entry are of it."""
    found, source = {}, None
    for line in text.splitlines():
        fields = line.split(None, 7)
        if len(fields) < 8:
            if len(fields) == 7 and fields[3] == "FILE":
                source = None
            continue
        if fields[3] == "FILE":
            source = fields[7].strip()
        elif source and fields[4] == "LOCAL" and fields[3] in ("FUNC", "NOTYPE"):
            found.setdefault(fields[7].strip(), source)
    return found


def chains(text):
    """Functions by address, innermost first, from `addr2line -a -f -i`: an address, then a name and a place for each."""
    found, address, is_name = {}, None, False
    for line in text.splitlines():
        if re.fullmatch(r"0x[0-9a-f]+", line):
            address, is_name = int(line, 16), True
            found[address] = []
        elif is_name:
            found[address].append(line)
            is_name = False
        else:
            is_name = True
    return {address: chain for address, chain in found.items() if chain and chain != ["??"]}


def profile(samples, program):
    """Counts by component, and of what is OTHER by function."""
    counts, unknown = collections.Counter(), collections.Counter()
    for sample in samples:
        innermost = sample.frames[0]
        found = program.component(innermost)
        counts[found] += 1
        if found == components.OTHER:
            unknown[f"{innermost[1]} ({innermost[2].rsplit('/', 1)[-1]})"] += 1
    return counts, unknown


def fold(samples, program):
    """Counts by stack, a tuple of (name, component), outermost first; and how many stacks were cut off before their root."""
    stacks, cut = collections.Counter(), 0
    for sample in samples:
        frames = []
        for one in sample.frames:
            chain = program.expand(one)
            # The innermost functions of a place count where they are; those around them by their own names.
            for at, name in enumerate(chain):
                kind = components.of_inlined(chain[at:]) if len(chain) > 1 else program.component(one)
                frames.append((short(name), kind))
        frames.reverse()
        names = [name for name, _ in frames]
        root = next((at for at, name in enumerate(names) if ROOT.match(name)), None)
        if root is not None:
            frames = frames[root:]
        elif program.path:
            cut += 1
        stacks[((sample.thread or "?", None), *frames)] += 1
    return stacks, cut


def short(name):
    """Without what says nothing in a picture."""
    name = re.sub(r"aws_lc(_fips)?_\d+_\d+_\d+::", "", name)
    name = components.AWS_LC.sub("", name)
    if name.startswith("bssl::") or re.match(r"[\w:~]+\(", name):
        name = name.split("(", 1)[0]
    name = re.sub(r"<impl ([\w:]+)>", lambda found: found.group(1).rsplit("::", 1)[-1], name)
    return name.replace(";", ":")


def folded(stacks):
    """The text that other tools for flame graphs read."""
    lines = [";".join(name for name, _ in frames) + f" {count}" for frames, count in stacks.items()]
    return "\n".join(sorted(lines)) + "\n"


def inclusive(stacks, pattern):
    """Share of the stacks with a function in them whose name matches."""
    pattern = re.compile(pattern)
    total = sum(stacks.values())
    within = sum(count for frames, count in stacks.items() if any(pattern.search(name) for name, _ in frames))
    return within / total if total else 0.0

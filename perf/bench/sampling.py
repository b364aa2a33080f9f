"""Samples of the server's CPU with `perf record`, and what they say: the function of each, those that the compiler inlined
there, the stack.

A sample is taken for each millisecond of CPU that the server uses (cpu-clock: these machines have no hardware counters), with 8 KiB
of the stack, which is unwound by the DWARF tables afterwards, since the release build keeps no frame pointers. No
sample falls into the taking of another."""

import contextlib
import functools
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import components
from bench import CORE, TOP
from machine import Process, run

FREQUENCY = 999
# From the loop's turn to the innermost function of TLS: what is cut off all the same is counted.
STACK_BYTES = 8_192
# Where our stacks begin: what lies outside of it is the start of a thread, the same for all.
ROOT = re.compile(r"strowger::worker::Worker<.*>::tick$")

# Place, symbol, file: the place is the offset in the file, or an address in the kernel.
Frame = tuple[int, str, str]
# (name, component) of each function, outermost first; how many samples have it.
Stacks = Counter[tuple[tuple[str, str | None], ...]]


class Sample(NamedTuple):
    """Innermost frame first."""

    thread: str
    frames: tuple[Frame, ...]


@contextlib.contextmanager
def recording(process: Process, after: float, seconds: float, folder: str) -> Iterator[Path]:
    """Takes samples for `seconds`, beginning `after` from now, while the block runs. perf itself runs beside the generator."""
    path = Path(folder, "perf.data")

    def record() -> None:
        time.sleep(after)
        what = ["--quiet", "--no-buildid-cache", "-e", "cpu-clock", "-F", FREQUENCY, "--call-graph", f"dwarf,{STACK_BYTES}"]
        what += ["-p", ",".join(map(str, process.pids())), "-o", path]
        run("taskset", "-c", CORE, "perf", "record", *what, "--", "sleep", f"{seconds:.2f}")

    with ThreadPoolExecutor() as pool:
        done = pool.submit(record)
        yield path
        done.result()


def recorded(path: Path) -> list[Sample]:
    return parse(run("perf", "script", "--no-inline", "-i", path, "-F", "comm,ip,sym,dso"))


FRAME = re.compile(r"\s*([0-9a-f]+) (.*) \(([^()]*(?:\([^()]*\))?)\)\s*$")


def parse(text: str) -> list[Sample]:
    """What `perf script -F comm,ip,sym,dso` prints: for each sample a block of lines that begins with the thread's name."""
    samples: list[Sample] = []
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        frames = [(int(one[1], 16), one[2].strip(), one[3]) for one in map(FRAME.match, lines[1:]) if one]
        # An unwinder that knew no further says so with a last frame that is nowhere.
        while len(frames) > 1 and frames[-1][2] == "[unknown]":
            frames.pop()
        if frames:
            samples.append(Sample(lines[0].strip(), tuple(frames)))
    return samples


class Program:
    """What the server's binary says of its own addresses: the source files of its C functions, the functions inlined at a place."""

    def __init__(self, path: Path | None) -> None:
        self.path = os.path.realpath(path) if path else None
        self.sources: dict[str, str] = {}
        self.segments: list[tuple[int, int, int]] = []
        self.chains: dict[int, list[str]] = {}
        if self.path:
            self.sources = sources(run("readelf", "--symbols", "--wide", "--demangle", self.path))
            self.segments = segments(run("readelf", "--segments", "--wide", self.path))

    def is_in(self, file: str) -> bool:
        return self.path is not None and os.path.realpath(file) == self.path

    def learn(self, samples: Iterable[Sample]) -> None:
        """Looks the addresses of the samples up in the debug information, all at once."""
        wanted = {}
        for place, symbol, file in {frame for sample in samples for frame in sample.frames}:
            if place not in self.chains and self.is_in(file) and components.rust_path(symbol):
                wanted[self.address(place)] = place, symbol
        if not wanted:
            return
        found = run("addr2line", "-a", "-f", "-i", "-C", "-e", self.path, input="\n".join(f"{each:x}" for each in sorted(wanted)))
        for address, chain in chains(found).items():
            if address in wanted:
                place, symbol = wanted[address]
                # If the two do not agree on the function, the debug information is of another place.
                self.chains[place] = chain if chain[-1] == symbol else [symbol]

    def address(self, offset: int) -> int:
        """Where the linker put what stands at this offset in the file."""
        found = (offset - begin + address for begin, address, size in self.segments if begin <= offset < begin + size)
        return next(found, offset)

    def expand(self, one: Frame) -> list[str]:
        """The functions at a frame, innermost first: those inlined there, and the one whose symbol it is."""
        place, symbol, file = one
        return self.chains.get(place, [symbol]) if self.is_in(file) and components.rust_path(symbol) else [symbol]

    def component(self, one: Frame) -> str:
        place, symbol, file = one
        if self.is_in(file):
            chain = self.expand(one)
            if len(chain) > 1 or components.rust_path(chain[0]):
                return components.of_inlined(chain)
        return components.component(symbol, file, place, self.sources.get(symbol) if self.is_in(file) else None)


@functools.cache
def program(path: Path | None) -> Program:
    return Program(path)


def segments(text: str) -> list[tuple[int, int, int]]:
    """(offset, address, size) of what is loaded, from `readelf --segments`."""
    found = re.findall(r"^\s+LOAD\s+0x([0-9a-f]+) 0x([0-9a-f]+) 0x[0-9a-f]+ 0x([0-9a-f]+)", text, re.MULTILINE)
    return [(int(offset, 16), int(address, 16), int(size, 16)) for offset, address, size in found]


def sources(text: str) -> dict[str, str]:
    """Source files by local function, from `readelf --symbols`: those that follow a FILE entry are of it."""
    found: dict[str, str] = {}
    source = ""
    for line in text.splitlines():
        fields = [*line.split(None, 7), ""]
        if len(fields) >= 8 and fields[3] == "FILE":
            source = fields[7].strip()
        elif len(fields) >= 9 and source and fields[4] == "LOCAL" and fields[3] in ("FUNC", "NOTYPE"):
            found.setdefault(fields[7].strip(), source)
    return found


def chains(text: str) -> dict[int, list[str]]:
    """Functions by address, innermost first, from `addr2line -a -f -i`: an address, then a name and a place for each."""
    found: dict[int, list[str]] = {}
    for block in re.split(r"^(?=0x[0-9a-f]+$)", text, flags=re.MULTILINE):
        lines = block.splitlines()
        if lines and lines[1::2] != ["??"]:
            found[int(lines[0], 16)] = lines[1::2]
    return found


def profile(samples: Iterable[Sample], known: Program) -> tuple[Counter[str], Counter[str]]:
    """Counts by component, and of what is OTHER by function."""
    counts: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for sample in samples:
        innermost = sample.frames[0]
        found = known.component(innermost)
        counts[found] += 1
        if found == components.OTHER:
            unknown[f"{innermost[1]} ({innermost[2].rsplit('/', 1)[-1]})"] += 1
    return counts, unknown


def fold(samples: Iterable[Sample], known: Program) -> tuple[Stacks, int]:
    """Counts by stack; and how many stacks were cut off before their root."""
    stacks: Stacks = Counter()
    cut = 0
    for sample in samples:
        frames: list[tuple[str, str | None]] = []
        for one in sample.frames:
            chain = known.expand(one)
            # The innermost functions of a place count where they are; those around them by their own names.
            for at, name in enumerate(chain):
                frames.append((short(name), components.of_inlined(chain[at:]) if len(chain) > 1 else known.component(one)))
        frames.reverse()
        root = next((at for at, (name, _) in enumerate(frames) if ROOT.match(name)), None)
        cut += root is None and known.path is not None
        stacks[((sample.thread or "?", None), *frames[root or 0 :])] += 1
    return stacks, cut


def short(name: str) -> str:
    """Without what says nothing in a picture, and what separates names in the files of one."""
    name = components.AWS_LC.sub("", re.sub(r"aws_lc(_fips)?_\d+_\d+_\d+::", "", name))
    if name.startswith("bssl::") or re.match(r"[\w:~]+\(", name):
        name = name.split("(", 1)[0]
    name = re.sub(r"<impl ([\w:]+)>", lambda found: found.group(1).rsplit("::", 1)[-1], name)
    return name.replace(";", ":").replace("->", "→")


def folded(stacks: Stacks) -> str:
    """The text that tools for flame graphs read."""
    return "".join(sorted(";".join(name for name, _ in frames) + f" {count}\n" for frames, count in stacks.items()))


def palette(stacks: Stacks, colours: Mapping[str, str]) -> str:
    """Colours by function for inferno: of a function that works for several components, that for which it works most."""
    weights: dict[str, Counter[str]] = {}
    for frames, count in stacks.items():
        for name, kind in frames:
            if kind:
                weights.setdefault(name, Counter())[kind] += count
    shades = {
        name: [int(colours[kinds.most_common(1)[0][0]][at : at + 2], 16) for at in (1, 3, 5)] for name, kinds in weights.items()
    }
    return "".join(f"{name}->rgb({red},{green},{blue})\n" for name, (red, green, blue) in sorted(shades.items()))


def flame_graph(stacks: Stacks, colours: Mapping[str, str], title: str, subtitle: str, path: Path, home: str) -> None:
    """PATH.svg, and the stacks in PATH.folded. inferno reads colours from a file of the folder that it runs in."""
    Path(home, "palette.map").write_text(palette(stacks, colours))
    path.with_suffix(".folded").write_text(folded(stacks))
    tool = shutil.which("inferno-flamegraph", path=f"{TOP / 'target/cargo-tools/bin'}:{os.environ['PATH']}")
    if not tool:
        raise RuntimeError("inferno-flamegraph is not installed: cargo install inferno --locked --root target/cargo-tools")
    words = ["--title", title, "--subtitle", subtitle, "--width", 1400, "--minwidth", 0.05, "--bgcolors", "#ffffff", "--cp"]
    path.with_suffix(".svg").write_text(run(tool, *words, path.with_suffix(".folded"), cwd=home))


def inclusive(stacks: Stacks, pattern: str) -> float:
    """Share of the stacks with a function in them whose name matches."""
    found = re.compile(pattern)
    within = sum(count for frames, count in stacks.items() if any(found.search(name) for name, _ in frames))
    return within / max(sum(stacks.values()), 1)

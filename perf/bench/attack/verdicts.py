"""From what was measured to whether it holds: True, False, or None where it is not to be told."""

import collections
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

import numpy

from attack.legit import Record

# Of those tried, beside an attack and after it. Before it nearly all must be well, or nothing can be told.
GOES_ON, USUAL = 0.95, 0.98
# Others may wait so many times as long as they usually do; so many ms are noise on two cores.
PATIENT, NOISE_MS = 2.0, 25.0
# A legitimate side of which one in ten begins so late or an attack that sends so little of what it should is itself the limit.
LATE_MS, OFFERED = 100.0, 0.9
# Of the time, for how long the server was ready to run and something else had its core: beyond that a failure is not told from the
# machine's.
DISTURBED = 0.25
# Answers and what is relayed, towards whoever has not proved to be there: bytes out for bytes in.
REFLECTED = 3.0
WORDS: dict[bool | None, str] = {True: "holds", False: "DOES NOT HOLD", None: "not to be told"}


class Check(NamedTuple):
    """What must hold, what was seen in words, and whether it does."""

    what: str
    seen: object
    held: bool | None


class Part(TypedDict):
    tried: int
    done: int
    p50_ms: float | None
    p99_ms: float | None
    late_ms: float | None
    failed: dict[str, int]


def line(what: str, seen: object, held: bool | None) -> str:
    """A check, as it is said."""
    return f"[{ {True: 'yes', False: 'NO', None: '—'}[held] }] {what}: {seen}"


def joined(helds: Iterable[bool | None]) -> bool | None:
    """Of all of them."""
    helds = list(helds)
    if False in helds:
        return False
    return None if None in helds or not helds else True


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so many are not above."""
    return float(numpy.quantile(values, share, method="inverted_cdf")) if values else None


def phase(records: Sequence[Record], begin: float, end: float) -> dict[str, Part]:
    """By kind, what was due in that time: tried, done, milliseconds, how late it began, and why the others failed."""
    found: dict[str, Part] = {}
    for kind in dict.fromkeys(record[0] for record in records):
        mine = [record for record in records if record[0] == kind and begin <= record[1] < end]
        took = [1000 * record[3] for record in mine if record[3] is not None]
        found[kind] = {
            "tried": len(mine),
            "done": len(took),
            "p50_ms": statistics.median(took) if took else None,
            "p99_ms": quantile(took, 0.99),
            "late_ms": quantile([1000 * record[2] for record in mine], 0.9),
            "failed": dict(collections.Counter(record[4] for record in mine if record[3] is None)),
        }
    return found


def share(part: Part) -> float | None:
    return part["done"] / part["tried"] if part["tried"] else None


def is_late(part: Part) -> bool:
    return part["late_ms"] is not None and part["late_ms"] > LATE_MS


def told_apart(held: bool | None, waited: float | None) -> bool | None:
    """What did not hold is not to be told where the server's core was somebody else's."""
    return None if held is False and waited is not None and waited > DISTURBED else held


def goes_on(before: Part, beside: Part) -> bool | None:
    """Whether as many are served as usual. Nothing is told by a time in which none was tried, or where it was not well before."""
    if not beside["tried"] or not before["tried"] or (share(before) or 0) < USUAL:
        return None
    if (share(beside) or 0) >= GOES_ON:
        return True
    return None if is_late(beside) else False


def waits(before: Part, beside: Part) -> bool | None:
    """Whether they are served about as fast as usual, by the median."""
    if before["p50_ms"] is None or beside["tried"] == 0:
        return None
    if beside["p50_ms"] is not None and beside["p50_ms"] <= max(PATIENT * before["p50_ms"], before["p50_ms"] + NOISE_MS):
        return True
    return None if is_late(beside) else False


def at_most(value: float | None, limit: float) -> bool | None:
    return None if value is None else value <= limit


def factor(out: float, into: float) -> float | None:
    return out / into if into else None


def comes_back(before: float | None, peak: float | None, after: float | None) -> bool | None:
    """Whether of what memory grew by, all in MB, all but a fifth (and some MB) has gone."""
    if before is None or peak is None or after is None:
        return None
    return after - before <= max(0.2 * (peak - before), 16)


def offered(sent: int, asked: int) -> bool | None:
    """None where whoever attacks sent too little for anything to be concluded."""
    return True if asked and sent >= OFFERED * asked else None

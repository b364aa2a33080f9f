"""What has been measured: results by key, the quantities read from them, and how sure they are."""

import bisect
import itertools
import json
import operator
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

Result = dict[str, Any]

# Resamples of a bootstrap, and the share of them that its interval holds.
RESAMPLES = 2_000
CONFIDENCE = 0.95
# Fewer runs have a range, but no interval.
FEWEST = 3
# So many seconds in which nothing ran are a pause, and no measuring.
PAUSE = 600
# A host moves the cores of a virtual machine while it runs. Distances that differ by this factor are of different places.
FAR = 2


# What was found in slices of a run (perf/load/src/slices.rs) counts if the core had its full speed for that share of it, if so many
# were completed then, and if that speed was that of other runs: the same work took no more than so much longer.
LEAST_CALM, FEWEST_CALM, SLOWER = 0.05, 50, 1.06
# Of so many runs one is faster than what is taken for the full speed.
FASTEST = 20
# What is found in slices, and in all of the time.
CALM = ("server_cpu_us_each", "completed_per_second", "server_us", "client_us")


def pluck(result: Result, path: str) -> float | None:
    """A figure of a result by its dotted path: latency_us.to_200.p99. A path ÷ a path is their quotient."""
    if "/" in path:
        over, under = (pluck(result, part.strip()) for part in path.split("/", 1))
        return None if over is None or not under else over / under
    found: Any = result
    for part in path.split("."):
        if isinstance(found, list):
            found = found[int(part)]
            continue
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return None if found is None else float(found)


class Samples:
    """Results by key, in the order in which they came. With a path each is also a line of that file at once: what a run has
    measured when it ends for whatever reason is there for `--resume` and `--from`."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.accepted: dict[str, list[Result]] = {}
        self.rejected: list[Result] = []
        self.distances: list[float] = []
        self.works_ns: list[float] = []

    def read(self, path: Path) -> None:
        with open(path) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    self._keep(json.loads(line))
                except (ValueError, KeyError):
                    # The last one is half a line if the machine went down with it.
                    print(f"{path}:{number}: not a result, left out")

    def add(self, key: str, result: Result, rejected: str | None = None) -> None:
        """`rejected` says why it counts for nothing; it is kept all the same."""
        result = {"key": key, **result, **({"rejected": rejected} if rejected else {})}
        self._keep(result)
        if self.path:
            with open(self.path, "a") as lines:
                lines.write(json.dumps(result) + "\n")

    def _keep(self, result: Result) -> None:
        if calm := result.get("calm"):
            bisect.insort(self.works_ns, calm["work_ns"])
        if result.get("rejected"):
            self.rejected.append(result)
        else:
            self.accepted.setdefault(result["key"], []).append(result)
            if "distance_ns" in result:
                bisect.insort(self.distances, result["distance_ns"])

    def seconds(self) -> float:
        """From the first result to the last, without the pauses between two studies."""
        ran = [result for results in [*self.accepted.values(), self.rejected] for result in results if "at" in result]
        ran.sort(key=operator.itemgetter("at"))
        gaps = [(after["at"] - before["at"], after.get("took_s", 0)) for before, after in itertools.pairwise(ran)]
        return sum(gap for gap, took in gaps if gap < took + PAUSE)

    def of(self, key: str) -> list[Result]:
        """Those that count, or if there are none those in which the core was slow throughout."""
        return self.calm(key) or self.accepted.get(key, [])

    def calm(self, key: str) -> list[Result]:
        return [result for result in self.accepted.get(key, []) if not self.why_not_calm(result)]

    def is_slow(self, key: str) -> bool:
        """Whether the core was slow throughout whenever this was measured."""
        return key in self.accepted and not self.calm(key)

    def not_counted(self) -> int:
        return len(self.rejected) + sum(len(results) - len(self.calm(key)) for key, results in self.accepted.items())

    def full_speed_ns(self) -> float:
        """How long the same work takes where the core has its full speed."""
        return self.works_ns[len(self.works_ns) // FASTEST] if self.works_ns else float("inf")

    def why_not_calm(self, result: Result) -> str | None:
        """Why the slices of a run say nothing; None if they do, and of what was not measured in slices."""
        if not (calm := result.get("calm")):
            return None
        if calm["work_ns"] > SLOWER * self.full_speed_ns():
            return f"the core was {calm['work_ns'] / self.full_speed_ns():.2f} times slower than it can be, all the time"
        if calm["share"] < LEAST_CALM or calm["completed"] < FEWEST_CALM:
            return f"the core had its full speed for {100 * calm['share']:.0f} % of the time"
        return None

    def as_calm(self, result: Result) -> Result:
        """With what was found at full speed in the place of what was found all the time, which is under its name and `_all`."""
        calm = result.get("calm") or {}
        found = {**result, **{f"{name}_all": result[name] for name in CALM if name in result}}
        found.update({name: calm[name] for name in CALM if name in calm})
        return found

    def values(self, key: str, path: str, place: float | None = None) -> numpy.ndarray:
        """Of all runs, or of those in which the machine's cores were in that place; what no distance was taken with is of any."""
        found = [
            pluck(self.as_calm(result), path) for result in self.of(key) if place is None or self.place(result) in (place, None)
        ]
        return numpy.array([value for value in found if value is not None])

    def places(self) -> list[float]:
        """The places in which the two cores have been, by the shortest distance in each: a factor of FAR lies between any two."""
        pairs = zip([0.0, *self.distances], self.distances)
        return [distance for before, distance in pairs if distance >= FAR * before]

    def place(self, result: Result) -> float | None:
        """Where the cores were in a run."""
        distance = result.get("distance_ns")
        return None if distance is None else max(place for place in self.places() if place <= distance)

    def usual_place(self) -> float | None:
        """Where they were in most runs."""
        places = self.places()
        ends = [bisect.bisect_left(self.distances, place) for place in [*places[1:], float("inf")]]
        numbers = [end - start for start, end in zip([0, *ends], ends)]
        return places[numbers.index(max(numbers))] if places else None

    def median(self, key: str, path: str) -> float | None:
        values = self.values(key, path)
        return float(numpy.median(values)) if len(values) else None

    def is_bound(self, key: str) -> bool:
        """Whether the generator was the limit in any run."""
        return any(result.get("generator_bound") for result in self.of(key))

    def is_clean(self, key: str) -> bool:
        """Whether nothing was lost, repeated, refused or not what was meant."""
        return all(result.get("clean", True) for result in self.of(key))


VERDICTS = ("met", "not met", "not decided", "not measured")


def worst(verdicts: Container[str]) -> str:
    """A row of several lines is as the worst of them."""
    return next(verdict for verdict in ("not met", "not decided", "not measured", "met") if verdict in verdicts)


# How a figure errs if the generator was the limit: the server then sleeps now and then and is woken, which costs it more, and it
# does less than it could. Others do not err.
ERRS = {"server_cpu_us_each": 1, "server_cpu_us_each_all": 1, "latency_us": 1, "completed_per_second": -1, "rate_or_window": -1}


def errs(path: str) -> int:
    """1 if the figure is an upper bound where the generator was the limit, -1 if a lower one, 0 if it is neither."""
    if "/" in path:
        over, under = path.split("/", 1)
        return errs(over) - errs(under)
    return ERRS.get(path.strip().split(".")[0], 0)


@dataclass(frozen=True)
class Quantity:
    """A figure of all results of one key."""

    key: str
    path: str = "server_cpu_us_each"


@dataclass(frozen=True)
class Estimate:
    """A value, its interval (of 95 %, by bootstrap; the range where runs are too few), and the fewest runs of what it is made
    of. It may be too high, or too low, where the generator was the limit of a part of it."""

    value: float
    low: float
    high: float
    runs: int
    is_clean: bool = True
    may_be_high: bool = False
    may_be_low: bool = False
    place: str = ""

    @property
    def marks(self) -> str:
        bound = "g" if self.may_be_high or self.may_be_low else ""
        return {"other": "f", "mixed": "m"}.get(self.place, "") + bound + ("" if self.is_clean else "!")

    @property
    def half_width(self) -> float:
        """Of the interval, as a share of the value; infinite if there is none."""
        if self.runs < FEWEST or not self.value:
            return float("inf")
        return (self.high - self.low) / 2 / abs(self.value)

    def text(self, digits: int | None = None) -> str:
        """31.2 [30.8, 33.0] ×5, or ≤ 31.2 where it is an upper bound."""
        if digits is None:
            digits = 0 if abs(self.value) >= 100 else 1 if abs(self.value) >= 10 else 2
        marks = f" {self.marks}" if self.marks else ""
        bound = {(True, False): "≤ ", (False, True): "≥ "}.get((self.may_be_high, self.may_be_low), "")
        if self.runs == 1:
            return f"{bound}{self.value:,.{digits}f} ×1{marks}"
        return f"{bound}{self.value:,.{digits}f} [{self.low:,.{digits}f}, {self.high:,.{digits}f}] ×{self.runs}{marks}"


def estimate(samples: Samples, formula: Callable[..., Any], of: Mapping[str, Quantity]) -> Estimate | None:
    """The formula of the medians of quantities, with the interval that follows from drawing each one's runs anew. All are of runs
    in which the machine's cores were in one place. None if a quantity has no result. The formula must take arrays as well as
    numbers."""
    place, series = alike(samples, of)
    if any(samples.is_slow(quantity.key) for quantity in of.values()):
        place = "mixed"
    if not series or not all(len(values) for values in series.values()):
        return None
    medians = {name: numpy.median(values) for name, values in series.items()}
    value = float(formula(**medians))
    # The same draws each time: a report of the same runs says the same.
    random = numpy.random.default_rng(len(of))
    drawn = {
        name: numpy.median(random.choice(values, (RESAMPLES, len(values))), axis=1) if len(values) > 1 else values[0]
        for name, values in series.items()
    }
    with numpy.errstate(divide="ignore", invalid="ignore"):
        found = numpy.broadcast_to(formula(**drawn), RESAMPLES)
    low, high = numpy.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    leans = set()
    for name, quantity in of.items():
        if errs(quantity.path) and samples.is_bound(quantity.key):
            grown = float(formula(**{**medians, name: medians[name] * 1.01}))
            leans.add(errs(quantity.path) * numpy.sign(grown - value))
    clean = all(samples.is_clean(quantity.key) for quantity in of.values())
    return Estimate(value, float(low), float(high), min(map(len, series.values())), clean, 1 in leans, -1 in leans, place)


def alike(samples: Samples, of: Mapping[str, Quantity]) -> tuple[str, dict[str, numpy.ndarray]]:
    """The values of quantities, all of runs with the cores in one place: that of which there are most runs. Says `other` if it is
    not where they usually are, and `mixed` if there is no place in which each quantity was measured."""

    def values(place: float | None) -> dict[str, numpy.ndarray]:
        return {name: samples.values(quantity.key, quantity.path, place) for name, quantity in of.items()}

    usual = samples.usual_place()
    if usual is None:
        return "", values(None)
    found = {place: values(place) for place in sorted(samples.places(), key=lambda place: place != usual)}
    best = max(found, key=lambda place: min(map(len, found[place].values()), default=0))
    if not all(len(each) for each in found[best].values()):
        return "mixed", values(None)
    return "" if best == usual else "other", found[best]


def highest(values: Sequence[Any]) -> Any:
    """Of numbers, or of arrays of them: what a formula may be given."""
    return numpy.maximum.reduce(numpy.broadcast_arrays(*values))


def single(samples: Samples, key: str, path: str = "server_cpu_us_each", scale: float = 1) -> Estimate | None:
    """One quantity by itself."""
    return estimate(samples, lambda it: it * scale, {"it": Quantity(key, path)})


def ratio(samples: Samples, over: str, under: str, path: str = "server_cpu_us_each") -> Estimate | None:
    """One key ÷ another."""
    return estimate(samples, lambda a, b: a / b, {"a": Quantity(over, path), "b": Quantity(under, path)})


@dataclass(frozen=True)
class Row:
    """A target: a formula of quantities, and what it may be. `at_least` turns the sense round."""

    name: str
    what: str
    limit: float
    of: Mapping[str, Quantity] = field(hash=False)
    formula: Callable[..., Any] = lambda over, under: over / under
    at_least: bool = False
    unit: str = ""
    note: str = ""
    # One is enough of what is counted, not timed.
    fewest: int = FEWEST

    def estimate(self, samples: Samples) -> Estimate | None:
        return estimate(samples, self.formula, self.of)

    def target(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g}{' ' + self.unit if self.unit else ''}"

    def verdict(self, samples: Samples) -> str:
        """met, not met, not decided, not measured. It is decided if the interval lies on one side of the limit, what it is made of
        was clean, and the generator's limit, if it was one, could not have brought it there."""
        found = self.estimate(samples)
        if found is None:
            return "not measured"
        if not found.is_clean or found.runs < self.fewest or found.place == "mixed":
            return "not decided"
        if self.at_least:
            met, missed = found.low >= self.limit and not found.may_be_high, found.high < self.limit and not found.may_be_low
        else:
            met, missed = found.high <= self.limit and not found.may_be_low, found.low > self.limit and not found.may_be_high
        return "met" if met else "not met" if missed else "not decided"

    def is_settled(self, samples: Samples, precision: float) -> bool:
        """Whether more runs would be for nothing: decided, or as precise as is asked."""
        found = self.estimate(samples)
        if found is None or found.runs < self.fewest:
            return False
        return found.half_width <= precision or self.verdict(samples) in ("met", "not met")


def figure(name: str, what: str, limit: float, key: str, path: str, **how: Any) -> Row:
    """A row of one figure by itself."""
    return Row(name, what, limit, {"it": Quantity(key, path)}, lambda it: it, **how)


def compare(name: str, what: str, limit: float, over: str, under: str, path: str = "server_cpu_us_each", **how: Any) -> Row:
    """The most common row: one key ÷ another."""
    return Row(name, what, limit, {"over": Quantity(over, path), "under": Quantity(under, path)}, **how)

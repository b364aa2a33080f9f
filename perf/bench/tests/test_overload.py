"""perf/overload: when the generator is the limit, and when row O1 is met."""

import unittest

import overload
from report import Series


def result(**more):
    counts = {"scheduled": 20_000, "started": 20_000, "skipped": 0, "wrong": 0, **more.pop("counts", {})}
    return {
        "rate_or_window": 2_000,
        "seconds": 10.0,
        "generator_busy": 0.5,
        "generator_bound": False,
        "latency_us": {"generator_lag": {"p99": 50.0}},
        "completed_per_second": 1_000.0,
        "clean": False,
        "counts": counts,
        **more,
    }


def goodput(*results):
    return Series([overload.judged(each) for each in results], overload.rate)


class Bound(unittest.TestCase):
    def test_a_generator_with_room_is_not(self):
        self.assertFalse(overload.is_generator_bound(result()))

    def test_each_sign_is_seen(self):
        for sign in [
            {"generator_bound": True},
            {"generator_busy": 0.96},
            {"latency_us": {"generator_lag": {"p99": 20_000.0}}},
            {"counts": {"started": 19_000}},
            {"counts": {"skipped": 1}},
        ]:
            self.assertTrue(overload.is_generator_bound(result(**sign)), sign)


class Verdict(unittest.TestCase):
    peak = goodput(result())

    def test_losses_are_what_an_overload_is(self):
        self.assertIs(overload.verdict(goodput(result(completed_per_second=960.0)), self.peak), True)
        self.assertIs(overload.verdict(goodput(result(completed_per_second=940.0)), self.peak), False)

    def test_wrong_answers_are_not(self):
        self.assertIsNone(overload.verdict(goodput(result(counts={"wrong": 1})), self.peak))

    def test_nothing_is_said_where_the_generator_was_the_limit(self):
        bound = result(completed_per_second=960.0, generator_busy=0.99)
        self.assertIsNone(overload.verdict(goodput(bound), self.peak))
        # Nor against it: the calls that were missing may be the generator's.
        self.assertIsNone(overload.verdict(goodput({**bound, "completed_per_second": 10.0}), self.peak))

    def test_nothing_is_said_where_something_else_had_the_core(self):
        self.assertIsNone(overload.verdict(goodput(result(disturbed=True)), self.peak))

    def test_nothing_is_said_without_measurements(self):
        self.assertIsNone(overload.verdict(goodput(), self.peak))


if __name__ == "__main__":
    unittest.main()

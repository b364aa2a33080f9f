"""What is read from SIPp's statistics, and how its result is judged."""

import unittest

import second_opinion
from second_opinion import Sipp, parse_stats

HEAD = (
    "StartTime;LastResetTime;TargetRate;SuccessfulCall(P);SuccessfulCall(C);FailedCall(P);FailedCall(C);"
    "Retransmissions(P);Retransmissions(C);"
)


def line(successful, failed=0, again=0):
    return f"2026-11-21\t10:00:00;2026-11-21\t10:00:01;1000;7;{successful};0;{failed};0;{again};"


class Statistics(unittest.TestCase):
    def test_the_last_line_is_read_and_lines_are_counted(self):
        figures, lines = parse_stats([HEAD, line(10), line(20, 1, 2)])
        self.assertEqual(figures, {"SuccessfulCall": 20, "FailedCall": 1, "Retransmissions": 2})
        self.assertEqual(lines, 2)

    def test_before_the_first_line_there_is_nothing(self):
        self.assertEqual(parse_stats([]), (None, 0))
        self.assertEqual(parse_stats([HEAD]), (None, 0))


class Result(unittest.TestCase):
    def moment(self, at, calls, run_us):
        figures = {"SuccessfulCall": calls}
        return {
            "figures": figures,
            "at": at,
            "run": run_us * 1000,
            "wait": 0,
            "own": (0, 0),
            "packets": calls * 13,
            "bytes": calls * 13 * 642,
        }

    def result(self, calls, dropped=(0, 0), finals=None):
        original = second_opinion.Stats
        second_opinion.Stats = lambda path: type("Stats", (), {"last": lambda _: (finals or {}, 9)})()
        try:
            return Sipp.result(
                None,
                1000,
                self.moment(10.0, 500, 1_000),
                self.moment(20.0, 500 + calls, 601_000),
                dropped,
                {"uac": "a", "uas": "b"},
            )
        finally:
            second_opinion.Stats = original

    def test_cpu_is_divided_by_the_calls_between_the_two_moments(self):
        result = self.result(10_000)
        self.assertAlmostEqual(result["server_cpu_us_each"], 60.0)
        self.assertAlmostEqual(result["datagrams_each"], 13.0)
        self.assertAlmostEqual(result["bytes_each_datagram"], 600.0)
        self.assertTrue(result["clean"])
        self.assertFalse(result["generator_bound"])

    def test_what_was_lost_or_sent_again_is_not_clean(self):
        self.assertFalse(self.result(10_000, dropped=(1, 0))["clean"])
        self.assertFalse(self.result(10_000, finals={"FailedCall": 1})["clean"])
        self.assertFalse(self.result(10_000, finals={"Retransmissions": 1})["clean"])

    def test_a_rate_that_was_not_reached_is_the_generators_limit(self):
        self.assertTrue(self.result(9_800)["generator_bound"])


if __name__ == "__main__":
    unittest.main()

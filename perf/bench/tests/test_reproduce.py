"""The arithmetic of perf/reproduce and of the published figures. Run from perf: python3 -B -m unittest discover -s bench/tests -t
bench"""

import argparse
import unittest
from unittest import mock

import cases
import published
import reproduce
import study
from modes import for_model, short, words_of
from registrar import CASES, COLUMNS, Registrar
from report import Report
from reproduction import completed, is_bound


def result(configuration, what, rate, cpu, **fields):
    """As the generator writes it, of a run in which everything that was begun ended."""
    return {
        "configuration": configuration,
        "what": what,
        "rate_or_window": rate,
        "completed_per_second": rate,
        "server_cpu_us_each": cpu,
        "server_busy": rate * cpu / 1e6,
        "contestant": "strowger",
        "clean": True,
        "disturbed": False,
        "generator_bound": False,
        "counts": {"scheduled": 1000, "started": 1000, "completed": 1000},
        **fields,
    }


def of_results(command, results):
    """The command with results as if they had been read again."""
    found = command.__new__(command)
    found.arguments = argparse.Namespace(redraw="x", cases=[], quick=True, for_model=False, fixed_rate=200)
    found.results = results
    found.report = Report("", "", "")
    return found


class Together(unittest.TestCase):
    def run_all(self, why, is_interrupted):
        began = []

        class One:
            def __init__(self, *_):
                self.is_interrupted = is_interrupted

            def run(self):
                began.append(self)
                raise RuntimeError(why)

        with mock.patch.object(reproduce, "COMMANDS", {"first": One, "second": One}), self.assertRaisesRegex(RuntimeError, why):
            reproduce.All(None, None).run()
        return len(began)

    def test_what_fails_in_one_does_not_keep_the_others_from_being_measured(self):
        self.assertEqual(self.run_all("no port", False), 2)

    def test_who_ends_one_ends_them_all(self):
        self.assertEqual(self.run_all("interrupted", True), 1)

    def test_an_interrupted_one_says_so(self):
        one = of_results(reproduce.COMMANDS["proxy"], [])
        one.rounds, one.is_interrupted, one.failures = 1, False, []
        one.progress = mock.Mock()
        with (
            mock.patch.object(one, "measure", side_effect=SystemExit),
            mock.patch.object(one, "tell") as tell,
            mock.patch.dict("sys.modules", plots=mock.Mock()),
        ):
            one.arguments.redraw = None
            with self.assertRaisesRegex(RuntimeError, "interrupted"):
                one.run()
        self.assertTrue(one.is_interrupted)
        # There is nothing to tell of.
        tell.assert_not_called()


class Published(unittest.TestCase):
    def test_relative_peaks_are_products_down_to_udp(self):
        peaks = published.relative_peaks()
        self.assertAlmostEqual(peaks["chain-tls"], 0.60 * 0.47)
        self.assertAlmostEqual(peaks["inbound-tls-reuse"], 2.00 * 0.28 * 0.24)
        self.assertAlmostEqual(peaks["local-tls-mutual-auth"], 0.67 * 0.37 * 0.53)
        self.assertEqual(set(peaks), {name for name, _, _ in published.RATIOS})

    def test_every_configuration_but_udp_has_a_published_ratio(self):
        names = {case.name for case in cases.report_configurations()}
        self.assertEqual(len(names), 20)
        self.assertEqual(names - {"chain-udp", "chain-udp-auth"}, set(published.relative_peaks()))
        self.assertLessEqual(set(published.CYCLES), names)

    def test_a_curve_ends_where_the_core_is_full(self):
        curve = published.curve(published.registrar(), "rps", "tcp_auth")
        self.assertEqual(curve[-1], (4500, 100))
        self.assertEqual(published.curve(published.registrar(), "rps", "udp_noauth")[-1], (8000, 29.7))

    def test_between_the_points_and_nowhere_else(self):
        points = [(1, 10), (3, 20), (4, 0)]
        self.assertEqual([published.interpolate(points, x) for x in (0, 1, 2, 3, 3.5, 4, 5)], [None, 10, 15, 20, 10, 0, None])

    def test_each_table_and_figure_of_these_commands_is_somewhere_in_their_reports(self):
        for name, command in reproduce.COMMANDS.items():
            wanted = {what for what, _, by in published.TABLES_AND_FIGURES if by == f"perf/reproduce {name}"}
            self.assertEqual(wanted, set(command.ours), name)
        self.assertEqual(
            {by for _, _, by in published.TABLES_AND_FIGURES} - {f"perf/reproduce {name}" for name in reproduce.COMMANDS},
            {published.PROFILE, published.MODEL},
        )


class Peaks(unittest.TestCase):
    def test_the_peak_is_found_from_below_and_above(self):
        for peak in (150, 600, 790, 1000, 1300):
            tried = []

            def passes(rate):
                tried.append(rate)
                return rate <= peak

            low, high = study.highest(passes, 1000, 0.03)
            self.assertLessEqual(low, peak)
            self.assertGreater(high, peak)
            self.assertLess(high / low, 1.03)
            self.assertLess(len(tried), 17, peak)

    def test_a_search_ends_where_all_passes_or_nothing(self):
        low, high = study.highest(lambda _: True, 1000, 0.03)
        self.assertGreater(low, 1600)
        self.assertIsNone(high)
        low, high = study.highest(lambda _: False, 1000, 0.03)
        self.assertIsNone(low)
        self.assertLess(high, 100)

    def test_a_generator_that_begins_fewer_calls_than_it_should_is_the_limit(self):
        busy = {"generator_busy": 0.9, "generator_waited": 0, "server_busy": 0.5, "server_waited": 0}
        short = {"counts": {"scheduled": 2000, "started": 1900, "completed": 1900}, **busy}
        self.assertTrue(study.fell_short(short) and study.generator_was_full(short))
        enough = {**short, "counts": {"scheduled": 2000, "started": 1990, "completed": 1000}}
        self.assertFalse(study.fell_short(enough) or study.generator_was_full(enough))
        self.assertTrue(study.generator_was_full({**enough, "generator_busy": 0.97}))
        self.assertFalse(study.generator_was_full({**enough, "generator_busy": 0.97, "server_busy": 0.98}))
        self.assertAlmostEqual(study.failed_share(enough), 0.5)

    def test_calls_that_end_only_after_the_measured_time_are_beyond_the_peak(self):
        result = {"failed_share": 0.0, "counts": {"scheduled": 2000, "started": 2000, "completed": 1930}}
        self.assertFalse(study.fell_behind(result))
        self.assertTrue(study.fell_behind({**result, "counts": {**result["counts"], "completed": 1900}}))


class Registrations(unittest.TestCase):
    def setUp(self):
        results = []
        for name, full, cpu in [
            ("register-udp-auth", 1000, 1000),
            ("register-udp", 2000, 500),
            ("register-tcp-auth", 800, 1250),
            ("register-tcp", 1600, 500),
        ]:
            results.append(result(name, "saturation", full, cpu, round=0))
            results += [
                result(name, "rate", 1000 * fraction, cpu, fraction=fraction, round=number)
                for fraction in (0.1, 0.5)
                for number in (0, 1)
            ]
        self.registrar = of_results(Registrar, results)

    def test_rates_are_in_units_of_udp_with_digest(self):
        points = [(x, y) for x, y, _ in self.registrar.points("register-tcp-auth", "strowger")]
        self.assertEqual(points, [(0.1, 12.5), (0.5, 62.5), (0.8, 100)])

    def test_the_factor_is_of_equal_rates(self):
        self.assertEqual([(x, y) for x, y, _ in self.registrar.factors("udp", "strowger")], [(0.1, 2.0), (0.5, 2.0)])
        self.assertEqual([y for _, y, _ in self.registrar.factors("tcp", "strowger")], [2.5, 2.5])

    def test_a_point_that_the_generator_bounds_is_marked(self):
        self.registrar.results[1]["generator_bound"] = True
        marks = [is_bound(series) for _, _, series in self.registrar.curve("register-udp-auth", "strowger", "fraction")]
        self.assertEqual(marks, [True, False, False])
        self.assertTrue(self.registrar.factors("udp", "strowger")[0][2])

    def test_a_peak_may_fail_in_part_and_nothing_else(self):
        self.registrar.results += [result("x", what, 5, 5, clean=False) for what in ("peak found", "saturation")]
        self.assertEqual(self.registrar.of("x", "strowger", "peak found", completed).marks, "")
        self.assertEqual(self.registrar.of("x", "strowger", "saturation", completed).marks, "!")

    def test_the_table_has_the_thesis_columns(self):
        self.registrar.tell_table("strowger")
        self.registrar.tell_published()
        ours, theirs = self.registrar.report.tables
        self.assertEqual(ours[1], theirs[1])
        self.assertEqual([line[1] for line in ours[2]], [line[1] for line in theirs[2]])
        # 2,875/s over UDP with digest, between 49.6 at 3,000 and 44 at 2,750.
        self.assertEqual(theirs[2][1][4], "46.8")


class Cases(unittest.TestCase):
    def test_registers_are_challenged_or_calls(self):
        by_name = {case.name: case for case in CASES}
        self.assertEqual(set(by_name), set(COLUMNS.values()))
        self.assertIn("challenge_register = true", by_name["register-udp-auth"].values("/")["ROUTE"])
        self.assertNotIn("challenge_proxy", by_name["register-udp-auth"].values("/")["ROUTE"])
        self.assertNotIn("[auth]", by_name["register-udp"].values("/")["ROUTE"])
        self.assertEqual(by_name["register-tcp-auth"].options("strowger")[-4:], ["--auth", "new", "--qop", "none"])

    def test_challenges_that_should_not_be_and_those_that_are_missing_are_complained_of(self):
        counts = {"completed": 10_000, "challenges_received": 10_000}
        by_name = {case.name: case for case in CASES}
        said = [
            by_name[name].complaint(
                {"mode": "register", "server_cpu_us_each": 5, "counts": {**counts, "challenges_received": challenges}}, "strowger"
            )
            for name, challenges in [
                ("register-udp-auth", 10_000),
                ("register-udp-auth", 0),
                ("register-udp", 0),
                ("register-udp", 10_000),
            ]
        ]
        self.assertEqual([bool(each) for each in said], [False, True, False, True])

    def test_the_model_gets_both_settings_of_digest(self):
        names = {case.name for case in cases.report_configurations() + for_model()}
        for mode in ("outbound", "inbound", "local"):
            for what in ("tcp", "tls", "tls-mutual", "tls-reuse"):
                self.assertLessEqual({f"{mode}-{what}", f"{mode}-{what}-auth"}, names)

    def test_names_for_people(self):
        self.assertEqual(short("local-tls-mutual-auth"), "TLS\nmutual")
        self.assertEqual(short("chain-tls-3des-auth"), "TLS\n3DES\ndigest")
        self.assertEqual(words_of("local-tls-reuse-auth"), "local TLS reuse, digest")
        self.assertEqual(words_of("local-tls-auth", "local-tls-reuse-auth"), "TLS")


if __name__ == "__main__":
    unittest.main()

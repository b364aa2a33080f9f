"""The page and what it is made of: what was measured stands on it, what was not is left out or said to be missing."""

import json
import unittest
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import page
import restarts
import rows
import security
from report import LEGEND, Report
from samples import Samples, compare
from tasks import key, window


def run_of(directory, costs, reports=("rows",), targets=()):
    """A folder with reports, and a run of each key with these costs three times."""
    samples = Samples(Path(directory, "runs.jsonl"))
    for name, cost in costs.items():
        for factor in (0.99, 1, 1.01):
            samples.add(name, {"server_cpu_us_each": cost * factor})
    for name in reports:
        report = Report(name, name.capitalize(), {"machine": "a machine", "minutes": 60})
        for row in targets:
            report.row(row, samples)
        report.write(Path(directory))
    return page.Run(Path(directory), Path(directory, "RESULTS.md"))


class Page(unittest.TestCase):
    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def test_sentences_are_filled_with_figures_or_say_that_there_are_none(self):
        costs = {key(rows.REGISTERED): 24.2, key(rows.REGISTERED, "kamailio"): 355, key(rows.DIGEST): 36.3}
        text = page.page(run_of(self.folder, costs))
        self.assertIn("takes **24 µs of one core**", text)
        self.assertIn("takes 360 µs.", text)
        # The floor was not measured, so nothing is said of it.
        self.assertNotIn("bare relay of the same datagrams", text)
        self.assertIn("**1.5 times** as dear (2010: 4", text)
        self.assertIn("*Mutual authentication and session reuse: not measured.*", text)
        self.assertEqual(text.count(LEGEND), 1)
        self.assertTrue(Path(self.folder, "glance.svg").exists())

    def test_a_registration_has_its_factor(self):
        over, under = (key(rows.REGISTER[kind], load=window(mode="register")) for kind in ("new", "none"))
        figures = run_of(self.folder, {over: 12, under: 4}).figures()
        self.assertAlmostEqual(figures["register"].value, 3)

    def test_what_is_not_met_has_its_reason_or_none(self):
        targets = [compare("A1", "this", 1, "a", "b"), compare("A2", "that", 1, "a", "b"), compare("A3", "missing", 1, "x", "y")]
        targets += [compare("A4", "fine", 3, "a", "b"), compare("A5", "near", 2, "a", "b")]
        run = run_of(self.folder, {"a": 2, "b": 1}, targets=targets)
        with mock.patch.object(page, "reasons", lambda: {"A1": "the kernel", "A2: this": "of another"}):
            text = page.page(run)
        self.assertIn("| A1 | this | ≤ 1 | 2.00 [1.96, 2.04] ×3 | the kernel |", text)
        self.assertIn("| A2 | that | ≤ 1 | 2.00 [1.96, 2.04] ×3 | no reason known |", text)
        self.assertIn("| A5 | near | ≤ 2 | 2.00 [1.96, 2.04] ×3 | the interval holds the target |", text)
        self.assertIn("Not measured here: A3.", text)
        self.assertNotIn("| A4 |", text)
        self.assertIn("Of 4 targets 1 are met, 2 are not, and 1 could not be decided", text)

    def test_a_row_with_two_limits_is_two_and_a_section_says_its_worst(self):
        targets = [compare("G2", "SIPp", 0.95, "a", "b", at_least=True), compare("G2", "SIPp", 1.05, "a", "b")]
        run = run_of(self.folder, {"a": 1.2, "b": 1}, ("second-opinion",), [*targets, compare("G1", "ours", 9, "a", "b")])
        self.assertEqual(len(run.rows()), 3)
        text = page.page(run)
        self.assertIn("The server's CPU for a call is 1.2 times what SIPp finds.", text)
        self.assertIn("Targets: met G1; not met G2.", text)

    def test_why_a_row_is_not_decided(self):
        for measured, runs, why in [
            ("1.20 [1.10, 1.30] ×5 g", 5, "the generator was the limit"),
            ("1.20 [1.10, 1.30] ×5 g!", 5, "the generator was the limit"),
            ("1.20 [1.10, 1.30] ×5 !", 5, "something was not clean"),
            ("1.20 [1.10, 1.30] ×2", 2, "too few runs"),
            ("1.20 [1.10, 1.30] ×12", 12, "the interval holds the target"),
        ]:
            self.assertEqual(page.undecided({"measured": measured, "runs": runs}), why)

    def test_a_report_that_is_missing_leaves_its_section_out_and_a_figure_is_shown(self):
        run_of(self.folder, {"a": 1}, ("rows", "overload"))
        data = json.loads(Path(self.folder, "overload.json").read_text())
        data["figures"] = [["overload-goodput", "Goodput"], ["overload-gone", "Gone"], ["another", "Another"]]
        Path(self.folder, "overload.json").write_text(json.dumps(data))
        for name in ("overload-goodput", "another"):
            Path(self.folder, f"{name}.svg").write_text("<svg/>")
        text = page.page(page.Run(Path(self.folder), Path(self.folder, "RESULTS.md")))
        self.assertIn("![Goodput](./overload-goodput.svg)", text)
        self.assertIn("![Another](./another.svg)", text)
        self.assertNotIn("overload-gone", text)
        self.assertIn("[overload](./overload.md)", text)
        self.assertNotIn("Where does the CPU go?", text)

    def test_an_empty_folder_makes_no_page(self):
        with self.assertRaisesRegex(RuntimeError, "no reports"):
            page.write(self.folder)

    def test_a_try_does_not_touch_the_published_page(self):
        run_of(self.folder, {"a": 1})
        self.assertEqual(page.write(self.folder), Path(self.folder).resolve() / "RESULTS.md")
        with (
            mock.patch.object(page, "RESULTS", Path(self.folder).resolve().parent),
            mock.patch.object(page, "PERF", Path(self.folder)),
        ):
            self.assertEqual(page.write(self.folder), Path(self.folder) / "RESULTS.md")

    def test_numbers_are_those_a_person_would_say(self):
        for number, text in [(0.1834, "0.18"), (1.96, "2"), (2.44, "2.4"), (24.4, "24"), (355, "360"), (1163, "1,200")]:
            self.assertEqual(page.said(number), text)

    def test_all_fields_of_all_sentences_are_known(self):
        known = run_of(self.folder, {"a": 1}).figures()
        for clauses in [*(each["clauses"] for each in page.WORDS["sentence"]), *(each["text"] for each in page.WORDS["section"])]:
            every = {name: "1" for name in known}
            self.assertIsNotNone(page.filled(clauses, every))
            for clause in clauses:
                clause.format(**every)


class Security(unittest.TestCase):
    def test_what_the_studies_published_is_in_calls_over_udp(self):
        by = security.BY_LABEL
        self.assertEqual(len(by), len(security.WAYS))
        local = by["TLS 1.2, both sides, RSA-2048"]
        self.assertAlmostEqual(local.in_2010, 2400 / 144 - 3.6)
        self.assertAlmostEqual(local.in_2012, 1810 / 135)
        self.assertAlmostEqual(by["the worst: mutual, RSA-2048, digest"].in_2010, 3170 / 144)
        self.assertAlmostEqual(by["digest, MD5, UDP"].in_2010, 4)

    def test_each_way_is_beside_its_call_over_udp_and_each_step_has_two_ways(self):
        keys = {each for task in security.plan(Namespace()).tasks for each in task.keys}
        for way in security.WAYS:
            self.assertTrue({key(way.case), key(way.udp)} <= keys, way.label)
        for words, with_, without in security.STEPS:
            self.assertTrue({with_, without} <= security.BY_LABEL.keys(), words)

    def test_what_the_rows_measure_too_has_their_keys(self):
        ours = {task.name for task in security.plan(Namespace()).tasks}
        theirs = {task.name for task in rows.plan(Namespace()).tasks}
        self.assertGreater(len(ours & theirs), 20)

    def test_a_side_with_one_connection_has_no_handshakes_in_memory(self):
        samples = Samples()
        for side in ("server", "client"):
            samples.add(security.tasks.memory_key(rows.LOCAL["full"], side), {"server_us": 300, "client_us": 100})
        by = security.BY_LABEL
        self.assertEqual(by["TLS 1.2, both sides, RSA-2048"].in_memory(samples).value, 400)
        self.assertEqual(by["TLS 1.2, each call, RSA-2048"].in_memory(samples).value, 300)
        self.assertIsNone(by["UDP"].in_memory(samples))


class Restarts(unittest.TestCase):
    def test_one_call_that_failed_in_one_run_of_four_is_not_met(self):
        samples = Samples()
        for failed in (0, 0, 0):
            samples.add("restarts", {"failed": failed, "pauses_ms": [8.5, 9.5], "refused": []})
        (row,) = restarts.plan(Namespace()).rows
        self.assertEqual(row.verdict(samples), "met")
        samples.add("restarts", {"failed": 1, "pauses_ms": [], "refused": ["no"]})
        self.assertEqual((row.estimate(samples).value, row.verdict(samples)), (1, "not met"))
        report = Report("restart", "Restarts", {})
        restarts.tell(report, samples)
        self.assertEqual(report.tables[0][1].values.tolist(), [[6, 1, "9.0", "9.5", "9.5"]])

    def test_what_failed_and_what_was_repeated_is_counted_apart(self):
        counts = {"completed": 9, "refused": 1, "cut_off": 2, "retransmitted_invite": 3, "retransmitted_bye": 1}
        found = restarts.counted({"counts": counts})
        self.assertEqual((found["failed"], found["repeated"]), (3, 4))

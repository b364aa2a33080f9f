"""perf/page: what stands in the reports stands on the page, and what does not is said to be missing."""

import os
import tempfile
import unittest
from unittest import mock

import page
from report import LEGEND, Report


class Page(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, name, title="A report", tables=(), rows=()):
        report = Report(title, "a machine", "1 round(s), 3 s each")
        for each in tables:
            report.table(*each)
        for each in rows:
            report.row(*each)
        with open(os.path.join(self.folder.name, name + ".md"), "w") as text:
            text.write(report.markdown())

    def reports(self):
        return page.Reports(self.folder.name)

    def test_a_table_is_taken_as_it_stands_and_what_is_missing_is_said(self):
        self.write(
            "reproduce-modes",
            tables=[("Worst case, and more", ["what", "ours"], [["local", "7.25"]]), ("Another", ["a"], [["unseen"]])],
        )
        with mock.patch.object(page, "FIGURES", os.path.join(self.folder.name, "figures")):
            text = page.page(self.reports())
        self.assertIn("### Worst case, and more\n\n| what | ours |\n| --- | --- |\n| local | 7.25 |", text)
        self.assertNotIn("unseen", text)
        self.assertIn("*compare: Server CPU: not measured.*", text)
        self.assertIn("*K1 was not measured here*", text)
        self.assertEqual(text.count(LEGEND), 1)

    def test_a_row_comes_from_the_whole_report_or_else_from_a_part_of_it(self):
        self.write("udp-K1", rows=[("K1", "two workers", "≤ 1.1", "1.05", True)])
        self.assertEqual(len(self.reports().rows("udp", "K1")), 1)
        self.write("udp", rows=[("K1", "two workers", "≤ 1.1", "1.09", True)])
        self.assertIn("1.09", self.reports().rows("udp", "K1")[0])
        self.assertEqual(self.reports().rows("udp", "K"), [])

    def test_an_empty_folder_makes_no_page(self):
        with self.assertRaisesRegex(RuntimeError, "no reports"):
            page.page(self.reports())

    def test_a_part_never_takes_the_name_of_the_whole(self):
        known = ["U1", "L1"]
        self.assertEqual(Report.name("udp", known, known), "udp")
        self.assertEqual(Report.name("udp", ["L1"], known), "udp-L1")
        self.assertEqual(Report.name("udp", known, known, ["strowger"]), "udp-strowger")


if __name__ == "__main__":
    unittest.main()

"""perf/targets: what is collected, and what is said to be missing."""

import argparse
import contextlib
import io
import json
import os
import signal
import tempfile
import unittest
from unittest import mock

import published
import report
import targets


class Collecting(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, name, rows, written=None, **more):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as text:
            json.dump({"settings": "3 round(s)", "rows": rows, "measurements": [], **more}, text)
        if written:
            os.utime(path, (written, written))

    def lines(self, row):
        return [line for line in targets.collect(self.folder.name) if line["row"] == row]

    def test_every_row_stands_there_in_order_even_where_nothing_was_measured(self):
        lines = targets.collect(self.folder.name)
        rows = list(dict.fromkeys(line["row"] for line in lines))
        self.assertEqual(rows, "U1 U1b U2 R1 R2 A1 A2 A3 T1 T2 T3 S1 S2 S3 S4 S5 S6 S7 I1 M1 M2 M3 M4 O1 K1 L1 G1 G2 G3 C1".split())
        self.assertTrue(all(line["measured"] == targets.NOT_MEASURED for line in lines))
        met, missed, unsure, missing = targets.summary(lines)
        self.assertEqual((met, missed, unsure, missing), ([], [], [], rows))

    def test_a_part_that_is_missing_is_said(self):
        self.write("overload.json", [["O1", "goodput at 2 × the peak ÷ the peak, UDP", "≥ 0.95", "0.991", "yes", ""]])
        two, three = self.lines("O1")
        self.assertEqual((two["measured"], two["met"], two["file"]), ("0.991", "yes", "overload.json"))
        self.assertEqual((three["measured"], three["met"]), (targets.NOT_MEASURED, "—"))
        self.assertIn("O1", targets.summary(targets.collect(self.folder.name))[3])

    def test_a_row_with_a_dash_was_not_measured(self):
        self.write("udp.json", [["U2", "stateless call", "≤ 1.35", "—", "—", ""]])
        (line,) = self.lines("U2")
        self.assertEqual(line["measured"], targets.NOT_MEASURED)

    def test_one_line_that_is_not_met_makes_the_row_not_met(self):
        self.write(
            "overload.json",
            [
                ["O1", "goodput at 2 × the peak ÷ the peak, UDP", "≥ 0.95", "0.99", "yes", ""],
                ["O1", "goodput at 3 × the peak ÷ the peak, UDP", "≥ 0.95", "0.50", "NO", ""],
            ],
        )
        self.assertIn("O1", targets.summary(targets.collect(self.folder.name))[1])

    def test_a_row_that_is_not_met_is_no_less_so_where_a_part_is_missing(self):
        self.write("overload.json", [["O1", "goodput at 2 × the peak ÷ the peak, UDP", "≥ 0.95", "0.50", "NO", ""]])
        _, missed, _, missing = targets.summary(targets.collect(self.folder.name))
        self.assertEqual(missed, ["O1"])
        self.assertIn("O1", missing)

    def test_what_cannot_be_told_is_not_met(self):
        self.write(
            "overload.json",
            [
                ["O1", "goodput at 2 × the peak ÷ the peak, UDP", "≥ 0.95", "0.99", "yes", ""],
                ["O1", "goodput at 3 × the peak ÷ the peak, UDP", "≥ 0.95", "0.96", "—", "g"],
            ],
        )
        met, missed, unsure, _ = targets.summary(targets.collect(self.folder.name))
        self.assertEqual((met, missed, unsure), ([], [], ["O1"]))

    def test_the_newest_of_the_same_row_wins(self):
        row = ["M3", "one binding, all told", "≤ 400 B"]
        self.write("scale.json", [[*row, "500 B", "NO", ""]], written=1_000_000)
        self.write("footprint.json", [[*row, "300 B", "yes", ""]], written=2_000_000)
        (line,) = self.lines("M3")
        self.assertEqual((line["measured"], line["file"]), ("300 B", "footprint.json"))

    def test_what_is_no_report_is_passed_over(self):
        with open(os.path.join(self.folder.name, "broken.json"), "w") as text:
            text.write("{")
        self.write("list.json", [])
        with open(os.path.join(self.folder.name, "list.json"), "w") as text:
            text.write("[]")
        self.assertTrue(targets.collect(self.folder.name))

    def test_tables_and_figures_count_by_their_reports(self):
        wanted = [
            ("Table 1", "thesis", "perf/reproduce registrar"),
            ("Table 2", "thesis", "perf/reproduce proxy"),
            ("shares", "report", "perf/profile"),
        ]
        with mock.patch.object(published, "TABLES_AND_FIGURES", wanted, create=True):
            self.write("reproduce-registrar.json", [], measurements=[{}])
            # Nothing was measured in it.
            self.write("reproduce-proxy.json", [])
            (line,) = self.lines("G3")
            self.assertEqual((line["measured"], line["met"]), ("1 of 3", "NO"))
            self.assertIn("perf/profile", line["note"])
            self.write("reproduce-proxy.json", [], measurements=[{}])
            self.write("profile-chain-udp.json", [], measurements=[{}])
            (line,) = self.lines("G3")
            self.assertEqual((line["measured"], line["met"]), ("3 of 3", "yes"))

    def test_every_command_named_is_known(self):
        for target in targets.TARGETS:
            for name in target.command.split(", "):
                self.assertIn(name, targets.COMMANDS)


class Footprint(unittest.TestCase):
    def test_its_lines_are_read(self):
        text = (
            "running 1 test\n  10000 bindings: 391 bytes each\n 240000 bindings: 352 bytes each\n"
            "one binding: 371 bytes at most, of which 144 are its record and binding\ntest ... ok\n"
        )
        self.assertEqual(
            targets.weighed(text), (371, [{"bindings": 10_000, "bytes_each": 391}, {"bindings": 240_000, "bytes_each": 352}])
        )

    def test_a_test_that_did_not_run_weighs_nothing(self):
        self.assertEqual(targets.weighed("error: could not compile"), (None, []))


class Commands(unittest.TestCase):
    def arguments(self, **more):
        return argparse.Namespace(
            **{"quick": False, "strowger": None, "load": None, "no_build": False, "began": 1_000_000.0, **more}
        )

    def test_all_are_there(self):
        for name, (command, _) in targets.COMMANDS.items():
            if command:
                self.assertTrue(os.access(targets.command_of(name, self.arguments())[0], os.X_OK), name)

    def test_the_model_takes_what_was_measured_in_this_run_only(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(targets.Report, "directory", return_value=folder):
            for name, written in zip(targets.FOR_MODEL, (2_000_000, 500_000)):
                path = os.path.join(folder, name)
                with open(path, "w"):
                    pass
                os.utime(path, (written, written))
            command = targets.command_of("model", self.arguments(quick=True))
            self.assertEqual(command[1:], ["fit", "--quick", "--rounds", "3", "--from", os.path.join(folder, targets.FOR_MODEL[0])])

    def test_a_run_over_midnight_writes_to_one_folder(self):
        with (
            tempfile.TemporaryDirectory() as perf,
            mock.patch.dict(os.environ, clear=False),
            mock.patch.object(report.time, "strftime") as today,
        ):
            os.environ.pop(report.RESULTS, None)
            today.return_value = "2026-11-21"
            evening = report.Report.directory(perf)
            today.return_value = "2026-11-22"
            self.assertEqual(report.Report.directory(perf), evening)
            self.assertIn("2026-11-21", evening)
            # What this run starts is told.
            self.assertEqual(os.environ[report.RESULTS], evening)
            os.environ[report.RESULTS] = os.path.join(perf, "elsewhere")
            self.assertEqual(report.Report.directory(perf), os.path.join(perf, "elsewhere"))
            self.assertTrue(os.path.isdir(os.path.join(perf, "elsewhere")))

    def test_what_it_runs_is_told_where_to_write_before_it_runs(self):
        told = []

        def run(*_):
            told.append(os.environ[report.RESULTS])
            return []

        with (
            tempfile.TemporaryDirectory() as perf,
            mock.patch.dict(os.environ, clear=False),
            mock.patch.object(targets, "PERF", perf),
            mock.patch.object(targets, "run", run),
            mock.patch.object(targets.signal, "signal"),
            mock.patch.object(targets.machine, "describe", return_value="here"),
            mock.patch("sys.argv", ["targets"]),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            os.environ.pop(report.RESULTS, None)
            with self.assertRaises(SystemExit):
                targets.main()
            self.assertEqual(told, [report.Report.directory(perf)])
            self.assertTrue(os.path.exists(os.path.join(told[0], "targets.md")))

    def test_who_is_told_to_end_lets_the_command_write_what_it_has(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "report")
            # It sends the signal when it can no longer miss it and this side waits for its end, and takes its time to end.
            trap = f'trap "sleep 0.3; echo written > {path}; exit 0" TERM'
            command = ["sh", "-c", f"{trap}; sleep 0.5; kill -USR1 {os.getpid()}; while :; do sleep 0.05; done"]

            def end(*_):
                raise SystemExit("told to end")

            before = signal.signal(signal.SIGUSR1, end)
            self.addCleanup(signal.signal, signal.SIGUSR1, before)
            with self.assertRaises(SystemExit):
                targets.ended(command)
            with open(path) as text:
                self.assertEqual(text.read(), "written\n")
            self.assertEqual(targets.ended(["sh", "-c", "exit 3"]), 3)


if __name__ == "__main__":
    unittest.main()

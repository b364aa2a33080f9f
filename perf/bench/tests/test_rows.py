"""perf/rows, scale, memory, all: what rows are made of, and what is said of all of them."""

import argparse
import json
import unittest
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import cluster
import everything
import memory
import published
import restarts
import rows
import scale
from bench import listed
from report import Report
from samples import Row, Samples, worst
from study import Task, merged
from tasks import both, key

OPTIONS = argparse.Namespace(as_published=False, cases=None, only=None)


def one_result(name, result):
    samples = Samples()
    samples.add(name, result)
    return samples


class Plans(unittest.TestCase):
    """Of every command that has one."""

    def setUp(self):
        modules = [*everything.MODULES, cluster, restarts]
        self.plans = [*(plan for each in modules for plan in listed(each.plan(OPTIONS))), rows.udp(OPTIONS), rows.streams(OPTIONS)]

    def test_each_row_rests_on_keys_that_a_task_has(self):
        for plan in self.plans:
            keys = {each for task in plan.tasks for each in task.keys}
            for row in plan.rows:
                self.assertEqual([each.key for each in row.of.values() if each.key not in keys], [], f"{plan.name}: {row.what}")

    def test_no_two_tasks_give_the_same_key(self):
        keys = [each for task in merged(task for plan in self.plans for task in plan.tasks) for each in task.keys]
        self.assertEqual([each for each, number in Counter(keys).items() if number > 1], [])

    def test_a_report_of_nothing_has_no_table_and_no_figure(self):
        for plan in self.plans:
            report = Report(plan.name, plan.title, {"machine": "a machine", "minutes": 0})
            plan.tell(report, Samples())
            told = {title for title, _ in report.tables} - {"What of the studies this reproduces", "What differs"}
            self.assertEqual((told, report.figures, report.data.get("reproduced", [])), (set(), [], []), plan.name)

    def test_two_plans_look_at_the_same_server(self):
        seen = []
        look = both(lambda *_: seen.append(1), lambda *_: seen.append(2))
        look(None, None, {})
        self.assertEqual(seen, [1, 2])
        self.assertIs(both(None, look), look)


class Latency(unittest.TestCase):
    def test_the_worst_span_counts_less_twice_the_floor(self):
        samples = Samples()
        for who, p99 in (("strowger", (500, 900, 800, 400)), ("floor", (100, 300, 100, 100))):
            result = {"latency_us": {span: {"p99": value} for span, value in zip(rows.SPANS, p99)}}
            samples.add(key(rows.REGISTERED, who, rows.HALF), result)
        self.assertEqual(rows.latency_row("UDP").estimate(samples).value, 600)


class Handshakes(unittest.TestCase):
    def test_calls_are_counted_by_side(self):
        counters = {
            'strowger_tls_handshakes_total{kind="full",side="server"}': 10,
            'strowger_tls_handshakes_total{kind="mutual",side="server"}': 10,
            'strowger_tls_handshake_calls_total{side="server"}': 20,
            'strowger_tls_handshakes_total{kind="resumed",side="client"}': 4,
            'strowger_tls_handshake_calls_total{side="client"}': 12,
        }
        found = {"a": {}}
        rows.count_handshake_calls(mock.Mock(counters=lambda prefix: counters), None, found)
        self.assertEqual(found["a"]["handshake_calls"], {"server": 2, "client": 3})


def table(connections, miss_ns, find_ns, sweep_ns):
    steps = {step: {"ns": 10.0, "least_ns": 9.0, "lines": 4} for step in scale.STEPS}
    steps |= {"find": {"ns": find_ns, "least_ns": find_ns, "lines": 1}, "sweep": {"ns": 9.0, "least_ns": sweep_ns, "lines": 0}}
    return {"connections": connections, "bytes_each": 350.0, "miss_ns": miss_ns, "steps": steps}


class Flat(unittest.TestCase):
    def test_waiting_for_memory_is_no_growth_and_anything_else_is(self):
        sweep, step, _ = scale.table_rows()
        for most, grown in ((table(1_000_000, 400.0, 415.0, 2.0), (1.0, 1.0)), (table(1_000_000, 400.0, 1_660.0, 3.0), (1.5, 4.0))):
            samples = one_result("connections", {"rows": [table(1_000, 10.0, 15.0, 2.0), most]})
            self.assertEqual((sweep.estimate(samples).value, step.estimate(samples).value), grown)
            self.assertEqual(sweep.verdict(samples), "met" if grown[0] == 1 else "not met")


class Footprint(unittest.TestCase):
    def test_the_size_is_read_and_its_lack_is_said(self):
        found = memory.weighed("  10000 bindings: 338 bytes each\none binding: 349 bytes at most, of which …")
        self.assertEqual((found["bytes_each"], found["by_bindings"]), (349, {10_000: 338}))
        with self.assertRaises(RuntimeError):
            memory.weighed("panicked")


class Targets(unittest.TestCase):
    def test_a_row_is_as_its_worst_line(self):
        self.assertEqual(
            [worst(each) for each in (["met", "not met"], ["met", "not measured"], ["met"])], ["not met", "not measured", "met"]
        )

    def test_an_hour_has_room_for_what_rows_rest_on(self):
        seconds = {10: 3, 20: 2, 85: 1}
        tasks = [Task(f"{each} s", [f"{each}"], lambda bench: {}, seconds=each) for each in seconds]
        self.assertEqual([everything.most_runs(task, True) for task in tasks], list(seconds.values()))
        self.assertEqual([everything.most_runs(task, False) for task in tasks], [1, 1, 1])

    def test_all_rows_stand_in_the_order_of_the_page_and_those_of_other_commands_are_named(self):
        def row(name):
            return Row(name, name, 1, {}, lambda: 1)

        with TemporaryDirectory() as folder, mock.patch.object(everything.report, "directory", lambda: Path(folder)):
            Path(folder, "study.json").write_text(json.dumps({"reproduced": [each[0] for each in published.TABLES_AND_FIGURES]}))
            plan = everything.targets([mock.Mock(rows=[row("M1"), row("U1")], tasks=[])])
            self.assertEqual([each.name for each in plan.rows], ["U1", "M1"])
            written = Report("targets", "", {"machine": "", "minutes": 59})
            for each in plan.rows:
                written.row(each, Samples())
            everything.tell(written, Samples(), plan.rows, ["study"])
        self.assertEqual((written.rows[-1]["row"], written.rows[-1]["verdict"]), ("G3", "met"))
        together = dict(zip(written.tables[0][1][""].iloc[:, 0], written.tables[0][1][""].iloc[:, 1]))
        self.assertEqual((together["not measured"], together["met"]), ("U1 M1", "G3"))
        self.assertIn("X1 (perf/attack)", together["measured by other commands"])

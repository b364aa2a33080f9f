"""The frame: what is taken, in which order, how often, and what its verdicts rest on. No server is started."""

import argparse
import random
import unittest
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from bench import address, last_words, needed
from cases import Case, configuration, report_configurations, to_udp
from machine import in_tables
from samples import Quantity, Samples, compare, errs, estimate, pluck
from servers import toml
from study import CALM_LOOKS, DISTURBED, FAILURES, HOST, NOTHING, Plan, Study, Task, merged, planned
from tasks import key, memory_name, rate, served, window


def samples_of(**series):
    samples = Samples()
    for name, values in series.items():
        for value in values:
            samples.add(name, {"cost": value})
    return samples


class Intervals(unittest.TestCase):
    def test_a_ratio_has_the_interval_of_both_its_series(self):
        samples = samples_of(a=[10, 11, 12, 10, 11], b=[5, 5, 5, 5, 5])
        found = estimate(samples, lambda a, b: a / b, {"a": Quantity("a", "cost"), "b": Quantity("b", "cost")})
        self.assertAlmostEqual(found.value, 2.2)
        self.assertTrue(2.0 <= found.low <= 2.2 <= found.high <= 2.4)
        self.assertEqual(found.runs, 5)

    def test_what_was_not_measured_has_no_estimate(self):
        self.assertIsNone(estimate(samples_of(a=[1]), lambda a, b: a / b, {"a": Quantity("a", "cost"), "b": Quantity("b", "cost")}))

    def test_figures_are_found_by_path(self):
        result = {"latency": {"p99": 7}, "bytes": [1, 2], "none": None}
        self.assertEqual(pluck(result, "latency.p99"), 7)
        self.assertEqual(pluck(result, "bytes.1"), 2)
        self.assertEqual(pluck(result, "latency.p99 / bytes.1"), 3.5)
        for missing in ("none", "latency.p50", "other.p99"):
            self.assertIsNone(pluck(result, missing))


class Verdicts(unittest.TestCase):
    def row(self, limit, **how):
        return compare("X", "a ÷ b", limit, "a", "b", path="cost", **how)

    def test_it_is_told_where_the_whole_interval_lies_on_one_side(self):
        samples = samples_of(a=[10, 11, 12, 11, 11], b=[10] * 5)
        self.assertEqual(self.row(1.3).verdict(samples), "met")
        self.assertEqual(self.row(0.9).verdict(samples), "not met")
        self.assertEqual(self.row(1.1).verdict(samples), "not decided")
        self.assertEqual(self.row(0.9, at_least=True).verdict(samples), "met")
        self.assertEqual(self.row(1.3, at_least=True).verdict(samples), "not met")

    def test_few_runs_and_unclean_ones_decide_nothing(self):
        self.assertEqual(self.row(5).verdict(samples_of(a=[1, 1], b=[1, 1])), "not decided")
        samples = samples_of(a=[1, 1, 1], b=[1, 1, 1])
        samples.add("a", {"cost": 1, "clean": False})
        self.assertEqual(self.row(5).verdict(samples), "not decided")
        self.assertEqual(self.row(5).estimate(samples).marks, "!")

    def test_where_the_generator_was_the_limit_only_what_that_cannot_have_caused_is_decided(self):
        def verdicts(bound, path="server_cpu_us_each", **how):
            samples = Samples()
            for name in "ab":
                for value in (10, 10.1, 10.2):
                    samples.add(name, {path: value, "generator_bound": name in bound})
            return [compare("X", "", limit, "a", "b", path, **how).verdict(samples) for limit in (0.5, 2)]

        self.assertEqual(verdicts(""), ["not met", "met"])
        # A cost is an upper bound: what is met in spite of it is met.
        self.assertEqual(verdicts("a"), ["not decided", "met"])
        self.assertEqual(verdicts("b"), ["not met", "not decided"])
        self.assertEqual(verdicts("ab"), ["not decided", "not decided"])
        self.assertEqual(verdicts("a", "completed_per_second", at_least=True), ["met", "not decided"])
        self.assertEqual(verdicts("ab", "handshake_calls"), ["not met", "met"])
        self.assertEqual([errs(path) for path in ("generator_us_each / server_cpu_us_each", "latency_us.to_200.p99")], [-1, 1])

    def test_it_is_settled_when_decided_or_precise(self):
        close = samples_of(a=[1.1, 1.1, 1.101, 1.099], b=[1] * 4)
        wide = samples_of(a=[1, 1.1, 1.3, 1.4], b=[1] * 4)
        self.assertTrue(self.row(1.1).is_settled(close, 0.03))
        self.assertFalse(self.row(1.1).is_settled(wide, 0.03))
        self.assertTrue(self.row(2).is_settled(wide, 0.03))


class Fake(Study):
    """With a machine that is calm or not as the test says, and no bench."""

    def __init__(self, tasks, rows=(), minutes=60):
        bench = mock.Mock(options=argparse.Namespace(take_disturbed=False))
        super().__init__([Plan("test", "Test", list(tasks), list(rows))], bench, minutes, seed=1)
        self.gauge = mock.Mock(read=lambda: None, distance=lambda: (None, None))
        self.said, self.paused = [], 0
        self.say = self.said.append

    def pause(self):
        self.paused += 1


class Order(unittest.TestCase):
    def task(self, name, value=lambda: 1.0, **how):
        found = how.pop("found", None) or (lambda bench: {name: {"cost": value()}})
        return Task(name, [name], found, seconds=0, **how)

    def test_each_task_is_run_as_often_as_it_must(self):
        study = Fake([self.task("a", least=2), self.task("b", least=4)])
        study.run()
        self.assertEqual({name: len(study.samples.of(name)) for name in "ab"}, {"a": 2, "b": 4})

    def test_what_is_not_settled_is_run_on_and_nothing_else(self):
        random_of = random.Random(1)
        tasks = [self.task("a", lambda: random_of.uniform(0.9, 1.1), most=12), self.task("b", most=12), self.task("c")]
        study = Fake(tasks, [compare("X", "a ÷ b", 1, "a", "b", path="cost")])
        study.run()
        self.assertEqual(len(study.samples.of("c")), 3)
        self.assertGreater(len(study.samples.of("a")), 3)
        self.assertEqual(len(study.samples.of("a")), len(study.samples.of("b")))

    def test_tasks_of_a_block_stay_together(self):
        study = Fake([self.task(f"{block}{number}", block=block) for block in "xyz" for number in range(3)])
        names = [task.name for task in study.wanted()]
        self.assertEqual(sorted(names), sorted(f"{block}{number}" for block in "xyz" for number in range(3)))
        for start in range(0, 9, 3):
            self.assertEqual(len({name[0] for name in names[start : start + 3]}), 1)

    def test_what_comes_after_waits(self):
        order = []

        def noting(name):
            return lambda bench: (order.append(name), {name: {"cost": 1}})[1]

        study = Fake(
            [self.task("late", found=noting("late"), after=["early"], least=1), self.task("early", found=noting("early"), least=1)]
        )
        study.run()
        self.assertEqual(order, ["early", "late"])

    def test_a_disturbed_run_is_taken_again_and_not_for_ever(self):
        study = Fake([self.task("a")])
        calm = iter([None, "the core was slow", *[None] * 20])
        study.gauge.read = lambda: next(calm)
        study.run()
        self.assertEqual(study.paused, 0)
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected)), (3, 1))
        study = Fake([self.task("a")])
        study.gauge.read = lambda: "never calm"
        study.run()
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected)), (0, DISTURBED))
        self.assertEqual(study.paused, DISTURBED * (CALM_LOOKS - 1))

    def test_a_run_waits_until_the_machine_is_calm(self):
        study = Fake([self.task("a", least=1)])
        calm = iter(["the core was slow", "stolen time", *[None] * 20])
        study.gauge.read = lambda: next(calm)
        study.run()
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected), study.paused), (1, 0, 2))

    def test_what_the_generator_calls_disturbed_is_taken_again(self):
        flags = iter([True, False, False, False])
        study = Fake([Task("a", ["a"], lambda bench: {"a": {"cost": 1, "disturbed": next(flags)}}, seconds=0)])
        study.run()
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected)), (3, 1))

    def test_who_measures_bytes_minds_nothing_and_who_shares_a_core_only_the_host(self):
        crowded = Task("a", ["a"], lambda bench: {"a": {"cost": 1, "disturbed": True}}, seconds=0, minds=HOST)
        study = Fake([crowded])
        study.run()
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected)), (3, 0))
        study = Fake([crowded])
        study.gauge.read = lambda: "never calm"
        study.run()
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected)), (0, DISTURBED))
        study = Fake([replace(crowded, minds=NOTHING)])
        study.gauge = mock.Mock(read=lambda: "never calm", distance=lambda: (None, "moved"))
        study.run()
        self.assertEqual((len(study.samples.of("a")), study.paused), (3, 0))

    def test_what_fails_is_said_and_given_up_and_the_others_go_on(self):
        def broken(bench):
            raise RuntimeError("no server")

        study = Fake([self.task("a", found=broken), self.task("b")])
        study.run()
        self.assertEqual(study.failures, ["a: no server"])
        self.assertEqual(sum(said.startswith("FAILED: a") for said in study.said), FAILURES)
        self.assertEqual(len(study.samples.of("b")), 3)

    def test_a_task_that_does_not_deliver_what_it_names_is_a_failure(self):
        study = Fake([Task("a", ["a", "b"], lambda bench: {"a": {"cost": 1}}, seconds=0)])
        study.run()
        self.assertEqual(study.failures, ["a: nothing of b"])

    def test_the_time_is_a_bound(self):
        study = Fake([self.task("a")], minutes=0)
        study.tasks[0].seconds = 1
        study.run()
        self.assertEqual(study.samples.of("a"), [])

    def test_an_earlier_run_is_gone_on_with(self):
        with TemporaryDirectory() as folder:
            path = Path(folder, "runs.jsonl")
            first = Samples(path)
            first.add("a", {"cost": 1})
            first.add("a", {"cost": 2}, "disturbed")
            with open(path, "a") as lines:
                lines.write('{"key": "a", "co')
            study = Fake([self.task("a")])
            with mock.patch("builtins.print") as said:
                study.samples.read(path)
            self.assertEqual(said.call_count, 1)
            study.run()
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected)), (3, 1))

    def test_what_is_too_long_for_the_rest_makes_room_for_what_is_not(self):
        study = Fake([self.task("a"), self.task("b")])
        study.tasks[0].seconds = 1e6
        study.run()
        self.assertEqual([len(study.samples.of(name)) for name in "ab"], [0, 3])

    def test_what_cannot_be_built_is_given_up_before_the_time_begins(self):
        def broken(bench):
            raise RuntimeError("no compiler")

        study = Fake([self.task("a", prepare=broken), self.task("b")])
        study.run()
        self.assertEqual((study.failures, len(study.samples.of("b"))), (["a: no compiler"], 3))


class Generator(unittest.TestCase):
    def test_its_last_words_are_not_its_live_lines(self):
        self.assertEqual(last_words("  call 3/s\nstrowger-load: no server\n  call 4/s\n"), "strowger-load: no server")


class Options(unittest.TestCase):
    def test_rows_bring_what_they_rest_on_and_what_comes_before_it(self):
        after = {"a": ["c"], "b": [], "c": [], "d": []}
        tasks = [Task(name, [name], lambda bench: {}, after=keys) for name, keys in after.items()]
        plan = Plan("x", "", tasks, [compare("R", "", 1, "a", "b")])
        self.assertEqual([task.name for task in needed(plan)], ["a", "b", "c"])

    def test_the_sum_of_a_plan_is_said(self):
        tasks = [
            Task(name, [name], lambda bench: {}, seconds=each, least=runs) for name, each, runs in (("a", 60, 3), ("b", 30, 1))
        ]
        plan = Plan("x", "", tasks)
        self.assertIn("2 tasks: 2 min once each, 4 min", planned([plan, plan]))

    def test_an_address_is_one_of_this_machine(self):
        self.assertEqual([address(text) for text in ("127.0.0.2", "[::1]")], ["127.0.0.2", "::1"])
        for wrong in ("10.0.0.1", "localhost"):
            with self.assertRaises(argparse.ArgumentTypeError):
                address(wrong)
        self.assertEqual([in_tables(text)[0] for text in ("127.0.0.2", "::1")], ["0200007F", "0" * 24 + "01000000"])


class Seconds(unittest.TestCase):
    def test_pauses_between_studies_are_not_counted_and_long_tasks_are(self):
        samples = Samples()
        for at, took in ((0, 5), (300, 5), (5_000, 5), (5_005, 5), (8_005, 2_990)):
            samples.add("a", {"at": at, "took_s": took})
        self.assertEqual(samples.seconds(), 300 + 5 + 3_000)


class Distance(unittest.TestCase):
    def samples(self, **series):
        samples = Samples()
        for name, values in series.items():
            for cost, distance in values:
                samples.add(name, {"cost": cost, "distance_ns": distance} if distance else {"cost": cost})
        return samples

    def ratio(self, samples):
        return estimate(samples, lambda a, b: a / b, {"a": Quantity("a", "cost"), "b": Quantity("b", "cost")})

    def test_only_runs_with_the_cores_in_one_place_are_compared(self):
        samples = self.samples(a=[(10, 60), (12, 300), (12, 310), (10, 64)], b=[(5, 62), (8, 300), (8, 300), (8, 305)])
        found = self.ratio(samples)
        self.assertEqual((found.value, found.runs, found.marks), (1.5, 2, ""))
        for distance in (61, 60, 63):
            samples.add("b", {"cost": 5, "distance_ns": distance})
        found = self.ratio(samples)
        self.assertEqual((found.value, found.runs, found.marks), (2, 2, ""))
        samples.add("a", {"cost": 12, "distance_ns": 300})
        found = self.ratio(samples)
        self.assertEqual((found.value, found.runs, found.place, found.marks), (1.5, 3, "other", "f"))

    def test_a_place_seen_once_changes_no_other(self):
        samples = self.samples(a=[(9, 27), (10, 60), (10, 71), (12, 292), (12, 337)], b=[(5, 60), (5, 66), (8, 300)])
        self.assertEqual(samples.places(), [27, 60, 292])
        self.assertEqual((samples.usual_place(), self.ratio(samples).value), (60, 2))

    def test_what_has_no_distance_goes_with_any_place(self):
        found = self.ratio(self.samples(a=[(10, 60), (12, 300), (12, 310)], b=[(6, None)] * 3))
        self.assertEqual((found.value, found.runs), (2, 2))
        self.assertEqual(self.ratio(self.samples(a=[(1, None)], b=[(1, None)])).place, "")

    def test_two_places_decide_nothing(self):
        samples = self.samples(a=[(10, 60)] * 3, b=[(5, 300)] * 3)
        found = self.ratio(samples)
        self.assertEqual((found.place, found.marks), ("mixed", "m"))
        self.assertEqual(compare("X", "", 9, "a", "b", path="cost").verdict(samples), "not decided")

    def test_a_run_during_which_the_cores_were_moved_is_taken_again(self):
        study = Fake([Task("a", ["a"], lambda bench: {"a": {"server_cpu_us_each": 1}}, seconds=0)])
        said = iter([(64, None), (None, "the host moved the cores"), *[(64, None)] * 20])
        study.gauge.distance = lambda: next(said)
        study.run()
        self.assertEqual((len(study.samples.of("a")), len(study.samples.rejected)), (3, 1))
        self.assertEqual([result["distance_ns"] for result in study.samples.of("a")], [64] * 3)


class Slices(unittest.TestCase):
    def result(self, cost, calm, share=0.5, work_ns=10_000, completed=1_000, **more):
        found = {"share": share, "work_ns": work_ns, "completed": completed, "server_cpu_us_each": calm}
        return {"server_cpu_us_each": cost, "completed_per_second": 7, "calm": found, **more}

    def test_what_was_found_at_full_speed_counts(self):
        samples = Samples()
        for calm in (25, 26):
            samples.add("a", self.result(40, calm))
        self.assertEqual(list(samples.values("a", "server_cpu_us_each")), [25, 26])
        self.assertEqual(list(samples.values("a", "server_cpu_us_each_all")), [40, 40])
        self.assertEqual(list(samples.values("a", "completed_per_second")), [7, 7], "no limit of the server's")
        rate = self.result(40, 25)
        rate["calm"]["completed_per_second"] = 40_000
        samples.add("b", rate)
        self.assertEqual(list(samples.values("b", "completed_per_second")), [40_000])

    def test_what_was_not_measured_in_slices_is_as_it_was(self):
        samples = Samples()
        samples.add("a", {"server_cpu_us_each": 3, "calm": None})
        samples.add("a", {"server_cpu_us_each": 5})
        self.assertEqual(samples.median("a", "server_cpu_us_each"), 4)

    def test_slices_that_say_nothing_do_not_count(self):
        samples = Samples()
        samples.add("a", self.result(40, 25))
        for how in ({"share": 0.04}, {"completed": 49}, {"work_ns": 10_601}):
            bad = self.result(40, 25, **how)
            self.assertIn("full speed" if "work_ns" not in how else "slower", samples.why_not_calm(bad))
            samples.add("a", bad)
        self.assertEqual(len(samples.of("a")), 1)
        self.assertIsNone(samples.why_not_calm(self.result(40, 25, work_ns=10_600)))

    def test_what_seemed_fast_does_not_count_when_the_core_turns_out_faster(self):
        samples = Samples()
        samples.add("a", self.result(40, 35, work_ns=14_000))
        self.assertEqual(len(samples.of("a")), 1)
        samples.add("a", self.result(40, 25))
        self.assertEqual(list(samples.values("a", "server_cpu_us_each")), [25])

    def test_if_the_core_was_slow_throughout_there_is_a_figure_that_decides_nothing(self):
        samples = Samples()
        for _ in range(3):
            samples.add("a", self.result(40, 35, work_ns=14_000))
            samples.add("b", self.result(20, 15))
        found = compare("X", "", 9, "a", "b")
        self.assertEqual((found.estimate(samples).value, found.estimate(samples).marks), (35 / 15, "m"))
        self.assertEqual((found.verdict(samples), samples.not_counted()), ("not decided", 3))
        for _ in range(3):
            samples.add("a", self.result(40, 25))
        self.assertEqual((found.estimate(samples).value, found.estimate(samples).marks), (25 / 15, ""))
        self.assertEqual(found.verdict(samples), "met")

    def test_such_a_run_needs_no_calm_gauge_and_each_of_its_results_is_judged_for_itself(self):
        shares = iter([0.01, 0.5, 0.5, 0.5])

        def measure(bench):
            return {"a": self.result(40, 25, share=next(shares)), "b": self.result(40, 25)}

        study = Fake([Task("a", ["a", "b"], measure, seconds=0, is_sliced=True)])
        study.gauge.read = lambda: "never calm"
        study.run()
        self.assertEqual([len(study.samples.of(name)) for name in "ab"], [3, 4])
        self.assertEqual((study.samples.rejected, study.samples.not_counted(), study.paused), ([], 1, 0))
        self.assertEqual(len([said for said in study.said if "full speed for 1 % of the time" in said]), 1)


class Together(unittest.TestCase):
    def test_two_plans_share_a_server_and_its_loads(self):
        case = Case()
        one, two = served(case, loads=[window()], least=2), served(case, loads=[rate(1000), window()], least=4)
        (joined,) = merged([one, two])
        self.assertEqual(sorted(joined.keys), sorted([key(case), key(case, load=rate(1000))]))
        self.assertEqual(joined.least, 4)
        self.assertEqual([load.name for load in joined.loads], ["1000/s", "window"])

    def test_a_handshake_in_memory_has_the_keys_of_the_side_that_the_server_is_on(self):
        case = Case("tls/call", "udp", peer="ec", mutual=True)
        self.assertEqual(memory_name(case), "handshake-mutual-peer-ec")
        self.assertEqual(memory_name(case, "client"), "handshake-mutual-ec-peer-rsa")
        self.assertEqual(memory_name(case.with_(mutual=False)), "handshake")
        self.assertEqual(memory_name(case.with_(mutual=False), "client"), "handshake-ec")

    def test_the_names_of_cases_tell_them_apart(self):
        cases = [*report_configurations(), *report_configurations(version="1.3"), Case(routed=False), Case("tcp", "tcp", False)]
        cases += [to_udp(mode, "tls", variant=kind) for mode in ("outbound", "inbound") for kind in ("full", "mutual", "reuse")]
        cases += [Case("tls", "tls", key="ec"), Case("tls", "tls", group="X25519MLKEM768")]
        by_name = {}
        for case in cases:
            by_name.setdefault(case.name, set()).add(case.with_(version="1.2") if not case.is_tls else case)
        self.assertEqual([name for name, found in by_name.items() if len(found) > 1], [])
        self.assertEqual(configuration("local", "tls", True, "mutual").name, "local-tls-mutual-auth")


class Confs(unittest.TestCase):
    def test_tables_and_lists_of_tables_are_toml(self):
        import tomllib

        conf = {
            "server": {"cores": [0], "name": 'a "b"'},
            "listen": [{"transport": "udp"}, {"transport": "tcp"}],
            "x": {"on": True},
        }
        self.assertEqual(tomllib.loads(toml(conf)), conf)

"""perf/reproduce, compare, overload and second-opinion: the arithmetic, what is chosen, what is judged. No server is started."""

import argparse
import os
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import bench
import compare
import overload
import published
import reproduce
import second_opinion
import studies
import study_figures
from cases import report_configurations
from machine import Process
from report import Report
from samples import Samples
from studies import PROXY, REGISTRAR
from tasks import key

OPTIONS = argparse.Namespace(as_published=False, rows=None, cases=None, only=None)


def result(rate, cpu, **more):
    rates = {"completed_per_second": rate, "rate_or_window": rate}
    return {**rates, "server_cpu_us_each": cpu, "server_busy": rate * cpu / 1e6, **more}


def told(tell, samples):
    """A report, its tables by title, and no figure on the disk."""
    report = Report("x", "x", {"machine": "m", "minutes": 1})
    with TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"STROWGER_PERF_RESULTS": folder}):
        tell(report, samples)
        for name, _ in report.figures:
            assert Path(folder, f"{name}.svg").exists() and Path(folder, f"{name}.png").exists()
    return report, dict(report.tables)


class Published(unittest.TestCase):
    def test_relative_peaks_are_products_down_to_udp(self):
        peaks = published.relative_peaks()
        self.assertAlmostEqual(peaks["chain-tls"], 0.60 * 0.47)
        self.assertAlmostEqual(peaks["inbound-tls-reuse"], 2.00 * 0.28 * 0.24)
        self.assertAlmostEqual(peaks["local-tls-mutual-auth"], 0.67 * 0.37 * 0.53)

    def test_every_configuration_of_the_report_has_a_published_ratio(self):
        names = {case.name for case in report_configurations()}
        self.assertEqual((len(names), names), (20, set(published.relative_peaks())))
        self.assertLessEqual(set(published.CYCLES), names)

    def test_a_curve_ends_where_the_core_is_full(self):
        table = published.table(REGISTRAR.table)
        self.assertEqual(published.curve(table, "rps", "tcp_auth")[-1], (4500, 100))
        self.assertEqual(published.curve(table, "rps", "udp_noauth")[-1], (8000, 29.7))

    def test_between_the_points_and_nowhere_else(self):
        points = [(1, 10), (3, 20), (4, 0)]
        self.assertEqual([published.interpolate(points, x) for x in (0, 1, 2, 3, 3.5, 4, 5)], [None, 10, 15, 20, 10, 0, None])


class Choice(unittest.TestCase):
    def tasks(self, **more):
        options = argparse.Namespace(**{**vars(OPTIONS), **more})
        return {plan.name: bench.chosen(plan, options).tasks for plan in reproduce.plan(options)}

    def test_parts(self):
        self.assertEqual(list(self.tasks(parts=["modes"])), ["reproduce-modes"])
        self.assertEqual(len(self.tasks()), 3)

    def test_what_a_curve_rests_on_is_measured_with_it(self):
        chosen = self.tasks(cases=["mono-tcp-register, strowger, curve"])["reproduce-registrar"]
        self.assertEqual(
            [task.name for task in chosen],
            ["mono-tcp-register, strowger", "local-udp-register-study, strowger", "mono-tcp-register, strowger, curve"],
        )

    def test_kamailio_has_all_peaks_only_as_published(self):
        for as_published, number in ((False, 2), (True, 20)):
            tasks = self.tasks(as_published=as_published)["reproduce-modes"]
            self.assertEqual(sum(task.name.endswith("kamailio, peak") for task in tasks), number)


class Curves(unittest.TestCase):
    def setUp(self):
        self.samples = Samples()
        measured = {"udp_auth": (1000, 1000), "udp_noauth": (2000, 500), "tcp_auth": (800, 1250), "tcp_noauth": (1600, 500)}
        for column, (rate, cpu) in measured.items():
            self.samples.add(REGISTRAR.carried(column, "strowger"), result(rate, cpu))
            for share in (0.05, 0.5):
                for _ in range(2):
                    self.samples.add(REGISTRAR.point(column, "strowger", share), result(1000 * share, cpu))

    def test_rates_are_in_units_of_the_base(self):
        points = [(x, found.value) for x, found in REGISTRAR.series(self.samples, "tcp_auth", "strowger")]
        self.assertEqual(points, [(0.05, 6.25), (0.5, 62.5), (0.8, 100)])

    def test_the_factor_of_digest_is_of_equal_rates(self):
        self.assertEqual(study_figures.factor(self.samples, "udp", "strowger", 0.5).value, 2.0)
        self.assertEqual(study_figures.factor(self.samples, "tcp", "strowger", 0.05).value, 2.5)
        self.assertIsNone(study_figures.factor(self.samples, "tcp", "strowger", 0.9))

    def test_what_a_case_cannot_carry_is_not_offered(self):
        task = REGISTRAR.task("tcp_auth", "strowger", (0.5, 0.7, 0.9), 1)
        fake = mock.MagicMock(samples=self.samples, settle=1, measure=1)
        fake.run_load.side_effect = lambda *arguments: [{"rates": arguments[arguments.index("--rate") + 1]}] * 2
        found = task.measure(fake)
        self.assertEqual(set(found), set(task.keys))
        self.assertEqual(found[REGISTRAR.point("tcp_auth", "strowger", 0.5)], {"rates": "500,700"})
        self.assertEqual(found[REGISTRAR.point("tcp_auth", "strowger", 0.9)], {"full": True})

    def test_the_report_stands_beside_the_thesis(self):
        report, tables = told(reproduce.tell_registrar, self.samples)
        lines = {(line[1], line[3]): line for line in tables[reproduce.CPU_BY_RATE].values.tolist()}
        # 2,875/s over UDP with digest, between 49.6 at 3,000 and 44 at 2,750.
        self.assertEqual(lines["UDP, digest", "0.500"][2:], ["500", "0.500", "50.0 [50.0, 50.0] ×2", "46.8"])
        self.assertEqual(len(report.data["reproduced"]), 6)

    def test_a_line_never_falls(self):
        self.assertEqual(study_figures.rising([1, 3, 2, 4, 3, 2, 9]), [1, 2.5, 2.5, 3, 3, 3, 9])


class Peaks(unittest.TestCase):
    def setUp(self):
        self.samples = Samples()
        for name in studies.CONFIGURATIONS:
            cpu = 400 if "tls" in name else 100
            for load in ("window", "peak", "fixed 200/s"):
                self.samples.add(key(name, "strowger", load), result(1e6 / cpu, cpu, failed_share=0.02))

    def test_all_that_the_report_published_is_reproduced(self):
        report, tables = told(reproduce.tell_modes, self.samples)
        wanted = [name for name, _, by in published.TABLES_AND_FIGURES if by == published.MODES]
        self.assertEqual(report.data["reproduced"], wanted)
        line = next(line for line in tables[reproduce.RATIOS].values.tolist() if line[0] == "chain-tls ÷ chain-tcp")
        self.assertEqual(line[1:5], ["0.60", "0.25 ×1", "0.25 ×1", "0.25 ×1"])

    def test_a_bar_says_how_far_it_would_go_without_the_generator(self):
        pair = ("chain-tls", "chain-udp")
        self.assertEqual(study_figures.peak_groups(self.samples, [pair])[0][3], [None])
        self.samples.add(key("chain-tls", "strowger", "peak"), result(10, 400, generator_bound=True))
        self.assertEqual(study_figures.peak_groups(self.samples, [pair])[0][3], [0.25])

    def test_the_thesis_peaks(self):
        for case in PROXY.cases.values():
            self.samples.add(key(case, load="peak"), result(500, 100, failed_share=0.01))
            self.samples.add(key(case), result(500, 100))
        report, tables = told(reproduce.tell_proxy, self.samples)
        self.assertIn("peaks of the six cases", report.data["reproduced"])
        self.assertEqual([line[7] for line in tables[reproduce.FULL_CORE].values.tolist()][1:3], ["0.624", "0.478"])

    def test_names_for_people(self):
        self.assertEqual(study_figures.short("local-tls-mutual-auth"), "TLS\nmutual")
        self.assertEqual(study_figures.short("chain-tls-3des-auth"), "TLS\n3DES\ndigest")
        self.assertEqual(study_figures.words_of("local-tls-reuse-auth"), "local TLS reuse, digest")
        self.assertEqual(study_figures.words_of("local-tls-auth", "local-tls-reuse-auth"), "TLS")


class Compared(unittest.TestCase):
    def test_the_memory_of_a_server_is_that_of_all_its_processes(self):
        sizes = []
        with TemporaryDirectory() as folder:
            for command in ("exec sleep 60", "sleep 60 & sleep 60 & wait"):
                process = Process(["sh", "-c", command], None, folder, os.path.join(folder, "log"))
                try:
                    time.sleep(0.3)
                    sizes.append(process.memory())
                finally:
                    process.stop()
        self.assertGreater(sizes[0], 0)
        self.assertGreater(sizes[1], 1.5 * sizes[0])

    def test_latency_is_at_half_of_what_the_slower_one_can(self):
        case, load = compare.CASES["UDP, chain"]
        fake = mock.MagicMock(samples=Samples(), settle=1, measure=1)
        for who, rate in (("strowger", 30_000), ("kamailio", 6_000)):
            fake.samples.add(key(case, who, load), result(rate, 1))
        fake.run_load.return_value = [{}]
        with mock.patch.object(compare, "look"):
            compare.latency(case, load, "strowger", 1).measure(fake)
        options = fake.run_load.call_args.args
        self.assertEqual(options[options.index("--rate") + 1], "3000")


class Overloads(unittest.TestCase):
    def result(self, **more):
        counts = {"scheduled": 20_000, "started": 20_000}
        counts |= (
            dict.fromkeys(["skipped", "wrong", "refused"], 0)
            | {f"retransmitted_{what}": 2 for what in ("invite", "2xx", "request")}
            | more.pop("counts", {})
        )
        found = {"seconds": 10.0, "generator_busy": 0.5, "generator_bound": False, "latency_us": {"generator_lag": {"p99": 50.0}}}
        found |= {"clean": False, "disturbed": False, "server_drops": 0}
        return {**found, "completed_per_second": 960.0, "counts": counts, **more}

    def verdict(self, **more):
        samples, row = Samples(), overload.rows()[0]
        for _ in range(3):
            samples.add(overload.peak_near(overload.UDP, 2.0), {"goodput": 1_000.0})
            samples.add(overload.point(overload.UDP, 2.0), overload.judged(self.result(**more), 1))
        return row.verdict(samples)

    def test_losses_are_what_an_overload_is_and_wrong_answers_are_not(self):
        self.assertEqual(self.verdict(), "met")
        self.assertEqual(self.verdict(completed_per_second=940.0), "not met")
        self.assertEqual(self.verdict(counts={"wrong": 1}), "not decided")

    def test_each_sign_of_the_generators_limit_is_seen(self):
        self.assertFalse(overload.is_generator_bound(self.result()))
        signs = [{"generator_bound": True}, {"generator_busy": 0.96}, {"latency_us": {"generator_lag": {"p99": 20_000.0}}}]
        for sign in [*signs, {"counts": {"started": 19_000}}, {"counts": {"skipped": 1}}]:
            self.assertTrue(overload.is_generator_bound(self.result(**sign)), sign)
            self.assertEqual(self.verdict(**sign), "not decided", sign)

    def test_what_is_sent_again_is_counted(self):
        found = overload.judged(self.result(), 1)
        self.assertEqual(found["again"], 0.6)

    def test_a_peak_counts_if_the_server_had_its_part(self):
        for busy, clean in ((0.4, True), (0.36, True), (0.2, False)):
            measured = {"completed_per_second": 1_000.0, "server_busy": busy, "clean": True, "disturbed": True}
            found = overload.peak_judged(measured, 0.4)
            self.assertEqual((found["goodput"], found["clean"], found["disturbed"]), (1_000.0, clean, False))

    def test_the_peak_beside_an_overload_is_the_mean_of_before_and_after(self):
        before = {"completed_per_second": 1_200.0, "server_busy": 0.4, "clean": True, "disturbed": False}
        after = {"completed_per_second": 1_000.0, "server_busy": 0.38, "clean": False, "generator_bound": True}
        after["counts"] = {"wrong": 0}
        found = overload.peak_judged(overload.mean(before, after), 0.4)
        self.assertEqual((found["goodput"], found["clean"], found["generator_bound"]), (1_100.0, True, True))
        self.assertFalse(overload.mean({**before, "clean": False}, after)["clean"])
        self.assertFalse(overload.mean(before, {**after, "counts": {"wrong": 1}})["clean"])

    def test_waiting_for_its_part_of_the_core_is_no_disturbance(self):
        self.assertTrue(overload.judged(self.result(disturbed=True), 1)["disturbed"])
        self.assertFalse(overload.judged(self.result(disturbed=True), 0.3)["disturbed"])

    def test_the_server_gets_its_part_and_the_group_goes(self):
        with TemporaryDirectory() as top:
            group = Path(top, "group")
            group.mkdir()
            (group / "cpu.max").touch()
            process = mock.Mock(pid=4711)
            with mock.patch.object(overload, "folder", lambda: group), mock.patch.object(Path, "rmdir") as gone:
                with overload.part_of_core(process) as part:
                    self.assertEqual((group / "cpu.max").read_text(), f"{int(part * overload.PERIOD_US)} {overload.PERIOD_US}")
                    self.assertEqual((group / "cgroup.procs").read_text(), "4711")
                process.stop.assert_called_once()
                gone.assert_called_once()
        with mock.patch.object(overload, "folder", lambda: None), overload.part_of_core(mock.Mock()) as part:
            self.assertEqual(part, 1)


HEAD = "StartTime;TargetRate;SuccessfulCall(P);SuccessfulCall(C);FailedCall(P);FailedCall(C);Retransmissions(P);Retransmissions(C);"


class SecondOpinion(unittest.TestCase):
    def test_the_last_line_is_read_and_lines_are_counted(self):
        lines = [HEAD, "2026-11-21;1000;7;10;0;0;0;0;", "2026-11-21;1000;7;20;0;1;0;2;"]
        self.assertEqual(second_opinion.parse_stats(lines), ({"SuccessfulCall": 20, "FailedCall": 1, "Retransmissions": 2}, 2))
        self.assertEqual([second_opinion.parse_stats(few) for few in ([], [HEAD])], [({}, 0)] * 2)
        with TemporaryDirectory() as folder:
            path = Path(folder, "stats.csv")
            path.write_text("\n".join([*lines, "2026-11"]))
            self.assertEqual(second_opinion.read_stats(path)[1], 2)

    def judged(self, calls, dropped=(0, 0), **final):
        def moment(at, calls, run_us):
            accounts = {"run": run_us * 1000, "wait": 0, "own": (0, 0), "carried": (calls * 13, calls * 13 * 642)}
            return {"figures": {"SuccessfulCall": calls}, "at": at, **accounts}

        return second_opinion.judged(1000, moment(10.0, 500, 1_000), moment(20.0, 500 + calls, 601_000), dropped, [final, {}])

    def test_cpu_is_divided_by_the_calls_between_the_two_moments(self):
        found = self.judged(10_000)
        self.assertEqual([found[name] for name in ("server_cpu_us_each", "datagrams_each", "bytes_each")], [60, 13, 600])
        self.assertEqual((found["clean"], found["generator_bound"], found["disturbed"]), (True, False, False))

    def test_what_was_lost_or_sent_again_is_not_clean(self):
        for how in ({"dropped": (1, 0)}, {"FailedCall": 1}, {"Retransmissions": 1}):
            self.assertFalse(self.judged(10_000, **how)["clean"], how)

    def test_a_rate_that_was_not_reached_is_the_generators_limit(self):
        self.assertTrue(self.judged(9_800)["generator_bound"])

    def test_both_sides_of_the_row_are_asked(self):
        samples, rows = Samples(), second_opinion.rows()[:2]
        for way, cost in ((second_opinion.IN_TIME, 108), (second_opinion.SIPP, 100)):
            for _ in range(3):
                samples.add(second_opinion.kept(1_000, way), result(1_000, cost))
        self.assertEqual([row.verdict(samples) for row in rows], ["met", "not met"])


class Registrations(unittest.TestCase):
    def test_a_registers_challenge_is_complained_of_if_it_is_missing_or_should_not_be(self):
        def complaint(column, challenges):
            counts = {"completed": 10_000, "challenges_received": challenges}
            found = {"mode": "register", "server_cpu_us_each": 5, "counts": counts}
            return REGISTRAR.cases[column].complaint(found, "strowger")

        said = [complaint(column, number) is None for column in ("udp_auth", "udp_noauth") for number in (10_000, 0)]
        self.assertEqual(said, [True, False, False, True])
        self.assertEqual(REGISTRAR.cases["udp_auth"].options("strowger", None)[-2:], ["--qop", "none"])

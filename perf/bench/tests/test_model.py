"""The cost model: what the fit finds again, what local mode is kept out of, what an operator is refused, and the arithmetic of the
answers."""

import contextlib
import os
import random
import subprocess
import tempfile
import unittest
import unittest.mock

import model
import model_command
import model_report
import model_runs
from cases import report_configurations
from contestants import PERF
from model import BESIDE, BULK, TCP, UDP, Load, Model, ModelError, Refused, Shape
from report import Report

TRUE = {
    UDP: 20.0,
    TCP: -6.0,
    BULK: 8.0,
    "TLS bulk, 3DES": 60.0,
    "digest, UDP": 6.0,
    "digest, TCP": 5.0,
    "digest, TLS": 7.0,
    "TCP handshake as server": 30.0,
    "TCP handshake as client": 25.0,
    "TLS handshake as server, full": 380.0,
    "TLS handshake as server, mutual": 450.0,
    "TLS handshake as server, reuse": 40.0,
    "TLS handshake as client, full": 150.0,
    "TLS handshake as client, mutual": 470.0,
    "TLS handshake as client, reuse": 30.0,
    BESIDE["tcp"]: 12.0,
    BESIDE["tls"]: 4.0,
}
NAMES = [case.name for case in report_configurations()]
TO_UDP = [case.name for case in model_runs.to_udp()]


def synthetic(names, noise=0.0, rounds=3, seed=7):
    dice = random.Random(seed)
    return {
        name: [model.cost(TRUE, Shape.parse(name).components()) * (1 + dice.gauss(0, noise)) for _ in range(rounds)]
        for name in names
    }


def a_model(**changes):
    data = {
        "kind": "strowger cost model",
        "version": 1,
        "date": "2026-01-01",
        "machine": "A CPU, 2 cores, Linux 6",
        "cpu": "A CPU",
        "settings": "",
        "contestant": "strowger",
        "tls": {"version": "1.2", "key": "rsa", "suite": "AES128-SHA"},
        "components": {name: {"us": value} for name, value in TRUE.items() if "3DES" not in name},
        "registrations": {
            "register-udp": {"us": 4.0},
            "register-udp-auth": {"us": 9.0},
            "register-udp-auth-kept": {"us": 5.0},
            "register-tcp": {"us": 3.0},
            "register-tcp-many": {"us": 7.0},
            "register-tcp-many-auth": {"us": 15.0},
        },
        "waking": {"call": [[1000, 40.0], [10000, 20.0]], "registration": [[1000, 50.0]]},
        "workers": {"2": 1.1},
        "ranges": {
            "lowest_calls_per_second": 200,
            "lowest_registrations_per_second": 200,
            "connections": 1000,
            "outstanding": 48,
            "highest_per_second": {},
            "configurations": sorted(NAMES + TO_UDP),
        },
        "errors": {},
    }
    return Model({**data, **changes})


class Shapes(unittest.TestCase):
    def test_every_configuration_has_the_components_of_its_name(self):
        for case in report_configurations():
            shape = Shape.parse(case.name)
            self.assertEqual((shape.name, shape.mode, shape.variant, shape.auth), (case.name, case.mode, case.variant, case.auth))
            self.assertEqual((shape.left_per_call, shape.right_per_call), (case.left_per_call, case.right_per_call))
        self.assertEqual(Shape.parse("chain-tls-3des-auth").components(), {UDP: 1, TCP: 1, "TLS bulk, 3DES": 1, "digest, TLS": 1})
        self.assertEqual(
            Shape.parse("inbound-tls-reuse").components(),
            {UDP: 1, BULK: 1, BESIDE["tls"]: 1, "TCP handshake as client": 1, "TLS handshake as client, reuse": 1},
        )
        self.assertEqual(
            Shape.parse("outbound-tcp-udp-auth").components(), {UDP: 1, "TCP handshake as server": 1, "digest, TCP": 1}
        )
        self.assertEqual(
            Shape.parse("local-tls-mutual").components(),
            {
                UDP: 1,
                BULK: 1,
                "TCP handshake as client": 1,
                "TCP handshake as server": 1,
                "TLS handshake as client, mutual": 1,
                "TLS handshake as server, mutual": 1,
            },
        )

    def test_runs_against_udp_are_what_their_names_say(self):
        for case in model_runs.to_udp():
            shape = Shape.parse(case.name)
            self.assertEqual((shape.name, shape.left, shape.right, shape.auth), (case.name, case.left, case.right, case.auth))
            self.assertEqual((shape.left_per_call, shape.right_per_call), (case.left_per_call, case.right_per_call))

    def test_other_names_are_of_something_else(self):
        for name in ["register-udp", "TCP, one socket", "chain", "chain-sctp", "chain-tls-odd", "chain-tls-reuse-odd", ""]:
            self.assertIsNone(Shape.parse(name), name)

    def test_components_are_those_of_the_order(self):
        for name in NAMES + TO_UDP:
            self.assertLessEqual(set(Shape.parse(name).components()), set(model.ORDER))


class TheFit(unittest.TestCase):
    def test_components_are_found_again_exactly_without_noise(self):
        found = model.fit(synthetic(NAMES + TO_UDP))
        for name, value in TRUE.items():
            self.assertAlmostEqual(found[name], value, places=6, msg=name)

    def test_components_are_found_again_under_noise_and_lie_in_their_intervals(self):
        measured = synthetic(NAMES + TO_UDP, noise=0.01, rounds=5)
        found = model.fit(measured)
        for name in [UDP, "TLS handshake as server, full", "TLS handshake as client, mutual", "TCP handshake as server"]:
            self.assertAlmostEqual(found[name] / TRUE[name], 1, delta=0.1, msg=name)
        errors = model.errors(found, measured)
        self.assertLess(model.mean_error({name: errors[name] for name in errors if name.startswith("local")}), 0.04)
        for name, (low, high) in model.intervals(measured, draws=100).items():
            self.assertLess(low, high, name)
            self.assertLessEqual(low, found[name] + 1e-9, name)
            self.assertGreaterEqual(high, found[name] - 1e-9, name)

    def test_local_runs_change_nothing_but_the_errors(self):
        measured = synthetic(NAMES + TO_UDP, noise=0.02)
        changed = {
            name: [3 * value for value in values] if name.startswith("local") else values for name, values in measured.items()
        }
        without = {name: values for name, values in measured.items() if not name.startswith("local")}
        self.assertEqual(model.fit(measured), model.fit(changed))
        self.assertEqual(model.fit(measured), model.fit(without))
        self.assertEqual(model.intervals(measured, draws=20), model.intervals(changed, draws=20))
        before, after = (model.errors(model.fit(each), each) for each in (measured, changed))
        for name in NAMES:
            if name.startswith("local"):
                self.assertEqual(before[name][0], after[name][0])
                self.assertLess(after[name][2], -0.5)
            else:
                self.assertEqual(before[name], after[name])

    def test_without_runs_against_udp_a_connection_beside_costs_nothing_by_assumption(self):
        found = model.fit(synthetic(NAMES))
        self.assertEqual([found[name] for name in BESIDE.values()], [0.0, 0.0])
        # What it does cost is then in the handshakes of both sides, and twice in local mode.
        self.assertAlmostEqual(found["TCP handshake as server"], TRUE["TCP handshake as server"] + TRUE[BESIDE["tcp"]])

    def test_what_runs_do_not_tell_apart_is_said(self):
        # The handshake over TCP is never seen without that of TLS.
        with self.assertRaisesRegex(ModelError, "TCP handshake as server"):
            model.fit(synthetic(["chain-udp", "chain-tcp", "chain-tls", "outbound-tls"]))
        with self.assertRaises(ModelError):
            model.fit({})

    def test_each_round_from_the_others(self):
        self.assertIsNone(model.across_rounds(synthetic(NAMES, rounds=1)))
        self.assertAlmostEqual(model.across_rounds(synthetic(NAMES + TO_UDP, rounds=2)), 0, places=9)
        self.assertGreater(model.across_rounds(synthetic(NAMES + TO_UDP, noise=0.05)), 0.02)
        self.assertEqual(model.intervals(synthetic(NAMES, rounds=2)), {})


class TheWaking(unittest.TestCase):
    def test_it_is_found_again(self):
        points = []
        for saturated, wakings, rate in [(20, 4, 1000), (60, 7, 1000), (100, 8, 1000)]:
            work, full = rate * saturated / 1e6, rate * wakings * 25.0 / 1e6
            points.append((saturated, wakings, rate, 1e6 * (work + full) / (1 + full) / rate))
        self.assertAlmostEqual(model.waking(points), 25.0, places=6)

    def test_a_power_of_the_rate_between_the_points_and_falling_beyond_them(self):
        curve = model.Waking([(10000, 10.0), (100, 40.0)])
        for rate, expected in [(1, 40), (100, 40), (1000, 20), (10000, 10), (1000000, 2.5)]:
            self.assertAlmostEqual(curve.at(rate), expected)
        self.assertEqual(model.Waking([(100, 10.0), (1000, 20.0)]).at(1e6), 20.0)
        self.assertEqual(model.Waking([(100, 10.0)]).at(1e6), 10.0)
        self.assertFalse(model.Waking([]))


class Answers(unittest.TestCase):
    def test_a_load_is_the_sum_of_its_parts(self):
        load = Load(500, 2000, "tls", "local", reuse=0.8)
        found = a_model().parts(load)
        self.assertAlmostEqual(found["TLS handshake as server, full"], 500 * 0.2 * 380)
        self.assertAlmostEqual(found["TLS handshake as client, reuse"], 500 * 0.8 * 30)
        self.assertAlmostEqual(found["REGISTER"], 2000 * 7)
        self.assertAlmostEqual(found["TLS bulk of REGISTER"], 2000 * 8 * 2 / 13)
        measured = {**a_model().data["registrations"], "register-tls-many": {"us": 12.0}}
        self.assertAlmostEqual(a_model(registrations=measured).parts(load)["TLS bulk of REGISTER"], 2000 * 5)
        answer = a_model().predict(load)
        self.assertAlmostEqual(sum(answer["parts"].values()), answer["one_core"])
        self.assertGreater(answer["one_core"], answer["work"])
        self.assertEqual(answer["workers"], 1)
        self.assertAlmostEqual(answer["work"] * answer["headroom"], 0.7)

    def test_waking_fades_as_the_core_fills(self):
        found = a_model()
        shares = []
        for calls in (200, 2000, 20000, 45000):
            busy, woken = found.busy(Load(calls))
            self.assertLess(busy, 1)
            shares.append(woken / busy)
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertLess(shares[-1], 0.1)

    def test_two_workers_by_their_measured_factor(self):
        answer = a_model().predict(Load(50000))
        self.assertEqual((answer["workers"], answer["factor"]), (2, 1.1))
        self.assertAlmostEqual(answer["headroom"], 0.7 / (50000 * 20 * 1.1 / 2 / 1e6))
        self.assertGreater(answer["each_core_busy"], 50000 / 2 * 1.1 * 20 / 1e6)

    def test_what_dominates_is_said(self):
        load = Load(600, 0, "tls", "local")
        self.assertRegex(model.in_words(load, a_model().predict(load)), "TLS handshake as server, full dominates: .*--reuse")
        load = Load(200)
        self.assertRegex(model.in_words(load, a_model().predict(load)), "^waking dominates")

    def test_sides_of_different_transports(self):
        found = a_model().parts(Load(1000, left="tls", right="udp", mode="outbound"))
        self.assertAlmostEqual(sum(found.values()), 1000 * (20 + 4 + 30 + 380))


class Refusals(unittest.TestCase):
    def refused(self, text, load, **changes):
        with self.assertRaisesRegex(Refused, text):
            a_model(**changes).predict(load)

    def test_nonsense(self):
        self.refused("no load", Load())
        for load, text in [
            (Load(-1), "--calls"),
            (Load(1000, -5), "--registrations"),
            (Load(float("nan")), "--calls"),
            (Load(1000, hold=-1), "--hold"),
            (Load(1000, transport="tls", reuse=1.2), "--reuse"),
            (Load(1000, use=0), "--cores-use"),
            (Load(1000, use=1.0), "--cores-use"),
            (Load(1000, mutual=True), "--mutual is of TLS"),
            (Load(1000, transport="tcp", reuse=0.5), "--reuse is of TLS"),
            (Load(1000, key="ec"), "--key is of TLS"),
            (Load(1000, transport="tls", mode="chain", reuse=0.5), "keeps its connection"),
        ]:
            self.refused(text, load)

    def test_another_machine(self):
        with self.assertRaisesRegex(Refused, "another machine.*B CPU.*perf/model fit.*--any-machine"):
            a_model().check_machine("B CPU")
        a_model().check_machine("A CPU")

    def test_other_tls(self):
        self.refused("TLS version 1.2, not 1.3.*--tls-version 1.3", Load(1000, transport="tls", version="1.3"))
        self.refused("key rsa, not ec.*--key ec", Load(1000, transport="tls", key="ec"))
        self.refused("suite AES128-SHA, not DES-CBC3-SHA.*--suite today", Load(1000, transport="tls", suite="DES-CBC3-SHA"))
        self.refused("no run over TLS", Load(1000, transport="tls"), tls=None)

    def test_mutual_with_resumed_sessions(self):
        self.refused("resumed with mutual", Load(500, transport="tls", mutual=True, reuse=0.5))

    def test_components_that_were_not_measured(self):
        components = {name: {"us": value} for name, value in TRUE.items() if name != "TLS handshake as client, mutual"}
        self.refused(
            "“TLS handshake as client, mutual”.*inbound-tls-mutual", Load(500, transport="tls", mutual=True), components=components
        )
        self.refused("register-tcp-many-auth-kept", Load(0, 1000, "tcp", registration_auth="kept"))

    def test_sides_that_no_run_had(self):
        self.refused("no run had udp .* and tls .* in local mode", Load(1000, left="udp", right="tls", mode="local"))

    def test_fewer_than_the_fewest_measured(self):
        self.refused("fewer than the fewest measured .200/s.*woken", Load(100))
        self.refused("fewer than the fewest", Load(1000, 50))

    def test_a_low_load_without_waking(self):
        self.refused("waking adds", Load(1000), waking={"call": [], "registration": []})
        a_model(waking={"call": [], "registration": []}).predict(Load(30000))

    def test_more_connections_than_measured(self):
        self.refused("2,000 connections", Load(1000, transport="tcp", mode="local", hold=1))
        a_model().predict(Load(1000, transport="tcp", mode="chain", hold=100))
        self.refused("5,000 connections", Load(1000, connections=5000))

    def test_more_cores_than_measured(self):
        self.refused("second worker", Load(50000), workers={})
        self.refused("more than 2 workers", Load(100000))

    def test_more_than_any_run_reached(self):
        ranges = {**a_model().data["ranges"], "highest_per_second": {"chain-tcp": 30000}}
        self.refused("30,000/s", Load(40000, transport="tcp", mode="chain"), ranges=ranges)


def runs(names, disturbed=False, scale=lambda name: 1.0):
    """As the generator writes them: saturation of each, and chain-udp at two rates."""
    found = []
    for name in names:
        each = scale(name) * model.cost(TRUE, Shape.parse(name).components())
        for number in range(3):
            found.append(
                {
                    "configuration": name,
                    "contestant": "strowger",
                    "what": "saturation",
                    "round": number,
                    "server_cpu_us_each": each,
                    "completed_per_second": 0.99e6 / each,
                    "server_busy": 0.99,
                    "clean": True,
                    "disturbed": disturbed,
                    "complaint": None,
                    "generator_bound": False,
                    "rate_or_window": 48,
                    "tls": "TLSv1.2 AES128-SHA" if "tls" in name else None,
                }
            )
    for rate, each in [(200, 300.0), (2000, 90.0)]:
        found.append(
            {**found[0], "configuration": "chain-udp", "what": "fixed rate", "rate_or_window": rate, "server_cpu_us_each": each}
        )
    return found


def a_fit(results):
    found = model_report.Fit(
        model_command.fit_parser().parse_args(["--connections", "19000"]), results, "A CPU, 2 cores, Linux 6", ""
    )
    found.tell()
    return found


class TheReport(unittest.TestCase):
    def verdicts(self, results):
        return [(row[3], row[4]) for row in a_fit(results).report.rows if row[0] == "C1"]

    def test_row_c1_over_all_and_over_local_alone(self):
        self.assertEqual(self.verdicts(runs(NAMES + TO_UDP)), [("0.0 %", "yes"), ("0.0 %", "yes")])
        wrong = self.verdicts(runs(NAMES + TO_UDP, scale=lambda name: 1.25 if name.startswith("local") else 1.0))
        self.assertEqual(wrong, [("4.0 %", "yes"), ("20.0 %", "NO")])

    def test_no_verdict_where_something_is_missing_or_disturbed(self):
        self.assertEqual(
            [met for _, met in self.verdicts(runs([name for name in NAMES if "3des" not in name] + TO_UDP))], ["—", "yes"]
        )
        self.assertEqual([met for _, met in self.verdicts(runs(NAMES + TO_UDP, disturbed=True))], ["—", "—"])

    def test_what_is_saved_answers(self):
        found = a_fit(runs(NAMES + TO_UDP))
        answer = Model(found.data()).predict(Load(2000))
        self.assertAlmostEqual(answer["work"], 2000 * 20 / 1e6)
        self.assertAlmostEqual(answer["us_per_call"], 90.0, delta=0.1)
        self.assertEqual(found.data()["tls"], {"version": "1.2", "key": "rsa", "suite": "AES128-SHA"})
        with self.assertRaisesRegex(Refused, "fewer than the fewest"):
            Model(found.data()).predict(Load(100))

    def test_a_peak_is_compared_only_where_the_core_was_full(self):
        results = [{**each, "server_busy": 0.6} if each["configuration"] == "chain-tcp" else each for each in runs(NAMES + TO_UDP)]
        lines = {line[0]: line for title, _, lines in a_fit(results).report.tables if title.startswith("Peaks") for line in lines}
        self.assertTrue(lines["chain-tcp"][-1].startswith("("))
        self.assertEqual(lines["chain-udp"][-1], "+1.0 %")

    def test_runs_of_two_tls_versions_are_not_fitted_together(self):
        results = runs(NAMES)
        results[-3] = {
            **next(each for each in results if each["configuration"] == "chain-tls"),
            "tls": "TLSv1.3 TLS_AES_128_GCM_SHA256",
        }
        with self.assertRaisesRegex(ModelError, "different TLS versions"):
            a_fit(results).data()


class Quiet:
    def step(self, text):
        pass

    def end(self):
        pass


class WithoutServers(model_runs.Measuring):
    """Measures by the true components instead of starting anything."""

    def __init__(self, arguments, sources, then):
        self.arguments, self.sources, self.then = arguments, sources, then
        self.rounds, self.warm, self.duration, self.results, self.failures = arguments.rounds or 1, 1, 1, [], []
        self.report, self.asked = Report("", "A CPU, 2 cores, Linux 6", ""), []

    @contextlib.contextmanager
    def server(self, case, name):
        yield None, None

    def run_load(self, case, contestant, process, *options, mode="call", **fields):
        self.asked.append((case.name, mode, fields["what"]))
        shape = Shape.parse(case.name)
        each = model.cost(TRUE, shape.components()) if shape else 5.0
        rate = float(options[1])
        slept = 60 if fields["what"] == "fixed rate" else 0
        self.results.append(
            {
                "configuration": case.name,
                "contestant": "strowger",
                "server_cpu_us_each": each + slept,
                "completed_per_second": 0.99e6 / each,
                "server_busy": 0.99,
                "clean": True,
                "disturbed": False,
                "complaint": None,
                "generator_bound": False,
                "rate_or_window": rate,
                "tls": "TLSv1.2 AES128-SHA" if "tls" in case.name else None,
                **fields,
            }
        )
        return [self.results[-1]]


class TheMeasuring(unittest.TestCase):
    def measure(self, sources, *more):
        arguments = model_command.fit_parser().parse_args(["--quick", *more])
        handed = []
        run = WithoutServers(arguments, sources, lambda *all_of_it: handed.append(all_of_it))
        with unittest.mock.patch("model_runs.Progress", lambda steps: Quiet()), unittest.mock.patch("model_runs.time.sleep"):
            run.run()
        self.assertEqual(run.failures, [])
        return run, handed[0]

    def test_all_that_a_fit_wants_is_measured_once(self):
        run, (results, machine_text, settings, failures) = self.measure([])
        found = model_report.Fit(run.arguments, results, machine_text, settings, failures)
        found.tell()
        self.assertAlmostEqual(found.values[BULK], TRUE[BULK])
        self.assertTrue(all(found.waking.values()))
        saturated = [name for name, _, what in run.asked if what == "saturation"]
        self.assertEqual(len(saturated), len(set(saturated)))
        self.assertIn(("register-tcp-many", "register", "fixed rate"), run.asked)
        # What was measured is a source that lacks nothing, but for the rates that its core was too full for.
        self.assertEqual(model_runs.wanted(run.arguments, results), [])

    def test_where_only_the_rates_are_missing_saturation_is_not_counted_again(self):
        _, (results, *_) = self.measure([])
        run, (again, *_) = self.measure([each for each in results if each["what"] != "fixed rate"])
        self.assertEqual({what for _, _, what in run.asked}, {"warm", "fixed rate"})
        self.assertEqual(
            model_runs.Measurements(again, "strowger").saturated(), model_runs.Measurements(results, "strowger").saturated()
        )

    def test_rounds_that_the_sources_lack_are_measured_and_the_others_kept(self):
        _, (results, *_) = self.measure([])
        run, (again, *_) = self.measure(results, "--rounds", "3")
        asked = [name for name, _, what in run.asked if what == "saturation"]
        self.assertEqual({asked.count(name) for name in asked}, {2})
        self.assertEqual({len(values) for values in model_runs.Measurements(again, "strowger").saturated().values()}, {3})
        self.assertEqual({each["round"] for each in again if each["what"] == "saturation"}, {0, 1, 2})


class Command(unittest.TestCase):
    def test_the_processor_of_a_machine(self):
        self.assertEqual(model_report.cpu_of("A CPU, 16 cores, Linux 6.1"), "A CPU")

    def test_the_reports_units(self):
        self.assertEqual(model_report.published_of("TCP handshake as client"), ("0.65", "—"))
        self.assertEqual(model_report.published_of("TLS handshake as client, reuse"), ("1.1", "0.3"))
        self.assertEqual(model_report.published_of("TLS bulk, 3DES"), ("—", "—"))

    def test_runs_that_were_of_something_else_are_left_out(self):
        run = {
            "contestant": "strowger",
            "configuration": "chain-udp",
            "what": "saturation",
            "server_cpu_us_each": 20.0,
            "complaint": None,
        }
        found = model_runs.Measurements(
            [
                run,
                {**run, "server_cpu_us_each": 90.0, "complaint": "3 challenges"},
                {**run, "contestant": "kamailio"},
                {**run, "configuration": "register-udp"},
            ],
            "strowger",
        )
        self.assertEqual(found.saturated(), {"chain-udp": [20.0]})
        self.assertEqual((found.left_out, list(found.registered())), (1, ["register-udp"]))

    def test_only_what_is_missing_is_measured(self):
        arguments = model_command.fit_parser().parse_args(["--quick"])
        every = model_runs.wanted(arguments, [])
        names = [case.name for case, _, _, _ in every]
        self.assertNotIn("chain-tls-3des", names)
        self.assertLessEqual({"register-tcp-many-auth-kept", "outbound-tcp-udp-auth", "local-tls-auth"}, set(names))
        sources = [
            {
                "configuration": name,
                "contestant": "strowger",
                "what": "saturation",
                "complaint": None,
                "completed_per_second": 5000.0,
            }
            for name in names
        ]
        others = [{**each, "contestant": "kamailio"} for each in sources]
        self.assertEqual([case.name for case, _, _, _ in model_runs.wanted(arguments, others)], names)
        # Saturation is there; the rates at which a core of 5,000/s is mostly idle are not.
        self.assertEqual(
            {(case.name, mode, missing, tuple(rates)) for case, mode, missing, rates in model_runs.wanted(arguments, sources)},
            {(name, "register" if "register" in name else "call", 0, (200, 1000)) for name in model_runs.WAKING},
        )
        rates = [{**each, "what": "fixed rate", "rate_or_window": rate} for each in sources for rate in (200, 1000)]
        self.assertEqual(model_runs.wanted(arguments, sources + rates), [])
        self.assertEqual(
            [(case.name, missing) for case, _, missing, _ in model_runs.wanted(arguments, sources[1:] + rates)], [(names[0], 1)]
        )
        arguments.no_measure = True
        self.assertEqual(model_runs.wanted(arguments, []), [])


class Predicting(unittest.TestCase):
    def test_a_prediction_installs_nothing_and_needs_no_numpy(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("apt-get", "sudo"):
                path = os.path.join(folder, name)
                with open(path, "w") as script:
                    script.write(f"#!/bin/sh\necho installed >>{folder}/log\nexit 9\n")
                os.chmod(path, 0o755)
            with open(os.path.join(folder, "numpy.py"), "w") as module:
                module.write("raise ImportError('there is no numpy')\n")
            missing = os.path.join(folder, "none.json")
            environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": folder}
            command = [os.path.join(PERF, "model"), "predict", "--calls", "5", "--model", missing]
            told = subprocess.run(command, env=environment, capture_output=True, text=True)
            self.assertEqual(told.returncode, 2, told)
            self.assertEqual(told.stderr.count("\n"), 1, told)
            self.assertIn("the model cannot be read", told.stderr)
            self.assertFalse(os.path.exists(os.path.join(folder, "log")), told)


if __name__ == "__main__":
    unittest.main()

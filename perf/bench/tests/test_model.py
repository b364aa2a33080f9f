"""The cost model: what the fit finds again, what local mode is kept out of, what an operator is refused, and the arithmetic of the
answers. No server is started."""

import argparse
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import model
import model_fit
import numpy
from model import BROKEN_UP, BULK, OLD_BULK, ORDER, PERF, TCP, UDP, Load, Model, Refused, Waking, cost, factor_of
from model_fit import Fit, Wanted, call_of, fit
from report import Report
from samples import Samples
from tasks import rate

TRUE = {
    **{UDP: 20.0, TCP: -6.0, BULK: 8.0, OLD_BULK: 60.0, BROKEN_UP: 12.0},
    **{"digest, UDP": 6.0, "digest, TCP": 5.0, "digest, TLS": 7.0},
    **{"TCP handshake as server": 30.0, "TCP handshake as client": 25.0},
    **{f"TLS handshake as server, {variant}": us for variant, us in [("full", 380.0), ("mutual", 450.0), ("reuse", 40.0)]},
    **{f"TLS handshake as client, {variant}": us for variant, us in [("full", 150.0), ("mutual", 470.0), ("reuse", 30.0)]},
}
WANTED = Wanted(argparse.Namespace())
CALLS = WANTED.calls
REGISTRATIONS = {"udp, none": 4.0, "udp, new": 9.0, "udp, kept": 5.0}
REGISTRATIONS |= {"tcp, none": 3.0, "tcp-many, none": 7.0, "tcp-many, new": 15.0}


def measured(noise=0.0, scale=lambda name: 1.0, without=(), draws=()):
    """µs of a call by the true components."""
    dice = numpy.random.default_rng(7)
    found = {name: scale(name) * cost(TRUE, call.components()) for name, call in CALLS.items()}
    return {name: us * (1 + noise * dice.standard_normal(draws)) for name, us in found.items() if name not in without}


def samples_of(runs=3, noise=0.0, busy=0.99, **how):
    """As the generator writes them."""
    samples = Samples()
    every = measured(noise, draws=runs, **how)

    def add(key, us, **more):
        result = {"server_cpu_us_each": us, "completed_per_second": 0.99e6 / us, "server_busy": busy, "clean": True, **more}
        samples.add(key, result)

    for case in WANTED.cases:
        for us in every.get(case.name, []):
            add(WANTED.key(case), us, case=case.name, tls="TLSv1.2 AES128-SHA" if case.is_tls else None)
    for name, us in REGISTRATIONS.items():
        add(WANTED.key(WANTED.registrations[name], "register window"), us)
    for each, us in [(200, 300.0), (1_000, 150.0)]:
        add(WANTED.key(WANTED.cases[0], rate(each).name), us)
    for us in (22.0, 22.2, 21.8):
        add(WANTED.key(model_fit.ONE_WORKER), 20.0)
        add(WANTED.key(model_fit.TWO_WORKERS), us)
    return samples


def a_model(**changes):
    ranges = {"lowest_per_second": {"call": 200, "registration": 200}, "highest_per_second": {}, "connections": 1000}
    data = {
        "cpu": "A CPU",
        "machine": "A CPU, 2 cores, Linux 6",
        "date": "2026-01-01",
        "contestant": "strowger",
        "tls": {"version": "1.2", "key": "rsa", "suite": "AES128-SHA"},
        "components": {name: {"us": value} for name, value in TRUE.items() if name != OLD_BULK},
        "registrations": REGISTRATIONS,
        "waking": {"call": [[1000, 40.0], [10000, 20.0]], "registration": [[1000, 50.0]]},
        "workers": [1.1, 1.05, 1.2],
        "ranges": {**ranges, "sides": ["outbound tls udp"], **changes.pop("ranges", {})},
    }
    return Model({**data, **changes})


class Calls(unittest.TestCase):
    def test_every_case_has_the_components_of_its_kind(self):
        for case in WANTED.cases:
            call = call_of(case)
            self.assertEqual((call.name, call.per_call), (case.name, case.per_call))
            self.assertLessEqual(set(call.components()), set(ORDER))
        for name, expected in {
            "chain-tls-3des-auth": {UDP: 1, TCP: 1, OLD_BULK: 1, "digest, TLS": 1},
            "inbound-tcp": {UDP: 1, TCP: 0.5, "TCP handshake as client": 1},
            "outbound-tcp-udp-auth": {UDP: 1, BROKEN_UP: 1, "TCP handshake as server": 1, "digest, TCP": 1},
            "local-tls-mutual": {
                **{UDP: 1, BULK: 1},
                **{f"TCP handshake as {side}": 1 for side in ("server", "client")},
                **{f"TLS handshake as {side}, mutual": 1 for side in ("server", "client")},
            },
        }.items():
            self.assertEqual(CALLS[name].components(), expected)

    def test_keys_are_those_of_other_tls_too(self):
        other = Wanted(argparse.Namespace(tls_version="1.3", key="ec", suite="study"))
        self.assertFalse(any("3des" in case.name for case in other.cases))
        self.assertEqual(call_of(other.cases[-1]).variant, "reuse")


class TheFit(unittest.TestCase):
    def test_components_are_found_again(self):
        found = fit(CALLS, measured())
        self.assertEqual(set(found), set(TRUE))
        for name, value in TRUE.items():
            self.assertAlmostEqual(float(found[name]), value, places=6, msg=name)

    def test_under_noise_they_lie_in_their_intervals(self):
        found = Fit(WANTED, samples_of(noise=0.01, runs=5))
        for name in (UDP, "TLS handshake as server, full", "TLS handshake as client, mutual", "TCP handshake as server"):
            estimate = found.estimate(found.values[name])
            self.assertTrue(estimate.low < estimate.value < estimate.high, name)
            self.assertAlmostEqual(estimate.value / TRUE[name], 1, delta=0.1, msg=name)
        self.assertGreater(found.each_from_the_others(), 0.005)
        self.assertIsNone(Fit(WANTED, samples_of(runs=1)).each_from_the_others())

    def test_each_draw_is_fitted_by_itself_and_none_is_negative_but_tcp(self):
        draws = measured(noise=0.05, draws=20)
        together = fit(CALLS, draws)
        for number in (0, 19):
            alone = fit(CALLS, {name: values[number] for name, values in draws.items()})
            for name in TRUE:
                self.assertAlmostEqual(float(alone[name]), float(together[name][number]), places=6)
        cheap = fit(CALLS, measured(scale=lambda name: 0.5 if name.startswith("chain-udp-auth") else 1.0))
        self.assertEqual(float(cheap["digest, UDP"].round(6)), 0)
        self.assertLess(cheap[TCP], 0)

    def test_local_mode_changes_nothing_but_the_errors(self):
        same = fit(CALLS, measured(noise=0.02))
        for changed in (
            measured(noise=0.02, scale=lambda name: 3.0 if name.startswith("local") else 1.0),
            {name: us for name, us in measured(noise=0.02).items() if not name.startswith("local")},
        ):
            for name, value in fit(CALLS, changed).items():
                self.assertEqual(value, same[name])

    def test_what_runs_do_not_tell_apart_is_left_out_and_said(self):
        # The handshake over TCP is never seen without that of TLS.
        some = {name: CALLS[name] for name in ("chain-udp", "chain-tcp", "chain-tls", "outbound-tls-auth")}
        _, components, lost = model_fit.told_apart(some)
        self.assertEqual(components, [UDP, TCP, BULK])
        self.assertIn("TCP handshake as server", lost)
        self.assertEqual(set(fit(some, {name: us for name, us in measured().items() if name in some})), {UDP, TCP, BULK})
        self.assertEqual(fit({}, {}), {})

    def test_waking_is_found_again(self):
        points = []
        for saturated, wakings in [(20, 4), (60, 7), (100, 8)]:
            points.append((saturated, wakings, 1000, 1000 * model.with_waking(saturated / 1000, wakings * 25 / 1000)))
        self.assertAlmostEqual(model_fit.waking(points), 25.0, places=6)
        self.assertIsNone(model_fit.waking([]))


class Rows(unittest.TestCase):
    def verdicts(self, **how):
        samples = samples_of(**how)
        return [
            (row.estimate(samples) and round(row.estimate(samples).value, 1), row.verdict(samples)) for row in WANTED.rows()[:2]
        ]

    def test_over_all_and_over_local_alone(self):
        self.assertEqual(self.verdicts(), [(0.0, "met"), (0.0, "met")])
        dear = self.verdicts(scale=lambda name: 1.25 if name.startswith("local") else 1.0)
        self.assertEqual(dear, [(4.0, "met"), (20.0, "not met")])

    def test_few_runs_are_enough_of_what_is_not_decided(self):
        for runs, settled in [(3, False), (model_fit.ENOUGH, True)]:
            samples = samples_of(runs=runs, scale=lambda name: 1.1 if name.startswith("local") else 1.0, noise=0.03)
            row = WANTED.row("", 9.0, WANTED.local)
            self.assertEqual((row.verdict(samples), row.is_settled(samples, 0.03)), ("not decided", settled))

    def test_no_verdict_if_something_is_missing(self):
        self.assertEqual(self.verdicts(without=["chain-tls-3des"]), [(None, "not measured"), (None, "not measured")])


class TheReport(unittest.TestCase):
    def told(self, samples):
        said = Report("model", "", {"machine": "A CPU, 2 cores, Linux 6", "minutes": 1})
        with mock.patch.object(model_fit, "draw_predicted"), mock.patch.object(model_fit, "draw_components"):
            model_fit.tell(said, samples, WANTED)
        return said

    def test_what_is_saved_answers(self):
        saved = Model(self.told(samples_of()).data["model"])
        answer = saved.predict(Load(1000))
        self.assertAlmostEqual(answer["us_per_call"], 150.0, delta=0.1)
        self.assertEqual(saved.data["tls"], {"version": "1.2", "key": "rsa", "suite": "AES128-SHA"})
        self.assertEqual(saved.predict(Load(44_000))["workers"], 2)
        with self.assertRaisesRegex(Refused, "fewer than the fewest"):
            saved.predict(Load(100))

    def test_a_peak_is_compared_only_if_the_core_was_full(self):
        for busy, wanted in [(0.99, "+1.0 %"), (0.6, "(+1.0 %)")]:
            said = self.told(samples_of(busy=busy))
            frame = next(frame for title, frame in said.tables if title.startswith("CPU of a call at saturation"))
            self.assertEqual(frame.set_index("configuration")["error of the rate"]["chain-tcp"], wanted)

    def test_of_little_little_is_told(self):
        said = self.told(samples_of(without=[name for name in CALLS if "tls" in name]))
        self.assertIsNone(said.data["model"]["tls"])
        self.assertNotIn(BULK, said.data["model"]["components"])


class Answers(unittest.TestCase):
    def test_waking_is_a_power_of_the_rate_and_falls_beyond_its_points(self):
        curve = Waking([(10000, 10.0), (100, 40.0)])
        for each, expected in [(1, 40), (100, 40), (1000, 20), (10000, 10), (1000000, 2.5)]:
            self.assertAlmostEqual(curve.at(each), expected)
        self.assertEqual(Waking([(100, 10.0), (1000, 20.0)]).at(1e6), 20.0)
        self.assertEqual(Waking([(100, 10.0)]).at(1e6), 10.0)

    def test_a_load_is_the_sum_of_its_parts(self):
        load = Load(500, 2000, "tls", "local", reuse=0.8)
        found = a_model().parts(load)
        self.assertAlmostEqual(found["TLS handshake as server, full"], 500 * 0.2 * 380)
        self.assertAlmostEqual(found["TLS handshake as client, reuse"], 500 * 0.8 * 30)
        self.assertAlmostEqual(found["REGISTER"], 2000 * 7)
        self.assertAlmostEqual(found["TLS bulk of REGISTER"], 2000 * 8 * 2 / 13)
        with_tls = a_model(registrations={**REGISTRATIONS, "tls-many, none": 12.0})
        self.assertAlmostEqual(with_tls.parts(load)["TLS bulk of REGISTER"], 2000 * 5)
        answer = a_model().predict(load)
        self.assertAlmostEqual(sum(answer["parts"].values()), answer["one_core"])
        self.assertEqual(answer["workers"], 1)
        self.assertAlmostEqual(answer["work"] * answer["headroom"][0], 0.7)
        both = a_model().parts(Load(1000, left="tls", right="udp", mode="outbound"))
        self.assertAlmostEqual(sum(both.values()), 1000 * (20 + 4 + 30 + 380 + 12))

    def test_waking_fades_as_the_core_fills(self):
        shares = []
        for calls in (200, 2000, 20000, 45000):
            busy, work = a_model().busy(Load(calls)), calls * 20 / 1e6
            self.assertTrue(work < busy < 1)
            shares.append(1 - work / busy)
        self.assertEqual(shares, sorted(shares, reverse=True))

    def test_more_workers_by_what_the_second_cost(self):
        self.assertEqual([round(each, 3) for each in factor_of([1.1, 1.05, 1.2], 2)], [1.1, 1.05, 1.2])
        self.assertEqual([round(each, 3) for each in factor_of([1.1, 1.05, 1.2], 4)], [1.15, 1.075, 1.6])
        self.assertEqual(factor_of([0.9, 0.8, 1.0], 3), (1, 1, 1))
        answer = a_model().predict(Load(50000))
        self.assertEqual((answer["workers"], answer["workers_between"]), (2, (2, 2)))
        self.assertAlmostEqual(answer["headroom"][0], 0.7 / (50000 * 20 * 1.1 / 2 / 1e6))
        self.assertGreater(answer["each_core_busy"], 50000 / 2 * 1.1 * 20 / 1e6)
        answer = a_model().predict(Load(100_000))
        self.assertEqual((answer["workers"], answer["workers_between"]), (4, (4, 6)))
        self.assertIn("4 (4 to 6)", model.answer_text(Load(100_000), answer, a_model().data, Path("model.json")))

    def test_what_dominates_is_said(self):
        for load, text in [
            (Load(600, 0, "tls", "local"), "TLS handshake as server, full dominates: .*--reuse"),
            (Load(200), "^waking dominates"),
        ]:
            self.assertRegex(model.in_words(load, a_model().predict(load)["parts"]), text)


class Refusals(unittest.TestCase):
    def test_what_there_is_no_ground_for(self):
        tls = {"transport": "tls"}
        some = {name: {"us": value} for name, value in TRUE.items() if name != "TLS handshake as client, mutual"}
        for text, load, changes in [
            ("no load", Load(), {}),
            ("--calls", Load(-1), {}),
            ("--registrations", Load(1000, -5), {}),
            ("--calls", Load(float("nan")), {}),
            ("--hold", Load(1000, hold=-1), {}),
            ("--reuse", Load(1000, **tls, reuse=1.2), {}),
            ("--cores-use", Load(1000, cores_use=0), {}),
            ("--cores-use", Load(1000, cores_use=1.0), {}),
            ("--mutual is of TLS", Load(1000, mutual=True), {}),
            ("--reuse is of TLS", Load(1000, transport="tcp", reuse=0.5), {}),
            ("--key is of TLS", Load(1000, key="ec"), {}),
            ("keeps its connection", Load(1000, **tls, mode="chain", reuse=0.5), {}),
            ("TLS version 1.2, not 1.3.*--tls-version 1.3", Load(1000, **tls, tls_version="1.3"), {}),
            ("key rsa, not ec.*--key ec", Load(1000, **tls, key="ec"), {}),
            ("suite AES128-SHA, not DES-CBC3-SHA.*--suite today", Load(1000, **tls, suite="DES-CBC3-SHA"), {}),
            ("no run over TLS", Load(1000, **tls), {"tls": None}),
            ("resumed with mutual", Load(500, **tls, mutual=True, reuse=0.5), {}),
            ("“TLS handshake as client, mutual”.*inbound-tls-mutual", Load(500, **tls, mutual=True), {"components": some}),
            ("no registrations of this kind .tcp-many, kept", Load(0, 1000, "tcp", registration_auth="kept"), {}),
            ("no run had udp .* and tls .* in local mode", Load(1000, left="udp", right="tls"), {}),
            ("fewer than the fewest measured .200/s.*woken.*--rates 100", Load(100), {}),
            ("fewer than the fewest", Load(1000, 50), {}),
            ("waking adds", Load(1000), {"waking": {"call": [], "registration": []}}),
            ("2,000 connections", Load(1000, transport="tcp", hold=1), {}),
            ("5,000 connections", Load(1000, connections=5000), {}),
            ("second worker", Load(50000), {"workers": None}),
            ("more than 64 workers", Load(3_000_000), {}),
            ("30,000/s", Load(34000, transport="tcp", mode="chain"), {"ranges": {"highest_per_second": {"chain-tcp": 30000}}}),
        ]:
            with self.subTest(text), self.assertRaisesRegex(Refused, text):
                a_model(**changes).predict(load)
        a_model(waking={"call": [], "registration": []}).predict(Load(30000))
        a_model().predict(Load(1000, transport="tcp", mode="chain", hold=100))

    def test_another_machine(self):
        with self.assertRaisesRegex(Refused, "another machine.*B CPU.*perf/model fit.*--any-machine"):
            a_model().check_machine("B CPU")
        a_model().check_machine(model.cpu_of("A CPU, 16 cores, Linux 6.1"))

    def test_a_prediction_installs_nothing_and_needs_no_numpy(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("apt-get", "sudo"):
                Path(folder, name).write_text(f"#!/bin/sh\necho installed >>{folder}/log\nexit 9\n")
                Path(folder, name).chmod(0o755)
            Path(folder, "numpy.py").write_text("raise ImportError('there is no numpy')\n")
            environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": folder}
            command = [str(PERF / "model"), "predict", "--calls", "5", "--model", f"{folder}/none.json"]
            told = subprocess.run(command, env=environment, capture_output=True, text=True)
            self.assertEqual(told.returncode, 2, told)
            self.assertEqual(told.stderr.count("\n"), 1, told)
            self.assertIn("the model cannot be read", told.stderr)
            self.assertFalse(Path(folder, "log").exists(), told)

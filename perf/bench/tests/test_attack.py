"""perf/attack: from what was measured to what holds."""

import unittest

import attack_command
from attack import lab, sip, verdicts

for name in attack_command.MODULES:
    __import__(f"attack.{name}")


def part(done=100, tried=100, p50=1.0, late=1.0):
    return {"tried": tried, "done": done, "p50_ms": p50, "p99_ms": p50, "late_ms": late, "failed": {}}


class Joined(unittest.TestCase):
    def test_one_that_does_not_hold_is_enough(self):
        self.assertIs(verdicts.joined([True, None, False]), False)

    def test_all_must_be_told(self):
        self.assertIsNone(verdicts.joined([True, None]))
        self.assertIsNone(verdicts.joined([]))
        self.assertIs(verdicts.joined([True, True]), True)


class GoesOn(unittest.TestCase):
    def test_of_a_hundred_ninety_five(self):
        self.assertIs(verdicts.goes_on(part(), part(done=95)), True)
        self.assertIs(verdicts.goes_on(part(), part(done=94)), False)

    def test_nothing_is_told_by_what_was_not_well_before(self):
        self.assertIsNone(verdicts.goes_on(part(done=97), part(done=0)))
        self.assertIsNone(verdicts.goes_on(part(done=0, tried=0), part()))
        self.assertIsNone(verdicts.goes_on(part(), part(done=0, tried=0)))

    def test_a_late_generator_may_not_blame_the_server(self):
        self.assertIsNone(verdicts.goes_on(part(), part(done=50, late=101)))
        self.assertIs(verdicts.goes_on(part(), part(late=101)), True)

    def test_a_core_that_was_somebody_elses_is_not_the_attacks_doing(self):
        self.assertIsNone(verdicts.told_apart(False, 0.26))
        self.assertIs(verdicts.told_apart(False, 0.25), False)
        self.assertIs(verdicts.told_apart(False, None), False)
        self.assertIs(verdicts.told_apart(True, 0.5), True)


class Waits(unittest.TestCase):
    def test_twice_as_long(self):
        self.assertIs(verdicts.waits(part(p50=100), part(p50=200)), True)
        self.assertIs(verdicts.waits(part(p50=100), part(p50=201)), False)

    def test_noise_is_no_wait(self):
        self.assertIs(verdicts.waits(part(p50=1), part(p50=26)), True)
        self.assertIs(verdicts.waits(part(p50=1), part(p50=26.1)), False)

    def test_who_was_never_served_has_waited(self):
        self.assertIs(verdicts.waits(part(), part(done=0, p50=None)), False)
        self.assertIsNone(verdicts.waits(part(done=0, p50=None), part()))


class Figures(unittest.TestCase):
    def test_quantiles(self):
        self.assertEqual(verdicts.quantile(range(1, 101), 0.99), 99)
        self.assertEqual(verdicts.quantile([5], 0.99), 5)
        self.assertIsNone(verdicts.quantile([], 0.5))

    def test_a_record_belongs_to_the_time_in_which_it_was_due(self):
        records = [
            ("calls", 1.0, 0.0, 0.01, ""),
            ("calls", 2.0, 0.0, None, "no answer"),
            ("calls", 2.5, 0.2, 0.03, ""),
            ("new", 0.5, 0.0, 0.01, ""),
        ]
        found = verdicts.phase(records, 2.0, 3.0)
        self.assertEqual((found["calls"]["tried"], found["calls"]["done"], found["calls"]["failed"]), (2, 1, {"no answer": 1}))
        self.assertEqual(found["calls"]["p50_ms"], 30)
        self.assertEqual(found["new"]["tried"], 0)

    def test_reflection(self):
        self.assertEqual(verdicts.factor(900, 300), 3)
        self.assertIsNone(verdicts.factor(900, 0))
        self.assertIs(verdicts.at_most(3.0, verdicts.REFLECTED), True)
        self.assertIs(verdicts.at_most(3.1, verdicts.REFLECTED), False)
        self.assertIsNone(verdicts.at_most(None, 3))

    def test_memory_that_stays(self):
        self.assertIs(verdicts.comes_back(26, 226, 66), True)
        self.assertIs(verdicts.comes_back(26, 226, 67), False)
        self.assertIs(verdicts.comes_back(26, 40, 40), True)
        self.assertIsNone(verdicts.comes_back(26, 40, None))

    def test_a_weak_attack_tells_nothing(self):
        self.assertIs(verdicts.offered(900, 1000), True)
        self.assertIsNone(verdicts.offered(899, 1000))

    def test_use_is_of_its_time(self):
        samples = [(0.0, 10, 0.0, 0.0), (1.0, 30, 0.5, 0.1), (2.0, 20, 0.75, 0.5), (3.0, 99, 9.0, 9.0), (2.5, None, 9.0, 9.0)]
        self.assertEqual(lab.usage(samples, 0.0, 2.6), {"rss": 20, "peak": 30, "cpu": 0.375, "waited": 0.25})
        self.assertEqual(lab.usage(samples, 2.2, 3.1)["cpu"], None)


class Told(unittest.TestCase):
    def test_metrics(self):
        before, after = (lab.parsed(f'# HELP x\nstrowger_a_total{{k="v w"}} {value}\nstrowger_b {value}\n') for value in [1, 4])
        self.assertEqual(lab.risen(before, after), {'strowger_a_total{k="v w"}': 3})
        self.assertEqual(lab.of(after, "strowger_a_total"), 4)
        self.assertEqual(lab.of(after, "strowger_elsewhere_total"), 0)

    def test_what_was_not_read_is_not_0(self):
        self.assertIsNone(lab.of({}, "strowger_a_total"))
        self.assertIsNone(lab.more(4, None))
        self.assertEqual(lab.more(4, 0), 4)

    def test_lines_of_one_kind_are_one(self):
        found = lab.told(
            "[2026-11-29T10:00:00Z INFO  a] from 1.2.3.4: no\n[2026-11-29T10:00:01Z INFO  a] from 1.2.3.5: "
            "no\n[2026-11-29T10:00:01Z WARN  b] bad\n"
        )
        self.assertEqual(found, ["WARN  b] bad", "INFO  a] from 1.2.3.4: no (and 1 like it)"])

    def test_conf(self):
        found = lab.merged({"auth": {"a": 1, "b": 2}, "[listen]": [{"x": 1}]}, {"auth": {"b": 3}, "[listen]": [{"y": True}]})
        self.assertEqual(lab.toml(found), "[auth]\na = 1\nb = 3\n[[listen]]\ny = true\n")


class Spoken(unittest.TestCase):
    def test_digest(self):
        """RFC 2617, section 3.5, but for the client's own nonce."""
        credentials = sip.Credentials("Mufasa", "Circle Of Life")
        challenge = sip.Message(
            b'SIP/2.0 401 No\r\nWWW-Authenticate: Digest realm="testrealm@host.com", qop="auth", '
            b'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"\r\n\r\n'
        )
        self.assertTrue(credentials.take(challenge))
        self.assertEqual(credentials.ha1, "939e7578ed9e3c518a452acee763bce9")
        (line,) = credentials.lines("GET", "/dir/index.html")
        self.assertIn("nc=00000001", line)

    def test_messages(self):
        ends, more = ("sip:a@h", "sip:b@h"), {"branch": "z9hG4bK1", "contact": "<sip:a@1.2.3.4>", "body": b"v=0"}
        found = sip.Message(sip.request("INVITE", "sip:b@h", ("1.2.3.4", 5060), *ends, **more))
        self.assertEqual(
            (found.method, found.uri, found.branch, found.cseq, found.contacts, found.body),
            ("INVITE", "sip:b@h", "z9hG4bK1", (1, "INVITE"), ["sip:a@1.2.3.4"], b"v=0"),
        )
        answer = sip.Message(sip.response(found, 200, "OK", to_tag="t"))
        self.assertEqual((answer.status, answer.tag("to"), answer.branch), (200, "t", "z9hG4bK1"))


class Scenarios(unittest.TestCase):
    def test_each_says_what_it_is(self):
        for name, scenario in lab.SCENARIOS.items():
            self.assertTrue(scenario.what and scenario.must and scenario.source and scenario.run, name)

    def test_they_are_chosen_by_name(self):
        self.assertEqual(attack_command.chosen(["replay", "hijack", "replay"]), ["replay", "hijack"])
        self.assertTrue(all(name.startswith("flood-") for name in attack_command.chosen(["flood-*"])))
        self.assertEqual(attack_command.chosen(["all"]), list(lab.SCENARIOS))
        with self.assertRaises(RuntimeError):
            attack_command.chosen(["no-such"])


if __name__ == "__main__":
    unittest.main()

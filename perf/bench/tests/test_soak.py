"""perf/soak: what it would notice."""

import asyncio
import unittest
from unittest import mock

import soak_command
from soak_command import MEGABYTE, Phone, Soak


def soak(sizes, timers=None):
    found = object.__new__(Soak)
    found.memory = [(float(at), size * MEGABYTE) for at, size in enumerate(sizes)]
    gauge = timers or (lambda at: 100)
    found.gauges = [(float(at), {name: gauge(at) for name in soak_command.LEFT_OVER}) for at in range(0, len(sizes), 5)]
    found.rest_memory = None
    return found


def held(found):
    return {what: well for what, _, well in found.memory_checks()}


class Memory(unittest.TestCase):
    def test_what_grows_before_it_is_warm_is_no_leak(self):
        sizes = [20 + min(at, 40) / 4 for at in range(300)]
        self.assertTrue(held(soak(sizes))["memory is flat"])

    def test_a_leak(self):
        sizes = [30 + at / 50 for at in range(300)]
        self.assertFalse(held(soak(sizes))["memory is flat"])

    def test_a_peak_is_no_leak(self):
        sizes = [60 if at == 290 else 30 for at in range(300)]
        self.assertTrue(held(soak(sizes))["memory is flat"])

    def test_timers_that_pile_up(self):
        well = held(soak([30] * 300, lambda at: 100 + at))
        self.assertTrue(well["memory is flat"])
        self.assertFalse(well["strowger_timers is flat"])


class LeftOver(unittest.TestCase):
    def test_by_name(self):
        found = object.__new__(Soak)
        found.first, found.last = {}, {'strowger_connections{listener="a"}': 1.0, "strowger_users": 0.0}
        found.first_held, found.last_held = {"fd": 9, "task": 4}, {"fd": 10, "task": 4}
        self.assertEqual([name for name, _, _ in found.left_over()], ["strowger_connections", "/proc/…/fd"])
        found.last = {}
        self.assertIn("strowger_connections", [name for name, _, _ in found.left_over()])

    def test_what_may_not_rise_is_named_as_the_server_names_it(self):
        for name in [
            'strowger_limit_hits_total{limit="bindings"}',
            'strowger_connections_failed_total{listener="a"}',
            "strowger_store_failures_total",
        ]:
            self.assertTrue(soak_command.NEVER.match(name), name)
        self.assertFalse(soak_command.NEVER.match("strowger_requests_total"))


class Users(unittest.TestCase):
    def test_whenever_the_soak_ends_the_user_is_removed(self):
        for moment in range(12):
            self.assertEqual(asyncio.run(self.left(moment / 100)), set(), f"after {moment / 100} s")

    async def left(self, seconds):
        found, there = object.__new__(Soak), set()
        found.others = [mock.Mock()]

        async def command(_, word, name, *options, text=""):
            await asyncio.sleep(0.02)
            (there.add if word == "add" else there.discard)(name)

        async def becomes(*_):
            await asyncio.sleep(0.02)

        found.command, found.becomes = command, becomes
        with mock.patch.object(soak_command, "USERS_EVERY", 0.02), mock.patch.object(soak_command.legit, "PHONES", 1):
            task = asyncio.create_task(found.users())
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # A removal that had begun goes on beside.
            await asyncio.sleep(0.1)
        return there


class Forgetting(unittest.TestCase):
    def test_what_is_two_rounds_old_goes(self):
        phone = Phone("a", ("198.18.1.1", 5060))
        phone.answered["old"], phone.dialogs = b"", {"old"}
        phone.tidy()
        phone.answered["new"] = b""
        phone.dialogs.add("new")
        phone.tidy()
        self.assertEqual((set(phone.answered), phone.dialogs), ({"new"}, {"new"}))


if __name__ == "__main__":
    unittest.main()

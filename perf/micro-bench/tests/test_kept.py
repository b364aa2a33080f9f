"""The comparison of a count with the one that is kept."""

import copy
import json
import os
import unittest

import kept

ROOT = "/home/somebody/strowger"
HERE = os.path.dirname(os.path.abspath(__file__))


def a_count(call=90_000):
    one = {"count": 2000, "instructions": call * 2000, "rooms": {"sip": call * 1500, "stack": call * 500}}
    other = {"count": 1000, "instructions": 20_000_000, "rooms": {"sip": 20_000_000}}
    about = {"rustc": "rustc 1.95.0", "libc": "glibc 2.41", "cpu": "x86_64 avx2", "date": "2026-01-02", "commit": "abc"}
    return {**about, "calls": one, "recorded": copy.deepcopy(other), "registrations": copy.deepcopy(other)}


class Comparison(unittest.TestCase):
    def test_the_same_count_says_nothing(self):
        self.assertEqual(kept.compare(a_count(), a_count()), ([], False))

    def test_up_to_two_per_cent_is_nothing(self):
        for call in (88_300, 91_700):
            self.assertEqual(kept.compare(a_count(), a_count(call)), ([], False))

    def test_a_rise_fails_and_says_by_how_much_and_where(self):
        new = a_count()
        new["calls"]["instructions"] += 2000 * 1801
        new["calls"]["rooms"] = {"sip": 90_000 * 1500 - 2000 * 100, "stack": 90_000 * 500 + 2000 * 1800, "libc": 2000 * 101}
        lines, has_failed = kept.compare(a_count(), new)
        self.assertTrue(has_failed)
        expected = "a call takes 91,801 instructions, 2.0 % more than the 90,000 of abc: stack +1,800, libc +101, sip -100"
        self.assertEqual(lines, [expected])

    def test_each_kind_is_compared(self):
        for what in kept.SINGULAR:
            new = a_count()
            new[what]["instructions"] = new[what]["instructions"] * 11 // 10
            lines, has_failed = kept.compare(a_count(), new)
            self.assertTrue(has_failed)
            self.assertEqual(len(lines), 1)
            self.assertTrue(lines[0].startswith(f"{kept.SINGULAR[what]} takes "), lines)

    def test_another_number_of_operations_is_the_same_count(self):
        new = a_count()
        new["calls"] = {"count": 1000, "instructions": 90_000_000, "rooms": {"sip": 67_500_000, "stack": 22_500_000}}
        self.assertEqual(kept.compare(a_count(), new), ([], False))

    def test_a_fall_is_said_and_does_not_fail(self):
        lines, has_failed = kept.compare(a_count(), a_count(80_000))
        self.assertFalse(has_failed)
        self.assertEqual(len(lines), 1)
        self.assertIn("a call takes 80,000 instructions, 11.1 % fewer than the 90,000 of abc: sip -7,500, stack -2,500; ", lines[0])
        self.assertIn("perf/instructions --write", lines[0])

    def test_with_other_tools_a_rise_is_said_and_does_not_fail(self):
        for tool in kept.TOOLS:
            new = {**a_count(99_000), tool: "another"}
            lines, has_failed = kept.compare(a_count(), new)
            self.assertFalse(has_failed)
            self.assertEqual(len(lines), 2)
            self.assertIn(f"{tool} was {a_count()[tool]} and is another", lines[0])
            self.assertIn("10.0 % more", lines[1])

    def test_the_day_and_the_commit_are_no_tools(self):
        self.assertEqual(kept.compare(a_count(), {**a_count(), "date": "2027-01-01", "commit": "def"}), ([], False))


class Rooms(unittest.TestCase):
    def test_a_file_belongs_to_a_room(self):
        for path, expected in {
            f"{ROOT}/src/sip/lines.rs": "sip",
            f"{ROOT}/src/stack/proxy/forward.rs": "stack",
            f"{ROOT}/src/lib.rs": "lib",
            f"{ROOT}/perf/micro-bench/src/traffic.rs": "bench",
            "/root/.cargo/registry/src/index-1/memchr-2.8.3/src/memchr.rs": "crates",
            "/rustc/59807616e/library/core/src/option.rs": "std",
            "./string/../sysdeps/x86_64/multiarch/memmove.S": "libc",
            "???": "libc",
            f"{ROOT}-2/src/sip/lines.rs": "libc",
        }.items():
            self.assertEqual(kept.room(path, ROOT), expected, path)

    def test_rooms_add_up(self):
        files = {f"{ROOT}/src/sip/a.rs": 1, f"{ROOT}/src/sip/b.rs": 2, "???": 4}
        self.assertEqual(kept.by_room(files, ROOT), {"libc": 4, "sip": 3})


class Kept(unittest.TestCase):
    def test_what_is_kept_is_whole(self):
        with open(os.path.join(HERE, "..", "..", "instructions.json")) as file:
            written = file.read()
        figures = json.loads(written)
        self.assertEqual(kept.text(figures), written)
        self.assertEqual(kept.compare(figures, figures), ([], False))
        for what in kept.SINGULAR:
            self.assertEqual(sum(figures[what]["rooms"].values()), figures[what]["instructions"])

    def test_figures_are_those_of_the_count(self):
        result = {"count": 2, "instructions": 8, "rooms": {"sip": 8}, "own": [], "per_operation": 4.0}
        about = {"rustc": "r", "date": "d"}
        figures = kept.figures({"calls": result}, about)
        self.assertEqual(figures, {"rustc": "r", "date": "d", "calls": {"count": 2, "instructions": 8, "rooms": {"sip": 8}}})

    def test_a_processor_is_what_code_is_chosen_by(self):
        self.assertTrue(kept.cpu(["fpu", "avx2", "erms"]).endswith(" avx2 erms"))
        self.assertNotIn(" ", kept.cpu(["fpu"]))


if __name__ == "__main__":
    unittest.main()

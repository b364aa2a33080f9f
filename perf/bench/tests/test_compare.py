"""perf/compare: the memory of a server is that of all its processes."""

import os
import subprocess
import unittest

import compare


class Memory(unittest.TestCase):
    def test_children_belong_to_it(self):
        with subprocess.Popen(["sleep", "60"]) as child:
            try:
                self.assertIn(child.pid, compare.family(os.getpid()))
                both, alone = compare.memory(os.getpid()), compare.memory(child.pid)
                self.assertGreater(alone["Rss"], 0)
                self.assertGreater(both["Rss"], alone["Rss"])
                self.assertGreaterEqual(both["Rss"], both["Pss"])
            finally:
                child.kill()

    def test_who_has_ended_has_none(self):
        child = subprocess.Popen(["true"])
        child.wait()
        self.assertEqual(compare.memory(child.pid), {"Rss": 0, "Pss": 0})


class Text(unittest.TestCase):
    def test_as_many_digits_as_say_something(self):
        self.assertEqual([compare.text(value) for value in (0.123, 1.24, 99.94, 1234.5)], ["0.12", "1.2", "99.9", "1,234"])


if __name__ == "__main__":
    unittest.main()

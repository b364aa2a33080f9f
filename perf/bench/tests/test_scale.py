"""perf/scale: when the table of connections is flat."""

import unittest

import scale


def row(connections, miss_ns, find_ns, sweep_ns):
    return {
        "connections": connections,
        "bytes_each": 350.0,
        "miss_ns": miss_ns,
        "steps": {
            "find": {"ns": find_ns, "least_ns": find_ns, "lines": 1},
            "renew": {"ns": 10.0, "least_ns": 9.0, "lines": 4},
            "sweep": {"ns": 2 * sweep_ns, "least_ns": sweep_ns, "lines": 0},
        },
    }


class Flat(unittest.TestCase):
    def test_waiting_for_memory_is_no_growth(self):
        ratio, step, cost, bound = scale.worst_step([row(1_000, 10.0, 15.0, 2.5), row(1_000_000, 400.0, 415.0, 2.5)])
        self.assertEqual((ratio, step, cost, bound), (1.0, "find", 415.0, 415.0))

    def test_anything_else_is(self):
        ratio, step, _, _ = scale.worst_step([row(1_000, 10.0, 15.0, 2.5), row(1_000_000, 400.0, 1_660.0, 2.5)])
        self.assertEqual((ratio, step), (4.0, "find"))

    def test_a_sweep_that_looks_at_more_is_seen(self):
        self.assertEqual(scale.sweeps([row(1_000, 10.0, 15.0, 2.0), row(1_000_000, 400.0, 415.0, 3.0)]), (1.5, [2.0, 3.0]))

    def test_each_step_has_a_name(self):
        self.assertEqual(set(scale.STEP_NAMES), {"find", "address", "renew", "sweep", "turnover"})


if __name__ == "__main__":
    unittest.main()

"""perf/streams: what its rows rest on."""

import contextlib
import io
import unittest

import streams
from report import Series


class Handshakes(unittest.TestCase):
    def test_those_of_the_servers_library_are_its_floor(self):
        found = streams.beside({"library": "AWS-LC 1.73.0", "server_us": 325.9}, "strowger 0.1.0 (AWS-LC 1.73.0)\n")
        self.assertTrue(found["clean"])
        self.assertEqual((found["server_us"], found["server"]), (325.9, "strowger 0.1.0 (AWS-LC 1.73.0)"))
        self.assertTrue(Series([found], lambda each: each["server_us"]).is_sound)

    def test_those_of_another_library_bear_no_verdict(self):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            found = streams.beside(
                {"library": "OpenSSL 3.0.19 27 Jan 2026", "server_us": 506.1}, "strowger 0.1.0 (AWS-LC 1.73.0)\n"
            )
        self.assertIn("no verdict for S2", said.getvalue())
        self.assertFalse(Series([found], lambda each: each["server_us"]).is_sound)


if __name__ == "__main__":
    unittest.main()

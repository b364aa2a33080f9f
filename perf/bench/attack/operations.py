"""What an operator depends on: the log, the metrics, the clock, the database, reloads."""

import contextlib
import glob
import hashlib
import os
import re
import signal
import socket
import sqlite3
import time

from attack import net, sip, verdicts
from attack.floods import KINDS
from attack.lab import SCRAPE, Scenario, of
from attack.verdicts import Check


class StalledLog(Scenario):
    name = "log-stalled"
    what = "the reader of the log's pipe stops, while 2,000 strangers a second are refused"
    source = "log pipe whose reader has stopped, strangers refused meanwhile (the worker hangs after 8 s)"
    must = "calls go on; the lines that are lost are counted"
    piped = True
    # As long as it took.
    during = 10.0

    def attack(self, lab):
        lab.server.pipe.reads.clear()
        where = lab.keep(net.udp(net.ATTACKER, buffer=4096))
        text = KINDS["unknown"][1]
        lab.flood(2000, lambda number: where.sendto(text % ((number,) * text.count(b"%d")), sip.SERVER))

    def end(self, lab):
        self.lost = {name: value for name, value in lab.server.scrape().items() if re.search("log.*(lost|drop)", name)}
        lab.server.pipe.reads.set()
        time.sleep(0.5)

    def checks(self, lab):
        # None are lost where a queue holds all that the log's own limits let through.
        return [
            Check(
                "a metric of lines lost",
                ", ".join(f"{name} {value:,.0f}" for name, value in self.lost.items()) or "none",
                bool(self.lost),
            )
        ]


class MetricsHeld(Scenario):
    name = "metrics-held"
    what = "400 connections to the metrics endpoint that are kept open, half of them within a request"
    source = "scrapes kept open on the metrics endpoint (503 for Prometheus)"
    must = "a scrape is answered meanwhile; calls go on"

    def attack(self, lab):
        streams = []
        for number in range(400):
            with contextlib.suppress(OSError):
                stream = lab.keep(socket.create_connection(SCRAPE, timeout=0.3, source_address=(net.ATTACKER, 0)))
                if number % 2:
                    stream.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
                streams.append(stream)
        tried = done = 0
        while lab.left() > 0:
            tried += 1
            done += bool(lab.server.scrape(1.0))
            time.sleep(0.25)
        self.tried, self.done = tried, done
        lab.seen.update({"held": len(streams), "scrapes": tried, "answered": done})

    def checks(self, lab):
        return [
            Check(
                "scrapes answered",
                f"{self.done} of {self.tried}",
                self.done >= verdicts.GOES_ON * self.tried if self.tried else None,
            )
        ]


def faketime():
    library = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), "libfaketime.so.1")
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": "clock",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


class Clock(Scenario):
    """libfaketime stands between the server and the clock."""

    source = "clock wrong at start, put right, restarted (bindings lost)"
    must = "bindings are kept, or a line of the log says that the clock was wrong"
    conf = {"registrar": {"database": "bindings.db"}}
    environment = faketime()
    # A restart interrupts, and is not what is measured.
    rates = {"refreshed": 5}

    def __init__(self, name, what, offset):
        self.offset = offset
        super().__init__(name=name, what=what)

    def files(self, directory):
        self.clock = os.path.join(directory, "clock")
        self.set(self.offset)

    def set(self, offset):
        with open(self.clock, "w") as text:
            text.write(offset + "\n")

    def prepare(self, lab):
        self.phone = lab.phone("victim", "198.18.5.1")
        self.phone.register(self.phone.contact, expires=3600)

    def bindings(self, lab):
        return of(lab.server.scrape(), "strowger_bindings")

    def attack(self, lab):
        self.set("+0")
        time.sleep(2.5)
        before, own = self.bindings(lab), self.phone.bindings()
        lab.restart()
        # Before any phone has registered again: refreshes go on meanwhile, so it is the victim's that count.
        after = self.phone.bindings()
        self.kept = (own, after)
        lab.seen.update({"bindings before the restart": before, "the victim's before": len(own or []), "after": len(after or [])})

    def checks(self, lab):
        own, after = self.kept
        told = next((line for line in lab.log.splitlines() if re.search("(?i)clock|time (of|went|jump)|back in time", line)), "")
        return [
            Check(
                "the victim's bindings, or a line about the clock",
                f"{own} → {after}; {told[-160:] or 'no such line'}",
                None if not own or after is None else own == after or bool(told),
            )
        ]


class Database(Scenario):
    source = "torn and foreign databases"
    must = "the server starts, calls go on, the file is not touched, and the log says what is wrong"
    conf = {"registrar": {"database": "bindings.db"}}

    def __init__(self, name, what, write):
        self.write = write
        super().__init__(name=name, what=what)

    def files(self, directory):
        self.path = os.path.join(directory, "bindings.db")
        self.write(self.path)
        self.before = self.sum()

    def sum(self):
        with open(self.path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:12]

    def attack(self, lab):
        time.sleep(max(0.0, lab.left()))

    def end(self, lab):
        self.after = self.sum()
        with open(lab.server.log, errors="replace") as text:
            self.told = [line for line in text if "bindings.db" in line]

    def checks(self, lab):
        return [
            Check("the file", f"{self.before} → {self.after}", self.before == self.after),
            Check("the log says what is wrong", self.told[0].strip()[-200:] if self.told else "nothing", bool(self.told)),
        ]


def torn(path):
    """A database of SQLite cut in two."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE strowger_binding (a TEXT, b TEXT)")
        database.executemany("INSERT INTO strowger_binding VALUES (?, ?)", [("x" * 100, "y" * 100)] * 2000)
        database.commit()
    os.truncate(path, os.path.getsize(path) // 2)


def foreign(path):
    """Another program's table by our name."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE strowger_binding (colour TEXT, taste INTEGER)")
        database.execute("INSERT INTO strowger_binding VALUES ('red', 1)")
        database.commit()


def garbage(path):
    with open(path, "wb") as file:
        file.write(os.urandom(100_000))


class Hangups(Scenario):
    name = "sighup-storm"
    what = "SIGHUP 2,000 times a second"
    source = "SIGHUP at 2,000 a second"
    must = "calls go on"

    def attack(self, lab):
        def send(_):
            os.kill(lab.server.pid, signal.SIGHUP)
            return 0

        lab.flood(2000, send)


StalledLog()
MetricsHeld()
Clock("clock-behind", "the clock is a year behind when the server starts, is put right, and the server starts again", "-1y")
Clock("clock-ahead", "the clock is a year ahead when the server starts, is put right, and the server starts again", "+1y")
Database("database-torn", "the database of bindings is cut in two", torn)
Database("database-foreign", "the database of bindings is another program's", foreign)
Database("database-garbage", "the database of bindings is random bytes", garbage)
Hangups()

"""What an operator depends on: the log, the metrics, the clock, the database, reloads."""

import contextlib
import glob
import hashlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial

from attack import floods, net, verdicts
from attack.lab import SCRAPE, Lab, Scenario, of


@Scenario(
    "log-stalled",
    "the reader of the log's pipe stops, while 2,000 strangers a second are refused",
    "log pipe whose reader has stopped, strangers refused meanwhile (the worker hangs after 8 s)",
    "calls go on; the lines that are lost are counted",
    piped=True,
    # As long as it took.
    during=10.0,
)
def stalled_log(lab: Lab) -> None:
    with lab.attack():
        lab.server.pipe.reads.clear()
        floods.from_one(lab, "unknown", 2000)
    lost = {name: value for name, value in lab.server.scrape().items() if re.search("log.*(lost|drop)", name)}
    lab.server.pipe.reads.set()
    time.sleep(0.5)
    # None are lost where a queue holds all that the log's own limits let through.
    lab.is_counted("a metric of lines lost", [f"{name} {value:,.0f}" for name, value in lost.items()])


@Scenario(
    "metrics-held",
    "400 connections to the metrics endpoint that are kept open, half of them within a request",
    "scrapes kept open on the metrics endpoint (503 for Prometheus)",
    "a scrape is answered meanwhile; calls go on",
)
def metrics_held(lab: Lab) -> None:
    with lab.attack():
        held = tried = done = 0
        for number in range(400):
            with contextlib.suppress(OSError):
                stream = lab.keep(socket.create_connection(SCRAPE, timeout=0.3, source_address=(net.ATTACKER, 0)))
                if number % 2:
                    stream.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
                held += 1
        while lab.left() > 0:
            tried += 1
            done += bool(lab.server.scrape(1.0))
            time.sleep(0.25)
        lab.seen |= {"held": held, "scrapes": tried, "answered": done}
    lab.check("scrapes answered", f"{done} of {tried}", done >= verdicts.GOES_ON * tried if tried else None)


# libfaketime stands between the server and the clock.
FAKETIME = {
    "LD_PRELOAD": next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), "libfaketime.so.1"),
    "FAKETIME_TIMESTAMP_FILE": "clock",
    "FAKETIME_NO_CACHE": "1",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
}


def set_clock(directory: str, offset: str) -> None:
    with open(os.path.join(directory, "clock"), "w") as text:
        text.write(offset + "\n")


def clock(lab: Lab) -> None:
    phone = lab.phone("victim", "198.18.5.1")
    phone.register(phone.contact, expires=3600)
    with lab.attack():
        set_clock(lab.directory, "+0")
        time.sleep(2.5)
        before, own = of(lab.server.scrape(), "strowger_bindings"), phone.bindings()
        lab.restart()
        # Before any phone has registered again: refreshes go on meanwhile, so it is the victim's that count.
        after = phone.bindings()
        lab.seen |= {"bindings before the restart": before, "the victim's before": len(own or []), "after": len(after or [])}
    told = next((line for line in lab.log.splitlines() if re.search("(?i)clock|time (of|went|jump)|back in time", line)), "")
    lab.check(
        "the victim's bindings, or a line about the clock",
        f"{own} → {after}; {told[-160:] or 'no such line'}",
        None if not own or after is None else own == after or bool(told),
    )


def database(directory: str) -> str:
    return os.path.join(directory, "bindings.db")


def written(directory: str, write: Callable[[str], None]) -> None:
    """`before.db` stays as the server has found the other."""
    write(directory)
    shutil.copyfile(database(directory), os.path.join(directory, "before.db"))


def sum_of(directory: str, name: str) -> str:
    with open(os.path.join(directory, name), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def wrong_database(lab: Lab) -> None:
    with lab.attack():
        pass
    before, after = (sum_of(lab.directory, name) for name in ["before.db", "bindings.db"])
    with open(lab.server.log, errors="replace") as text:
        told = [line for line in text if "bindings.db" in line]
    lab.check("the file", f"{before} → {after}", before == after)
    lab.check("the log says what is wrong", told[0].strip()[-200:] if told else "nothing", bool(told))


def table(directory: str, columns: str, rows: Sequence[tuple[str, str | int]]) -> None:
    with contextlib.closing(sqlite3.connect(database(directory))) as opened:
        opened.execute(f"CREATE TABLE strowger_binding ({columns})")
        opened.executemany("INSERT INTO strowger_binding VALUES (?, ?)", rows)
        opened.commit()


def torn(directory: str) -> None:
    table(directory, "a TEXT, b TEXT", [("x" * 100, "y" * 100)] * 2000)
    os.truncate(database(directory), os.path.getsize(database(directory)) // 2)


def foreign(directory: str) -> None:
    table(directory, "colour TEXT, taste INTEGER", [("red", 1)])


def garbage(directory: str) -> None:
    with open(database(directory), "wb") as file:
        file.write(os.urandom(100_000))


BINDINGS = {"registrar": {"database": "bindings.db"}}
for name, word, offset in [("clock-behind", "behind", "-1y"), ("clock-ahead", "ahead", "+1y")]:
    Scenario(
        name,
        f"the clock is a year {word} when the server starts, is put right, and the server starts again",
        "clock wrong at start, put right, restarted (bindings lost)",
        "bindings are kept, or a line of the log says that the clock was wrong",
        clock,
        BINDINGS,
        # A restart interrupts, and is not what is measured.
        {"refreshed": 5},
        environment=FAKETIME,
        files=partial(set_clock, offset=offset),
    )
for name, what, write in [
    ("database-torn", "the database of bindings is cut in two", torn),
    ("database-foreign", "the database of bindings is another program's", foreign),
    ("database-garbage", "the database of bindings is random bytes", garbage),
]:
    Scenario(
        name,
        what,
        "torn and foreign databases",
        "the server starts, calls go on, the file is not touched, and the log says what is wrong",
        wrong_database,
        BINDINGS,
        files=partial(written, write=write),
    )


@Scenario("sighup-storm", "SIGHUP 2,000 times a second", "SIGHUP at 2,000 a second", "calls go on")
def hangups(lab: Lab) -> None:
    def send(_: int) -> int:
        os.kill(lab.server.pid, signal.SIGHUP)
        return 0

    with lab.attack():
        lab.flood(2000, send)

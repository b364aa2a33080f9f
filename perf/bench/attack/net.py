"""The network of the laboratory: addresses of its own in a name space of its own, forged sources, floods, streams, phones that are
not asynchronous."""

import contextlib
import ctypes
import os
import resource
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from attack import sip
from attack.sip import SERVER, Credentials, Message

# RFC 2544's: they are nobody's, and here all of them are ours. Private ones stand for an operator's own network.
NETWORKS = ["198.18.0.0/15", "10.0.0.0/24"]
ATTACKER = "198.18.9.1"
THIRD = "198.18.66.66"
MANY = 50_000
SLICE = 0.002
CLONE_NEWNET = 0x40000000


def enter() -> None:
    """A network of this process and its children alone, which ends with them: nothing leaves it, and no port is taken. Needs
    root."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise RuntimeError(f"a network name space of its own: {os.strerror(ctypes.get_errno())} (perf/attack needs root)")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for network in NETWORKS:
        subprocess.run(["ip", "address", "add", network, "dev", "lo"], check=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        most = 100_000
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def source(number: int) -> str:
    """One of MANY."""
    return socket.inet_ntoa(struct.pack("!I", 0xC6130000 + number % MANY + 1))


def udp(address: str, port: int = 0, buffer: int | None = None) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if buffer:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    found.bind((address, port))
    return found


def tcp(address: str = ATTACKER, port: int = SERVER[1], timeout: float = 2.0) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.settimeout(timeout)
    found.bind((address, 0))
    found.connect((SERVER[0], port))
    return found


def tls_client() -> ssl.SSLContext:
    """Whoever trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def serve(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    """Beside: `handle(stream)` one connection after the other, until the listener is closed."""

    def run() -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), stream:
                stream.settimeout(2)
                handle(stream)

    threading.Thread(target=run, daemon=True).start()


class Forger:
    """Sends datagrams from whatever address and port."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes, address: str, port: int = 5060) -> int:
        """Returns the bytes of what UDP carries."""
        self.send_packet(struct.pack("!HHHH", port, SERVER[1], 8 + len(data), 0) + data, address)
        return len(data)

    def send_packet(self, payload: bytes, address: str, identity: int = 0, fragment: int = 0) -> int:
        ends = socket.inet_aton(address) + socket.inet_aton(SERVER[0])
        head = struct.pack("!BBHHHBBH", 0x45, 0, 0, identity, fragment, 64, socket.IPPROTO_UDP, 0)
        return self.socket.sendto(head + ends + payload, SERVER)


def paced(rate: float, until: float, send: Callable[[int], int], most: int | None = None) -> dict[str, int]:
    """Calls `send(number)` so often a second; it returns the bytes sent. Counts what went and what should have gone."""
    most = sys.maxsize if most is None else most
    began, sent, size = time.monotonic(), 0, 0
    while (now := time.monotonic()) < until:
        due = min(most, int(rate * (now - began)))
        # Never more than a slice at once: a pause is not made up for by a burst, the generator is then the limit and says so.
        for _ in range(min(due - sent, max(1, int(rate * 10 * SLICE)))):
            with contextlib.suppress(BlockingIOError):
                size += send(sent)
            sent += 1
        time.sleep(SLICE)
    return {"asked": min(most, int(rate * (until - began))), "sent": sent, "bytes sent": size}


def drain(where: socket.socket) -> tuple[int, int]:
    """(datagrams, bytes) that wait at a socket."""
    count = size = 0
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while True:
            size += len(where.recv(65536, socket.MSG_DONTWAIT))
            count += 1
    return count, size


def is_closed(stream: socket.socket) -> bool:
    """Whether the peer has closed it, with all that it had to say read."""
    try:
        while True:
            if not stream.recv(65536, socket.MSG_DONTWAIT):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def read(stream: socket.socket, seconds: float = 1.0) -> bytes:
    """What comes until it ends or is silent so long."""
    found = b""
    stream.settimeout(seconds)
    with contextlib.suppress(OSError):
        while part := stream.recv(65536):
            found += part
    return found


class Agent:
    """A phone or whoever poses as one, over UDP, one thing at a time."""

    asked: bytes
    frm: str

    def __init__(self, user: str, address: str, port: int = 5060, credentials: Credentials | Literal[True] | None = True) -> None:
        self.user = user
        self.socket = udp(address, port)
        self.place = self.socket.getsockname()
        self.credentials = Credentials(user) if credentials is True else credentials
        self.contact = f"<sip:{user}@{self.place[0]}:{self.place[1]}>"

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> int:
        return self.socket.sendto(data, SERVER)

    def receive(self, seconds: float = 1.0) -> Message | None:
        """The next message, or None."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    return Message(self.socket.recv(65536))
        return None

    def received(self, seconds: float = 0.3) -> list[Message]:
        """All that come until it is silent so long."""
        found = []
        while message := self.receive(seconds):
            found.append(message)
        return found

    def final(self, branch: str, data: bytes, seconds: float = 3.0) -> Message | None:
        """Sends until the final answer of that branch is there, or None."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.send(data)
            again = min(until, time.monotonic() + 0.5)
            while time.monotonic() < again:
                answer = self.receive(again - time.monotonic())
                if answer and answer.status and answer.status >= 200 and answer.branch == branch:
                    return answer
        return None

    def request(
        self, method: str, uri: str, *lines: str, to: str | None = None, frm: str | None = None, digest: bool = True, **more: Any
    ) -> bytes:
        """By itself to whom the URI names, if nothing else is said; with credentials as soon as it was challenged."""
        proof = self.credentials.lines(method, uri) if digest and self.credentials else []
        return sip.request(method, uri, self.place, frm or sip.aor(self.user), to or uri, *lines, *proof, **more)

    def take_challenge(self, method: str, uri: str, to: str, **more: Any) -> None:
        """For requests that are sent without waiting for their answers."""
        answer = self.ask(method, uri, to, digest=False, **more)
        if not answer or not self.credentials or not self.credentials.take(answer):
            raise RuntimeError(f"{self.user}: {method} {uri} was not challenged")

    def ask(
        self,
        method: str,
        uri: str,
        to: str,
        *lines: str,
        frm: str | None = None,
        digest: bool = True,
        seconds: float = 3.0,
        **more: Any,
    ) -> Message | None:
        """The final answer, after at most one challenge where `digest` says so. The last request is in `asked`."""
        dialog: dict[str, Any] = {"frm": frm or f"<{sip.aor(self.user)}>;tag={sip.unique('f')}", "call_id": sip.unique()}
        for cseq in [1, 2, 3]:
            dialog |= {"cseq": cseq, "branch": sip.MAGIC + sip.unique()}
            self.asked = self.request(method, uri, *lines, to=to, digest=digest, **dialog, **more)
            answer = self.final(dialog["branch"], self.asked, seconds)
            if not answer or answer.status not in (401, 407) or not (digest and self.credentials and self.credentials.take(answer)):
                break
            if method == "INVITE":
                self.send(sip.request("ACK", uri, self.place, to=answer.get("to"), **dialog))
        return answer

    def register(self, *contacts: str, expires: int | None = 300, **more: Any) -> Message | None:
        lines = [f"Contact: {contact}" for contact in contacts] + ([f"Expires: {expires}"] if expires is not None else [])
        return self.ask("REGISTER", sip.HOME, sip.aor(self.user), *lines, **more)

    def bindings(self) -> list[str] | None:
        """What its user's own query lists."""
        answer = self.register(expires=None)
        return sorted(answer.contacts) if answer else None

"""SIP as phones and attackers of the laboratory write and read it."""

import hashlib
import itertools
import os
import re
from collections.abc import Iterable
from typing import overload

Place = tuple[str, int]

REALM = DOMAIN = "lab.example"
# The Request-URI of a REGISTER.
HOME = f"sip:{DOMAIN}"
SERVER = ("198.18.0.1", 5060)
TLS_PORT = 5061
MAGIC = "z9hG4bK"
SDP = b"v=0\r\no=- 1 1 IN IP4 198.18.1.1\r\ns=-\r\nc=IN IP4 198.18.1.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"

_numbers = itertools.count(1)
_run = os.urandom(4).hex()


def unique(prefix: str = "") -> str:
    return f"{prefix}{_run}{next(_numbers):x}"


def password(user: str) -> str:
    return f"secret-of-{user}"


def aor(user: str, domain: str = DOMAIN) -> str:
    return f"sip:{user}@{domain}"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def users_file(users: Iterable[str]) -> str:
    return "".join(f"{user}:{REALM}:{md5(f'{user}:{REALM}:{password(user)}')}\n" for user in users)


@overload
def first_of(pattern: str, text: str, default: str) -> str: ...


@overload
def first_of(pattern: str, text: str, default: None = None) -> str | None: ...


def first_of(pattern: str, text: str, default: str | None = None) -> str | None:
    """What the first group of a pattern is."""
    found = re.search(pattern, text)
    return found[1] if found else default


class Message:
    """What came: `status` of a response or `method` and `uri` of a request, headers by their lower-case names."""

    status: int | None
    method: str | None
    uri: str | None

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        words = first.split(" ", 2)
        self.status = int(words[1]) if first.startswith("SIP/2.0 ") else None
        self.method, self.uri = (None, None) if self.status else (words[0], words[1])

    def all(self, *names: str) -> list[str]:
        return [value for name, value in self.headers if name in names]

    def get(self, name: str, default: str = "") -> str:
        return next(iter(self.all(name)), default)

    @property
    def branch(self) -> str:
        return first_of(r"branch=([^;,\s]+)", self.get("via"), "")

    @property
    def cseq(self) -> tuple[int, str]:
        number, _, method = self.get("cseq").partition(" ")
        return int(number), method

    @property
    def contacts(self) -> list[str]:
        return re.findall(r"<([^>]*)>", ", ".join(self.all("contact", "m")))

    def tag(self, name: str) -> str:
        return first_of(r";tag=([^;\s]+)", self.get(name), "")

    def routes(self) -> list[str]:
        """The caller's route set that the Record-Route makes, as lines."""
        found = [part.strip() for value in self.all("record-route") for part in value.split(",")]
        return [f"Route: {value}" for value in reversed(found)]


def request(
    method: str,
    uri: str,
    place: Place,
    frm: str,
    to: str,
    *more: str,
    call_id: str | None = None,
    cseq: int = 1,
    branch: str | None = None,
    contact: str | None = None,
    body: bytes = b"",
    transport: str = "UDP",
) -> bytes:
    """`place` is the sender's (address, port), `frm` and `to` are whole header values or URIs, `more` further lines."""
    frm = frm if "tag=" in frm else f"<{frm}>;tag={unique('f')}"
    to = to if "<" in to else f"<{to}>"
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/{transport} {place[0]}:{place[1]};branch={branch or MAGIC + unique()};rport",
        "Max-Forwards: 70",
        f"From: {frm}",
        f"To: {to}",
        f"Call-ID: {call_id or unique()}",
        f"CSeq: {cseq} {method}",
    ]
    return rendered(lines, more, contact, body)


def response(
    asked: Message, status: int, reason: str, *more: str, to_tag: str | None = None, contact: str | None = None, body: bytes = b""
) -> bytes:
    """An answer to the request `asked`, with its Via and Record-Route."""
    to = asked.get("to")
    if to_tag and "tag=" not in to:
        to += f";tag={to_tag}"
    lines = [
        f"SIP/2.0 {status} {reason}",
        *(f"Via: {value}" for value in asked.all("via")),
        *(f"Record-Route: {value}" for value in asked.all("record-route")),
        f"From: {asked.get('from')}",
        f"To: {to}",
        f"Call-ID: {asked.get('call-id')}",
        f"CSeq: {asked.get('cseq')}",
    ]
    return rendered(lines, more, contact, body)


def rendered(lines: list[str], more: Iterable[str], contact: str | None, body: bytes) -> bytes:
    lines += [f"Contact: {contact}"] if contact else []
    lines += [*more, *(["Content-Type: application/sdp"] if body else []), f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Credentials:
    """Of one user: answers challenges, and goes on counting on the nonce that it was given last."""

    def __init__(self, user: str, secret: str | None = None, name: str | None = None) -> None:
        self.name, self.secret = user if name is None else name, secret or password(user)
        self.nonce: str | None = None
        self.count = 0

    def take(self, answer: Message) -> bool:
        """The challenge of a 401 or 407; whether it held one."""
        value = answer.get("www-authenticate") or answer.get("proxy-authenticate")
        self.realm, self.nonce = (first_of(rf'\b{name}="([^"]*)"', value) for name in ["realm", "nonce"])
        self.ha1 = md5(f"{self.name}:{self.realm}:{self.secret}")
        self.count = 0
        return bool(self.nonce)

    def lines(self, method: str, uri: str) -> list[str]:
        """None, or one. A nonce is one for both kinds of challenge, the header is not: a registrar's, or a proxy's."""
        if not self.nonce:
            return []
        self.count += 1
        header = "Authorization" if method == "REGISTER" else "Proxy-Authorization"
        nc, cnonce = f"{self.count:08x}", unique("c")
        digest = md5(f"{self.ha1}:{self.nonce}:{nc}:{cnonce}:auth:{md5(f'{method}:{uri}')}")
        return [
            f'{header}: Digest username="{self.name}", realm="{self.realm}", nonce="{self.nonce}", uri="{uri}", '
            f'response="{digest}", algorithm=MD5, qop=auth, nc={nc}, cnonce="{cnonce}"'
        ]

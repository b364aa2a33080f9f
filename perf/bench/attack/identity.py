"""Who one is: hijacked and removed registrations, replays, forged requests and responses, impersonated clients and servers, guessed
passwords."""

import collections
import contextlib
import itertools
import os
import random
import re
import socket
import ssl
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import certificates

from attack import net, sip
from attack.lab import Lab, Scenario
from attack.sip import Credentials, Message

VICTIM, FRIEND = "198.18.5.1", "198.18.5.2"
PHONE = "<sip:mallory@198.18.9.1:5060>"


def statuses(answers: Iterable[Message | None]) -> dict[int | str | None, int]:
    return dict(collections.Counter(answer.status if answer else "silence" for answer in answers))


def passed(answers: Iterable[Message | None]) -> int:
    return sum(1 for answer in answers if answer and answer.status and 200 <= answer.status < 300)


def yes(well: object) -> str:
    return "yes" if well else "no"


def both(lab: Lab) -> tuple[net.Agent, net.Agent]:
    """The victim's phone and its friend's."""
    return lab.phone("victim", VICTIM), lab.phone("friend", FRIEND)


@Scenario(
    "hijack",
    "REGISTERs that bind, remove and remove all of another user's contacts, without, with wrong and with another's credentials",
    "registration hijack, de-registration; RFC 3261 26.1.1",
    "the victim's bindings are as they were, and none is answered 200",
)
def hijack(lab: Lab) -> None:
    victim = lab.phone("victim", VICTIM)
    victim.register(victim.contact)
    before = victim.bindings()
    changes = [[f"Contact: {PHONE}", "Expires: 300"], [f"Contact: {victim.contact};expires=0"], ["Contact: *", "Expires: 0"]]
    uris = [
        sip.aor("victim"),
        sip.aor("victim", f"{sip.DOMAIN}:5060"),
        sip.aor("victim", sip.DOMAIN.upper()),
        sip.aor("%76ictim"),
        sip.aor("victim", sip.SERVER[0]),
        f"{sip.aor('victim')};x=y",
    ]
    logins = [
        None,
        Credentials("victim", "wrong"),
        Credentials("mallory"),
        Credentials("mallory", name="victim"),
        Credentials("mallory", name="VICTIM"),
        Credentials("mallory", name=f"victim@{sip.DOMAIN}"),
        Credentials("mallory", name=""),
        Credentials("victim", sip.md5("victim")),
    ]
    answers = []
    with lab.attack():
        for (number, login), uri, change in itertools.product(enumerate(logins), uris, changes):
            if lab.left() <= 0:
                break
            # An address each: what is refused, not how soon an address is banned.
            with contextlib.closing(net.Agent("mallory", f"198.18.9.{10 + number}", credentials=login)) as agent:
                frm = random.choice([None, f"<{uri}>;tag=h"])
                answers.append(agent.ask("REGISTER", sip.HOME, uri, *change, frm=frm, seconds=1.0))
        lab.seen |= {"REGISTERs": len(answers), "answers": statuses(answers)}
    lab.same("the victim's bindings", before, victim.bindings())
    lab.none("answered 200", passed(answers))


@Scenario(
    "replay",
    "a REGISTER, a de-registration and an INVITE with credentials, seen on their way, sent again bit by bit and with another "
    "Contact, from elsewhere",
    "replay of captured messages",
    "bindings are as their owner left them, and the phone that was called does not ring again",
)
def replay(lab: Lab) -> None:
    victim, friend = both(lab)
    friend.register(friend.contact)
    captured = []
    for expires in [300, 0, 300]:
        victim.register(victim.contact, expires=expires)
        captured.append(victim.asked)
    bound, _, again = captured
    captured += [data.replace(f"Contact: {victim.contact}".encode(), f"Contact: {PHONE}".encode()) for data in [bound, again]]
    before = victim.bindings()
    invite, rung = called(victim, friend)
    answer(friend, rung, 486)
    captured += [invite, invite.replace(b"branch=z9hG4bK", b"branch=z9hG4bKx"), invite.replace(b"caller", b"mallory")]
    with lab.attack():
        agent, sent = lab.agent("mallory", credentials=None), 0
        while lab.left() > 0:
            for data in captured:
                agent.send(data)
                via = f"Via: SIP/2.0/UDP {agent.place[0]}:{agent.place[1]}"
                agent.send(data.replace(b"Via: SIP/2.0/UDP 198.18.5.1:5060", via.encode()))
                sent += 2
            time.sleep(0.02)
        lab.seen |= {"sent": sent, "answers": statuses(message for message in agent.received(0.05) if message.status)}
    lab.same("the victim's bindings", before, victim.bindings())
    first = rung.branch if rung else None
    rings = [message for message in friend.received() if message.method == "INVITE" and message.branch != first]
    lab.none("INVITEs that rang the phone again", len(rings))
    lab.some("the first INVITE rang", yes(rung), rung)


def called(caller: net.Agent, callee: net.Agent, seconds: float = 2.0) -> tuple[bytes, Message | None]:
    """Sends an INVITE with credentials; returns its last form and what reached the callee."""
    uri, call_id = sip.aor(callee.user), sip.unique()
    caller.frm = f"<{sip.aor(caller.user)}>;tag={sip.unique('caller')}"
    for cseq in [1, 2]:
        dialog: dict[str, Any] = {"frm": caller.frm, "call_id": call_id, "cseq": cseq, "branch": sip.MAGIC + sip.unique()}
        data = caller.request("INVITE", uri, **dialog, contact=caller.contact, body=sip.SDP)
        caller.send(data)
        while (message := caller.receive(seconds)) and message.status and message.status < 200 and message.status != 100:
            pass
        if not message or message.status != 407 or not caller.credentials or not caller.credentials.take(message):
            break
        caller.send(sip.request("ACK", uri, caller.place, to=message.get("to"), **dialog))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        message = callee.receive(seconds)
        if message and message.method == "INVITE" and message.get("call-id") == call_id:
            return data, message
    return data, None


def answer(agent: net.Agent, asked: Message | None, status: int, tag: str = "callee") -> None:
    if asked:
        body = sip.SDP if status == 200 else b""
        agent.send(sip.response(asked, status, "Answer", to_tag=tag, contact=agent.contact, body=body))


def ringing(caller: net.Agent, callee: net.Agent) -> Message | None:
    """A call that is not answered yet, as it reached the callee."""
    _, asked = called(caller, callee)
    answer(callee, asked, 180)
    caller.received(0.3)
    return asked


def altered(route: str) -> str:
    """A Route as ours, with one digit of the cookie's proof of the dialog guessed wrong; what follows in it are the sides'
    places."""
    found = re.search(r"[;=]sc=..([0-9a-f]{16})", route)
    if not found:
        return "Subject: no cookie"
    place = random.randrange(*found.span(1))
    return route[:place] + ("0" if route[place] != "0" else "1") + route[place + 1 :]


def forged_requests(lab: Lab, knows: bool) -> None:
    caller, callee = both(lab)
    for phone in [caller, callee]:
        phone.register(phone.contact)
    _, asked = called(caller, callee)
    answer(callee, asked, 200)
    up = next((message for message in caller.received(0.5) if message.status == 200), None)
    dialog: tuple[str, ...] = (up.get("call-id"), up.tag("from"), up.tag("to")) if up else ()
    routes = up.routes() if up else []
    if up:
        send_within(caller, up, "ACK", 2)
    callee.received(0.3)
    second = ringing(caller, callee)
    with lab.attack():
        agent, sent = lab.agent("mallory", credentials=None), 0
        names = [sip.aor("victim"), sip.aor("friend"), "sip:x@elsewhere.example", sip.aor("mallory")]
        while up and second and lab.left() > 0:
            call_id, one, other = dialog
            if not knows:
                one, other = sip.unique("caller"), f"callee{random.randrange(10)}"
            sides = [(callee, one, other), (caller, other, one)]
            for method, (phone, from_tag, to_tag) in itertools.product(["BYE", "INVITE", "UPDATE", "REFER"], sides):
                for uri in [phone.contact[1:-1], sip.aor(phone.user)]:
                    lines = random.choice([[], [f"Route: <sip:{sip.SERVER[0]};lr>"], [altered(line) for line in routes]])
                    frm, to = f"<{random.choice(names)}>;tag={from_tag}", f"<{sip.aor(phone.user)}>;tag={to_tag}"
                    more: dict[str, Any] = {
                        "call_id": call_id,
                        "cseq": random.randrange(3, 1000),
                        "contact": PHONE,
                        "body": sip.SDP,
                    }
                    agent.send(agent.request(method, uri, *lines, frm=frm, to=to, **more))
                    sent += 1
            for _ in range(16):
                of_second: dict[str, Any] = {"call_id": second.get("call-id"), "cseq": second.cseq[0]}
                uri = sip.aor("friend")
                agent.send(sip.request("CANCEL", uri, caller.place, caller.frm, uri, **of_second))
                sent += 1
            time.sleep(0.02)
        if up and second:
            lab.seen |= {"sent": sent, "answers": statuses(message for message in agent.received(0.05) if message.status)}

    def reached(phone: net.Agent) -> list[Message]:
        # Its own dialog, by what a phone knows it by; requests without a tag of it it answers 481.
        return [
            message
            for message in phone.received()
            if message.method not in (None, "ACK")
            and (message.method == "CANCEL" or {message.tag("from"), message.tag("to")} == set(dialog[1:]))
        ]

    forged, ended = len(reached(caller) + reached(callee)), False
    if up:
        send_within(caller, up, "BYE", 2000)
        ended = any(message.method == "BYE" for message in callee.received(0.5))
    lab.some("a call is up, another rings", yes(up and second), up and second)
    lab.none("forged requests that a phone would take", forged)
    lab.check("the caller's own BYE still ends it", yes(ended), ended)


def send_within(caller: net.Agent, ok: Message, method: str, cseq: int) -> None:
    """In the dialog that a 200 has made."""
    sides, call_id = (ok.get("from"), ok.get("to")), ok.get("call-id")
    caller.send(sip.request(method, ok.contacts[0], caller.place, *sides, *ok.routes(), call_id=call_id, cseq=cseq))


for name, knows, conf, how in [
    ("forged-requests", False, {}, "by guessed tags and branches"),
    (
        "forged-requests-known",
        True,
        {"proxy": {"in_dialog_without_route": "refuse"}},
        "with its Call-ID and both tags, but no route of its",
    ),
]:
    Scenario(
        name,
        f"BYE, re-INVITE, UPDATE and REFER for a call that is up, and CANCEL for one that rings, from off the path {how}",
        "session teardown by a forged BYE or CANCEL, media redirection by a forged re-INVITE",
        "none reaches a phone of the dialog, which goes on",
        partial(forged_requests, knows=knows),
        conf,
    )


@Scenario(
    "forged-responses",
    "5,000 final responses a second for a call that rings, with guessed branches: random ones, and the real one with a character "
    "changed",
    "forged responses",
    "none reaches the caller; the real answer does",
)
def forged_responses(lab: Lab) -> None:
    caller, callee = both(lab)
    callee.register(callee.contact)
    asked = ringing(caller, callee)

    def send(number: int) -> int:
        if number % 2:
            place = random.randrange(len(sip.MAGIC), len(real))
            branch = real[:place] + random.choice("abcdef0123456789".replace(real[place], "")) + real[place + 1 :]
        else:
            branch = sip.MAGIC + f"{random.getrandbits(128):032x}"
        return agent.send(texts[number % 4].replace(real.encode(), branch.encode()))

    with lab.attack():
        if asked:
            agent, real = lab.agent("mallory"), asked.branch
            texts = [sip.response(asked, status, "Forged", to_tag="forged", contact=PHONE) for status in (200, 486, 603, 302)]
            lab.flood(5000, send)
    got = [message for message in caller.received(0.2) if message.status and message.status >= 200]
    answer(callee, asked, 200)
    came = any(message.status == 200 and message.tag("to") == "callee" for message in caller.received(0.5))
    lab.none("forged responses that reached the caller", sum(1 for message in got if message.tag("to") == "forged"))
    lab.check("the real answer came through", yes(came), came if asked else None)


def foreign(directory: str) -> tuple[str, str]:
    """A certificate that says what ours says, of an authority that nobody trusts."""
    key, certificate = (os.path.join(directory, f"foreign.{end}") for end in ["key", "pem"])
    names = "subjectAltName=IP:198.18.9.2,IP:198.18.0.1,URI:sip:victim@lab.example"
    files = ["-keyout", key, "-out", certificate]
    certificates.openssl(
        *["req", "-x509", *certificates.KINDS["ec"], "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2", *files, "-addext", names]
    )
    return certificate, key


@Scenario(
    "impersonated-client",
    "under verify_client = required: TLS clients without a certificate and with one of an authority that nobody trusts send a "
    "REGISTER",
    "impersonation; RFC 5922",
    "none of them is answered by SIP",
    conf={"tls": {"verify_client": "required"}},
)
def impersonated_client(lab: Lab) -> None:
    own, victim = foreign(lab.directory), sip.aor("victim")
    outcomes: collections.Counter[str] = collections.Counter()
    with lab.attack():
        while lab.left() > 0:
            for pair in [None, own]:
                context = net.tls_client()
                if pair:
                    context.load_cert_chain(*pair)
                try:
                    with context.wrap_socket(net.tcp(port=sip.TLS_PORT)) as stream:
                        stream.sendall(sip.request("REGISTER", sip.HOME, stream.getsockname(), victim, victim, transport="TLS"))
                        outcomes["answered" if stream.recv(4096) else "closed"] += 1
                except OSError as why:
                    outcomes[getattr(why, "reason", None) or type(why).__name__] += 1
            time.sleep(0.05)
        lab.seen["outcomes"] = dict(outcomes)
    lab.none("answered by SIP", outcomes["answered"])
    lab.some("tried", outcomes.total(), outcomes)


@Scenario(
    "impersonated-server",
    "where a next hop should be, servers whose certificate is of an authority that nobody trusts, or of ours for another name",
    "impersonation of a server; RFC 5922",
    "no SIP leaves to them, and their callers get a final answer",
    conf={
        "[route]": [
            {"to_user_prefix": f"gateway{number}", "action": "relay", "target": [f"sips:198.18.9.{2 + number}:5061"]}
            for number in [0, 1]
        ]
    },
)
def impersonated_server(lab: Lab) -> None:
    connected, got = [], []

    def impostor(pair: tuple[str, str], stream: socket.socket) -> None:
        connected.append(pair)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        with context.wrap_socket(stream, server_side=True) as secure:
            got.append(len(secure.recv(65536)))

    for number, pair in enumerate([foreign(lab.directory), (certificates.path("rsa.pem"), certificates.path("rsa.key"))]):
        net.serve(lab.keep(socket.create_server((f"198.18.9.{2 + number}", 5061))), partial(impostor, pair))
    with lab.attack():
        caller, answers = lab.agent("mallory"), []
        while lab.left() > 0:
            for uri in [sip.aor("gateway0"), sip.aor("gateway1")]:
                answers.append(caller.ask("INVITE", uri, uri, contact=caller.contact, seconds=2.0))
            time.sleep(0.05)
        lab.seen |= {"handshakes": len(connected), "answers": statuses(answers), "bytes of SIP": sum(got)}
    lab.none("bytes of SIP to an impostor", sum(got))
    lab.some("impostors that were connected to", len(connected), connected)
    lab.none("callers without a final answer", answers.count(None))
    lab.none("calls that came about", passed(answers))


@Scenario(
    "tampered",
    "somebody on the path of TLS connections changes one byte of what a client has sent",
    "tampering with messages",
    "none is answered by SIP, and its connection is closed",
)
def tampered(lab: Lab) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    context = net.tls_client()
    with lab.attack():
        while lab.left() > 0.5:
            changed = outcomes["clients"] % 2
            outcomes["clients"] += 1
            with contextlib.suppress(OSError), net.tcp(port=sip.TLS_PORT) as stream:
                into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
                client = context.wrap_bio(into, out)
                while True:
                    try:
                        client.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        stream.sendall(out.read())
                        into.write(stream.recv(65536))
                stream.sendall(out.read())
                mine = stream.getsockname()
                client.write(sip.request("OPTIONS", sip.HOME, mine, "sip:x@y.example", sip.HOME, transport="TLS"))
                record = bytearray(out.read())
                if changed:
                    record[random.randrange(5, len(record))] ^= 1 << random.randrange(8)
                stream.sendall(record)
                into.write(net.read(stream, 0.1))
                try:
                    answered = b"SIP/2.0" in client.read(65536)
                except (ssl.SSLError, OSError):
                    answered = False
                outcomes[f"{'changed' if changed else 'unchanged'}, {'answered' if answered else 'not answered'}"] += 1
        lab.seen |= outcomes
    lab.none("changed ones that were answered", outcomes["changed, answered"])
    for what, outcome in [("unchanged ones that were", "unchanged, answered"), ("changed ones", "changed, not answered")]:
        lab.some(what, outcomes[outcome], outcomes[outcome])


GUESSES, JUDGED_AT_MOST = 6000, 300


@Scenario(
    "password-guesses",
    "6,000 passwords of one user, guessed in 2.3 s by one source that counts on one nonce; then the right one",
    "6,000 passwords guessed in 2.3 s",
    "few are judged, the source is banned even with the right one, the log names it, and the user itself registers from its own "
    "place",
)
def guesses(lab: Lab) -> None:
    victim, user = lab.phone("victim", VICTIM), sip.aor("victim")
    counts: collections.Counter[int | None] = collections.Counter()
    victim.register(victim.contact)
    with lab.attack():
        guessed = Credentials("victim", "guess")
        guesser = lab.agent("victim", credentials=guessed)
        guesser.take_challenge("REGISTER", sip.HOME, user)

        def collect() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    counts[Message(guesser.socket.recv(65536, socket.MSG_DONTWAIT)).status] += 1

        began = time.monotonic()
        for number in range(GUESSES):
            guessed.ha1 = sip.md5(f"victim:{sip.REALM}:guess{number}")
            guesser.send(guesser.request("REGISTER", sip.HOME, to=user, contact=PHONE))
            collect()
            time.sleep(max(0.0, began + number * 2.3 / GUESSES - time.monotonic()))
        took = time.monotonic() - began
        time.sleep(0.3)
        collect()
        guesser.credentials = Credentials("victim")
        hit = guesser.register(PHONE, seconds=1.5)
        own = victim.register(victim.contact)
        right = hit.status if hit else "silence"
        lab.seen |= {"guesses": GUESSES, "seconds": took, "answers": dict(counts), "then the right one": right}
    before, after = lab.metrics["before"], lab.metrics["during"] or lab.metrics["after"]
    # "too_many": no password was looked at.
    unjudged = re.compile("challenged|accepted|too_many")
    judged = sum(
        value - before.get(name, 0)
        for name, value in after.items()
        if name.startswith("strowger_auth_total") and not unjudged.search(name)
    )
    # An answer that challenges again tells that the guess was wrong.
    lab.at_most(f"guesses judged (at most {JUDGED_AT_MOST})", max(judged, counts[401]), JUDGED_AT_MOST)
    lab.check("the right one, from the same source", str(right), not passed([hit]))
    lab.check("the user, from its own place", statuses([own]), bool(passed([own])))
    named = any(net.ATTACKER in line and re.search("ban|password|guess", line) for line in lab.log.splitlines())
    lab.check("a line for fail2ban names the source", yes(named), named)

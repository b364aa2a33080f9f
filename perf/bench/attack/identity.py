"""Who one is: hijacked and removed registrations, replays, forged requests and responses, impersonated clients and servers, guessed
passwords."""

import collections
import contextlib
import os
import random
import re
import socket
import ssl
import threading
import time

import certificates

from attack import net, sip, verdicts
from attack.lab import Scenario
from attack.sip import Credentials, Message
from attack.verdicts import Check

VICTIM, FRIEND = "198.18.5.1", "198.18.5.2"
PHONE = "<sip:mallory@198.18.9.1:5060>"


def same(what, before, after):
    return Check(what, f"{before} → {after}" if before != after else f"{after}", before == after if before else None)


def none(what, count):
    return Check(what, f"{count:,}", count == 0)


def statuses(answers):
    return dict(collections.Counter(answer.status if answer else "silence" for answer in answers))


def passed(answers):
    return sum(1 for answer in answers if answer and 200 <= answer.status < 300)


class Hijack(Scenario):
    name = "hijack"
    what = (
        "REGISTERs that bind, remove and remove all of another user's contacts, without, with wrong and with another's credentials"
    )
    source = "registration hijack, de-registration; RFC 3261 26.1.1"
    must = "the victim's bindings are as they were, and none is answered 200"

    def prepare(self, lab):
        self.victim = lab.phone("victim", VICTIM)
        self.victim.register(self.victim.contact)
        self.before = self.victim.bindings()

    def attack(self, lab):
        own = self.victim.contact
        changes = [([f"Contact: {PHONE}", "Expires: 300"]), ([f"Contact: {own};expires=0"]), (["Contact: *", "Expires: 0"])]
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
        for number, login in enumerate(logins):
            for uri in uris:
                for change in changes:
                    if lab.left() <= 0:
                        break
                    # An address each: what is refused, not how soon an address is banned.
                    agent = net.Agent("mallory", f"198.18.9.{10 + number}", credentials=login)
                    frm = random.choice([None, f"<{uri}>;tag=h"])
                    answers.append(agent.ask("REGISTER", f"sip:{sip.DOMAIN}", uri, *change, frm=frm, seconds=1.0))
                    agent.close()
        self.answers = answers
        lab.seen.update({"REGISTERs": len(answers), "answers": statuses(answers)})

    def end(self, lab):
        self.after = self.victim.bindings()

    def checks(self, lab):
        return [same("the victim's bindings", self.before, self.after), none("answered 200", passed(self.answers))]


class Replay(Scenario):
    name = "replay"
    what = (
        "a REGISTER, a de-registration and an INVITE with credentials, seen on their way, sent again bit by bit and with another "
        "Contact, from elsewhere"
    )
    source = "replay of captured messages"
    must = "bindings are as their owner left them, and the phone that was called does not ring again"

    def prepare(self, lab):
        self.victim, self.friend = lab.phone("victim", VICTIM), lab.phone("friend", FRIEND)
        self.friend.register(self.friend.contact)
        self.victim.register(self.victim.contact)
        bound = self.victim.asked
        self.victim.register(self.victim.contact, expires=0)
        removed = self.victim.asked
        self.victim.register(self.victim.contact)
        again = self.victim.asked
        self.seen = [
            bound,
            removed,
            again,
            *(data.replace(b"Contact: <sip:victim@198.18.5.1:5060>", b"Contact: " + PHONE.encode()) for data in [bound, again]),
        ]
        self.before = self.victim.bindings()
        invite, self.rung = called(self.victim, self.friend)
        answer(self.friend, self.rung, 486)
        self.seen += [invite, invite.replace(b"branch=z9hG4bK", b"branch=z9hG4bKx"), invite.replace(b"caller", b"mallory")]

    def attack(self, lab):
        agent = lab.agent("mallory", credentials=None)
        sent = 0
        while lab.left() > 0:
            for data in self.seen:
                sent += 1
                agent.send(data)
                agent.send(
                    data.replace(
                        b"Via: SIP/2.0/UDP 198.18.5.1:5060", f"Via: SIP/2.0/UDP {agent.place[0]}:{agent.place[1]}".encode()
                    )
                )
            time.sleep(0.02)
        lab.seen.update({"sent": 2 * sent, "answers": statuses(message for message in agent.received(0.05) if message.status)})

    def end(self, lab):
        self.after = self.victim.bindings()
        first = self.rung.branch if self.rung else None
        self.rings = [message for message in self.friend.received() if message.method == "INVITE" and message.branch != first]

    def checks(self, lab):
        return [
            same("the victim's bindings", self.before, self.after),
            none("INVITEs that rang the phone again", len(self.rings)),
            Check("the first INVITE rang", "yes" if self.rung else "no", True if self.rung else None),
        ]


def called(caller, callee, seconds=2.0):
    """Sends an INVITE with credentials; returns its last form and what reached the callee."""
    uri = sip.aor(callee.user)
    caller.frm, caller.call_id = f"<{sip.aor(caller.user)}>;tag={sip.unique('caller')}", sip.unique()
    for cseq in [1, 2]:
        caller.branch = sip.MAGIC + sip.unique()
        data = sip.request(
            "INVITE",
            uri,
            caller.place,
            caller.frm,
            uri,
            *caller.credentials.lines("INVITE", uri),
            call_id=caller.call_id,
            cseq=cseq,
            branch=caller.branch,
            contact=caller.contact,
            body=sip.SDP,
        )
        caller.send(data)
        while (message := caller.receive(seconds)) and message.status and message.status < 200 and message.status != 100:
            pass
        if not message or message.status != 407 or not caller.credentials.take(message):
            break
        caller.send(
            sip.request(
                "ACK", uri, caller.place, caller.frm, message.get("to"), call_id=caller.call_id, cseq=cseq, branch=caller.branch
            )
        )
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        message = callee.receive(seconds)
        if message and message.method == "INVITE" and message.get("call-id") == caller.call_id:
            return data, message
    return data, None


def answer(agent, asked, status, tag="callee"):
    if asked:
        agent.send(sip.response(asked, status, "Answer", to_tag=tag, contact=agent.contact, body=sip.SDP if status == 200 else b""))


def altered(route):
    """A Route as ours, with one digit of the cookie's proof of the dialog guessed wrong; what follows in it are the sides'
    places."""
    found = re.search(r"[;=]sc=..([0-9a-f]{16})", route)
    if not found:
        return "Subject: no cookie"
    place = random.randrange(*found.span(1))
    return route[:place] + ("0" if route[place] != "0" else "1") + route[place + 1 :]


class ForgedRequests(Scenario):
    source = "session teardown by a forged BYE or CANCEL, media redirection by a forged re-INVITE"

    def __init__(self, knows):
        self.knows = knows
        what = "with its Call-ID and both tags, but no route of its" if knows else "by guessed tags and branches"
        conf = {"proxy": {"in_dialog_without_route": "refuse"}} if knows else {}
        super().__init__(
            name="forged-requests-known" if knows else "forged-requests",
            conf=conf,
            must="none reaches a phone of the dialog, which goes on",
            what=f"BYE, re-INVITE, UPDATE and REFER for a call that is up, and CANCEL for one that rings, from off the path {what}",
        )

    def prepare(self, lab):
        self.caller, self.callee = lab.phone("victim", VICTIM), lab.phone("friend", FRIEND)
        for phone in [self.caller, self.callee]:
            phone.register(phone.contact)
        _, asked = called(self.caller, self.callee)
        answer(self.callee, asked, 200)
        self.up = next((message for message in self.caller.received(0.5) if message.status == 200), None)
        if self.up:
            self.dialog = (self.up.get("call-id"), self.up.tag("from"), self.up.tag("to"))
            self.routes = sip.route_set(self.up.all("record-route"), True)
            self.ack("ACK", 2)
        self.callee.received(0.3)
        # A second call, which rings.
        _, self.ringing = called(self.caller, self.callee)
        answer(self.callee, self.ringing, 180)
        self.caller.received(0.3)

    def ack(self, method, cseq):
        self.caller.send(
            sip.request(
                method,
                self.up.contacts[0],
                self.caller.place,
                self.up.get("from"),
                self.up.get("to"),
                *self.routes,
                call_id=self.dialog[0],
                cseq=cseq,
            )
        )

    def attack(self, lab):
        agent = lab.agent("mallory", credentials=None)
        names = [sip.aor("victim"), sip.aor("friend"), "sip:x@elsewhere.example", sip.aor("mallory")]
        sent = 0
        if not self.up or not self.ringing:
            return
        while lab.left() > 0:
            call_id, one, other = self.dialog
            if not self.knows:
                one, other = sip.unique("caller"), f"callee{random.randrange(10)}"
            for method in ["BYE", "INVITE", "UPDATE", "REFER"]:
                for phone, tags in [(self.callee, (one, other)), (self.caller, (other, one))]:
                    for uri in [phone.contact[1:-1], sip.aor(phone.user)]:
                        agent.send(
                            sip.request(
                                method,
                                uri,
                                agent.place,
                                f"<{random.choice(names)}>;tag={tags[0]}",
                                f"<{sip.aor(phone.user)}>;tag={tags[1]}",
                                *random.choice([[], [f"Route: <sip:{sip.SERVER[0]};lr>"], [altered(line) for line in self.routes]]),
                                call_id=call_id,
                                cseq=random.randrange(3, 1000),
                                contact=PHONE,
                                body=sip.SDP,
                            )
                        )
                        sent += 1
            asked = self.ringing
            for _ in range(16):
                branch = sip.MAGIC + sip.unique()
                agent.send(
                    sip.request(
                        "CANCEL",
                        sip.aor("friend"),
                        self.caller.place,
                        self.caller.frm,
                        sip.aor("friend"),
                        branch=branch,
                        call_id=asked.get("call-id"),
                        cseq=asked.cseq[0],
                    )
                )
                sent += 1
            time.sleep(0.02)
        lab.seen.update({"sent": sent, "answers": statuses(message for message in agent.received(0.05) if message.status)})

    def end(self, lab):
        def reached(phone):
            # Its own dialog, by what a phone knows it by; requests without a tag of it it answers 481.
            return [
                message
                for message in phone.received()
                if message.method not in (None, "ACK")
                and (message.method == "CANCEL" or {message.tag("from"), message.tag("to")} == set(self.dialog[1:]))
            ]

        self.reached = reached(self.caller) + reached(self.callee)
        self.ended = False
        if self.up:
            self.ack("BYE", 2000)
            self.ended = any(message.method == "BYE" for message in self.callee.received(0.5))

    def checks(self, lab):
        well = bool(self.up and self.ringing)
        return [
            Check("a call is up, another rings", "yes" if well else "no", True if well else None),
            none("forged requests that a phone would take", len(self.reached)),
            Check("the caller's own BYE still ends it", "yes" if self.ended else "no", self.ended),
        ]


class ForgedResponses(Scenario):
    name = "forged-responses"
    what = (
        "5,000 final responses a second for a call that rings, with guessed branches: random ones, and the real one with a "
        "character changed"
    )
    source = "forged responses"
    must = "none reaches the caller; the real answer does"

    def prepare(self, lab):
        self.caller, self.callee = lab.phone("victim", VICTIM), lab.phone("friend", FRIEND)
        self.callee.register(self.callee.contact)
        _, self.ringing = called(self.caller, self.callee)
        answer(self.callee, self.ringing, 180)
        self.caller.received(0.3)

    def attack(self, lab):
        if not self.ringing:
            return
        agent = lab.agent("mallory")
        real = self.ringing.branch
        texts = [sip.response(self.ringing, status, "Forged", to_tag="forged", contact=PHONE) for status in (200, 486, 603, 302)]

        def send(number):
            if number % 2:
                place = random.randrange(len(sip.MAGIC), len(real))
                branch = real[:place] + random.choice("abcdef0123456789".replace(real[place], "")) + real[place + 1 :]
            else:
                branch = sip.MAGIC + f"{random.getrandbits(128):032x}"
            return agent.send(texts[number % 4].replace(real.encode(), branch.encode()))

        lab.flood(5000, send)

    def end(self, lab):
        got = [message for message in self.caller.received(0.2) if message.status and message.status >= 200]
        self.forged = sum(1 for message in got if message.tag("to") == "forged")
        answer(self.callee, self.ringing, 200)
        self.real = any(message.status == 200 and message.tag("to") == "callee" for message in self.caller.received(0.5))

    def checks(self, lab):
        return [
            none("forged responses that reached the caller", self.forged),
            Check("the real answer came through", "yes" if self.real else "no", self.real if self.ringing else None),
        ]


def foreign(directory):
    """A certificate that says what ours says, of an authority that nobody trusts."""
    key, certificate = (os.path.join(directory, f"foreign.{end}") for end in ["key", "pem"])
    certificates.openssl(
        "req",
        "-x509",
        *certificates.KINDS["ec"],
        "-nodes",
        "-subj",
        "/CN=127.0.0.1",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
        "-addext",
        "subjectAltName=IP:198.18.9.2,IP:198.18.0.1,URI:sip:victim@lab.example",
    )
    return certificate, key


class ImpersonatedClient(Scenario):
    name = "impersonated-client"
    what = (
        "under verify_client = required: TLS clients without a certificate and with one of an authority that nobody trusts send a "
        "REGISTER"
    )
    source = "impersonation; RFC 5922"
    must = "none of them is answered by SIP"
    conf = {"tls": {"verify_client": "required"}}

    def attack(self, lab):
        own, outcomes = foreign(lab.directory), collections.Counter()
        while lab.left() > 0:
            for pair in [None, own]:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                if pair:
                    context.load_cert_chain(*pair)
                try:
                    with context.wrap_socket(net.tcp(port=sip.TLS_PORT)) as stream:
                        stream.sendall(
                            sip.request(
                                "REGISTER",
                                f"sip:{sip.DOMAIN}",
                                stream.getsockname(),
                                sip.aor("victim"),
                                sip.aor("victim"),
                                transport="TLS",
                            )
                        )
                        outcomes["answered" if stream.recv(4096) else "closed"] += 1
                except OSError as why:
                    outcomes[getattr(why, "reason", None) or type(why).__name__] += 1
            time.sleep(0.05)
        lab.seen["outcomes"] = dict(outcomes)

    def checks(self, lab):
        outcomes = lab.seen["outcomes"]
        return [
            none("answered by SIP", outcomes.get("answered", 0)),
            Check("tried", f"{sum(outcomes.values())}", True if outcomes else None),
        ]


class ImpersonatedServer(Scenario):
    name = "impersonated-server"
    what = (
        "where a next hop should be, servers whose certificate is of an authority that nobody trusts, or of ours for another name"
    )
    source = "impersonation of a server; RFC 5922"
    must = "no SIP leaves to them, and their callers get a final answer"
    conf = {
        "[route]": [
            {"to_user_prefix": f"gateway{number}", "action": "relay", "target": [f"sips:198.18.9.{2 + number}:5061"]}
            for number in [0, 1]
        ]
    }

    def prepare(self, lab):
        self.got, self.refused = 0, 0
        pairs = [foreign(lab.directory), (certificates.path("rsa.pem"), certificates.path("rsa.key"))]
        for number, pair in enumerate(pairs):
            listener = lab.keep(socket.create_server((f"198.18.9.{2 + number}", 5061)))
            threading.Thread(target=self.serve, args=(listener, pair), daemon=True).start()

    def serve(self, listener, pair):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            try:
                stream.settimeout(2)
                with context.wrap_socket(stream, server_side=True) as secure:
                    self.got += len(secure.recv(65536))
                    self.refused += 1
            except OSError:
                self.refused += 1

    def attack(self, lab):
        caller, answers = lab.agent("mallory"), []
        while lab.left() > 0:
            for number in [0, 1]:
                uri = sip.aor(f"gateway{number}")
                answers.append(caller.ask("INVITE", uri, uri, contact=caller.contact, seconds=2.0))
            time.sleep(0.05)
        self.answers = answers
        lab.seen.update({"handshakes": self.refused, "answers": statuses(answers), "bytes of SIP": self.got})

    def checks(self, lab):
        return [
            none("bytes of SIP to an impostor", self.got),
            Check("impostors that were connected to", f"{self.refused}", True if self.refused else None),
            none("callers without a final answer", sum(1 for each in self.answers if not each)),
            none("calls that came about", passed(self.answers)),
        ]


class Tampered(Scenario):
    name = "tampered"
    what = "somebody on the path of TLS connections changes one byte of what a client has sent"
    source = "tampering with messages"
    must = "none is answered by SIP, and its connection is closed"

    def attack(self, lab):
        outcomes = collections.Counter()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
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
                client.write(
                    sip.request(
                        "OPTIONS",
                        f"sip:{sip.DOMAIN}",
                        stream.getsockname(),
                        "sip:x@y.example",
                        f"sip:{sip.DOMAIN}",
                        transport="TLS",
                    )
                )
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
        self.outcomes = outcomes
        lab.seen.update(outcomes)

    def checks(self, lab):
        return [
            none("changed ones that were answered", self.outcomes["changed, answered"]),
            Check(
                "unchanged ones that were",
                f"{self.outcomes['unchanged, answered']}",
                True if self.outcomes["unchanged, answered"] else None,
            ),
            Check(
                "changed ones",
                f"{self.outcomes['changed, not answered']}",
                True if self.outcomes["changed, not answered"] else None,
            ),
        ]


class Guesses(Scenario):
    name = "password-guesses"
    what = "6,000 passwords of one user, guessed in 2.3 s by one source that counts on one nonce; then the right one"
    source = "6,000 passwords guessed in 2.3 s"
    must = (
        "few are judged, the source is banned even with the right one, the log names it, and the user itself registers from its "
        "own place"
    )
    guesses, judged_at_most = 6000, 300

    def prepare(self, lab):
        self.victim = lab.phone("victim", VICTIM)
        self.victim.register(self.victim.contact)

    def attack(self, lab):
        guesser = lab.agent("victim", credentials=Credentials("victim", "guess"))
        uri = f"sip:{sip.DOMAIN}"
        challenge = guesser.ask("REGISTER", uri, sip.aor("victim"), digest=False)
        if not challenge or not guesser.credentials.take(challenge):
            return
        credentials, counts, began = guesser.credentials, collections.Counter(), time.monotonic()

        def collect():
            with contextlib.suppress(BlockingIOError):
                while True:
                    counts[Message(guesser.socket.recv(65536, socket.MSG_DONTWAIT)).status] += 1

        for number in range(self.guesses):
            credentials.ha1 = sip.md5(f"victim:{sip.REALM}:guess{number}")
            guesser.send(
                sip.request(
                    "REGISTER",
                    uri,
                    guesser.place,
                    sip.aor("victim"),
                    sip.aor("victim"),
                    credentials.line("REGISTER", uri),
                    contact=PHONE,
                )
            )
            collect()
            time.sleep(max(0.0, began + number * 2.3 / self.guesses - time.monotonic()))
        took = time.monotonic() - began
        time.sleep(0.3)
        collect()
        guesser.credentials = Credentials("victim")
        self.hit = guesser.register(PHONE, seconds=1.5)
        self.own = self.victim.register(self.victim.contact)
        lab.seen.update(
            {
                "guesses": self.guesses,
                "seconds": took,
                "answers": dict(counts),
                "then the right one": self.hit.status if self.hit else "silence",
            }
        )

    def checks(self, lab):
        # "too_many": no password was looked at.
        unjudged = ("challenged", "accepted", "too_many")
        judged = sum(value for name, value in outcomes(lab).items() if not any(word in name for word in unjudged))
        # An answer that challenges again tells that the guess was wrong.
        told = lab.seen.get("answers", {}).get(401, 0)
        named = any(net.ATTACKER in line and re.search("ban|password|guess", line) for line in lab.log.splitlines())
        return [
            Check(
                f"guesses judged (at most {self.judged_at_most})",
                f"{max(judged, told):,.0f}",
                verdicts.at_most(max(judged, told), self.judged_at_most),
            ),
            Check("the right one, from the same source", str(lab.seen.get("then the right one")), not passed([self.hit])),
            Check("the user, from its own place", statuses([self.own]), bool(passed([self.own]))),
            Check("a line for fail2ban names the source", "yes" if named else "no", named),
        ]


def outcomes(lab):
    before, after = lab.metrics["before"], lab.metrics["during"] or lab.metrics["after"]
    return {name: value - before.get(name, 0) for name, value in after.items() if name.startswith("strowger_auth_total")}


Hijack()
Replay()
for each in [False, True]:
    ForgedRequests(each)
ForgedResponses()
ImpersonatedClient()
ImpersonatedServer()
Tampered()
Guesses()

//! The passage: how a request that shows a Via of ours proves that it is the one we wrote it for, so that a spiral (RFC 5393) is
//! neither asked again for what it has proved, nor refused by a server that is draining or overloaded.
//!
//! It covers the Call-ID, the names in From and To, the From tag, the number and method of CSeq, whether credentials were proved
//! when it passed, and the time, to within minutes. If they were, it also covers the contents: what the caller says to the callee,
//! from the display name and the tag in To to the body. An equal passage shows that this request has passed here before, within
//! [`SLOT_MS`] or twice that, with that proof. It does not show that the request is unchanged since: its sender may have set
//! Request-URI, Route and everything that proxies may add.
//!
//! Having belonged to a dialog proves nothing on another pass: the request has to show that again, by the Route of that pass.
//!
//! A stateless proxy must write the INVITE's branch on its CANCEL and ACK too (RFC 3261 §16.11), so its passage covers only what
//! these three share ([`Proof::Shared`]): neither time nor proof nor contents.

use crate::base::Key;
use crate::sip::{Header, Message, Method, Name};

/// A passage is valid for one to two of these: an INVITE that a proxy behind us forwards elsewhere after long ringing comes back
/// after minutes.
pub const SLOT_MS: u64 = 1 << 18;

/// 48 bits.
const MASK: u64 = (1 << 48) - 1;

/// What a request had proved when it passed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Proof {
    /// Nothing: no proof was demanded.
    #[default]
    None,
    /// Unknown: written without a transaction.
    Shared,
    /// That it belongs to a dialog that we let pass. No later pass recognises it.
    Dialog,
    /// The sender's identity.
    Credentials,
}

/// What a passage says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Passed {
    pub proof: Proof,
    /// The request was then for the user named in To: it was retargeted by the one that was called by that name. Unknown for a
    /// request that passed without a transaction.
    pub named: bool,
}

/// Computes and compares passages.
#[derive(Clone, Copy, Debug)]
pub struct Passages {
    key: Key,
}

impl Passages {
    pub fn new(secret: Key) -> Passages {
        Passages { key: secret.derive("passage") }
    }

    /// Returns the passage of a request: 48 bits. `dialog` comes from [`crate::stack::identity::Identity::dialog`]; `wall_ms` is
    /// the time since 1970.
    pub fn of(&self, message: &Message, dialog: u64, passed: Passed, wall_ms: u64) -> u64 {
        let contents = match passed.proof {
            Proof::Credentials => self.contents(message),
            Proof::None | Proof::Dialog | Proof::Shared => 0,
        };
        let slot = match passed.proof {
            Proof::Shared => 0,
            _ => wall_ms / SLOT_MS,
        };
        self.value(message, dialog, passed, contents, slot)
    }

    /// Returns the passages that the request may have got when it passed. `dialogs`: one for each set of names that it may have
    /// had.
    pub fn possible(&self, message: &Message, dialogs: &[u64], wall_ms: u64) -> Possible {
        let contents = self.contents(message);
        let slot = wall_ms / SLOT_MS;
        let mut possible = Possible::default();
        let mut room = possible.list.iter_mut();
        let mut put = |dialog: u64, proof: Proof, named: bool, contents: u64, slot: u64| {
            if let Some(place) = room.next() {
                let passed = Passed { proof, named };
                let value = self.value(message, dialog, passed, contents, slot);
                *place = Some((value, passed));
            }
        };
        for dialog in dialogs {
            put(*dialog, Proof::Shared, false, 0, 0);
            // Another server with our key may be slightly ahead.
            for slot in [slot, slot.saturating_sub(1), slot + 1] {
                for named in [false, true] {
                    put(*dialog, Proof::None, named, 0, slot);
                    put(*dialog, Proof::Credentials, named, contents, slot);
                }
            }
        }
        possible
    }

    fn value(&self, message: &Message, dialog: u64, Passed { proof, named }: Passed, contents: u64, slot: u64) -> u64 {
        let number = message.cseq().map_or(0, |cseq| cseq.number);
        let method = match message.method() {
            Method::Ack | Method::Cancel if proof == Proof::Shared => Method::Invite,
            method => method,
        };
        let said = proof as u64 | u64::from(named) << 7;
        let asked = u64::from(number) << 16 | (method as u64) << 8 | said;
        let mut value = self.key.hash_numbers(dialog, asked, slot);
        if contents != 0 {
            value = self.key.hash_numbers(value, contents, 0);
        }
        if method == Method::Other {
            let name = self.key.hash(&[message.method_name()]);
            value = self.key.hash_numbers(value, name, 1);
        }
        value & MASK
    }

    /// Returns a hash of what the caller says to the callee and no proxy changes on the way. Never 0.
    fn contents(&self, message: &Message) -> u64 {
        let display = message.from().ok().and_then(|from| from.display);
        let mut hash = self.key.hash(&[display.unwrap_or_default(), message.to_tag().unwrap_or_default(), message.body()]);
        for header in message.headers().filter(|header| is_callers(header)) {
            let before = hash.to_le_bytes();
            let name = header.name.canonical().as_bytes();
            hash = self.key.hash(&[&before, name, header.value]);
        }
        hash.max(1)
    }
}

/// Returns whether a header field is the caller's own and meant for the callee.
fn is_callers(header: &Header) -> bool {
    match header.name {
        Name::Contact
        | Name::ContentType
        | Name::ContentEncoding
        | Name::ContentDisposition
        | Name::Event
        | Name::SubscriptionState
        | Name::Subject
        | Name::Organization
        | Name::ReplyTo
        | Name::InReplyTo
        | Name::ReferTo
        | Name::ReferredBy
        | Name::Replaces
        | Name::RAck
        | Name::SipIfMatch
        | Name::AlertInfo
        | Name::CallInfo
        | Name::ErrorInfo
        | Name::Priority => true,
        Name::Other => {
            let name = header.raw_name;
            !PROXIES.iter().any(|other| {
                let start = name.get(..other.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(other))
            }) || name.eq_ignore_ascii_case(b"P-Auto-Answer")
        }
        _ => false,
    }
}

/// Prefixes of unknown header fields that proxies add.
const PROXIES: [&[u8]; 5] = [b"X-", b"P-", b"History-Info", b"Diversion", b"Resource-Priority"];

/// Passages that one request may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Possible {
    list: [Option<(u64, Passed)>; 2 * (1 + 3 * 4)],
}

impl Possible {
    /// Returns what the request had proved when it passed, if `shown` is one of its passages.
    pub fn passed(&self, shown: u64) -> Option<Passed> {
        let mut list = self.list.iter().flatten();
        list.find(|(value, _)| *value == shown).map(|(_, passed)| *passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Index;

    const PROOFS: [Proof; 2] = [Proof::None, Proof::Credentials];
    const DIALOG: u64 = 77;
    const NOW: u64 = 1_800_000_000_000;

    fn with<R>(text: &str, then: impl FnOnce(&Message) -> R) -> R {
        let mut index = Index::default();
        then(&Message::parse(text.as_bytes(), &mut index).unwrap())
    }

    fn request(method: &str, cseq: &str, contact: &str, body: &str) -> String {
        format!(
            "{method} sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n\
             CSeq: {cseq}\r\nContact: {contact}\r\n\r\n{body}"
        )
    }

    fn passed(made: &str, proof: Proof, shown: &str, dialog: u64, later_ms: u64) -> Option<Proof> {
        let passages = Passages::new(Key::new(1, 2));
        let named = proof == Proof::Credentials;
        let made_of = Passed { proof, named };
        let value = with(made, |message| passages.of(message, DIALOG, made_of, NOW));
        with(shown, |message| {
            let possible = passages.possible(message, &[5, dialog], NOW + later_ms);
            let passed = possible.passed(value)?;
            assert_eq!(passed.named, named);
            Some(passed.proof)
        })
    }

    #[test]
    fn the_same_request_has_passed_with_what_it_proved() {
        let made = request("INVITE", "1 INVITE", "<sip:a@h>", "v=0");
        for proof in PROOFS {
            for later in [0, 1000, SLOT_MS] {
                assert_eq!(passed(&made, proof, &made, DIALOG, later), Some(proof));
            }
            assert_eq!(passed(&made, proof, &made, DIALOG, 2 * SLOT_MS), None);
            assert_eq!(passed(&made, proof, &made, 78, 0), None);
            for other in [
                request("INVITE", "2 INVITE", "<sip:a@h>", "v=0"),
                request("MESSAGE", "1 MESSAGE", "<sip:a@h>", "v=0"),
                request("ODD", "1 ODD", "<sip:a@h>", "v=0"),
            ] {
                assert_eq!(passed(&made, proof, &other, DIALOG, 0), None);
            }
        }
        let (odd, other) = (request("ODD", "1 ODD", "<sip:a@h>", ""), request("EVEN", "1 EVEN", "<sip:a@h>", ""));
        let none = Proof::None;
        assert_eq!(passed(&odd, none, &odd, DIALOG, 0), Some(none));
        assert_eq!(passed(&odd, none, &other, DIALOG, 0), None);
    }

    #[test]
    fn what_a_stateless_proxy_writes_is_the_same_for_ack_and_cancel_at_any_time() {
        let passages = Passages::new(Key::new(1, 2));
        let of = |text: &str, later: u64| {
            with(text, |message| {
                let proof = Proof::Shared;
                let passed = Passed { proof, named: false };
                passages.of(message, DIALOG, passed, NOW + later)
            })
        };
        let invite = request("INVITE", "1 INVITE", "<sip:a@h>", "v=0");
        let value = of(&invite, 0);
        assert_eq!(of(&request("CANCEL", "1 CANCEL", "", ""), 9 * SLOT_MS), value);
        assert_eq!(of(&request("ACK", "1 ACK", "", ""), 0), value);
        assert_ne!(of(&request("BYE", "1 BYE", "", ""), 0), value);
        let shown = passed(&invite, Proof::Shared, &invite, DIALOG, 9 * SLOT_MS);
        assert_eq!(shown, Some(Proof::Shared));
    }

    #[test]
    fn credentials_speak_for_what_the_caller_says() {
        let made = request("INVITE", "1 INVITE", "<sip:a@h>", "v=0");
        let with = |line: &str| made.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        for other in [
            request("INVITE", "1 INVITE", "<sip:mallory@h>", "v=0"),
            request("INVITE", "1 INVITE", "<sip:a@h>", "v=1"),
            made.replace("To: <sip:b@h>", "To: <sip:b@h>;tag=2"),
            made.replace("From: <", "From: \"Bank\" <"),
            with("Contact: <sip:mallory@h>"),
            with("Subject: x"),
            with("s: x"),
            with("Refer-To: <sip:c@h>"),
            with("Replaces: x;to-tag=1;from-tag=2"),
            with("join: x;to-tag=1;from-tag=2"),
            with("Target-Dialog: x;local-tag=1;remote-tag=2"),
            with("Content-Type: text/html"),
            with("Alert-Info: <http://h/loud.wav>"),
            with("Answer-Mode: Auto"),
            with("P-auto-answer: normal"),
            with("Remote-Party-ID: \"CEO\" <sip:ceo@h>"),
            with("Priority: emergency"),
        ] {
            let by = |proof| passed(&made, proof, &other, DIALOG, 0);
            assert_eq!(by(Proof::Credentials), None, "{other}");
            assert_eq!(by(Proof::None), Some(Proof::None), "{other}");
        }
        for same in [
            with("Max-Forwards: 3"),
            with("Record-Route: <sip:p@h;lr>"),
            with("Via: SIP/2.0/UDP p"),
            with("History-Info: <sip:b@h>;index=1"),
            with("Diversion: <sip:b@h>"),
            with("X-Account: 7"),
            with("p-charging-vector: icid-value=1"),
            with("Privacy: id"),
        ] {
            let by = |proof| passed(&made, proof, &same, DIALOG, 0);
            assert_eq!(by(Proof::Credentials), Some(Proof::Credentials), "{same}");
        }
    }

    #[test]
    fn a_dialog_is_shown_on_each_pass_anew() {
        let made = request("INVITE", "1 INVITE", "<sip:a@h>", "v=0").replace("<sip:b@h>\r", "<sip:b@h>;tag=2\r");
        assert_eq!(passed(&made, Proof::Dialog, &made, DIALOG, 0), None);
    }
}

//! Log lines for messages that are refused or dropped and for branches that fail: one line each, with peer, user and reason, within
//! the core's budget. They never show anything that could be a password.

use super::counters::Drop;
use crate::base::Flow;
use crate::sip::{Message, Method, Name, NameAddr};
use crate::stack::turn::Turn;
use std::fmt;

/// Maximum bytes of a URI in a log line.
const SHOWN: usize = 200;

/// A URI as shown in a log line: without its password and its header fields, which could be credentials.
pub(in crate::stack) struct Shown<'u>(pub(in crate::stack) &'u [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = memchr::memchr(b'?', self.0);
        let uri = self.0.get(..headers.unwrap_or(self.0.len())).unwrap_or(&[]);
        let short = uri.get(..SHOWN).unwrap_or(uri);
        let user = memchr::memchr(b':', uri).map_or(0, |colon| colon + 1);
        let at = memchr::memrchr(b'@', uri);
        let password = at.and_then(|at| {
            let userinfo = uri.get(user..at)?;
            Some((user + memchr::memchr(b':', userinfo)?, at))
        });
        let text = String::from_utf8_lossy;
        match password {
            Some((colon, at)) => {
                let (before, after) = (uri.get(..colon.min(SHOWN)), uri.get(at..));
                let after = after.map(|after| after.get(..SHOWN).unwrap_or(after));
                let (before, after) = (before.unwrap_or(&[]), after.unwrap_or(&[]));
                write!(f, "{}:***{}", text(before), text(after))?;
            }
            None => f.write_str(&text(short))?,
        }
        match headers.is_some() || (password.is_none() && short.len() < uri.len()) {
            true => f.write_str("…"),
            false => Ok(()),
        }
    }
}

/// `INVITE sip:bob@example.com by sip:alice@example.com`. The sender of a REGISTER is in To, that of any other request in From.
pub(in crate::stack) struct About<'m, 'b>(pub(in crate::stack) &'m Message<'b>);

impl fmt::Display for About<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let About(message) = self;
        let method = message.method_name();
        let method = method.get(..SHOWN).unwrap_or(method);
        let uri = Shown(message.request_uri());
        write!(f, "{} {uri}", String::from_utf8_lossy(method))?;
        let user: Option<NameAddr<'_>> = match message.method() {
            Method::Register => message.to().ok(),
            _ => message.from().ok(),
        };
        match user {
            Some(user) => write!(f, " by {}", Shown(user.uri)),
            None => Ok(()),
        }
    }
}

/// The subject of a log line: a word that operators filter by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::stack) enum Subject {
    Auth,
    Registrar,
    Routing,
}

impl Subject {
    pub const fn word(self) -> &'static str {
        match self {
            Subject::Auth => "auth",
            Subject::Registrar => "registrar",
            Subject::Routing => "routing",
        }
    }

    /// Returns the subject of a line about a request, unless it is about the sender.
    pub fn of(message: &Message) -> Subject {
        match message.method() {
            Method::Register => Subject::Registrar,
            _ => Subject::Routing,
        }
    }

    /// Returns the subject of a line about our own answer.
    pub fn of_answer(message: &Message, status: u16) -> Subject {
        match status {
            401 | 407 => Subject::Auth,
            _ => Subject::of(message),
        }
    }
}

/// Returns the Call-ID of a message, the first if there are several; empty if there is none.
pub(in crate::stack) fn call_id<'b>(message: &Message<'b>) -> &'b [u8] {
    message.header(Name::CallId).map_or(&[], |call_id| call_id.value)
}

/// A Call-ID as shown in a log line, under the key `call_id`.
pub(in crate::stack) struct ShownId<'b>(pub(in crate::stack) &'b [u8]);

impl fmt::Display for ShownId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.0.get(..SHOWN).unwrap_or(self.0);
        f.write_str(&String::from_utf8_lossy(short))?;
        match short.len() < self.0.len() {
            true => f.write_str("…"),
            false => Ok(()),
        }
    }
}

impl Turn<'_> {
    /// Counts bytes that are neither processed nor answered and cannot be read as a message.
    pub fn discard(&mut self, flow: Flow, reason: Drop, why: &str) {
        self.core.counters.drop(reason);
        self.is_passed_over = true;
        self.tell_dropped(None, flow, reason, why);
    }

    /// Counts a message that is neither processed nor answered.
    pub fn discard_message(&mut self, message: &Message, flow: Flow, reason: Drop, why: &str) {
        self.core.counters.drop(reason);
        self.is_passed_over = true;
        self.tell_dropped(Some(message), flow, reason, why);
    }

    /// Logs why something was dropped. What arrives too late, as happens on every network, is only logged at the most verbose
    /// level.
    pub fn tell_dropped(&mut self, message: Option<&Message>, flow: Flow, reason: Drop, why: &str) {
        let (peer, transport, label) = (flow.peer, flow.transport.name(), reason.label());
        let is_late = match reason {
            Drop::KeepAlive => return,
            Drop::StrayResponse | Drop::Absorbed => true,
            _ => false,
        };
        if let Some(message) = message {
            self.outbox.note(call_id(message), format_args!("dropped, from {peer} over {transport}: {label}: {why}"));
        }
        if is_late {
            log::debug!(target: Subject::Routing.word(), "dropped from {peer} over {transport}: {label}");
            return;
        }
        // Beyond the budget, lines are only logged at that level, too.
        let level = match self.core.log.may_say() {
            true => log::Level::Info,
            false => log::Level::Debug,
        };
        match message {
            Some(message) => log::log!(
                target: Subject::Routing.word(), level, call_id:% = ShownId(call_id(message));
                "dropped from {peer} over {transport}: {label}: {why}"
            ),
            None => log::log!(target: Subject::Routing.word(), level, "dropped from {peer} over {transport}: {label}: {why}"),
        }
    }

    /// Logs that a request gets `what` as its answer, or that something is wrong with it. A trace that follows the call gets it in
    /// any case.
    pub fn log_event(&mut self, subject: Subject, message: &Message, flow: Flow, what: fmt::Arguments<'_>) {
        self.outbox.note(call_id(message), what);
        if self.core.log.may_say() {
            let (peer, transport) = (flow.peer, flow.transport.name());
            log::info!(
                target: subject.word(), call_id:% = ShownId(call_id(message));
                "{} from {peer} over {transport}: {what}", About(message)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_is_shown_as_it_came_and_not_for_ever() {
        assert_eq!(ShownId(b"a84b4c76e66710@h").to_string(), "a84b4c76e66710@h");
        assert_eq!(ShownId(b"\xff").to_string(), "\u{fffd}");
        assert_eq!(ShownId(&[b'x'; 5000]).to_string().chars().count(), SHOWN + 1);
    }

    #[test]
    fn a_uri_is_shown_without_its_password_and_header_fields() {
        for (uri, shown) in [
            (&b"sip:bob@example.com"[..], "sip:bob@example.com"),
            (b"sip:bob@example.com:5060;lr", "sip:bob@example.com:5060;lr"),
            (b"sip:example.com:5060", "sip:example.com:5060"),
            (b"sips:bob:open@example.com:5061", "sips:bob:***@example.com:5061"),
            (b"sip:bob:a@b@example.com", "sip:bob:***@example.com"),
            (b"sip:bob@a?Authorization=Digest%20x", "sip:bob@a…"),
            (b"sip:bob:pw@a?X=y@z", "sip:bob:***@a…"),
            (b"tel:+49", "tel:+49"),
            (b"", ""),
            (b"\xff@", "\u{fffd}@"),
        ] {
            assert_eq!(Shown(uri).to_string(), shown);
        }
        let long = [b"sip:", &[b'x'; 5000][..], b":pw@", &[b'y'; 5000]].concat();
        let shown = Shown(&long).to_string();
        assert!(shown.len() < 3 * SHOWN && shown.contains(":***@") && !shown.contains("pw"));
        assert_eq!(Shown(&[b'x'; 5000]).to_string().chars().count(), SHOWN + 1);
    }
}

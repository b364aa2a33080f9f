//! The identity that a request has proved, as asserted to its next hops in the trust domain (RFC 3325 §5).

use crate::sip::{Host, write_escaped};
use crate::stack::Settings;
use crate::stack::whose::Whose;

impl Settings {
    /// Returns whether identities are asserted to any next hop.
    pub fn asserts_identities(&self) -> bool {
        !self.limits.trusted_sources.is_empty()
    }

    /// Appends the URI of the user logged in as `login`. If the request names no user of ours, e.g. because the caller withholds
    /// its name, the domain is the login's own, or the realm's.
    pub fn identity_of_login(&self, login: &[u8], whose: Option<Whose>, realm: &[u8], out: &mut Vec<u8>) {
        if let Some(whose) = whose.filter(|whose| whose.is_login(login)) {
            return write_identity(whose, out);
        }
        let at = memchr::memrchr(b'@', login);
        let own = at.map(|at| (&login[..at], Host::of(&login[at + 1..])));
        let own = own.filter(|(_, domain)| self.is_our_domain(*domain));
        let of_realm = || Some(Host::of(realm)).filter(|host| self.is_our_domain(*host));
        let first = || self.domains.first().map(|domain| Host::of(domain));
        let called = whose.map(|whose| whose.domain());
        let user = own.or_else(|| Some((login, called.or_else(of_realm).or_else(first)?)));
        if let Some((user, domain)) = user {
            write(user.iter().copied(), domain, out);
        }
    }
}

/// Appends the URI of a user of ours.
pub(super) fn write_identity(whose: Whose, out: &mut Vec<u8>) {
    write(whose.name(), whose.domain(), out);
}

fn write(user: impl Iterator<Item = u8>, domain: Host, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"sip:");
    write_escaped(user, out);
    out.push(b'@');
    domain.write_canonical(out);
}

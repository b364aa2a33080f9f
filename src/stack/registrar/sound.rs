//! What may be in a binding, whatever its origin: a REGISTER, a row of the database, or an operator. Anything that a message could
//! not have carried would go out unchanged in answers, Request-URIs and Route header fields.

use crate::base::Transport;
use crate::sip::{Host, NameAddr, Scheme, Uri, listed, unescaped};
use crate::stack::hop_uri::transport_of;
use crate::stack::location::{BindingText, Row};
use crate::stack::settings::Settings;
use crate::stack::whose::is_same_host;
use std::net::{IpAddr, SocketAddr};

impl Settings {
    /// Checks whether a row could stem from a REGISTER; the error says what is wrong.
    pub fn check_row(&self, aor: &[u8], row: &Row) -> Result<(), &'static str> {
        let most = self.limits.contact_size;
        check_address_of_record(aor)?;
        self.check_text(&row.text)?;
        if aor.len() > most || row.text.call_id.len() > most {
            return Err("its address or Call-ID is longer than [limits] contact_size");
        }
        if let Some(source) = &row.source {
            check_source(source.peer, source.local())?;
        }
        Ok(())
    }

    fn check_text(&self, text: &BindingText) -> Result<(), &'static str> {
        let most = self.limits.contact_size;
        if text.uri.len() + text.instance.len() > most || text.path.len() > most {
            return Err("its contact or path is longer than [limits] contact_size");
        }
        if Uri::parse(text.uri).is_err() {
            return Err("its contact is not a URI");
        }
        if text.call_id.is_empty() || !text.call_id.iter().all(u8::is_ascii_graphic) {
            return Err("its call_id is not a Call-ID");
        }
        if !is_sound_path(text.path) {
            return Err("its path is not a list of addresses");
        }
        if text.instance.is_empty() {
            return Ok(());
        }
        // As in an answer.
        let contact = [b"<", text.uri, b">;+sip.instance=", text.instance].concat();
        let is_read = NameAddr::parse(&contact).is_ok_and(|contact| {
            contact.params.get(b"+sip.instance") == Some(Some(text.instance)) && contact.params.into_iter().count() == 1
        });
        match is_read && text.instance.iter().all(is_printable) {
            true => Ok(()),
            false => Err("its instance is not a parameter's value"),
        }
    }

    /// Returns whether a contact names the address-of-record that it is bound to, or this server and no user of it.
    pub fn leads_back(&self, contact: &Uri, aor: &[u8]) -> bool {
        self.leads_here(contact) && self.is_same_user(contact, aor)
    }

    /// Returns whether a request for a contact comes back to this server, as far as can be told without a DNS query.
    pub fn leads_here(&self, uri: &Uri) -> bool {
        let by = match uri.scheme {
            Scheme::Sip => transport_of(uri).ok().flatten(),
            Scheme::Sips => Some(Transport::Tls),
            Scheme::Tel | Scheme::Other => return false,
        };
        let own = |host: &[u8], ip: Option<IpAddr>| {
            let default = by.map_or(5060, |transport| transport.default_port());
            self.is_own(host, ip, uri.port.or(ip.map(|_| default)))
        };
        own(uri.host_text, uri.host.ip()) && uri.maddr().is_none_or(|maddr| own(maddr, Settings::ip(maddr)))
    }

    /// Returns whether a contact that leads here names the user of this address-of-record, or no user. Each of our domains has its
    /// own users; our addresses have only theirs.
    fn is_same_user(&self, contact: &Uri, aor: &[u8]) -> bool {
        let Some(user) = contact.user.filter(|user| !user.is_empty()) else {
            return true;
        };
        let Some(at) = memchr::memrchr(b'@', aor) else {
            return false;
        };
        let (name, domain) = (&aor[..at], Host::of(&aor[at + 1..]));
        let is_domain = |own: &Vec<u8>| is_same_host(contact.host, Host::of(own));
        unescaped(user).eq(unescaped(name)) && (is_same_host(contact.host, domain) || !self.domains.iter().any(is_domain))
    }
}

/// Returns whether a byte may be written to a line as it is.
pub fn is_printable(byte: &u8) -> bool {
    *byte >= b' ' && *byte != 0x7f
}

/// Returns whether this is a list of addresses on one line, or empty.
pub fn is_sound_path(path: &[u8]) -> bool {
    let is_address =
        |value: &[u8]| NameAddr::parse(value).is_ok_and(|address| address.bracketed && Uri::parse(address.uri).is_ok());
    path.is_empty() || (path.iter().all(is_printable) && listed(path).all(is_address))
}

fn check_address_of_record(aor: &[u8]) -> Result<(), &'static str> {
    let uri = [b"sip:", aor].concat();
    let mut canonical = Vec::new();
    if let Ok(uri) = Uri::parse(&uri)
        && uri.user.is_some()
    {
        uri.write_address_of_record(&mut canonical);
    }
    match canonical == aor && !aor.is_empty() {
        true => Ok(()),
        false => Err("its aor is not an address-of-record"),
    }
}

/// Checks whether a message could have come from there.
fn check_source(peer: SocketAddr, local: Option<IpAddr>) -> Result<(), &'static str> {
    let is_one = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    match peer.port() != 0 && is_one(peer.ip()) && local.is_none_or(is_one) {
        true => Ok(()),
        false => Err("its peer or local is not an address that a message comes from"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Flow, Instant};
    use crate::stack::location::Reached;

    fn row() -> Row<'static> {
        Row {
            text: BindingText {
                uri: b"sip:a@192.0.2.1:5070;transport=tcp?x=y",
                call_id: b"call@x",
                path: b"<sip:p;lr>, \"q, r\" <sip:q;lr>",
                instance: b"\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"",
            },
            source: Some(Flow::datagram(0, "192.0.2.1:5070".parse().unwrap())),
            expires: Instant::from_ms(1),
            reg_id: 1,
            cseq: 1,
            q: 1000,
            removed: false,
            reached: Reached::ByFlow,
        }
    }

    #[test]
    fn a_row_is_trusted_no_more_than_a_message() {
        let settings = Settings::default();
        let check = |aor: &[u8], row: &Row| settings.check_row(aor, row);
        assert_eq!(check(b"a@x", &row()), Ok(()));
        let plain = Row { text: BindingText { path: b"", instance: b"", ..row().text }, source: None, ..row() };
        assert_eq!(check(b"a%231@[2001:db8::1]", &plain), Ok(()));
        for aor in [
            &b""[..],
            b"x",
            b"@x",
            b"a@X",
            b"a@x:5060",
            b"a@x;y",
            b"a\r\n@x",
            b"a@x\r\nVia: y",
            b"%61@x",
            b"a b@x",
            b"<a@x>",
            b"sip:a@x",
        ] {
            assert!(check(aor, &row()).is_err(), "{:?}", aor.escape_ascii());
        }
        for uri in [
            &b""[..],
            b"*",
            b"sip:",
            b"sip:a@h\r\nX: y",
            b"sip:a@h>",
            b"sip:a@h>;x=<",
            b"sip:a@h SIP/2.0",
            b"sip:a@h\0",
            b"sip:a@h;x=\xff",
            b"\nsip:a@h",
            b"mailto:a@h\r\n",
        ] {
            let mut row = row();
            row.text.uri = uri;
            assert!(check(b"a@x", &row).is_err(), "{:?}", uri.escape_ascii());
        }
        for call_id in [&b""[..], b"a b", b"a\r\nX: y", b"\xff"] {
            let mut row = row();
            row.text.call_id = call_id;
            assert!(check(b"a@x", &row).is_err(), "{:?}", call_id.escape_ascii());
        }
        for path in [&b"<sip:p;lr>\r\nX: y"[..], b"<sip:p;lr>,", b"<sip:p", b"<sip:p;lr>,\r\n <sip:q;lr>", b"p", b"sip:p;lr", b"<>"]
        {
            let mut row = row();
            row.text.path = path;
            assert!(check(b"a@x", &row).is_err(), "{:?}", path.escape_ascii());
        }
        for instance in [
            &b"\"<urn:x>\"\r\nX: y"[..],
            b"\"<urn:x>",
            b"\"<urn:x>\", <sip:b@h>",
            b"\"<urn:x>\";expires=1",
            b"\"<urn:\r\n x>\"",
            b"\"\x01\"",
        ] {
            let mut row = row();
            row.text.instance = instance;
            assert!(check(b"a@x", &row).is_err(), "{:?}", instance.escape_ascii());
        }
        for peer in ["192.0.2.1:0", "0.0.0.0:5060", "224.0.1.75:5060", "[::]:1"] {
            let mut row = row();
            row.source = Some(Flow::datagram(0, peer.parse().unwrap()));
            assert!(check(b"a@x", &row).is_err(), "{peer}");
        }
        let mut row = row();
        row.source = row.source.map(|flow| flow.from_local(Some("0.0.0.0".parse().unwrap())));
        assert!(check(b"a@x", &row).is_err());
    }

    #[test]
    fn what_is_longer_than_may_be_bound_is_not_read_back() {
        let mut settings = Settings::default();
        settings.limits.contact_size = 60;
        assert!(settings.check_row(b"a@x", &row()).is_err());
        settings.limits.contact_size = 100;
        assert_eq!(settings.check_row(b"a@x", &row()), Ok(()));
        let long = [&b"a@"[..], &[b'x'; 100]].concat();
        assert!(settings.check_row(&long, &row()).is_err());
    }
}

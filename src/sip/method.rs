//! Request methods (RFC 3261 §7.1 and the extensions that a proxy knows by name).

/// A request method; any token that is not listed is `Other`, which a proxy relays all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Prack,
    Update,
    Info,
    Refer,
    Subscribe,
    Notify,
    Message,
    Publish,
    #[default]
    Other,
}

impl Method {
    /// The method that `token` names. Methods are case-sensitive (RFC 3261 §7.1).
    pub fn parse(token: &[u8]) -> Method {
        match token {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"REGISTER" => Method::Register,
            b"OPTIONS" => Method::Options,
            b"PRACK" => Method::Prack,
            b"UPDATE" => Method::Update,
            b"INFO" => Method::Info,
            b"REFER" => Method::Refer,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"MESSAGE" => Method::Message,
            b"PUBLISH" => Method::Publish,
            _ => Method::Other,
        }
    }

    /// The token, or "" for `Other`, whose token only the message knows.
    pub fn name(self) -> &'static str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Register => "REGISTER",
            Method::Options => "OPTIONS",
            Method::Prack => "PRACK",
            Method::Update => "UPDATE",
            Method::Info => "INFO",
            Method::Refer => "REFER",
            Method::Subscribe => "SUBSCRIBE",
            Method::Notify => "NOTIFY",
            Method::Message => "MESSAGE",
            Method::Publish => "PUBLISH",
            Method::Other => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_themselves_and_case_matters() {
        for method in [
            Method::Invite,
            Method::Ack,
            Method::Bye,
            Method::Cancel,
            Method::Register,
            Method::Options,
            Method::Prack,
            Method::Update,
            Method::Info,
            Method::Refer,
            Method::Subscribe,
            Method::Notify,
            Method::Message,
            Method::Publish,
        ] {
            assert_eq!(Method::parse(method.name().as_bytes()), method);
            let lower = method.name().to_ascii_lowercase();
            assert_eq!(Method::parse(lower.as_bytes()), Method::Other);
        }
        assert_eq!(Method::parse(b"RE%47IST%45R"), Method::Other);
        assert_eq!(Method::parse(b""), Method::Other);
    }
}

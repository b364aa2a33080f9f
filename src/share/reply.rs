//! What Redis has replied, as the `redis` crate reads it.

pub use redis::Value as Reply;

/// What is in a reply, without a copy.
pub trait Contents {
    fn text(&self) -> Option<&[u8]>;

    fn list(&self) -> Option<&[Reply]>;

    /// Returns the number that it is, or that its text says.
    fn number(&self) -> Option<u64>;

    /// Returns what the server refuses, as it says it: a word such as `WRONGTYPE`, and why.
    fn error(&self) -> Option<String>;
}

impl Contents for Reply {
    fn text(&self) -> Option<&[u8]> {
        match self {
            Reply::BulkString(text) => Some(text),
            Reply::SimpleString(text) => Some(text.as_bytes()),
            Reply::Okay => Some(b"OK"),
            _ => None,
        }
    }

    fn list(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(list) => Some(list),
            _ => None,
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Reply::Int(number) => u64::try_from(*number).ok(),
            reply => std::str::from_utf8(reply.text()?).ok()?.parse().ok(),
        }
    }

    fn error(&self) -> Option<String> {
        match self {
            Reply::ServerError(error) => Some(match error.details() {
                Some(details) => format!("{} {details}", error.code()),
                None => error.code().to_owned(),
            }),
            _ => None,
        }
    }
}

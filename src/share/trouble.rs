//! Why Redis cannot be spoken to.

use super::reply::{Contents, Reply};
use std::fmt;

/// What is wrong with Redis or the way to it. It may pass: whoever meets it tries again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The connection is of no use any more, or was never made.
    Lost(String),
    /// Redis answers, and refuses.
    Refused(String),
    /// Another server that lives has our name.
    NameTaken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Lost(why) | Trouble::NameTaken(why) => f.write_str(why),
            Trouble::Refused(why) => write!(f, "it answers {why:?}"),
        }
    }
}

/// Redis has replied something that it should not.
pub fn unexpected(to: &str, reply: &Reply) -> Trouble {
    let mut said = shown(reply);
    if let Some((end, _)) = said.char_indices().nth(100) {
        said.truncate(end);
    }
    Trouble::Lost(format!("to {to} it replies {said}"))
}

/// Returns a reply as a person can read it.
fn shown(reply: &Reply) -> String {
    match (reply.text(), reply.list(), reply.error()) {
        (Some(text), _, _) => format!("\"{}\"", text.escape_ascii()),
        (_, Some(list), _) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        (_, _, Some(why)) => why,
        _ => format!("{reply:?}"),
    }
}

/// Returns whether a reply refuses because another program has a key of another type there.
pub fn is_wrong_type(reply: &Reply) -> bool {
    reply.error().is_some_and(|why| why.starts_with("WRONGTYPE"))
}

/// Returns why Redis refuses, unless it is that another program has a key of another type there: that concerns this key alone.
pub fn refusal(reply: &Reply) -> Option<Trouble> {
    let why = reply.error().filter(|why| !why.starts_with("WRONGTYPE"))?;
    Some(Trouble::Refused(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_is_shown_as_text() {
        let reply = Reply::Array(vec![Reply::BulkString(b"a\xff\n\"".to_vec()), Reply::Int(7), Reply::Nil]);
        assert_eq!(unexpected("XREAD", &reply).to_string(), r#"to XREAD it replies ["a\xff\n\"", int(7), nil]"#);
        let long = unexpected("XREAD", &Reply::BulkString(vec![b'x'; 1000])).to_string();
        assert_eq!(long.len(), "to XREAD it replies ".len() + 100);
    }
}

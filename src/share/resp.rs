//! The words of Redis on the wire (RESP, version 2): commands written, replies read. Whatever is not a reply is an error, never a panic.

use std::fmt;

/// The longest text in a reply, in bytes. A binding takes no more than some hundred thousand.
const TEXT_MOST: usize = 64 << 20;

/// Replies in one reply, and how deep they may lie in each other.
const LIST_MOST: usize = 4 << 20;
const DEPTH_MOST: usize = 8;

/// What Redis has replied to a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Nil,
    Integer(i64),
    Text(Vec<u8>),
    List(Vec<Reply>),
    /// It refuses the command: a word such as `WRONGTYPE`, and why.
    Error(String),
}

impl Reply {
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Reply::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn list(&self) -> Option<&[Reply]> {
        match self {
            Reply::List(list) => Some(list),
            _ => None,
        }
    }

    /// Returns the number that it is, or that its text says.
    pub fn number(&self) -> Option<u64> {
        match self {
            Reply::Integer(number) => u64::try_from(*number).ok(),
            Reply::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// Returns what the server refuses, as it says it.
    pub fn error(&self) -> Option<&str> {
        match self {
            Reply::Error(why) => Some(why),
            _ => None,
        }
    }
}

/// Appends a command.
pub fn write_command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'*');
    write_length(words.len(), out);
    for word in words {
        out.push(b'$');
        write_length(word.len(), out);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Error: these bytes are no reply of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotRedis(&'static str);

impl fmt::Display for NotRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what it says is not the protocol of Redis: {}", self.0)
    }
}

/// Reads a reply at the beginning of `bytes`. Returns it with its length; `None` if it is not complete.
pub fn read_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, NotRedis> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(reader.reply(0)?.map(|reply| (reply, reader.at)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, NotRedis> {
        let Some((kind, line)) = self.line()? else {
            return Ok(None);
        };
        match kind {
            b'+' => Ok(Some(Reply::Text(line.to_vec()))),
            b'-' => Ok(Some(Reply::Error(String::from_utf8_lossy(line).into_owned()))),
            b':' => Ok(Some(Reply::Integer(number(line)?))),
            b'$' => match length(line, TEXT_MOST)? {
                None => Ok(Some(Reply::Nil)),
                Some(length) => self.text(length),
            },
            b'*' => match length(line, LIST_MOST)? {
                None => Ok(Some(Reply::Nil)),
                Some(_) if depth == DEPTH_MOST => Err(NotRedis("lists lie too deep in each other")),
                Some(length) => self.list(length, depth),
            },
            _ => Err(NotRedis("a reply of an unknown kind")),
        }
    }

    fn list(&mut self, length: usize, depth: usize) -> Result<Option<Reply>, NotRedis> {
        // No more room than bytes have come for.
        let mut list = Vec::with_capacity(length.min(self.bytes.len() - self.at));
        for _ in 0..length {
            let Some(reply) = self.reply(depth + 1)? else {
                return Ok(None);
            };
            list.push(reply);
        }
        Ok(Some(Reply::List(list)))
    }

    fn text(&mut self, length: usize) -> Result<Option<Reply>, NotRedis> {
        let rest = &self.bytes[self.at..];
        if rest.len() < length + 2 {
            return Ok(None);
        }
        let (text, rest) = rest.split_at(length);
        if !rest.starts_with(b"\r\n") {
            return Err(NotRedis("a text is longer than it says"));
        }
        self.at += length + 2;
        Ok(Some(Reply::Text(text.to_vec())))
    }

    /// Returns the kind of the next line, and the rest of it.
    fn line(&mut self) -> Result<Option<(u8, &'a [u8])>, NotRedis> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return match rest.len() > TEXT_MOST {
                true => Err(NotRedis("a line without an end")),
                false => Ok(None),
            };
        };
        let Some((kind, line)) = rest[..end].strip_suffix(b"\r").and_then(<[u8]>::split_first) else {
            return Err(NotRedis("a line that does not end with CR and LF, or is empty"));
        };
        self.at += end + 1;
        Ok(Some((*kind, line)))
    }
}

fn number(digits: &[u8]) -> Result<i64, NotRedis> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok()).ok_or(NotRedis("a number that is none"))
}

fn length(digits: &[u8], most: usize) -> Result<Option<usize>, NotRedis> {
    match number(digits)? {
        -1 => Ok(None),
        number => match usize::try_from(number) {
            Ok(length) if length <= most => Ok(Some(length)),
            _ => Err(NotRedis("a length that is too great")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Text(text.as_bytes().to_vec())
    }

    #[test]
    fn a_command_is_a_list_of_texts() {
        let mut out = Vec::new();
        write_command(&[b"HSET", b"key", b"\r\n"], &mut out);
        assert_eq!(out, b"*3\r\n$4\r\nHSET\r\n$3\r\nkey\r\n$2\r\n\r\n\r\n");
    }

    #[test]
    fn replies_are_read_however_they_are_cut() {
        let wire = b"*5\r\n+OK\r\n:-7\r\n$-1\r\n*2\r\n$2\r\n\r\n\r\n*0\r\n-WRONGTYPE no\r\n:1\r\n";
        let whole = wire.len() - 4;
        let inner = Reply::List(vec![text("\r\n"), Reply::List(Vec::new())]);
        let all = vec![text("OK"), Reply::Integer(-7), Reply::Nil, inner, Reply::Error("WRONGTYPE no".into())];
        assert_eq!(read_reply(wire), Ok(Some((Reply::List(all), whole))));
        for cut in 0..whole {
            assert_eq!(read_reply(&wire[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(read_reply(&wire[whole..]), Ok(Some((Reply::Integer(1), 4))));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let deep = b"*1\r\n".repeat(DEPTH_MOST + 2);
        for wire in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b"+OK\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"*99999999999\r\n",
            b"$1\r\nab\r\n",
            &deep,
        ] {
            assert!(read_reply(wire).is_err(), "{}", wire.escape_ascii());
        }
    }
}

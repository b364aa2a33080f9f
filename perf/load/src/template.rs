//! Messages rendered once, with holes of fixed width that are patched in each copy.

use crate::identity::TOKEN;

/// What goes into a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hole {
    Token,
    /// The token without the run's part.
    Tag,
    Caller,
    Callee,
    Sequence,
    /// The host of a contact, where each user has another.
    Host,
}

/// Bytes of a hole for `Hole::Host`.
pub const HOST: usize = "127.100.100.100".len();

/// Digits of a hole for `Hole::Sequence`. The first is never 0, as CSeq is written without leading zeros.
pub const SEQUENCE: usize = 9;

/// A message with holes.
pub struct Template {
    bytes: Vec<u8>,
    holes: Vec<(Hole, usize)>,
}

/// The text of each hole for one message.
pub struct Fill<'a> {
    pub token: &'a [u8; TOKEN],
    pub caller: &'a [u8],
    pub callee: &'a [u8],
    pub sequence: u32,
    /// Of `HOST` bytes; looked at only where the text has a hole for it.
    pub host: &'a [u8],
}

impl Template {
    /// Text in which `{token}`, `{caller}`, `{callee}`, `{sequence}` and `{host}` are holes. User names are `user_width` bytes wide.
    pub fn new(text: &str, user_width: usize) -> Template {
        let marks = [
            ("{token}", Hole::Token, TOKEN),
            ("{tag}", Hole::Tag, TOKEN - 8),
            ("{caller}", Hole::Caller, user_width),
            ("{callee}", Hole::Callee, user_width),
            ("{sequence}", Hole::Sequence, SEQUENCE),
            ("{host}", Hole::Host, HOST),
        ];
        let (mut bytes, mut holes, mut rest) = (Vec::new(), Vec::new(), text);
        'text: while !rest.is_empty() {
            for (mark, hole, width) in marks {
                if let Some(after) = rest.strip_prefix(mark) {
                    holes.push((hole, bytes.len()));
                    bytes.resize(bytes.len() + width, b'0');
                    rest = after;
                    continue 'text;
                }
            }
            bytes.push(rest.as_bytes()[0]);
            rest = &rest[1..];
        }
        Template { bytes, holes }
    }

    /// Writes the message to the start of `out` and returns its length.
    pub fn render(&self, fill: &Fill, out: &mut [u8]) -> usize {
        let out = &mut out[..self.bytes.len()];
        out.copy_from_slice(&self.bytes);
        for (hole, at) in &self.holes {
            match hole {
                Hole::Token => out[*at..at + TOKEN].copy_from_slice(fill.token),
                Hole::Tag => out[*at..at + TOKEN - 8].copy_from_slice(&fill.token[8..]),
                Hole::Caller => out[*at..at + fill.caller.len()].copy_from_slice(fill.caller),
                Hole::Callee => out[*at..at + fill.callee.len()].copy_from_slice(fill.callee),
                Hole::Host => out[*at..at + HOST].copy_from_slice(fill.host),
                Hole::Sequence => {
                    let mut number = fill.sequence;
                    for digit in out[*at..at + SEQUENCE].iter_mut().rev() {
                        *digit = b'0' + (number % 10) as u8;
                        number /= 10;
                    }
                }
            }
        }
        out.len()
    }
}

/// The user names u00000, u00001, … of one width, rendered once.
pub struct Users {
    text: Vec<u8>,
    width: usize,
    count: u32,
}

impl Users {
    pub fn new(count: u32) -> Users {
        let digits = count.saturating_sub(1).to_string().len().max(5);
        let mut text = Vec::new();
        for number in 0..count {
            text.extend_from_slice(format!("u{number:0digits$}").as_bytes());
        }
        Users {
            text,
            width: digits + 1,
            count,
        }
    }

    pub fn name(&self, number: u32) -> &[u8] {
        let at = number as usize * self.width;
        &self.text[at..at + self.width]
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_where_they_stand() {
        let users = Users::new(10_000);
        assert_eq!(users.name(9_999), b"u09999");
        let template = Template::new(
            "{callee}<{caller}>{token};{sequence} X@{host}",
            users.width(),
        );
        let mut out = [0; 128];
        let length = template.render(
            &Fill {
                token: b"0123456789abcdef01234567",
                caller: users.name(1),
                callee: users.name(23),
                sequence: 100_000_007,
                host: b"127.100.101.102",
            },
            &mut out,
        );
        assert_eq!(
            &out[..length],
            b"u00023<u00001>0123456789abcdef01234567;100000007 X@127.100.101.102"
        );
    }
}

//! Messages rendered once, with holes of fixed width that are patched in each copy.

use crate::identity::{TAG, TOKEN};

/// What goes into a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hole {
    Token,
    Tag,
    /// What tells an attempt's branch from the other messages' of its call: a letter.
    Branch,
    /// CSeq of an attempt: a digit.
    Attempt,
    Caller,
    Callee,
    Sequence,
    /// Host and port of a contact.
    Contact,
}

/// Digits of a hole for `Hole::Sequence`. The first is never 0, as CSeq is written without leading zeros.
pub const SEQUENCE: usize = 9;

/// A message with holes.
pub struct Template {
    bytes: Vec<u8>,
    holes: Vec<(Hole, usize)>,
    /// Where header lines that not every message has are put in. No hole stands behind it.
    lines_at: Option<usize>,
}

/// The text of each hole for one message.
pub struct Fill<'a> {
    pub token: &'a [u8; TOKEN],
    pub tag: &'a [u8; TAG],
    /// 0 for the first, and one more for each that answers a challenge.
    pub attempt: u8,
    pub caller: &'a [u8],
    pub callee: &'a [u8],
    pub sequence: u32,
    pub contact: &'a [u8],
    /// Whole header lines.
    pub lines: &'a [u8],
}

/// The branch's letter of an attempt's INVITE.
pub fn branch_letter(attempt: u8) -> u8 {
    b'i' + attempt
}

impl Template {
    /// Text in which `{token}`, `{tag}`, `{branch}`, `{attempt}`, `{caller}`, `{callee}`, `{sequence}` and `{contact}` are holes, and `{lines}`, behind
    /// all of them, stands for lines to be put in. User names and contacts are
    /// of these widths.
    pub fn new(text: &str, user_width: usize, contact_width: usize) -> Template {
        let marks = [
            ("{token}", Hole::Token, TOKEN),
            ("{tag}", Hole::Tag, TAG),
            ("{branch}", Hole::Branch, 1),
            ("{attempt}", Hole::Attempt, 1),
            ("{caller}", Hole::Caller, user_width),
            ("{callee}", Hole::Callee, user_width),
            ("{sequence}", Hole::Sequence, SEQUENCE),
            ("{contact}", Hole::Contact, contact_width),
        ];
        let (mut bytes, mut holes, mut rest) = (Vec::new(), Vec::new(), text);
        let mut lines_at = None;
        'text: while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("{lines}") {
                lines_at = Some(bytes.len());
                rest = after;
                continue;
            }
            for (mark, hole, width) in marks {
                if let Some(after) = rest.strip_prefix(mark) {
                    assert!(lines_at.is_none(), "a hole behind the lines");
                    holes.push((hole, bytes.len()));
                    bytes.resize(bytes.len() + width, b'0');
                    rest = after;
                    continue 'text;
                }
            }
            bytes.push(rest.as_bytes()[0]);
            rest = &rest[1..];
        }
        Template { bytes, holes, lines_at }
    }

    /// Writes the message to the start of `out` and returns its length.
    pub fn render(&self, fill: &Fill, out: &mut [u8]) -> usize {
        let lines = match self.lines_at {
            Some(_) => fill.lines,
            None => &[],
        };
        let (front, back) = self.bytes.split_at(self.lines_at.unwrap_or(self.bytes.len()));
        let out = &mut out[..self.bytes.len() + lines.len()];
        out[..front.len()].copy_from_slice(front);
        out[front.len()..front.len() + lines.len()].copy_from_slice(lines);
        out[front.len() + lines.len()..].copy_from_slice(back);
        for (hole, at) in &self.holes {
            match hole {
                Hole::Token => out[*at..at + TOKEN].copy_from_slice(fill.token),
                Hole::Tag => out[*at..at + TAG].copy_from_slice(fill.tag),
                Hole::Branch => out[*at] = branch_letter(fill.attempt),
                Hole::Attempt => out[*at] = b'1' + fill.attempt,
                Hole::Caller => out[*at..at + fill.caller.len()].copy_from_slice(fill.caller),
                Hole::Callee => out[*at..at + fill.callee.len()].copy_from_slice(fill.callee),
                Hole::Contact => out[*at..at + fill.contact.len()].copy_from_slice(fill.contact),
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
        Users { text, width: digits + 1, count }
    }

    pub fn name(&self, number: u32) -> &[u8] {
        let at = number as usize * self.width;
        &self.text[at..at + self.width]
    }

    /// Whose name this is.
    pub fn number(&self, name: &[u8]) -> Option<u32> {
        let number = std::str::from_utf8(name.strip_prefix(b"u")?).ok()?.parse().ok()?;
        (number < self.count && self.name(number) == name).then_some(number)
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
        assert_eq!((users.name(9_999), users.number(b"u09999")), (&b"u09999"[..], Some(9_999)));
        assert_eq!([users.number(b"u10000"), users.number(b"u9999"), users.number(b"x09999")], [None; 3]);
        let template =
            Template::new("{callee}<{caller}>{token}{branch};{tag};{attempt};{sequence} X@{contact}\n{lines}end", users.width(), 7);
        let mut out = [0; 160];
        for (lines, shown) in [(&b""[..], ""), (b"X: y\n", "X: y\n")] {
            let length = template.render(
                &Fill {
                    token: b"0123456789abcdef01234567",
                    tag: b"89abcdef01234567",
                    attempt: 1,
                    caller: users.name(1),
                    callee: users.name(23),
                    sequence: 100_000_007,
                    contact: b"host:99",
                    lines,
                },
                &mut out,
            );
            let expected = format!("u00023<u00001>0123456789abcdef01234567j;89abcdef01234567;2;100000007 X@host:99\n{shown}end");
            assert_eq!(String::from_utf8_lossy(&out[..length]), expected);
        }
    }
}

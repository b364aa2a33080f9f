//! Peers' text for display: characters that control a terminal, or that make a line look like another, are escaped.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use std::io::{self, Write};

/// True for controls, and for characters that have no width, change the direction of text or end a line.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// Writes JSON in which these are escaped: a JSON parser restores them.
pub fn write_json<W: Write, T: Serialize + ?Sized>(out: W, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Escaping(CompactFormatter)))
}

struct Escaping(CompactFormatter);

impl Formatter for Escaping {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_deceptive(*c)) {
            self.0.write_string_fragment(out, &rest[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_string_fragment(out, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_and_shows_nothing_of_it() {
        let text = "a\u{7f}b\u{80}\u{9f}é\u{200b}\u{200f}\u{2010}\u{2028}\u{2029}\u{202a}\u{202e}\u{202f}\u{2066}\u{2069}\u{feff}\r\"\u{1b}😀";
        let mut out = Vec::new();
        write_json(&mut out, text).unwrap();
        let json = String::from_utf8(out).unwrap();
        assert_eq!(
            json,
            "\"a\\u007fb\\u0080\\u009fé\\u200b\\u200f\u{2010}\\u2028\\u2029\\u202a\\u202e\u{202f}\\u2066\\u2069\\ufeff\\r\\\"\\u001b😀\""
        );
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}

//! Parameters after a `;`: `generic-param` of header fields and `uri-parameters` (RFC 3261 §25.1).

use super::cursor::{self, SPACE, TOKEN, VALUE};
use super::error::Fault;

/// The parameters of a header field value or a URI, in order: an iterator of names and values.
///
/// Tolerant: white space around `;` and `=` is skipped, as are empty parameters; a quoted value keeps its quotes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params<'a> {
    /// The rest, from a `;` on.
    text: &'a [u8],
}

impl<'a> Params<'a> {
    /// `text` begins with the first `;`, or is empty.
    pub fn new(text: &'a [u8]) -> Params<'a> {
        Params { text }
    }

    /// The text that is left, from its first `;`.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The first parameter named `name` in any case; Some(None) if it has no value.
    pub fn get(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        let begins = |param: &[u8]| param.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        let mut rest = self.text;
        loop {
            let body = cursor::trim_start(rest.strip_prefix(b";")?);
            let end = param_end(body);
            // Most have another name: only those that begin with this one are looked at further.
            if end > 0 && begins(body) {
                let (found, value) = name_and_value(cursor::trim_end(&body[..end]));
                if found.len() == name.len() {
                    return Some(value);
                }
            }
            rest = &body[end..];
        }
    }

    /// The next parameter that is not empty.
    #[inline]
    fn next_param(&mut self) -> Option<&'a [u8]> {
        loop {
            let body = self.text.strip_prefix(b";")?;
            let end = param_end(body);
            self.text = &body[end..];
            let param = cursor::trim(&body[..end]);
            if !param.is_empty() {
                return Some(param);
            }
        }
    }

    /// The first offset after the parameters that begin at `at` in `text`, and whether they follow the grammar: they end at a `,`
    /// outside of quotes, or with the text. `each` is called with the ranges of name and value.
    #[inline]
    pub(super) fn scan(text: &[u8], mut at: usize, mut each: impl FnMut(Scanned) -> Result<(), Fault>) -> Result<usize, Fault> {
        loop {
            at = cursor::skip_space(text, at);
            match text.get(at) {
                Some(b';') => {}
                Some(b',') | None => return Ok(at),
                Some(_) => return Err(Fault::Parameter),
            }
            let name_start = cursor::skip_space(text, at + 1);
            let name_end = cursor::skip_few(text, name_start, TOKEN);
            if name_end == name_start {
                return Err(Fault::Parameter);
            }
            let mut scanned = Scanned { semicolon: at, name: (name_start, name_end), value: None };
            at = name_end;
            if at < text.len() && is_space_or_equals(text[at]) {
                let equals = cursor::skip_space(text, at);
                if text.get(equals) == Some(&b'=') {
                    let value_start = cursor::skip_space(text, equals + 1);
                    let value_end = if text.get(value_start) == Some(&b'"') {
                        cursor::quoted_end(text, value_start).ok_or(Fault::Parameter)?
                    } else {
                        cursor::skip(text, value_start, VALUE)
                    };
                    // An empty value is at the equals sign: white space after it may not belong to the parameter.
                    scanned.value = Some(match value_end == value_start {
                        true => (equals + 1, equals + 1),
                        false => (value_start, value_end),
                    });
                    at = value_end;
                }
            }
            each(scanned)?;
        }
    }
}

#[inline(always)]
fn is_space_or_equals(byte: u8) -> bool {
    byte == b'=' || cursor::is(byte, SPACE)
}

/// Position of one parameter.
pub(super) struct Scanned {
    pub(super) semicolon: usize,
    pub(super) name: (usize, usize),
    pub(super) value: Option<(usize, usize)>,
}

impl Scanned {
    /// Where the parameter ends.
    pub(super) fn end(&self) -> usize {
        self.value.map_or(self.name.1, |(_, end)| end)
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_param().map(name_and_value)
    }
}

#[inline]
fn name_and_value(param: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'=', param) {
        None => (param, None),
        Some(equals) => (cursor::trim_end(&param[..equals]), Some(cursor::trim_start(&param[equals + 1..]))),
    }
}

/// Where the parameter that opens `text` ends: at a `;` outside of quotes, or with the text.
fn param_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b';', b'"', &text[at..]) {
        at += found;
        if text[at] == b';' {
            return at;
        }
        match cursor::quoted_end(text, at) {
            Some(end) => at = end,
            None => break,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(&[u8], Option<&[u8]>)> {
        Params::new(text).collect()
    }

    #[test]
    fn names_and_values_with_space_quotes_and_holes() {
        assert_eq!(all(b";lr;transport=UDP"), [(&b"lr"[..], None), (b"transport", Some(&b"UDP"[..]))]);
        assert_eq!(all(b"; tag\r\n = 98asjd8 ;\r\n q = 0.33"), [(&b"tag"[..], Some(&b"98asjd8"[..])), (b"q", Some(b"0.33"))]);
        assert_eq!(all(b";;a=\"x;\\\"y\";;b=;"), [(&b"a"[..], Some(&b"\"x;\\\"y\""[..])), (b"b", Some(b""))]);
        assert_eq!(all(b""), []);
        assert_eq!(all(b";a=\"open;b"), [(&b"a"[..], Some(&b"\"open;b"[..]))]);
        let params = Params::new(b";Transport=tcp;lr");
        assert_eq!(params.get(b"transport"), Some(Some(&b"tcp"[..])));
        assert_eq!(params.get(b"LR"), Some(None));
        assert_eq!(params.get(b"maddr"), None);
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name_and_the_first_of_several_counts() {
        let text = b";lrx=1;tran=2;;l;x=lr; LR \t= 3 ;lr=4;transport;q=";
        for name in [&b"lr"[..], b"lrx", b"l", b"transport", b"tran", b"t", b"x", b"q", b"3", b""] {
            let in_turn = all(text).into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
            assert_eq!(Params::new(text).get(name), in_turn.map(|(_, value)| value), "{name:?}");
        }
        assert_eq!(Params::new(text).get(b"lr"), Some(Some(&b"3"[..])));
    }

    #[test]
    fn scan_refuses_what_the_grammar_does_not_have() {
        let scan = |text: &[u8]| Params::scan(text, 0, |_| Ok(()));
        assert_eq!(scan(b";a;b=c;d=\"e,;\""), Ok(14));
        assert_eq!(scan(b";a , next"), Ok(3));
        assert_eq!(scan(b" ; a = b "), Ok(9));
        for bad in [&b";;a"[..], b";", b";a b", b";a=\"b", b";a=<b>", b"x", b";=b", b";a=\"b\"c"] {
            assert_eq!(scan(bad), Err(Fault::Parameter), "{bad:?}");
        }
    }
}

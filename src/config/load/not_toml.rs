//! What is wrong with a text that is not TOML, in the words of a conf.

use super::document::brackets;
use super::wrong::Wrong;

/// The fault of one error of the reader's.
pub(super) fn fault(text: &str, error: &toml::de::Error) -> Wrong {
    let span = error.span().unwrap_or_default();
    let message = match error.message() {
        "duplicate key" => duplicate(text, span.start, text.get(span.clone()).unwrap_or_default()),
        other => format!("this is not TOML: {other}"),
    };
    Wrong::new(span.start, message)
}

/// Says where the first of two sections or keys of one name stands; the second is at `at`.
fn duplicate(text: &str, at: usize, word: &str) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line_at = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_at..].lines().next().unwrap_or_default();
    let earlier = || text[..line_at].lines().enumerate().map(|(index, line)| (index + 1, line));
    if let Some(header) = Header::of(line) {
        let Some((number, first)) =
            earlier().find_map(|(number, line)| Some((number, Header::of(line)?)).filter(|(_, h)| h.name == header.name))
        else {
            return format!("the section {line} is there already: remove one of the two", line = line.trim());
        };
        let right = brackets(&header.name);
        return match (right.starts_with("[["), first.is_double && header.is_double) {
            (true, _) => format!(
                "there may be several {right}, each with double brackets; line {number} has the first: write {right} in both"
            ),
            (false, true) => format!("{right} stands in line {number} already, and only once: write it with single brackets"),
            (false, false) => {
                format!("{right} stands in line {number} already: move what is below this one there, and remove this line")
            }
        };
    }
    let section = earlier().filter(|(_, line)| Header::of(line).is_some()).last().map_or(0, |(number, _)| number);
    let same = |line: &str| line.trim_start().strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with('='));
    match earlier().find(|(number, line)| *number > section && same(line)) {
        Some((number, _)) => format!("{word} stands in line {number} already: remove one of the two"),
        None => format!("{word} is there already: remove one of the two"),
    }
}

/// A line such as `[name]` or `[[name]]`.
struct Header {
    name: String,
    is_double: bool,
}

impl Header {
    fn of(line: &str) -> Option<Header> {
        let inside = line.trim_start().strip_prefix('[')?;
        let (inside, is_double) = match inside.strip_prefix('[') {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let (name, _) = inside.split_once(']')?;
        let name: String = name.chars().filter(|c| !c.is_whitespace()).collect();
        Some(Header { name, is_double })
    }
}

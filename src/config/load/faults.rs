//! The faults of a conf, with their places.

use std::fmt;

use super::wrong::Wrong;

/// The faults of a conf, in the order of the file. Displayed as one line per fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    pub file: String,
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line and column from 1, the column in characters; `None` if the file could not be read at all.
    pub place: Option<(usize, usize)>,
    pub message: String,
}

impl Faults {
    /// One fault of the whole file.
    pub(super) fn whole(file: &str, message: &str) -> Faults {
        Faults { file: file.to_owned(), faults: vec![Fault { place: None, message: message.to_owned() }] }
    }

    pub(super) fn locate(file: &str, text: &str, mut wrongs: Vec<Wrong>) -> Faults {
        wrongs.sort_by_key(|wrong| wrong.at);
        let fault = |wrong: Wrong| {
            let before = text.get(..wrong.at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            Fault { place: Some((line, column)), message: wrong.message }
        };
        Faults { file: file.to_owned(), faults: wrongs.into_iter().map(fault).collect() }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let Some((line, column)) = fault.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", fault.message)?;
        }
        Ok(())
    }
}

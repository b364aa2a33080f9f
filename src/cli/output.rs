//! The output and result of a command.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

/// The result of a command: its exit code, or the line that says why it was not done.
pub type Outcome = Result<ExitCode, String>;

/// Prints to standard output. A reader that closes early, such as `head`, is not an error.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to standard output: {error}")),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes one line to standard error. Failure to write it is ignored.
pub fn complain(line: &dyn Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints columns as wide as their widest cell, separated by two blanks. Peers' text is shown without control characters.
pub fn table<const COLUMNS: usize>(out: &mut dyn Write, rows: &[[String; COLUMNS]]) -> io::Result<()> {
    let shown = |cell: &String| -> String {
        let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        cell.chars().map(visible).collect()
    };
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(shown)).collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:<width$}  ", width = *width));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

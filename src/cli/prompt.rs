//! Asks for a password at the terminal: twice, and what is typed is not shown.

use crossterm::terminal;
use std::io::{self, IsTerminal, Read, Write};

/// Returns the password that was typed. The error is one line.
pub fn password(who: &str) -> Result<Vec<u8>, String> {
    if !io::stdin().is_terminal() {
        return Err("there is no terminal to ask for the password: pipe it in, with --password-stdin".to_owned());
    }
    let first = ask(&format!("password of {who}: "))?;
    if first.is_empty() {
        return Err("the password is empty".to_owned());
    }
    match ask("the same again: ")? == first {
        true => Ok(first),
        false => Err("the two are not the same; nothing is changed".to_owned()),
    }
}

fn ask(question: &str) -> Result<Vec<u8>, String> {
    let explain = |error: io::Error| format!("the terminal: {error}");
    let mut out = io::stderr();
    write!(out, "{question}").and_then(|()| out.flush()).map_err(explain)?;
    terminal::enable_raw_mode().map_err(explain)?;
    let typed = read(&mut io::stdin());
    let restored = terminal::disable_raw_mode();
    let _ = writeln!(out);
    let typed = typed.map_err(explain)?;
    restored.map_err(explain)?;
    typed.ok_or_else(|| "nothing is changed".to_owned())
}

/// Reads a line as a terminal gives it key by key. `None`: whoever types has left.
fn read(keys: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut key = [0];
    loop {
        match keys.read(&mut key) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(Some(line)),
            // Ctrl-C, Ctrl-D, Ctrl-U, backspace.
            0x03 => return Ok(None),
            0x04 if line.is_empty() => return Ok(None),
            0x15 => line.clear(),
            0x08 | 0x7f => erase_last(&mut line),
            byte if byte < b' ' => {}
            byte => line.push(byte),
        }
    }
}

/// Removes the last character, which has several bytes if it is not of ASCII.
fn erase_last(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_a_line() {
        let line = |keys: &[u8]| read(&mut &keys[..]).unwrap();
        assert_eq!(line(b"secret\rmore").as_deref(), Some(&b"secret"[..]));
        assert_eq!(line(b"se cret\n").as_deref(), Some(&b"se cret"[..]));
        assert_eq!(line(b"x\x7f\x7fse\x08\x08a\x01b\r").as_deref(), Some(&b"ab"[..]));
        assert_eq!(line("pä\u{7f}o\r".as_bytes()).as_deref(), Some(&b"po"[..]));
        assert_eq!(line(b"wrong\x15right\r").as_deref(), Some(&b"right"[..]));
        assert_eq!(line(b"a\x04b\r").as_deref(), Some(&b"ab"[..]));
        for left in [&b"secret\x03\r"[..], b"\x04", b"no end", b""] {
            assert_eq!(line(left), None, "{left:?}");
        }
    }
}

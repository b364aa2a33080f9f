//! The manual pages and the shells' completions: written from the definition of the command line and from the reference of the conf.
//!
//! They lie in `docs/man` and `conf/completions`, from where packages take them; STROWGER_WRITE_MANUAL=1 writes them anew. Only the tests
//! know how, so that the server is built without the crates for it.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io;
use std::path::Path;

use crate::Arguments;

const REFERENCE: &str = include_str!("../conf/strowger.toml");

/// Ends strowger(1): what clap has no place for.
const MORE: &str = r#".SH "EXIT STATUS"
.TP
.B 0
done
.TP
.B 1
refused or not found; one line on standard error says why
.TP
.B 2
wrong usage
.SH ENVIRONMENT
.TP
.B RUST_LOG
What is logged, by subject: "warn,routing=debug". It takes precedence over [log] level of the conf.
.TP
.B NOTIFY_SOCKET, WATCHDOG_USEC
From systemd, for which the unit says Type=notify.
.SH FILES
.TP
.I /etc/strowger/strowger.toml
The conf, unless \-\-conf or a conf/strowger.toml below the current folder is there.
.TP
.I /var/lib/strowger
Where the service keeps the users, the bindings and the server's secret.
.TP
.I /run/strowger/strowger.sock
The service's control socket, which speaks JSON\-RPC 2.0.
.SH "SEE ALSO"
.BR strowger.toml (5),
.I /usr/share/doc/strowger
"#;

#[test]
fn the_manual_and_the_completions_are_what_the_command_line_says() {
    let mut stale = Vec::new();
    for (file, made) in files() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if fs::read_to_string(&path).is_ok_and(|there| there == made) {
            continue;
        }
        if std::env::var_os("STROWGER_WRITE_MANUAL").is_none() {
            stale.push(file);
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, made).unwrap();
    }
    assert!(stale.is_empty(), "{stale:?}: run with STROWGER_WRITE_MANUAL=1");
}

#[test]
fn the_manual_has_every_command_option_and_key() {
    fn expect(page: &str, command: &Command, path: &str) {
        for argument in command.get_arguments().filter_map(|argument| argument.get_long()) {
            let option = format!("\\-\\-{}", argument.replace('-', "\\-"));
            assert!(page.contains(&option), "{path}: {option}");
        }
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name());
            assert!(page.contains(&format!("\n.SS \"{path}")), "{path}");
            expect(page, inner, &path);
        }
    }
    let [(_, commands), (_, conf), ..] = files();
    expect(&commands, &Arguments::command(), "strowger");
    let keys = REFERENCE.lines().filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once(" = "));
    let keys: Vec<&str> = keys.map(|(key, _)| key).filter(|key| !key.contains([' ', '"'])).collect();
    assert!(keys.len() > 100, "{keys:?}");
    for key in keys {
        assert!(conf.contains(&format!("\n.B \"{key} = ")), "{key}");
    }
}

/// Each file with its text.
fn files() -> [(&'static str, String); 5] {
    let completion = |shell: Shell| {
        let mut bytes = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "strowger", &mut bytes);
        String::from_utf8(bytes).unwrap()
    };
    [
        ("docs/man/strowger.1", commands_page()),
        ("docs/man/strowger.toml.5", conf_page(REFERENCE)),
        ("conf/completions/strowger.bash", completion(Shell::Bash)),
        ("conf/completions/_strowger", completion(Shell::Zsh)),
        ("conf/completions/strowger.fish", completion(Shell::Fish)),
    ]
}

// ---- strowger(1) ----------------------------------------------------------------------------------------------------------

/// The apostrophe as text, which each section writes as this string.
const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// One page for all commands, to be searched as a whole.
fn commands_page() -> String {
    let command = Arguments::command().version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    let man = Man::new(command.clone()).source(concat!("strowger ", env!("CARGO_PKG_VERSION"))).manual("strowger");
    let mut page = rendered(|out| {
        man.render_title(out)?;
        man.render_name_section(out)?;
        man.render_synopsis_section(out)?;
        man.render_description_section(out)?;
        man.render_options_section(out)
    });
    page.insert_str(0, APOSTROPHE);
    page += ".SH COMMANDS\n";
    for inner in command.get_subcommands() {
        page += &command_sections(inner, "strowger");
    }
    page + MORE
}

/// The command's own section, and those of the commands below it.
fn command_sections(command: &Command, above: &str) -> String {
    let name = format!("{above} {}", command.get_name());
    if command.has_subcommands() {
        let about = rendered(|out| Man::new(command.clone()).render_description_section(out));
        let inner: String = command.get_subcommands().map(|inner| command_sections(inner, &name)).collect();
        return format!(".SS \"{name}\"\n{}{inner}", about.replace(".SH DESCRIPTION\n", ""));
    }
    let man = Man::new(command.clone().bin_name(&name).disable_help_flag(true));
    let usage = command.clone().bin_name(&name).disable_help_flag(true).render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace('-', "\\-");
    let text = rendered(|out| {
        man.render_description_section(out)?;
        match command.get_arguments().next() {
            Some(_) => man.render_options_section(out),
            None => Ok(()),
        }
    });
    format!(".SS \"{usage}\"\n{}", text.replace(".SH DESCRIPTION\n", "").replace(".SH OPTIONS\n", ""))
}

/// What sections write, without APOSTROPHE, which each begins with.
fn rendered(write: impl Fn(&mut dyn io::Write) -> io::Result<()>) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.replace(APOSTROPHE, "")
}

// ---- strowger.toml(5) -----------------------------------------------------------------------------------------------------

/// The reference as a page: a section for each table, a paragraph for each key.
fn conf_page(reference: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH strowger.toml 5 \"\" \"strowger {version}\" \"strowger\"\n.SH NAME\n");
    page += "strowger.toml \\- the conf of strowger\n.SH DESCRIPTION\n";
    page += "In TOML. If no file is named, \\fBstrowger\\fR reads \\fIconf/strowger.toml\\fR, else \\fI/etc/strowger/strowger.toml\\fR.\n.PP\n";
    // Comment lines that wait for the section or the key that they are about.
    let mut about = String::new();
    let mut is_begun = false;
    let mut after_key = false;
    for line in reference.lines() {
        match Line::of(line) {
            Line::Blank => {
                // The preamble's paragraphs; in a section a blank line means nothing.
                if !is_begun && !about.is_empty() {
                    page += &format!("{about}.PP\n");
                    about.clear();
                }
            }
            Line::About(text) => about += &format!("{}\n", escaped(text)),
            Line::Section(name) => {
                page += &format!(".SH \"{name}\"\n{about}");
                about.clear();
                (is_begun, after_key) = (true, false);
            }
            Line::Key { setting, is_example } => {
                // Keys that share one comment stand one below the other.
                let macro_name = if after_key && about.is_empty() { ".TQ" } else { ".TP" };
                let example = if is_example { " \\fR(an example)" } else { "" };
                page += &format!("{macro_name}\n.B \"{}\"{example}\n", escaped(setting).replace('"', "\\(dq"));
                page += &about;
                about.clear();
                after_key = true;
            }
        }
    }
    page + &about + ".SH \"SEE ALSO\"\n.BR strowger (1)\n"
}

enum Line<'l> {
    Blank,
    About(&'l str),
    Section(&'l str),
    /// Commented out, it is an example.
    Key {
        setting: &'l str,
        is_example: bool,
    },
}

impl Line<'_> {
    fn of(line: &str) -> Line<'_> {
        let (bare, is_example) = match line.strip_prefix('#') {
            Some(text) if text.is_empty() || text.starts_with(' ') => return Line::About(text.trim()),
            Some(text) => (text, true),
            None => (line, false),
        };
        if bare.is_empty() {
            return Line::Blank;
        }
        match bare.starts_with('[') {
            true => Line::Section(bare),
            false => Line::Key { setting: bare.split(" # ").next().unwrap_or_default().trim(), is_example },
        }
    }
}

/// As roff takes it: no escapes, no requests.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

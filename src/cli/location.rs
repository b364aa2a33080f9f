//! `strowger ul`: shows and changes the location table of the running server.

use super::output::{Outcome, print, table};
use super::places::Places;
use clap::Subcommand;
use strowger::control::{AorEntry, NewBinding};

#[derive(Subcommand)]
pub enum Ul {
    /// Show what is bound to an address-of-record, or to all of them.
    Show {
        /// 1003, 1003@example.com or sip:1003@example.com; a bare name takes the first domain of the conf.
        aor: Option<String>,
        /// Print a JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Bind a contact to an address-of-record.
    ///
    /// As in: strowger ul add 1003 sip:1003@192.0.2.100:5061
    Add {
        /// 1003, 1003@example.com or sip:1003@example.com; a bare name takes the first domain of the conf.
        aor: String,
        /// The SIP URI at which it is reached.
        contact: String,
        /// For how many seconds; [registrar] default_expires of the conf if not given.
        #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
        expires: Option<u32>,
        /// How much it is preferred to the others, 0 to 1; 1 if not given.
        #[arg(long, value_name = "Q", value_parser = preference)]
        q: Option<f64>,
        /// The proxies that requests for it go through first, as in "<sip:192.0.2.1;lr>, <sip:192.0.2.2;lr>".
        #[arg(long, value_name = "LIST")]
        path: Option<String>,
    },
    /// Remove one contact of an address-of-record, or all of them.
    Rm {
        /// 1003, 1003@example.com or sip:1003@example.com; a bare name takes the first domain of the conf.
        aor: String,
        /// The contact's SIP URI as "ul show" prints it.
        contact: Option<String>,
    },
}

fn preference(text: &str) -> Result<f64, String> {
    let q: Option<f64> = text.parse().ok();
    q.filter(|q| (0.0..=1.0).contains(q)).ok_or_else(|| "not a number from 0 to 1".to_owned())
}

pub fn ul(command: &Ul, places: &Places) -> Outcome {
    let mut client = places.connect()?;
    match command {
        Ul::Show { aor, json } => {
            let entries = client.ul_show(aor.as_deref())?;
            print(|out| match json {
                true => {
                    serde_json::to_writer_pretty(&mut *out, &entries)?;
                    writeln!(out)
                }
                false => table(out, &rows(&entries)),
            })
        }
        Ul::Add { aor, contact, expires, q, path } => {
            let (aor, contact, path) = (aor.clone(), contact.clone(), path.clone());
            let binding = NewBinding { aor, contact, expires: *expires, q: *q, path };
            let seconds = client.ul_add(&binding)?;
            print(|out| writeln!(out, "{} bound to {} for {seconds} s", binding.contact, binding.aor))
        }
        Ul::Rm { aor, contact } => {
            let removed = client.ul_rm(aor, contact.as_deref())?;
            let contacts = if removed == 1 { "contact" } else { "contacts" };
            print(|out| writeln!(out, "{removed} {contacts} of {aor} removed"))
        }
    }
}

const HEAD: [&str; 8] = ["AOR", "CONTACT", "Q", "EXPIRES", "CALL-ID", "CSEQ", "PATH", "RECEIVED"];

type Row = [String; HEAD.len()];

/// One row for each contact.
fn rows(entries: &[AorEntry]) -> Vec<Row> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![HEAD.map(str::to_owned)];
    for entry in entries {
        for contact in &entry.contacts {
            rows.push([
                entry.aor.clone(),
                contact.uri.clone(),
                or_dash(contact.q.map(|q| q.to_string())),
                format!("{}s", contact.expires_in_s),
                contact.call_id.clone(),
                contact.cseq.to_string(),
                or_dash(Some(contact.path.join(",")).filter(|path| !path.is_empty())),
                or_dash(contact.received.clone()),
            ]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger::control::ContactEntry;

    #[test]
    fn contacts_stand_in_columns() {
        let contact = |uri: &str, q, path: &[&str]| ContactEntry {
            uri: uri.to_owned(),
            q,
            expires_in_s: 3599,
            call_id: "a\u{1b}[31m".to_owned(),
            cseq: 7,
            path: path.iter().map(|hop| (*hop).to_owned()).collect(),
            received: None,
        };
        let entries = [AorEntry {
            aor: "sip:1003@example.com".to_owned(),
            contacts: vec![
                contact("sip:1003@192.0.2.100:5061", Some(0.5), &["<sip:e;lr>", "<sip:f;lr>"]),
                contact("sip:1003@192.0.2.7", None, &[]),
            ],
        }];
        let mut out = Vec::new();
        table(&mut out, &rows(&entries)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
AOR                   CONTACT                    Q    EXPIRES  CALL-ID  CSEQ  PATH                   RECEIVED
sip:1003@example.com  sip:1003@192.0.2.100:5061  0.5  3599s    a\u{fffd}[31m   7     <sip:e;lr>,<sip:f;lr>  -
sip:1003@example.com  sip:1003@192.0.2.7         -    3599s    a\u{fffd}[31m   7     -                      -
"
        );
    }
}

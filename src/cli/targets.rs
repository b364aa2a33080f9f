//! `strowger targets`: the health of next hops.

use super::output::{Outcome, print, table};
use super::places::Places;
use std::io::{self, Write};
use strowger::control::{FailureEntry, NextHopEntry, TargetEntry, Targets};

pub fn targets(json: bool, places: &Places) -> Outcome {
    let targets = places.connect()?.targets()?;
    print(|out| {
        if json {
            serde_json::to_writer_pretty(&mut *out, &targets)?;
            return writeln!(out);
        }
        write(&targets, out)
    })
}

fn write(targets: &Targets, out: &mut dyn Write) -> io::Result<()> {
    let head = ["ROUTE", "TARGET", "ADDRESS", "STATE", "CAUSE", "SINCE", "FAILURES", "PASSED OVER FOR"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(targets.targets.iter().map(target));
    table(out, &rows)?;
    if targets.others.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nOther next hops that have failed")?;
    let head = ["NAMED BY", "TRANSPORT", "ADDRESS", "CAUSE", "SINCE", "FAILURES", "PASSED OVER FOR"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(targets.others.iter().map(other));
    table(out, &rows)
}

fn target(entry: &TargetEntry) -> [String; 8] {
    let addresses = match entry.addresses.is_empty() {
        true => "-".to_owned(),
        false => entry.addresses.join(","),
    };
    let state = if entry.is_up { "up" } else { "down" };
    let [cause, since, failures, passed_over] = failure(entry.failure.as_ref());
    let (route, uri) = (entry.route.to_string(), entry.uri.clone());
    [route, uri, addresses, state.to_owned(), cause, since, failures, passed_over]
}

fn other(entry: &NextHopEntry) -> [String; 7] {
    let [cause, since, failures, passed_over] = failure(Some(&entry.failure));
    let (named_by, transport, address) = (entry.named_by.clone(), entry.transport.clone(), entry.address.clone());
    [named_by, transport, address, cause, since, failures, passed_over]
}

fn failure(entry: Option<&FailureEntry>) -> [String; 4] {
    let seconds = |ms: u64| format!("{}s", ms.div_ceil(1000));
    match entry {
        Some(entry) => [entry.cause.clone(), seconds(entry.since_ms), entry.failures.to_string(), seconds(entry.passed_over_ms)],
        None => [const { "-" }; 4].map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stand_in_columns_and_what_else_has_failed_below() {
        let failure = FailureEntry { cause: "no response".to_owned(), failures: 2, since_ms: 65_400, passed_over_ms: 58_000 };
        let target = |uri: &str, addresses: &[&str], failure: Option<FailureEntry>| TargetEntry {
            route: 1,
            uri: uri.to_owned(),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
            is_up: failure.is_none(),
            failure,
        };
        let mut targets = Targets {
            targets: vec![
                target("sip:192.0.2.1", &["192.0.2.1:5060"], Some(failure.clone())),
                target("sip:carrier.example", &[], None),
            ],
            others: Vec::new(),
        };
        let shown = |targets: &Targets| {
            let mut out = Vec::new();
            write(targets, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let above = "\
ROUTE  TARGET               ADDRESS         STATE  CAUSE        SINCE  FAILURES  PASSED OVER FOR
1      sip:192.0.2.1        192.0.2.1:5060  down   no response  66s    2         58s
1      sip:carrier.example  -               up     -            -      -         -
";
        assert_eq!(shown(&targets), above);
        targets.others.push(NextHopEntry {
            named_by: "contact".to_owned(),
            transport: "udp".to_owned(),
            address: "192.0.2.9:5070".to_owned(),
            failure,
        });
        let below = "
Other next hops that have failed
NAMED BY  TRANSPORT  ADDRESS         CAUSE        SINCE  FAILURES  PASSED OVER FOR
contact   udp        192.0.2.9:5070  no response  66s    2         58s
";
        assert_eq!(shown(&targets), format!("{above}{below}"));
    }
}

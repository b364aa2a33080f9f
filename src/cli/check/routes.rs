//! A `[[route]]` in words, on one line.

use std::fmt::Write;
use strowger::settings::Words;
use strowger::stack::route::{Action, Edits, Route};

/// What it takes, and what becomes of that.
pub fn in_words(route: &Route) -> String {
    let mut line = format!("{}: {}", taken(route), action(&route.action));
    for more in further(route).into_iter().chain(edits(&route.edits)) {
        let _ = write!(line, ", {more}");
    }
    // What the file says is text of the operator's, which the terminal need not obey.
    line.replace(char::is_control, "?")
}

fn taken(route: &Route) -> String {
    let mut words = vec![match route.methods.is_empty() {
        true => "every request".to_owned(),
        false => either(route.methods.iter().map(|method| text(method))),
    }];
    if !route.from_source.is_empty() {
        words.push(format!("from {}", either(route.from_source.iter().map(ToString::to_string))));
    }
    if let Some(host) = &route.to_host {
        words.push(format!("to host {}", text(host.text())));
    }
    if let Some(prefix) = &route.to_user_prefix {
        words.push(format!("to users that begin with {}", text(prefix)));
    }
    if !route.user_agent.is_empty() {
        words.push(format!("by a User-Agent with {}", either(route.user_agent.iter().map(|part| format!("{:?}", text(part))))));
    }
    words.join(" ")
}

fn action(action: &Action) -> String {
    match action {
        Action::Relay(hops) if hops.is_empty() => "relayed to where its Request-URI says".to_owned(),
        Action::Relay(hops) => {
            let uris: Vec<String> = hops.iter().map(|hop| hop.uri.to_string()).collect();
            format!("relayed to {}", uris.join(", if that fails to "))
        }
        Action::Location => "looked up among the registered".to_owned(),
        Action::Redirect(uris) if uris.is_empty() => "answered 302 with the registered contacts".to_owned(),
        Action::Redirect(uris) => format!("answered 302 with {}", uris.iter().map(|uri| text(uri)).collect::<Vec<_>>().join(", ")),
        Action::Reject(status) => format!("answered {status}"),
        Action::Drop => "dropped without an answer".to_owned(),
    }
}

/// What is asked of the caller, and how targets are treated.
fn further(route: &Route) -> Vec<String> {
    let mut words = Vec::new();
    match (route.users_only, route.challenge) {
        (true, _) => words.push("for our users only, by password".to_owned()),
        (false, Some(true)) => words.push("our users by password".to_owned()),
        (false, Some(false)) => words.push("without a password".to_owned()),
        (false, None) => {}
    }
    if !route.weights.is_empty() {
        let weights: Vec<String> = route.weights.iter().map(ToString::to_string).collect();
        words.push(format!("in the proportion {}", weights.join(":")));
    }
    if let Some(trunk) = &route.trunk {
        words.push(format!("by the account of trunk {}", trunk.name));
    }
    if let Some(patience) = route.patience {
        words.push(format!("next target after {} ms of silence", patience));
    }
    if let Some(probe) = route.probe {
        words.push(format!("probed each {} s", probe as f64 / 1000.0));
    }
    if let Some(outgoing) = route.outgoing {
        words.push(format!("connections {}", outgoing.word()));
    }
    words
}

fn edits(edits: &Edits) -> Vec<String> {
    let mut words = Vec::new();
    if edits.strip > 0 {
        words.push(format!("the first {} characters removed", edits.strip));
    }
    if !edits.prefix.is_empty() {
        words.push(format!("{} put before", text(&edits.prefix)));
    }
    if let Some(host) = &edits.set_host {
        words.push(format!("host {}", text(host)));
    }
    if !edits.add_header.is_empty() {
        let lines: Vec<String> = text(&edits.add_header).lines().map(|line| format!("{line:?}")).collect();
        words.push(format!("header {} added", lines.join(" and ")));
    }
    if !edits.remove_header.is_empty() {
        words.push(format!(
            "header {} removed",
            edits.remove_header.iter().map(|name| text(name)).collect::<Vec<_>>().join(" and ")
        ));
    }
    words
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `a`, `a or b`, `a, b or c`.
fn either(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger::config::{Machine, load};

    #[test]
    fn a_route_is_a_sentence() {
        let machine = Machine { cores: vec![0], memory: 0, files: 1 << 10 };
        let words = |lines: &str| {
            let conf = load::parse("t", &format!("[[route]]\n{lines}\n"), &machine).unwrap_or_else(|faults| panic!("{faults}"));
            in_words(&conf.routes[0])
        };
        for (lines, sentence) in [
            ("action = \"location\"", "every request: looked up among the registered"),
            ("action = \"relay\"", "every request: relayed to where its Request-URI says"),
            (
                "action = \"drop\"\nuser_agent = [\"friendly\"]",
                "every request by a User-Agent with \"friendly\": dropped without an answer",
            ),
            ("action = \"reject\"\nmethods = [\"INVITE\", \"SUBSCRIBE\", \"REFER\"]", "INVITE, SUBSCRIBE or REFER: answered 403"),
            ("action = \"redirect\"\ntarget = [\"sip:a@b.example\"]", "every request: answered 302 with sip:a@b.example"),
            (
                "action = \"relay\"\nmethods = [\"INVITE\"]\nfrom_source = [\"192.0.2.0/24\"]\nto_host = \"a.example\"\n\
                 to_user_prefix = \"00\"\ntarget = [\"sip:192.0.2.1\", \"sip:gw.example\"]\nweight = [2, 1]\nfrom = \"users\"\n\
                 patience = \"2s\"\nprobe = \"30s\"\noutgoing = \"per-call\"\nstrip = 2\nprefix = \"+\"\nset_host = \"b.example\"\n\
                 add_header = [\"X-A: 1\"]\nremove_header = [\"X-B\"]",
                "INVITE from 192.0.2.0/24 to host a.example to users that begin with 00: relayed to sip:192.0.2.1, if that fails to \
                 sip:gw.example, for our users only, by password, in the proportion 2:1, next target after 2000 ms of silence, probed \
                 each 30 s, connections per-call, the first 2 characters removed, + put before, host b.example, header \"X-A: 1\" added, \
                 header x-b removed",
            ),
        ] {
            assert_eq!(words(lines), sentence, "{lines}");
        }
    }
}

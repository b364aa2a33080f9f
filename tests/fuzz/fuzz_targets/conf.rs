//! Fuzz target: any text as a conf. Each fault has a place in the text and says something; a good conf is the same when it is read again.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use strowger::config::load::parse;
use strowger::config::{Machine, Plan};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Corpus::Reject;
    };
    // A file that a conf names is read as it is: a device would be read for ever.
    if ["/dev", "/proc", "/sys"].iter().any(|path| text.contains(path)) {
        return Corpus::Reject;
    }
    let machine = Machine { cores: vec![0, 1, 5], memory: 4 << 30, files: 1024 };
    let again = parse("x.toml", text, &machine);
    match parse("x.toml", text, &machine) {
        Ok(conf) => {
            let plan = Plan::new(&conf, &again.unwrap());
            assert!(!plan.changes("server.cores"));
        }
        Err(faults) => {
            assert_eq!(again.unwrap_err(), faults);
            assert!(!faults.faults.is_empty());
            let lines: Vec<&str> = text.split('\n').collect();
            for fault in &faults.faults {
                let (line, column) = fault.place.expect("a place");
                assert!((1..=lines.len()).contains(&line), "{fault:?}");
                let longest = lines[line - 1].chars().count() + 1;
                assert!((1..=longest).contains(&column), "{fault:?}");
                assert!(!fault.message.trim().is_empty());
            }
            let shown = faults.to_string();
            assert!(shown.lines().all(|line| line.starts_with("x.toml")), "{shown:?}");
        }
    }
    Corpus::Keep
});

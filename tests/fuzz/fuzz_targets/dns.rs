//! Fuzz target: any bytes as a message of the domain name system, and its parts as names. What is made of it is of the kind that was asked, is
//! remembered, and is found again; memory has its bound.
#![no_main]

use hickory_resolver::proto::op::Message;
use libfuzzer_sys::fuzz_target;
use strowger::base::dns::{Answer, DomainName, Outcome, Question, RecordType, Records};
use strowger::base::{Instant, Key, ShareHolder};
use strowger::resolver::records::found;
use strowger::stack::names::{Look, Names};

const KINDS: [RecordType; 4] = [RecordType::Naptr, RecordType::Srv, RecordType::A, RecordType::Aaaa];

fuzz_target!(|bytes: &[u8]| {
    name(bytes);
    let Ok(message) = Message::from_vec(bytes) else {
        return;
    };
    let mut names = Names::new(Key::new(1, 2), 4, 512);
    let mut now = Instant::from_ms(1000);
    for kind in KINDS {
        let outcome = found(kind, &message.answers);
        let Some(asked) = DomainName::new(b"", b"asked.example") else {
            unreachable!("a name");
        };
        let question = Question { name: asked, kind };
        assert_eq!(names.ask(now, &question, ShareHolder::NOBODY), Ok(true));
        let answer = Answer { question, outcome: outcome.clone() };
        names.learn(now, answer, &mut Vec::new());
        match (outcome, names.look(now, now, &asked, kind)) {
            (Outcome::Found { records, .. }, Look::Records(kept)) => {
                assert!(is_of(kind, &records));
                // What comes twice is kept once.
                assert!(kept.len() <= records.len() && (kept.len() > 0) == (records.len() > 0));
                for target in targets(kept) {
                    name(target);
                }
            }
            (Outcome::Nothing { .. }, Look::Nothing { .. }) => {}
            (outcome, look) => panic!("{outcome:?} has become {look:?}"),
        }
        now = now.after_ms(1);
        assert!(names.len() <= 4);
    }
    // However long it says that it lives, one day it is asked again.
    let late = now.after_ms(1 << 40);
    let Some(asked) = DomainName::new(b"", b"asked.example") else {
        return;
    };
    assert!(matches!(names.look(late, late, &asked, RecordType::A), Look::Unknown(_)));
});

fn is_of(kind: RecordType, records: &Records) -> bool {
    match records {
        Records::Naptr(_) => kind == RecordType::Naptr,
        Records::Srv(_) => kind == RecordType::Srv,
        Records::Addresses(_) => matches!(kind, RecordType::A | RecordType::Aaaa),
    }
}

fn targets(records: &Records) -> Vec<&[u8]> {
    match records {
        Records::Naptr(list) => list.iter().map(|one| &one.replacement[..]).collect(),
        Records::Srv(list) => list.iter().map(|one| &one.target[..]).collect(),
        Records::Addresses(_) => Vec::new(),
    }
}

/// A name that can be asked for has labels of 1 to 63 bytes, in lower case, and is the same name when it is read again.
fn name(text: &[u8]) {
    for prefix in [&b""[..], b"_sip._udp."] {
        let Some(name) = DomainName::new(prefix, text) else {
            continue;
        };
        let bytes = name.as_bytes();
        assert!(bytes.len() <= 253 && bytes.starts_with(prefix));
        assert!(!bytes.iter().any(u8::is_ascii_uppercase));
        let mut labels = bytes.split(|b| *b == b'.');
        assert!(labels.all(|label| (1..=63).contains(&label.len())));
        assert_eq!(DomainName::new(b"", bytes), Some(name));
    }
}

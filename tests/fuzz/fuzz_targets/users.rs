//! Fuzz target: any bytes as a text file of users. Whoever is read can be found, under the name and realm of the line and with its hash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strowger::base::Key;
use strowger::stack::auth::digest::Algorithm;
use strowger::stack::auth::users::{Entry, Users};
use strowger::store::text;

fuzz_target!(|bytes: &[u8]| {
    let mut users = Users::new(Key::new(1, 2), 8);
    let mut lines = 0;
    let read = text::read(bytes, |line| {
        lines += 1;
        assert!(!line.name.is_empty() && !line.realm.is_empty());
        assert_eq!(line.ha1.bytes().len(), line.algorithm.hash_len());
        let is = |algorithm, whole| (line.algorithm == algorithm && line.whole == whole).then_some(line.ha1);
        users.insert(&Entry {
            name: line.name,
            domain: line.realm,
            md5: is(Algorithm::Md5, false),
            md5_whole: is(Algorithm::Md5, true),
            sha256: is(Algorithm::Sha256, false),
            sha512_256: is(Algorithm::Sha512_256, false),
        });
        let whole = [line.name, b"@", line.realm].concat();
        let name = if line.whole { &whole[..] } else { line.name };
        // Who is too long for any message is nobody.
        if let Some(user) = users.find(name, line.realm) {
            // Another user's own name may read like this one's name and realm, and then that user is found.
            let ha1 = user.ha1(line.algorithm);
            assert!(ha1.is_some() || line.whole, "its hash");
            assert!(line.whole || ha1.is_some_and(|ha1| ha1.equals(&line.ha1)) || users.len() < lines);
        } else {
            assert!(line.name.len() > 200, "{line:?}");
        }
        Ok(())
    });
    assert!(users.len() <= lines);
    let count = bytes.split(|b| *b == b'\n').count();
    if let Err(what) = read {
        let (number, what) = what.split_once(": ").expect("the number of the line");
        assert!((1..=count).contains(&number.parse().unwrap()) && !what.is_empty());
    }
});

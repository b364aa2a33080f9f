//! Fuzz target: any lines to the control socket. Each is answered with one line of JSON-RPC, or, a notification, with none.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use strowger::base::metric::Families;
use strowger::control::{AorEntry, ConnectionEntry, ControlApi, Draining, HealthReport, NewBinding, Refusal, rpc};

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|b| *b == b'\n') {
        let mut out = Vec::new();
        rpc::answer(line, &Clerk, &mut out).unwrap();
        // What was asked comes back with its escapes: six bytes for one at most, some twice over.
        assert!(out.len() <= 14 * line.len() + 1024);
        let request: Option<Value> = serde_json::from_slice(line).ok();
        let id = request.as_ref().and_then(|request| request.get("id"));
        if out.is_empty() {
            let request = request.as_ref().expect("what is not JSON is answered");
            assert!(id.is_none() && request.get("method").is_some());
            continue;
        }
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(out.last(), Some(&b'\n'));
        let answer: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(answer["jsonrpc"], "2.0");
        assert!(answer.get("result").is_some() != answer.get("error").is_some());
        if answer.get("result").is_some() {
            assert_eq!(answer.get("id"), id);
        }
    }
});

/// Says what it was asked, or refuses it.
struct Clerk;

impl ControlApi for Clerk {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn metrics(&self) -> Families {
        Families::default()
    }

    fn health(&self) -> HealthReport {
        HealthReport::default()
    }

    fn connections(&self) -> Vec<ConnectionEntry> {
        Vec::new()
    }

    fn reload(&self) -> Result<String, Refusal> {
        Err(Refusal::Refused("a: 1\nb: 2".to_owned()))
    }

    fn drain(&self, deadline: Option<Duration>, calls: bool) -> Result<Draining, Refusal> {
        let deadline_ms = deadline.map_or(0, |deadline| deadline.as_millis() as u64);
        Ok(Draining { pending: 1, calls: calls.then_some(2), deadline_ms })
    }

    fn log(&self, level: Option<&str>) -> Result<String, Refusal> {
        Ok(level.unwrap_or("info").to_owned())
    }

    fn ul_show(&self, aor: Option<&str>) -> Result<Vec<AorEntry>, Refusal> {
        let aor = aor.ok_or_else(|| Refusal::NotFound("nobody".to_owned()))?;
        Ok(vec![AorEntry { aor: aor.to_owned(), contacts: Vec::new() }])
    }

    fn ul_add(&self, binding: &NewBinding) -> Result<u32, Refusal> {
        assert_ne!(binding.expires, Some(0));
        assert!(binding.q.is_none_or(|q| (0.0..=1.0).contains(&q)));
        Err(Refusal::Refused(format!("{} {}", binding.aor, binding.contact)))
    }

    fn ul_rm(&self, aor: &str, contact: Option<&str>) -> Result<usize, Refusal> {
        Ok(aor.len() + contact.map_or(0, str::len))
    }
}

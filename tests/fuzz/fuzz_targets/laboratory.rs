//! Fuzz target: the laboratory with loaded dice. The input says which scenario it is and how the first dice fall: who calls whom, what a stranger
//! overhears, changes and sends, what the network loses. The auditor watches every rule, and that nothing is left over when all is quiet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strowger_sim::run_taped;

const STEPS: u64 = 40;

fuzz_target!(|bytes: &[u8]| {
    let [seed, tape @ ..] = bytes else {
        return;
    };
    if let Err(failure) = run_taped(u64::from(*seed), tape, STEPS) {
        panic!("{failure}");
    }
});

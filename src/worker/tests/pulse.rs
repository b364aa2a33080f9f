//! Signs of life of workers that run, and of one that does not.

use super::*;

#[test]
fn a_worker_that_is_stuck_in_a_turn_gives_no_sign_of_life() {
    let (crew, notes) = crew(2, &["127.0.0.1:0"]);
    let mut pulse = crew.pulse();
    until("both workers answer", || pulse.is_whole());

    // Its timer wants this lock.
    let held = notes.fired_at_ms.lock().unwrap();
    client(crew.addresses()[0]).send(b"timer").unwrap();
    let mut pulse = crew.pulse();
    until("one of them does not answer", || {
        pulse = crew.pulse();
        std::thread::sleep(time::Duration::from_millis(60));
        !pulse.is_whole()
    });
    std::thread::sleep(time::Duration::from_millis(200));
    assert!(!pulse.is_whole());

    drop(held);
    until("it turns again", || pulse.is_whole());
    assert_eq!(notes.fired_at_ms.lock().unwrap().len(), 1);
}

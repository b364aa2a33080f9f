//! Holders against a model that counts by scanning everything, and the order of turns.

use super::*;
use crate::base::Rng;

fn ip(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

fn at(ms: u64) -> Instant {
    Instant::from_ms(10_000 + ms)
}

/// Adds connections `first..first + count` of one source, which have got as far as `class`.
fn arrive(holders: &mut Holders, first: u32, count: u32, from: u32, class: Class, now: Instant) {
    for slot in first..first + count {
        holders.arrive(slot, ip(from), false, now);
        if class != Class::Unproved {
            holders.step(slot, class, now);
        }
    }
}

struct Model {
    slot: u32,
    from: u32,
    class: Class,
    since: Instant,
}

#[test]
fn the_one_that_gives_way_against_a_naive_model() {
    let (mut holders, mut rng) = (Holders::default(), Rng::new(3));
    let mut model: Vec<Model> = Vec::new();
    let mut free: Vec<u32> = (0..200).collect();
    let exempt = |from: u32| from == 7;
    let (mut yielded, mut proved) = (0, 0);
    for step in 0..60_000u64 {
        let now = at(step);
        match rng.below(4) {
            0 | 1 => {
                if let Some(slot) = free.pop() {
                    // Few sources have most connections.
                    let from = (rng.below(4) * rng.below(4)) as u32;
                    holders.arrive(slot, ip(from), exempt(from), now);
                    let class = match (step / 5000) % 2 {
                        0 => Class::Unproved,
                        _ => Class::Proved,
                    };
                    holders.step(slot, class, now);
                    model.push(Model { slot, from, class, since: now });
                }
            }
            2 if !model.is_empty() => {
                let mut one = model.remove(rng.below(model.len() as u64) as usize);
                // In some phases all connections prove useful.
                one.class = match (step / 5000) % 2 {
                    0 => [Class::Shaking, Class::Unproved, Class::Proved][rng.below(3) as usize],
                    _ => Class::Proved,
                };
                one.since = now;
                holders.step(one.slot, one.class, now);
                model.push(one);
            }
            _ if !model.is_empty() => {
                let one = model.remove(rng.below(model.len() as u64) as usize);
                holders.leave(one.slot);
                free.push(one.slot);
            }
            _ => {}
        }
        let held = |from: u32, all: bool| {
            let of = model.iter().filter(|one| one.from == from && !exempt(from));
            of.filter(|one| all || one.class != Class::Proved).count()
        };
        let peer = rng.below(10) as u32;
        let got = holders.yields_place(Some(ip(peer)), now);
        let got = got.and_then(|(slot, _)| model.iter().find(|one| one.slot == slot));
        let most = |all: bool| (0..10).map(|from| held(from, all)).max().unwrap_or(0);
        match got {
            Some(one) if one.class == Class::Proved => {
                proved += 1;
                assert_eq!(held(one.from, true), most(true));
                assert!(held(one.from, true) >= held(peer, true) + 2);
                assert_eq!(held(one.from, false), 0, "what is not proved goes first");
            }
            Some(one) => {
                yielded += 1;
                assert!(!exempt(one.from));
                let by_unproved = held(one.from, false) == most(false) && held(one.from, false) > held(peer, false);
                assert!(by_unproved || held(one.from, true) >= held(peer, true) + 2);
                let mut kin = model.iter().filter(|other| other.from == one.from && other.class == one.class);
                assert!(kin.all(|other| other.since >= one.since), "the oldest");
            }
            None => {
                assert!(most(false) < held(peer, false) + 2 && most(true) < held(peer, true) + 2);
            }
        }
    }
    assert!(yielded > 1000 && proved > 10, "{yielded} and {proved}");
    for one in model {
        holders.leave(one.slot);
    }
    assert!(holders.by_source.is_empty() && holders.holders.is_empty());
    assert!(holders.rankings.iter().all(|ranking| ranking.most == 0));
    assert!(holders.yields_place(None, at(0)).is_none());
}

#[test]
fn who_has_many_gives_way_to_who_has_few_and_not_the_other_way_round() {
    let mut holders = Holders::default();
    arrive(&mut holders, 0, 10, 1, Class::Proved, at(0));
    arrive(&mut holders, 10, 3, 2, Class::Unproved, at(1));
    // The unproved of the second, although the first has more.
    assert_eq!(holders.yields_place(Some(ip(3)), at(2)), Some((10, 3)));
    assert_eq!(holders.yields_place(None, at(2)), Some((10, 3)));
    assert_eq!(holders.yields_place(Some(ip(1)), at(2)), Some((10, 3)));
    // To itself only what is left of it gives way; otherwise the first, which has more.
    assert_eq!(holders.yields_place(Some(ip(2)), at(2)), Some((0, 10)));
    holders.renew(0, at(3));
    assert_eq!(holders.yields_place(Some(ip(2)), at(3)), Some((1, 10)));
    // A source with a single connection gives it up if that has been silent for a second.
    let mut holders = Holders::default();
    arrive(&mut holders, 0, 1, 1, Class::Unproved, at(0));
    arrive(&mut holders, 1, 1, 2, Class::Unproved, at(5));
    assert_eq!(holders.yields_place(Some(ip(3)), at(999)), None);
    assert_eq!(holders.yields_place(Some(ip(3)), at(1000)), Some((0, 1)));
    assert_eq!(holders.yields_place(Some(ip(1)), at(9000)), None);
    // Exempt connections never give way.
    let mut holders = Holders::default();
    for slot in 0..9 {
        holders.arrive(slot, ip(1), true, at(0));
    }
    assert_eq!(holders.yields_place(Some(ip(2)), at(9000)), None);
}

fn begun(holders: &mut Holders, in_hand: usize, limit: usize, now: Instant) -> Vec<Turn> {
    let mut list = Vec::new();
    let mut in_hand = in_hand;
    while let Some(turn) = holders.begin(in_hand, limit, 100, now) {
        match turn.instead_of {
            Some(slot) => holders.leave(slot),
            None => in_hand += 1,
        }
        list.push(turn);
    }
    list
}

#[test]
fn each_source_in_its_turn() {
    let mut holders = Holders::default();
    arrive(&mut holders, 0, 50, 1, Class::Waiting, at(0));
    arrive(&mut holders, 50, 2, 2, Class::Waiting, at(1));
    arrive(&mut holders, 52, 1, 3, Class::Waiting, at(2));
    assert!(holders.may_begin());
    let turns = begun(&mut holders, 0, 512, at(3));
    let slots: Vec<u32> = turns.iter().map(|turn| turn.slot).collect();
    assert_eq!(slots[..6], [0, 50, 52, 1, 51, 2]);
    assert_eq!(slots.len(), 53);
    assert!(!holders.may_begin() && !holders.is_stuck());
}

#[test]
fn a_source_has_its_share_and_stalled_ones_give_way() {
    let mut holders = Holders::default();
    arrive(&mut holders, 0, 500, 1, Class::Waiting, at(0));
    // Half of all while no other source asks.
    let turns = begun(&mut holders, 0, 100, at(0));
    assert_eq!(turns.len(), 50);
    assert!(holders.is_stuck() && !holders.may_begin());
    // Others still get theirs.
    arrive(&mut holders, 500, 40, 2, Class::Waiting, at(1));
    assert!(holders.may_begin());
    let turns = begun(&mut holders, 50, 100, at(1));
    assert_eq!(turns.len(), 25, "a quarter");
    arrive(&mut holders, 540, 40, 3, Class::Waiting, at(2));
    assert_eq!(begun(&mut holders, 75, 100, at(2)).len(), 25);
    arrive(&mut holders, 580, 1, 4, Class::Waiting, at(3));
    assert_eq!(begun(&mut holders, 100, 100, at(3)), []);
    // All are in use. After a second the oldest of the source that has most gives way, and so do a source's own to itself.
    holders.renew(0, at(500));
    holders.look_again();
    let turns = begun(&mut holders, 100, 100, at(1001));
    let other = turns.iter().find(|turn| turn.slot == 580);
    let instead_of = other.and_then(|turn| turn.instead_of);
    assert!(instead_of.is_some_and(|slot| slot < 50), "{turns:?}");
    let own = turns.iter().filter(|turn| turn.slot < 500);
    assert!(own.clone().count() >= 40 && own.clone().all(|turn| turn.instead_of.is_some_and(|slot| slot < 500)));
    assert!(!turns.iter().any(|turn| turn.instead_of == Some(0)), "it has moved");
    assert!(holders.is_stuck());
    // One that ends makes room.
    holders.leave(0);
    assert!(holders.may_begin());
}

#[test]
fn what_is_exempt_has_no_share_and_its_clients_stand_for_themselves() {
    let mut holders = Holders::default();
    for slot in 0..90 {
        holders.arrive(slot, ip(1), true, at(0));
        holders.step(slot, Class::Waiting, at(0));
    }
    arrive(&mut holders, 90, 3, 2, Class::Waiting, at(1));
    holders.leave(3);
    let turns = begun(&mut holders, 0, 100, at(2));
    assert_eq!(turns.len(), 92);
    assert_eq!(turns[89].slot, 90, "the others after those that came before");
    assert!(turns.iter().all(|turn| turn.instead_of.is_none()));
}

/// What becomes of handshakes of which more come than can be begun: when each that was let in came, and when it was begun.
struct Overload {
    holders: Holders,
    /// Slots of those that wait, and those that are free.
    came: HashMap<u32, u64>,
    free: Vec<u32>,
    refused: usize,
    begun: Vec<(u64, u64)>,
}

impl Overload {
    fn new() -> Overload {
        let free = (0..50_000).rev().collect();
        Overload { holders: Holders::default(), came: HashMap::new(), free, refused: 0, begun: Vec::new() }
    }

    /// For a while `more` come every 10 ms, from the sources that `from` says, and `fewer` are begun.
    fn run(&mut self, times: std::ops::Range<u64>, more: u32, fewer: usize, is_exempt: bool, mut from: impl FnMut() -> u32) {
        for ms in times.step_by(10) {
            for _ in 0..more {
                let peer = ip(from());
                if self.holders.overlong_ms(peer, 100, at(ms)).is_some() {
                    self.refused += 1;
                    continue;
                }
                let slot = self.free.pop().expect("there are enough");
                self.holders.arrive(slot, peer, is_exempt, at(ms));
                self.holders.step(slot, Class::Waiting, at(ms));
                self.came.insert(slot, ms);
            }
            let before = self.begun.len();
            while self.begun.len() < before + fewer && self.holders.may_begin() {
                if let Some(turn) = self.holders.begin(0, 512, 100, at(ms)) {
                    self.holders.leave(turn.slot);
                    self.begun.push((self.came.remove(&turn.slot).expect("it waits"), ms));
                    self.free.push(turn.slot);
                }
            }
            self.holders.check();
        }
    }

    /// Returns how long those waited that were begun in this time, longest last.
    fn waited(&self, times: std::ops::Range<u64>) -> Vec<u64> {
        let begun = self.begun.iter().filter(|(_, begun)| times.contains(begun));
        let mut waited: Vec<u64> = begun.map(|(came, begun)| begun - came).collect();
        waited.sort_unstable();
        waited
    }
}

#[test]
fn in_an_overload_what_is_begun_has_not_waited_long_whoever_it_comes_from() {
    let mut next = 0;
    let each_from_its_own = move || {
        next += 1;
        next
    };
    let of_one: (bool, Box<dyn FnMut() -> u32>) = (false, Box::new(|| 1));
    let of_a_gateway: (bool, Box<dyn FnMut() -> u32>) = (true, Box::new(|| 1));
    for (name, (is_exempt, mut from)) in
        [("one source", of_one), ("a gateway", of_a_gateway), ("many", (false, Box::new(each_from_its_own)))]
    {
        let mut overload = Overload::new();
        // Three times as many as can be begun. A burst is worked off in the order in which it came; what lasts longer is refused.
        overload.run(0..1000, 24, 8, is_exempt, &mut *from);
        assert_eq!(overload.refused, 0, "{name}");
        overload.run(1000..4000, 24, 8, is_exempt, &mut *from);
        let lately = overload.waited(1500..4000);
        assert_eq!(lately.len(), 8 * 250, "{name}: as many as can be");
        let (median, most) = (lately[lately.len() / 2], lately[lately.len() - 1]);
        assert!(median <= 80 && most <= 110, "{name}: {median} and {most} ms");
        assert!(overload.refused > 16 * 200, "{name}: {}", overload.refused);
        // Nobody is forgotten: those that were late are begun when less comes, the first first.
        let late = overload.came.len();
        assert!(late > 1000, "{name}: {late}");
        overload.run(4000..8000, 2, 8, is_exempt, &mut *from);
        assert_eq!(overload.came.len(), 0, "{name}");
        let old: Vec<u64> =
            overload.begun.iter().filter(|(came, begun)| *came < 1500 && *begun > 4000).map(|(came, _)| *came).collect();
        assert!(old.len() > 1000 && old.is_sorted(), "{name}: {}", old.len());
        let fresh = overload.begun.iter().filter(|(came, _)| *came >= 4200);
        assert!(fresh.clone().count() >= 700 && fresh.clone().all(|(came, begun)| begun - came <= 20), "{name}");
    }
}

#[test]
fn one_source_that_floods_is_refused_and_others_are_not() {
    let mut overload = Overload::new();
    let mut step = 0;
    // Every hundredth is of another source.
    overload.run(0..3000, 25, 8, false, || {
        step += 1;
        if step % 100 == 0 { 2 + step / 100 } else { 1 }
    });
    assert!(overload.refused > 16 * 150, "{}", overload.refused);
    overload.run(3000..3010, 25, 0, false, || 1);
    assert!(overload.holders.overlong_ms(ip(1), 100, at(3005)).is_some());
    assert_eq!(overload.holders.overlong_ms(ip(1), 0, at(3005)), None);
    assert_eq!(overload.holders.overlong_ms(ip(2), 100, at(3005)), None);
    // 75 others came, and none has waited for the flood.
    assert_eq!(overload.holders.by_source.len(), 1, "all others have begun");
}

#[test]
fn who_gives_up_takes_no_turn() {
    let mut overload = Overload::new();
    overload.run(0..2500, 24, 8, false, || 1);
    let late: Vec<u32> = overload.came.keys().copied().collect();
    assert!(late.len() > 1000, "{}", late.len());
    for slot in late {
        overload.holders.leave(slot);
    }
    overload.came.clear();
    overload.holders.check();
    assert_eq!(overload.holders.begin(0, 512, 100, at(2500)), None);
    assert!(overload.holders.by_source.is_empty());
}

#[test]
fn clients_of_a_gateway_that_come_and_go_leave_no_turns_behind() {
    let mut holders = Holders::default();
    holders.arrive(0, ip(1), true, at(0));
    holders.step(0, Class::Waiting, at(0));
    for ms in 0..1000 {
        holders.arrive(1, ip(1), true, at(ms));
        holders.step(1, Class::Waiting, at(ms));
        // Nothing may begin.
        assert_eq!(holders.begin(8, 8, 100, at(ms)), None);
        holders.leave(1);
        holders.check();
    }
    assert!(holders.queued() <= 2, "{} turns of one client", holders.queued());
    holders.look_again();
    assert_eq!(begun(&mut holders, 0, 8, at(1000)).len(), 1);
    assert_eq!((holders.queued(), holders.may_begin()), (0, false));
}

#[test]
fn without_an_overload_nobody_falls_behind() {
    for each_has_its_own in [false, true] {
        let mut overload = Overload::new();
        let mut next = 0;
        let mut from = || {
            next += u32::from(each_has_its_own);
            next
        };
        overload.run(0..3000, 24, 8, false, &mut from);
        overload.run(3000..3200, 0, 8, false, &mut from);
        let waits: usize = overload.holders.holders.iter().map(|(_, holder)| holder.clients[0]).sum();
        assert_eq!(waits, 0, "what is not late is worked off");
        // None is begun for a while: ten have waited for too long, but ten are no overload.
        let first = overload.begun.len();
        overload.run(3200..3210, 10, 0, false, &mut from);
        overload.run(3320..3350, 1, 8, false, &mut from);
        let next: Vec<u64> = overload.begun[first..first + 10].iter().map(|(came, _)| *came).collect();
        assert_eq!(next, [3200; 10], "each has a source of its own: {each_has_its_own}");
    }
}

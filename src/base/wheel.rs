//! A hierarchical timing wheel: O(1) to arm and to cancel, no allocation once warm, and cancelled timers never fire.
//!
//! The lowest level has a slot for each of the next 65,536 milliseconds, without counting rounds: whatever is due within that time
//! goes directly to the slot it will fire from. Nearly all timers do, above all those that forget finished transactions. With 64
//! slots they were two levels up, and hundreds of thousands of them moved down in one turn.

use super::chunks::Chunks;
use super::time::Instant;

/// Slots of the lowest level, one for each millisecond.
const NEAR: usize = 1 << NEAR_BITS;
const NEAR_BITS: u32 = 16;
/// Each level above has 64 slots, each spanning as much time as the whole level below.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 4;
const NONE: u32 = u32::MAX;
/// Bucket numbers: those of the lowest level, then those of the levels above, then these.
const IDLE: u32 = u32::MAX;
const DUE: u32 = u32::MAX - 1;
/// The farthest deadline that the levels span, in milliseconds from now (2^40: 34 years).
const HORIZON: u64 = (1 << (NEAR_BITS + BITS * LEVELS as u32)) - 1;

/// A timer that its owner made with [`Wheel::add`]. Not `Copy`: one owner, one [`Wheel::remove`].
#[derive(Debug, PartialEq, Eq)]
pub struct TimerId(u32);

impl TimerId {
    /// No timer: left in a record whose timer was removed.
    pub const GONE: TimerId = TimerId(NONE);
}

struct Node {
    next: u32,
    prev: u32,
    deadline: u64,
    token: u32,
    bucket: u32,
}

/// The lowest level. Two levels of bits say which slots are occupied.
struct Near {
    heads: Box<[u32]>,
    words: Box<[u64]>,
    summary: [u64; NEAR / 64 / 64],
}

impl Near {
    fn set(&mut self, slot: usize) {
        let word = slot / 64;
        self.words[word] |= 1 << (slot % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    fn clear(&mut self, slot: usize) {
        let word = slot / 64;
        self.words[word] &= !(1 << (slot % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    /// Returns how many slots ahead of `here` the next occupied one is, wrapping around.
    fn next(&self, here: usize) -> Option<usize> {
        let ahead = |slot: usize| slot.wrapping_sub(here) % NEAR;
        let word = here / 64;
        let rest = self.words[word] & (u64::MAX << (here % 64));
        if rest != 0 {
            return Some(ahead(word * 64 + rest.trailing_zeros() as usize));
        }
        // The words after this one, the words before it, and this one again: what is in it now lies before `here`.
        let part = word / 64;
        let behind = match word % 64 {
            63 => 0,
            bit => self.summary[part] & (u64::MAX << (bit + 1)),
        };
        let parts = self.summary.len();
        let found = std::iter::once((part, behind))
            .chain((1..=parts).map(|n| ((part + n) % parts, self.summary[(part + n) % parts])))
            .find(|(_, bits)| *bits != 0);
        let (part, bits) = found?;
        let word = part * 64 + bits.trailing_zeros() as usize;
        Some(ahead(word * 64 + self.words[word].trailing_zeros() as usize))
    }
}

struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
}

/// Returns the bit position at which the slots of an upper level begin to differ.
fn shift(level: usize) -> u32 {
    NEAR_BITS + BITS * level as u32
}

/// The timers of one worker. Resolution: one millisecond.
pub struct Wheel {
    nodes: Chunks<Node>,
    free: u32,
    added: usize,
    armed: usize,
    elapsed: u64,
    due: u32,
    near: Near,
    levels: [Level; LEVELS],
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel {
            nodes: Chunks::default(),
            free: NONE,
            added: 0,
            armed: 0,
            elapsed: 0,
            due: NONE,
            near: Near { heads: vec![NONE; NEAR].into(), words: vec![0; NEAR / 64].into(), summary: [0; NEAR / 64 / 64] },
            levels: std::array::from_fn(|_| Level { occupied: 0, heads: [NONE; SLOTS] }),
        }
    }
}

impl Wheel {
    /// Creates a timer, not armed. `token` is returned when it fires.
    pub fn add(&mut self, token: u32) -> TimerId {
        let fresh = Node { next: NONE, prev: NONE, deadline: 0, token, bucket: IDLE };
        self.added += 1;
        match self.nodes.get_mut(self.free as usize) {
            Some(node) => {
                let index = self.free;
                self.free = node.next;
                *node = fresh;
                TimerId(index)
            }
            None => TimerId(self.nodes.push(fresh) as u32),
        }
    }

    /// Removes the timer, armed or not.
    pub fn remove(&mut self, timer: TimerId) {
        self.cancel(&timer);
        self.nodes[timer.0 as usize].next = self.free;
        self.free = timer.0;
        self.added -= 1;
    }

    /// Sets the timer to fire at `deadline`, whatever it was set to before. A deadline in the past fires at the next poll.
    pub fn arm(&mut self, timer: &TimerId, deadline: Instant) {
        self.cancel(timer);
        let node = &mut self.nodes[timer.0 as usize];
        node.deadline = deadline.as_ms().min(self.elapsed.saturating_add(HORIZON));
        self.armed += 1;
        self.place(timer.0);
    }

    pub fn cancel(&mut self, timer: &TimerId) {
        if self.nodes[timer.0 as usize].bucket != IDLE {
            self.unlink(timer.0);
            self.armed -= 1;
        }
    }

    /// Returns the token of the next timer that is due at `now`, or `None`; to be called until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<u32> {
        let now = now.as_ms();
        loop {
            if self.due != NONE {
                let index = self.due;
                self.unlink(index);
                self.armed -= 1;
                return Some(self.nodes[index as usize].token);
            }
            match self.next_bucket() {
                Some((bucket, start)) if start <= now => self.open(bucket, start),
                _ => {
                    self.elapsed = self.elapsed.max(now);
                    return None;
                }
            }
        }
    }

    /// The tokens that the next calls of [`Wheel::poll`] will return, as far as they are known without a search.
    pub fn due(&self) -> impl Iterator<Item = u32> {
        let nodes = &self.nodes;
        let first = nodes.get(self.due as usize);
        std::iter::successors(first, |node| nodes.get(node.next as usize)).map(|node| node.token)
    }

    /// Returns when to poll next: never later than the earliest deadline, sometimes earlier (a far deadline moves closer in steps).
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.due != NONE {
            return Some(Instant::from_ms(self.elapsed));
        }
        self.next_bucket().map(|(_, start)| Instant::from_ms(start))
    }

    /// Returns the number of existing timers: 0 when all is quiet.
    pub fn added(&self) -> usize {
        self.added
    }

    /// Returns the number of timers that will fire.
    #[cfg(test)]
    fn armed(&self) -> usize {
        self.armed
    }

    /// Checks what must hold between two calls: each armed timer is in the list of its bucket, whose bit is set, and no other bit
    /// is.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        let (mut armed, mut first, mut free) = (0, 0, 0);
        for index in 0..self.nodes.len() as u32 {
            let node = &self.nodes[index as usize];
            if node.bucket == IDLE {
                continue;
            }
            armed += 1;
            let bucket = node.bucket as usize;
            let (head, is_marked) = match bucket.checked_sub(NEAR) {
                _ if node.bucket == DUE => (self.due, true),
                None => {
                    let is_marked = self.near.words[bucket / 64] >> (bucket % 64) & 1 == 1;
                    (self.near.heads[bucket], is_marked)
                }
                Some(far) => {
                    let level = &self.levels[far / SLOTS];
                    let is_marked = level.occupied >> (far % SLOTS) & 1 == 1;
                    (level.heads[far % SLOTS], is_marked)
                }
            };
            assert!(is_marked, "timer {index}: bucket {bucket} is not marked");
            match node.prev {
                NONE => {
                    first += 1;
                    assert_eq!(head, index, "the first timer of bucket {bucket}");
                }
                prev => {
                    let prev = &self.nodes[prev as usize];
                    assert!(prev.next == index && prev.bucket == node.bucket, "timer {index}");
                }
            }
            if node.next != NONE {
                assert_eq!(self.nodes[node.next as usize].prev, index, "behind timer {index}");
            }
            assert!(node.deadline >= self.elapsed || node.bucket == DUE, "timer {index} was passed over");
        }
        assert_eq!(armed, self.armed, "timers that are armed");
        let near: u32 = self.near.words.iter().map(|word| word.count_ones()).sum();
        let far: u32 = self.levels.iter().map(|level| level.occupied.count_ones()).sum();
        let lists = near + far + u32::from(self.due != NONE);
        assert_eq!(first, lists, "buckets that are marked, and those that hold timers");
        let mut next = self.free;
        while let Some(node) = self.nodes.get(next as usize) {
            assert_eq!(node.bucket, IDLE, "timer {next} is free and armed");
            (next, free) = (node.next, free + 1);
        }
        assert_eq!(free + self.added, self.nodes.len(), "timers that are free");
    }

    /// Returns the occupied bucket that begins first, and when. At equal times an upper level goes first: its timers may be due as
    /// early.
    fn next_bucket(&self) -> Option<(u32, u64)> {
        let far = self.next_far();
        let here = self.elapsed as usize % NEAR;
        let Some(ahead) = self.near.next(here) else {
            return far;
        };
        let start = self.elapsed + ahead as u64;
        match far {
            Some((_, begins)) if begins <= start => far,
            _ => Some((((here + ahead) % NEAR) as u32, start)),
        }
    }

    fn next_far(&self) -> Option<(u32, u64)> {
        for (number, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = shift(number);
            let here = (self.elapsed >> shift) as u32 % SLOTS as u32;
            let ahead = level.occupied.rotate_right(here).trailing_zeros();
            let slot = (here + ahead) as usize % SLOTS;
            let span = 1u64 << shift;
            let round = self.elapsed & !((span << BITS) - 1);
            let mut start = round + slot as u64 * span;
            if start + span <= self.elapsed {
                start += span << BITS;
            }
            let bucket = NEAR + number * SLOTS + slot;
            return Some((bucket as u32, start.max(self.elapsed)));
        }
        None
    }

    /// Moves a bucket's timers to the due list or to lower levels.
    fn open(&mut self, bucket: u32, start: u64) {
        self.elapsed = self.elapsed.max(start);
        let mut index = std::mem::replace(self.head(bucket), NONE);
        self.vacate(bucket);
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    fn head(&mut self, bucket: u32) -> &mut u32 {
        let bucket = bucket as usize;
        match bucket.checked_sub(NEAR) {
            None => &mut self.near.heads[bucket],
            Some(far) => &mut self.levels[far / SLOTS].heads[far % SLOTS],
        }
    }

    /// Marks this bucket as empty.
    fn vacate(&mut self, bucket: u32) {
        let bucket = bucket as usize;
        match bucket.checked_sub(NEAR) {
            None => self.near.clear(bucket),
            Some(far) => self.levels[far / SLOTS].occupied &= !(1 << (far % SLOTS)),
        }
    }

    fn place(&mut self, index: u32) {
        let deadline = self.nodes[index as usize].deadline;
        let (bucket, head) = if deadline <= self.elapsed {
            (DUE, &mut self.due)
        } else if deadline - self.elapsed < NEAR as u64 {
            let slot = deadline as usize % NEAR;
            self.near.set(slot);
            (slot as u32, &mut self.near.heads[slot])
        } else {
            // This far ahead, the two differ above the lowest level's bits.
            let differs = 63 - (self.elapsed ^ deadline).leading_zeros();
            let number = ((differs.saturating_sub(NEAR_BITS) / BITS) as usize).min(LEVELS - 1);
            let slot = (deadline >> shift(number)) as usize % SLOTS;
            let level = &mut self.levels[number];
            level.occupied |= 1 << slot;
            let bucket = NEAR + number * SLOTS + slot;
            (bucket as u32, &mut level.heads[slot])
        };
        let second = std::mem::replace(head, index);
        if second != NONE {
            self.nodes[second as usize].prev = index;
        }
        let node = &mut self.nodes[index as usize];
        node.bucket = bucket;
        node.prev = NONE;
        node.next = second;
    }

    fn unlink(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let (next, prev, bucket) = (node.next, node.prev, node.bucket);
        node.bucket = IDLE;
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev != NONE {
            self.nodes[prev as usize].next = next;
        } else if bucket == DUE {
            self.due = next;
        } else {
            *self.head(bucket) = next;
            if next == NONE {
                self.vacate(bucket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    #[test]
    fn fires_at_its_time_and_not_before() {
        for deadline in [1, 63, 64, 65, 4095, 4096, 32_000, 65_535, 65_536, 180_000, 4_194_304, 300_000_000] {
            let mut wheel = Wheel::default();
            assert_eq!(wheel.poll(at(0)), None);
            let timer = wheel.add(9);
            wheel.arm(&timer, at(deadline));
            assert_eq!(wheel.poll(at(deadline - 1)), None, "{deadline}");
            assert!(wheel.next_timeout().unwrap() <= at(deadline));
            assert_eq!(wheel.poll(at(deadline)), Some(9), "{deadline}");
            assert_eq!(wheel.poll(at(deadline)), None);
            wheel.remove(timer);
            assert_eq!((wheel.added(), wheel.armed()), (0, 0));
        }
    }

    #[test]
    fn a_cancelled_timer_never_fires_even_when_it_is_due() {
        let mut wheel = Wheel::default();
        let (a, b) = (wheel.add(1), wheel.add(2));
        wheel.arm(&a, at(5));
        wheel.arm(&b, at(5));
        let first = wheel.poll(at(10)).unwrap();
        wheel.cancel(if first == 1 { &b } else { &a });
        assert_eq!(wheel.poll(at(10)), None);
        assert_eq!(wheel.next_timeout(), None);
    }

    /// Random arms, re-arms, cancels and jumps of time against a sorted list.
    #[test]
    fn against_a_naive_model() {
        for seed in 0..64 {
            let mut rng = Rng::new(seed);
            let mut wheel = Wheel::default();
            let mut now = 0;
            let mut timers: Vec<(TimerId, Option<u64>)> = Vec::new();
            for step in 0..3000u32 {
                match rng.below(8) {
                    0 | 1 if timers.len() < 200 => {
                        timers.push((wheel.add(timers.len() as u32), None));
                    }
                    2..=4 if !timers.is_empty() => {
                        let index = rng.below(timers.len() as u64) as usize;
                        let reach = [3, 100, 5000, 66_000, 400_000, 20_000_000][rng.below(6) as usize];
                        let deadline = (now + rng.below(reach)).saturating_sub(rng.below(3));
                        wheel.arm(&timers[index].0, at(deadline));
                        timers[index].1 = Some(deadline);
                    }
                    5 if !timers.is_empty() => {
                        let index = rng.below(timers.len() as u64) as usize;
                        wheel.cancel(&timers[index].0);
                        timers[index].1 = None;
                    }
                    _ => {
                        now += [0, 1, 7, 900, 65_536, 70_000][rng.below(6) as usize];
                        let mut fired = Vec::new();
                        while let Some(token) = wheel.poll(at(now)) {
                            fired.push(token);
                        }
                        fired.sort_unstable();
                        let mut due = Vec::new();
                        for (index, (_, deadline)) in timers.iter_mut().enumerate() {
                            if deadline.is_some_and(|d| d <= now) {
                                due.push(index as u32);
                                *deadline = None;
                            }
                        }
                        assert_eq!(fired, due, "seed {seed} step {step} now {now}");
                    }
                }
                let earliest = timers.iter().filter_map(|(_, d)| *d).min();
                match (wheel.next_timeout(), earliest) {
                    (None, None) => {}
                    (Some(hint), Some(deadline)) => {
                        assert!(hint.as_ms() <= deadline.max(now), "seed {seed} step {step}")
                    }
                    other => panic!("seed {seed} step {step}: {other:?}"),
                }
                assert_eq!(wheel.armed(), timers.iter().filter(|(_, d)| d.is_some()).count());
            }
            for (timer, _) in timers {
                wheel.remove(timer);
            }
            assert_eq!((wheel.added(), wheel.armed()), (0, 0));
        }
    }

    #[cfg(debug_assertions)]
    #[test]
    fn what_is_spoilt_is_found() {
        let caught = |what: &str, spoil: &dyn Fn(&mut Wheel, &TimerId)| {
            let mut wheel = Wheel::default();
            let timers: Vec<_> = (0..4).map(|token| wheel.add(token)).collect();
            for (timer, ms) in timers.iter().zip([5, 5, 100_000]) {
                wheel.arm(timer, at(ms));
            }
            wheel.check();
            spoil(&mut wheel, &timers[0]);
            crate::base::tests::assert_panics(what, || wheel.check());
        };
        caught("is not marked", &|wheel, _| wheel.vacate(5));
        caught("timers that are armed", &|wheel, _| wheel.armed += 1);
        caught("timer 0", &|wheel, timer| wheel.nodes[timer.0 as usize].prev = 2);
        caught("buckets that are marked", &|wheel, _| wheel.near.set(77));
        caught("timers that are free", &|wheel, _| wheel.added -= 1);
        caught("was passed over", &|wheel, _| wheel.elapsed = 50_000);
    }
}

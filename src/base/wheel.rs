//! A hierarchical timing wheel: O(1) to arm and to cancel, no allocation once warm, and what was cancelled never fires.

use super::chunks::Chunks;
use super::time::Instant;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;
/// Bucket numbers beyond the wheel's own.
const IDLE: u16 = u16::MAX;
const DUE: u16 = u16::MAX - 1;
/// The farthest deadline that the levels span, in milliseconds from now (2^42: 139 years).
const HORIZON: u64 = (1 << (BITS * LEVELS as u32)) - 1;

/// A timer that its owner made with [`Wheel::add`]. Not `Copy`: one owner, one [`Wheel::remove`].
#[derive(Debug, PartialEq, Eq)]
pub struct TimerId(u32);

impl TimerId {
    /// No timer: what stays in a record whose timer was taken back.
    pub const GONE: TimerId = TimerId(NONE);
}

struct Node {
    next: u32,
    prev: u32,
    deadline: u64,
    token: u32,
    bucket: u16,
}

struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
}

/// The timers of one worker. Resolution: one millisecond.
pub struct Wheel {
    nodes: Chunks<Node>,
    free: u32,
    added: usize,
    armed: usize,
    elapsed: u64,
    due: u32,
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
            levels: std::array::from_fn(|_| Level {
                occupied: 0,
                heads: [NONE; SLOTS],
            }),
        }
    }
}

impl Wheel {
    /// A new timer, not armed. `token` comes back when it fires.
    pub fn add(&mut self, token: u32) -> TimerId {
        let fresh = Node {
            next: NONE,
            prev: NONE,
            deadline: 0,
            token,
            bucket: IDLE,
        };
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

    /// Takes the timer back, armed or not.
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

    /// The token of the next timer that is due at `now`, or `None`; to be called until `None`.
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
                Some((level, slot, start)) if start <= now => self.open(level, slot, start),
                _ => {
                    self.elapsed = self.elapsed.max(now);
                    return None;
                }
            }
        }
    }

    /// The tokens that the next calls of [`Wheel::poll`] will bring, as far as they are known without a search.
    pub fn due(&self) -> impl Iterator<Item = u32> {
        let nodes = &self.nodes;
        let first = nodes.get(self.due as usize);
        std::iter::successors(first, |node| nodes.get(node.next as usize)).map(|node| node.token)
    }

    /// When to poll next: never later than the earliest deadline, sometimes earlier (a far deadline moves closer in steps).
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.due != NONE {
            return Some(Instant::from_ms(self.elapsed));
        }
        self.next_bucket()
            .map(|(_, _, start)| Instant::from_ms(start))
    }

    /// Timers that exist: 0 when all is quiet.
    pub fn added(&self) -> usize {
        self.added
    }

    /// Timers that will fire.
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// The earliest occupied bucket: level, slot, and the moment at which it begins.
    fn next_bucket(&self) -> Option<(usize, usize, u64)> {
        for (number, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = BITS * number as u32;
            let here = (self.elapsed >> shift) as u32 % SLOTS as u32;
            let ahead = level.occupied.rotate_right(here).trailing_zeros();
            let slot = (here + ahead) as usize % SLOTS;
            let span = 1u64 << shift;
            let round = self.elapsed & !((span << BITS) - 1);
            let mut start = round + slot as u64 * span;
            if start + span <= self.elapsed {
                start += span << BITS;
            }
            return Some((number, slot, start.max(self.elapsed)));
        }
        None
    }

    /// Moves a bucket's timers to the due list or to lower levels.
    fn open(&mut self, level: usize, slot: usize, start: u64) {
        self.elapsed = self.elapsed.max(start);
        let mut index = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
        self.levels[level].occupied &= !(1 << slot);
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    fn place(&mut self, index: u32) {
        let deadline = self.nodes[index as usize].deadline;
        let (bucket, head) = if deadline <= self.elapsed {
            (DUE, &mut self.due)
        } else {
            let distance = (self.elapsed ^ deadline) | (SLOTS as u64 - 1);
            let level = (((63 - distance.leading_zeros()) / BITS) as usize).min(LEVELS - 1);
            let slot = (deadline >> (BITS * level as u32)) as usize % SLOTS;
            self.levels[level].occupied |= 1 << slot;
            (
                (level * SLOTS + slot) as u16,
                &mut self.levels[level].heads[slot],
            )
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
            let (level, slot) = (bucket as usize / SLOTS, bucket as usize % SLOTS);
            self.levels[level].heads[slot] = next;
            if next == NONE {
                self.levels[level].occupied &= !(1 << slot);
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
        for deadline in [1, 63, 64, 65, 4095, 4096, 32_000, 180_000, 300_000_000] {
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
                        let reach = [3, 100, 5000, 400_000][rng.below(4) as usize];
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
                        now += [0, 1, 7, 900, 70_000][rng.below(5) as usize];
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
                assert_eq!(
                    wheel.armed(),
                    timers.iter().filter(|(_, d)| d.is_some()).count()
                );
            }
            for (timer, _) in timers {
                wheel.remove(timer);
            }
            assert_eq!((wheel.added(), wheel.armed()), (0, 0));
        }
    }
}

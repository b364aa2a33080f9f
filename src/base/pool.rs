//! Bytes that outlive one turn of the loop, in reused blocks of a few sizes: storing a message allocates nothing once warm. Blocks
//! that have not been needed for a while are freed, a few at a time.

use super::chunks::Chunks;
use super::time::Instant;

/// Block sizes in bytes. Anything longer than the last does not fit ([`Pool::store`] returns `None`).
const SIZES: [usize; 14] = [128, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768, 65536, 131_072];

/// How long a free block must have been surplus before it is freed. A load that comes and goes within that time finds its blocks
/// still there.
const SPARE_MS: u64 = 8000;

/// Free blocks of this total size are kept however long they are unused.
const KEPT_BYTES: usize = 1 << 20;

/// At most this much, in this many blocks, is freed at a time, and again after [`TRIM_EVERY_MS`].
const TRIM_BYTES: usize = 32 << 20;
const TRIM_BLOCKS: usize = 4096;
const TRIM_EVERY_MS: u64 = 50;

/// Bytes held by a [`Pool`]. Dropping one without [`Pool::release`] leaks its block, so it is not `Copy`.
#[derive(Debug, Default)]
pub struct Blob {
    index: u32,
    /// The number of bytes, and in the low bits the class of the block; 0: no block. There are many records with blobs in them.
    len_and_class: u32,
}

/// Bits of [`Blob`] that say which of [`SIZES`] it has.
const CLASS_BITS: u32 = 4;

const _: () = assert!(SIZES.len() <= 1 << CLASS_BITS && Pool::MAX < 1 << (32 - CLASS_BITS));

impl Blob {
    /// No bytes, no block.
    pub const EMPTY: Blob = Blob { index: 0, len_and_class: 0 };

    pub fn len(&self) -> usize {
        (self.len_and_class >> CLASS_BITS) as usize
    }

    pub fn is_empty(&self) -> bool {
        !self.is_held()
    }

    /// True if it holds a block.
    pub fn is_held(&self) -> bool {
        self.len_and_class != 0
    }

    fn class(&self) -> usize {
        self.len_and_class as usize & ((1 << CLASS_BITS) - 1)
    }
}

#[derive(Default)]
struct Class {
    blocks: Chunks<Box<[u8]>>,
    free: Vec<u32>,
    /// Slots in `blocks` whose block was freed.
    hollow: Vec<u32>,
    /// The fewest free blocks since the last check: this many were never needed.
    spare: usize,
}

/// The pool of one worker. Blocks are kept for reuse; the last one freed is the first one taken.
#[derive(Default)]
pub struct Pool {
    classes: [Class; SIZES.len()],
    held: usize,
    /// Bytes of the blocks in use, and of the free ones.
    held_bytes: usize,
    free_bytes: usize,
    /// How many bytes may be in use; 0: any number.
    limit: usize,
    /// Blocks of each class that are to be freed.
    surplus: [usize; SIZES.len()],
    trim_at: Option<Instant>,
}

impl Pool {
    /// The longest run of bytes that fits.
    pub const MAX: usize = SIZES[SIZES.len() - 1];

    /// Limits what is stored from now on: the bytes of the blocks in use; 0: no limit.
    pub fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Copies the bytes into a block. `None` if they are longer than [`Pool::MAX`], or the limit is reached.
    pub fn store(&mut self, bytes: &[u8]) -> Option<Blob> {
        if bytes.is_empty() {
            return Some(Blob::EMPTY);
        }
        let number = SIZES.iter().position(|size| bytes.len() <= *size)?;
        let size = SIZES[number];
        if self.limit > 0 && self.held_bytes + size > self.limit {
            return None;
        }
        let class = &mut self.classes[number];
        let index = match class.free.pop() {
            Some(index) => {
                self.free_bytes -= size;
                class.spare = class.spare.min(class.free.len());
                index
            }
            None => class.grow(size),
        };
        class.blocks[index as usize][..bytes.len()].copy_from_slice(bytes);
        self.held += 1;
        self.held_bytes += size;
        Some(Blob { index, len_and_class: (bytes.len() as u32) << CLASS_BITS | number as u32 })
    }

    pub fn get(&self, blob: &Blob) -> &[u8] {
        if !blob.is_held() {
            return &[];
        }
        &self.classes[blob.class()].blocks[blob.index as usize][..blob.len()]
    }

    /// Returns the block to the pool and leaves `blob` empty. Releasing an empty blob does nothing.
    pub fn release(&mut self, blob: &mut Blob) {
        let blob = std::mem::take(blob);
        if blob.is_held() {
            let number = blob.class();
            self.classes[number].free.push(blob.index);
            self.held -= 1;
            self.held_bytes -= SIZES[number];
            self.free_bytes += SIZES[number];
        }
    }

    /// Returns the number of blobs in use: 0 when all is quiet.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns the bytes of the blocks in use.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Returns the bytes of all blocks, including free ones.
    pub fn bytes(&self) -> usize {
        self.held_bytes + self.free_bytes
    }

    /// Checks that the counters agree with the blocks.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        let (mut held, mut held_bytes, mut free_bytes) = (0, 0, 0);
        for (class, size) in self.classes.iter().zip(SIZES) {
            let out = class.blocks.len() - class.free.len() - class.hollow.len();
            (held, held_bytes) = (held + out, held_bytes + out * size);
            free_bytes += class.free.len() * size;
            assert!(class.spare <= class.free.len(), "spare blocks of {size} bytes");
        }
        assert_eq!(
            (held, held_bytes, free_bytes),
            (self.held, self.held_bytes, self.free_bytes),
            "blocks that are out, their bytes, and bytes of those that are free"
        );
    }

    /// Returns when [`Pool::trim`] has something to do, as far as is known. `None`: not before more has been released.
    pub fn next_trim(&self) -> Option<Instant> {
        self.trim_at
    }

    /// True if more is to be freed soon.
    pub fn is_trimming(&self) -> bool {
        self.surplus.iter().any(|surplus| *surplus > 0)
    }

    /// Frees blocks that have not been needed for [`SPARE_MS`], a bounded number at a time. Returns the bytes freed.
    pub fn trim(&mut self, now: Instant) -> usize {
        let due = match self.trim_at {
            Some(due) => due,
            None if self.free_bytes <= KEPT_BYTES => return 0,
            // From now on the number of blocks that are never needed is tracked.
            None => {
                self.look();
                self.surplus = [0; SIZES.len()];
                self.trim_at = Some(now.after_ms(SPARE_MS));
                return 0;
            }
        };
        if now < due {
            return 0;
        }
        if !self.is_trimming() {
            self.look();
        }
        let gone = self.give_back();
        self.trim_at = match self.is_trimming() {
            _ if self.free_bytes <= KEPT_BYTES => None,
            true => Some(now.after_ms(TRIM_EVERY_MS)),
            false => Some(now.after_ms(SPARE_MS)),
        };
        gone
    }

    /// Blocks not needed since the last check are surplus.
    fn look(&mut self) {
        for (class, surplus) in self.classes.iter_mut().zip(&mut self.surplus) {
            *surplus = class.spare;
            class.spare = class.free.len();
        }
    }

    fn give_back(&mut self) -> usize {
        let (mut gone, mut blocks) = (0, 0);
        let classes = self.classes.iter_mut().zip(&mut self.surplus).zip(SIZES);
        // The largest first: a few of those are worth many of the others.
        for ((class, surplus), size) in classes.rev() {
            while *surplus > 0
                && gone < TRIM_BYTES
                && blocks < TRIM_BLOCKS
                && self.free_bytes > KEPT_BYTES
                && let Some(index) = class.free.pop()
            {
                class.blocks[index as usize] = Box::default();
                class.hollow.push(index);
                class.spare = class.spare.min(class.free.len());
                *surplus -= 1;
                self.free_bytes -= size;
                gone += size;
                blocks += 1;
            }
        }
        if self.free_bytes <= KEPT_BYTES {
            self.surplus = [0; SIZES.len()];
        }
        gone
    }
}

impl Class {
    /// Adds a block and returns its slot.
    fn grow(&mut self, size: usize) -> u32 {
        let block = vec![0; size].into();
        match self.hollow.pop() {
            Some(index) => {
                self.blocks[index as usize] = block;
                index
            }
            None => {
                self.free.reserve(self.blocks.len() + 1);
                self.blocks.push(block) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_reused_and_contents_kept() {
        let mut pool = Pool::default();
        let mut a = pool.store(&[1; 500]).unwrap();
        let mut b = pool.store(&[2; 512]).unwrap();
        assert_eq!(pool.get(&a), &[1; 500]);
        pool.release(&mut a);
        pool.release(&mut a);
        assert_eq!(pool.held(), 1);
        let mut c = pool.store(&[3; 400]).unwrap();
        assert_eq!(pool.get(&b), &[2; 512]);
        assert_eq!(pool.get(&c), &[3; 400]);
        assert_eq!(pool.classes[3].blocks.len(), 2, "the freed block was taken again");
        pool.release(&mut b);
        pool.release(&mut c);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn too_long_is_refused_and_empty_costs_nothing() {
        let mut pool = Pool::default();
        assert!(pool.store(&vec![0; Pool::MAX + 1]).is_none());
        let empty = pool.store(b"").unwrap();
        assert_eq!(pool.get(&empty), b"");
        assert_eq!(pool.held(), 0);
    }

    /// Stores `count` blobs of `len` bytes and frees them again.
    fn peak(pool: &mut Pool, count: usize, len: usize) {
        let blobs: Vec<Blob> = (0..count).map(|_| pool.store(&vec![7; len]).unwrap()).collect();
        for mut blob in blobs {
            pool.release(&mut blob);
        }
    }

    /// Trims whenever it is due, until `until_ms`.
    fn rest(pool: &mut Pool, from_ms: u64, until_ms: u64) -> usize {
        let (mut gone, mut now) = (0, Instant::from_ms(from_ms));
        gone += pool.trim(now);
        while let Some(due) = pool.next_trim()
            && due <= Instant::from_ms(until_ms)
        {
            now = due;
            let bytes = pool.trim(now);
            assert!(bytes <= TRIM_BYTES + SIZES[SIZES.len() - 1]);
            gone += bytes;
        }
        gone
    }

    #[test]
    fn after_a_peak_the_memory_goes_back_a_bounded_part_at_a_time() {
        let mut pool = Pool::default();
        let mut kept = pool.store(&[9; 60_000]).unwrap();
        peak(&mut pool, 1000, 60_000);
        assert_eq!(pool.bytes(), 1001 * 65_536);
        assert_eq!(pool.held_bytes(), 65_536);
        assert_eq!(rest(&mut pool, 0, SPARE_MS - 1), 0, "somebody may come back");
        let gone = rest(&mut pool, SPARE_MS, 3 * SPARE_MS);
        assert!(gone > 998 * 65_536 - KEPT_BYTES, "{gone}");
        assert!(pool.bytes() <= KEPT_BYTES + 65_536, "{}", pool.bytes());
        assert_eq!(pool.next_trim(), None, "nothing is left to be done");
        assert_eq!(pool.get(&kept), &[9; 60_000]);
        // Slots whose block was freed are reused.
        peak(&mut pool, 1000, 60_000);
        assert_eq!(pool.classes[12].blocks.len(), 1001);
        pool.release(&mut kept);
        assert_eq!((pool.held(), pool.held_bytes()), (0, 0));
    }

    #[test]
    fn what_is_needed_now_and_then_stays() {
        let mut pool = Pool::default();
        for turn in 0..40u64 {
            peak(&mut pool, 300, 8000);
            assert_eq!(rest(&mut pool, turn * 4000, turn * 4000 + 3999), 0);
        }
        assert_eq!(pool.bytes(), 300 * 8192);
        // A smaller load keeps what it needs, and no more.
        for turn in 40..80u64 {
            peak(&mut pool, 200, 8000);
            rest(&mut pool, turn * 4000, turn * 4000 + 3999);
        }
        assert_eq!(pool.bytes(), 200 * 8192);
    }

    #[cfg(debug_assertions)]
    #[test]
    fn what_is_spoilt_is_found() {
        let mut pool = Pool::default();
        let _blobs = [1, 500, 5000].map(|len| pool.store(&vec![1; len]));
        pool.check();
        pool.held_bytes -= 1;
        crate::base::tests::assert_panics("blocks that are out", || pool.check());
        pool.held_bytes += 1;
        pool.classes[0].free.push(0);
        crate::base::tests::assert_panics("blocks that are out", || pool.check());
    }
}

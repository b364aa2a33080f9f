//! Bytes that outlive one turn of the loop, in reused blocks of a few sizes: storing a message allocates nothing once warm.

use super::chunks::Chunks;

/// Block sizes in bytes. What is longer than the last one does not fit ([`Pool::store`] says so).
const SIZES: [usize; 14] = [
    128, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768, 65536, 131_072,
];

/// Bytes held by a [`Pool`]. Dropping one without [`Pool::release`] leaks its block, so it is not `Copy`.
#[derive(Debug, Default)]
pub struct Blob {
    index: u32,
    len: u32,
    class: u8,
    held: bool,
}

impl Blob {
    /// No bytes, no block.
    pub const EMPTY: Blob = Blob {
        index: 0,
        len: 0,
        class: 0,
        held: false,
    };

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Default)]
struct Class {
    blocks: Chunks<Box<[u8]>>,
    free: Vec<u32>,
}

/// The pool of one worker. Blocks are kept for reuse; the last one freed is the first one taken.
#[derive(Default)]
pub struct Pool {
    classes: [Class; SIZES.len()],
    held: usize,
}

impl Pool {
    /// The longest run of bytes that fits.
    pub const MAX: usize = SIZES[SIZES.len() - 1];

    /// Copies the parts, one behind the other, into a block. `None` when they are longer than [`Pool::MAX`].
    pub fn store(&mut self, bytes: &[u8]) -> Option<Blob> {
        if bytes.is_empty() {
            return Some(Blob::EMPTY);
        }
        let number = SIZES.iter().position(|size| bytes.len() <= *size)?;
        let class = &mut self.classes[number];
        let index = match class.free.pop() {
            Some(index) => index,
            None => {
                class.free.reserve(class.blocks.len() + 1);
                class.blocks.push(vec![0; SIZES[number]].into()) as u32
            }
        };
        class.blocks[index as usize][..bytes.len()].copy_from_slice(bytes);
        self.held += 1;
        Some(Blob {
            index,
            len: bytes.len() as u32,
            class: number as u8,
            held: true,
        })
    }

    pub fn get(&self, blob: &Blob) -> &[u8] {
        if !blob.held {
            return &[];
        }
        &self.classes[blob.class as usize].blocks[blob.index as usize][..blob.len as usize]
    }

    /// Gives the block back and leaves `blob` empty. Releasing an empty blob does nothing.
    pub fn release(&mut self, blob: &mut Blob) {
        let blob = std::mem::take(blob);
        if blob.held {
            self.classes[blob.class as usize].free.push(blob.index);
            self.held -= 1;
        }
    }

    /// Blobs that are out now: 0 when all is quiet.
    pub fn held(&self) -> usize {
        self.held
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
        assert_eq!(
            pool.classes[3].blocks.len(),
            2,
            "the freed block was taken again"
        );
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
}

//! A binding on its way to the disk, or from there.

use super::binding::{BindingText, Reached};
use crate::base::{Flow, Instant};

/// A binding as it goes to the disk and comes from there.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub text: BindingText<'a>,
    pub source: Option<Flow>,
    pub expires: Instant,
    pub reg_id: u32,
    pub cseq: u32,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    pub removed: bool,
    pub reached: Reached,
}

//! A binding on its way to or from the disk.

use super::binding::{BindingText, Reached};
use crate::base::{Flow, Instant};
use crate::settings::Words;

/// A binding as written to disk and read back.
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

/// As the disk, and the store that several servers share, write it.
impl Words for Reached {
    const WORDS: &'static [(&'static str, Self)] =
        &[("contact", Reached::ByContact), ("flow first", Reached::ByFlowFirst), ("flow", Reached::ByFlow)];
}

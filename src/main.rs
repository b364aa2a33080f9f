//! Arguments and sub-commands.
fn main() {}

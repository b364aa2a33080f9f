//! A lock that outlives a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A thread that panicked while it held one of the server's locks left what it guards whole: each change is one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

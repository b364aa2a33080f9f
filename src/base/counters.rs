//! Counters of one core, and their sum over the cores.

/// What is counted, and can be added up.
pub trait Counted {
    /// Adds another core's numbers.
    fn add(&mut self, other: &Self);
}

impl Counted for u64 {
    fn add(&mut self, other: &u64) {
        *self += other;
    }
}

impl Counted for usize {
    fn add(&mut self, other: &usize) {
        *self += other;
    }
}

impl<T: Counted, const LEN: usize> Counted for [T; LEN] {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.iter_mut().zip(other) {
            mine.add(theirs);
        }
    }
}

/// Declares a struct of counters, so that its sum leaves none of them out.
macro_rules! counters {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type),+ }

        impl $crate::base::Counted for $name {
            fn add(&mut self, other: &$name) {
                $(self.$field.add(&other.$field);)+
            }
        }
    };
}
pub(crate) use counters;

#[cfg(test)]
mod tests {
    use super::Counted;

    counters! {
        #[derive(Clone, Debug, PartialEq, Eq)]
        struct Inner {
            one: u64,
        }
    }

    counters! {
        #[derive(Clone, Debug, PartialEq, Eq)]
        struct Outer {
            many: [[u64; 2]; 2],
            inner: [Inner; 2],
        }
    }

    #[test]
    fn every_field_is_added() {
        let mut sum = Outer { many: [[1, 2], [3, 4]], inner: [Inner { one: 5 }, Inner { one: 6 }] };
        sum.add(&sum.clone());
        let twice = Outer { many: [[2, 4], [6, 8]], inner: [Inner { one: 10 }, Inner { one: 12 }] };
        assert_eq!(sum, twice);
    }
}

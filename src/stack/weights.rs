//! The order of places that are each to have a share of the requests (RFC 2782): by priority, and at random by weight within one
//! priority.

use crate::base::Rng;

/// Puts `list`, sorted by ascending priority, into the order in which its places are to be tried. `of` returns priority and weight.
pub fn by_weight<T>(list: &mut [T], rng: &mut Rng, of: impl Fn(&T) -> (u16, u16)) {
    let mut rest = list;
    while let Some((priority, _)) = rest.first().map(&of) {
        let same = rest.iter().map(&of).take_while(|(other, _)| *other == priority);
        let (count, sum, zeros) = same.fold((0u64, 0u64, 0u64), |(count, sum, zeros), (_, weight)| {
            (count + 1, sum + u64::from(weight), zeros + u64::from(weight == 0))
        });
        let chosen = match (sum, zeros) {
            // No shares are given: they are equal.
            (0, _) => rng.below(count) as usize,
            _ => {
                // If any weight is 0, 0 can be drawn too, which gives it a small chance.
                let drawn = match zeros {
                    0 => 1 + rng.below(sum),
                    _ => rng.below(sum + 1),
                };
                let mut running = 0;
                let reaches = |place: &T| {
                    running += u64::from(of(place).1);
                    running >= drawn
                };
                rest.iter().position(reaches).unwrap_or(0)
            }
        };
        // The skipped ones move back by one and keep their order.
        if let Some(passed) = rest.get_mut(..=chosen) {
            passed.rotate_right(1);
        }
        rest = rest.get_mut(1..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(list: &[(u16, u16)], seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..list.len()).collect();
        by_weight(&mut order, &mut Rng::new(seed), |place| list[*place]);
        order
    }

    #[test]
    fn weights_share_the_load_and_priorities_come_first() {
        let list = [(1, 0), (1, 10), (1, 30), (1, 60), (2, 5)];
        let mut first = [0u32; 5];
        for seed in 0..100_000 {
            let order = ordered(&list, seed);
            assert_eq!(order[4], 4, "the worse priority comes last");
            let mut all = order.clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4]);
            first[order[0]] += 1;
        }
        // The weight of each out of 100, where 0 can be drawn too.
        let share = |count: u32| f64::from(count) / 1000.0;
        for (count, expected) in first.iter().zip([0.99, 9.9, 29.7, 59.4, 0.0]) {
            let off = (share(*count) - expected).abs();
            assert!(off < 0.6, "{first:?}: {} for {expected} %", share(*count));
        }
    }

    #[test]
    fn small_weights_share_as_they_say() {
        let mut first = [0u32; 3];
        for seed in 0..60_000 {
            first[ordered(&[(0, 1), (0, 1), (0, 1)], seed)[0]] += 1;
        }
        assert!(first.iter().all(|count| (19_400..20_600).contains(count)), "{first:?}");
    }

    #[test]
    fn without_weights_all_are_tried_and_one_request_has_one_order() {
        let list = [(1, 0); 3];
        assert_eq!(ordered(&list, 1), ordered(&list, 1));
        let mut first = [0u32; 3];
        for seed in 0..30_000 {
            first[ordered(&list, seed)[0]] += 1;
        }
        let fair = |count: &u32| (9500..10_500).contains(count);
        assert!(first.iter().all(fair), "{first:?}");
        assert!(ordered(&[], 1).is_empty());
    }
}

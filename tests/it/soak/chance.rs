//! Random numbers that a seed repeats (SplitMix64).

use std::ops::RangeInclusive;
use std::time::Duration;

pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.within(1..=n) == 1
    }

    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.within(0..=among.len() as u64 - 1) as usize]
    }

    /// One of them, as often as its number says.
    pub fn weighed<T: Copy>(&mut self, among: &[(u64, T)]) -> T {
        let all: u64 = among.iter().map(|(weight, _)| weight).sum();
        let mut left = self.within(1..=all);
        for (weight, one) in among {
            if left <= *weight {
                return *one;
            }
            left -= weight;
        }
        unreachable!("the weights add up")
    }
}

/// Random number generator `SplitMix64`.
pub struct Random(u64);

impl Random {
    /// Creates a generator with its own sequence for each `lane`.
    pub fn new(seed: u64, lane: u64) -> Self {
        Self(seed ^ lane.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    pub fn is_one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

//! Latencies of millions of requests in a few kilobytes.

/// A value is in a bucket with others that differ from it by a 64th at most.
const BITS: u32 = 6;

/// Counts of whole numbers, in buckets that grow with the numbers.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], count: 0, max: 0 }
    }

    pub(crate) fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// Returns what `percent` of a hundred values do not exceed, rounded up to the end of its bucket; 0 where
    /// there is none.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        let rank = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return last_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let shift = value.max(1).ilog2().saturating_sub(BITS);
    ((shift as usize) << BITS) + (value >> shift) as usize
}

/// The highest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let shift = (bucket >> BITS).saturating_sub(1);
    let first = (bucket - (shift << BITS)) as u64;
    (first << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        let mut expected = 0;
        for bucket_number in 0..=bucket(u64::MAX) {
            assert_eq!(bucket(expected), bucket_number, "{expected}");
            assert_eq!(bucket(last_of(bucket_number)), bucket_number);
            let width = last_of(bucket_number) - expected;
            assert!(width <= expected >> BITS, "{expected} to {}", expected + width);
            expected = last_of(bucket_number).wrapping_add(1);
        }
        assert_eq!(expected, 0, "the last bucket ends where numbers do");
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(99.0), 0);
        let mut values: Vec<u64> = (1..=10_000).map(|n| n * n % 99_991).collect();
        for value in &values {
            histogram.add(*value);
        }
        values.sort_unstable();
        for (percent, index) in [(50.0, 4_999), (99.0, 9_899), (99.9, 9_989)] {
            let (exact, told) = (values[index], histogram.percentile(percent));
            assert!(exact <= told && told <= exact + exact / 64, "{percent}: {exact}, {told}");
        }
        assert_eq!(histogram.percentile(100.0), values[9_999]);
        assert_eq!((histogram.count(), histogram.max()), (10_000, values[9_999]));
    }
}

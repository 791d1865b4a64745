//! Somers' D of filling times against a distance, for times that may be right-censored.
//!
//! A pair of voxels at different distances is comparable if it is known which one fills first: both times known and
//! different, or the one known time not later than the censoring of the other. It is concordant if the farther one fills
//! later. D = (concordant - discordant) / (comparable, or tied in time) (Somers, American Sociological Review 27, 1962; the
//! censored pairs as in Harrell et al., JAMA 247, 1982): +1 if every voxel fills later than every nearer one.

/// When a voxel fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Time {
    /// At this time, in seconds.
    Known(f64),
    /// Not before the end of the series.
    Censored,
}

/// Somers' D of times against distances; `None` if no pair can be compared. O(n log n).
pub fn somers_d(distances: &[f64], times: &[Time]) -> Option<f64> {
    let n = distances.len();
    let mut sorted: Vec<f64> = distances.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let rank: Vec<usize> = distances.iter().map(|d| sorted.partition_point(|s| s < d)).collect();
    // From the latest to the earliest; censored ones, which all outlast the series, first.
    let seconds = |i: usize| match times[i] {
        Time::Known(t) => t,
        Time::Censored => f64::INFINITY,
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| seconds(*b).total_cmp(&seconds(*a)));
    let mut later = Counts::new(sorted.len());
    let (mut concordant, mut discordant, mut tied) = (0u64, 0u64, 0u64);
    let mut from = 0;
    while from < n {
        let time = seconds(order[from]);
        let to = from + order[from..].iter().take_while(|i| seconds(**i) == time).count();
        let group = &order[from..to];
        if time.is_finite() {
            for i in group {
                let below = later.below(rank[*i]);
                let up_to = later.below(rank[*i] + 1);
                discordant += below;
                concordant += later.total - up_to;
            }
            if group.len() > 1 {
                let mut ranks: Vec<usize> = group.iter().map(|i| rank[*i]).collect();
                ranks.sort_unstable();
                let pairs = |k: usize| (k * (k - 1) / 2) as u64;
                let same: u64 = ranks.chunk_by(|a, b| a == b).map(|equal| pairs(equal.len())).sum();
                tied += pairs(group.len()) - same;
            }
        }
        group.iter().for_each(|i| later.add(rank[*i]));
        from = to;
    }
    let all = concordant + discordant + tied;
    (all > 0).then(|| (concordant as f64 - discordant as f64) / all as f64)
}

/// Counts by rank, with their running sums (a Fenwick tree).
struct Counts {
    tree: Vec<u64>,
    total: u64,
}

impl Counts {
    fn new(ranks: usize) -> Self {
        Self { tree: vec![0; ranks + 1], total: 0 }
    }

    fn add(&mut self, rank: usize) {
        self.total += 1;
        let mut at = rank + 1;
        while at < self.tree.len() {
            self.tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }

    /// How many have a lower rank.
    fn below(&self, rank: usize) -> u64 {
        let (mut sum, mut at) = (0, rank);
        while at > 0 {
            sum += self.tree[at];
            at -= at & at.wrapping_neg();
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brute(distances: &[f64], times: &[Time]) -> Option<f64> {
        let (mut sum, mut pairs) = (0i64, 0i64);
        for i in 0..times.len() {
            for j in 0..i {
                if distances[i] == distances[j] {
                    continue;
                }
                let (near, far) = if distances[i] < distances[j] { (i, j) } else { (j, i) };
                let sign = match (times[near], times[far]) {
                    (Time::Censored, Time::Censored) => continue,
                    (Time::Known(_), Time::Censored) => 1,
                    (Time::Censored, Time::Known(_)) => -1,
                    (Time::Known(a), Time::Known(b)) => i64::from(b > a) - i64::from(b < a),
                };
                sum += sign;
                pairs += 1;
            }
        }
        (pairs > 0).then(|| sum as f64 / pairs as f64)
    }

    #[test]
    fn equals_counting_every_pair() {
        let mut state = 7u64;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for round in 0..50 {
            let n = 2 + round * 3;
            let distances: Vec<f64> = (0..n).map(|_| draw(20) as f64 / 2.0).collect();
            let times: Vec<Time> =
                (0..n).map(|_| if draw(4) == 0 { Time::Censored } else { Time::Known(draw(15) as f64) }).collect();
            let (fast, slow) = (somers_d(&distances, &times), brute(&distances, &times));
            assert_eq!(fast.is_some(), slow.is_some());
            if let (Some(fast), Some(slow)) = (fast, slow) {
                assert!((fast - slow).abs() < 1e-12, "{fast} {slow}");
            }
        }
    }

    #[test]
    fn is_one_for_a_front_and_accepts_what_never_fills() {
        let distances: Vec<f64> = (0..10).map(|i| f64::from(i / 2)).collect();
        let outward = |i: usize| if i < 6 { Time::Known(distances[i] * 3.0) } else { Time::Censored };
        let times: Vec<Time> = (0..10).map(outward).collect();
        assert_eq!(somers_d(&distances, &times), Some(1.0));
        let inward: Vec<Time> = times.iter().rev().copied().collect();
        assert_eq!(somers_d(&distances, &inward), Some(-1.0));
        assert_eq!(somers_d(&distances, &[Time::Censored; 10]), None);
        assert_eq!(somers_d(&[1.0, 1.0], &[Time::Known(1.0), Time::Known(2.0)]), None);
    }
}

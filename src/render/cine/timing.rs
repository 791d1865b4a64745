//! How long each frame is shown.

/// A GIF counts hundredths of a second, and viewers slow down what is shown for less than two of them.
const SHORTEST_CS: i64 = 2;
/// The last frame stays so much longer.
const PAUSE_CS: i64 = 100;

/// Hundredths of a second for each frame: from its time to that of the next one, at a constant speed; the last one as long
/// as the median frame, and a pause. Rounding doesn't add up: the begin of each frame is rounded, not its length.
pub(super) fn delays_cs(times_s: &[f64], frames_per_second: f64) -> Vec<u16> {
    let steps: Vec<f64> = times_s.windows(2).map(|w| w[1] - w[0]).collect();
    let mut sorted = steps.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let speed = 100.0 / (frames_per_second * median);
    let (mut shown, mut delays) = (0i64, Vec::with_capacity(times_s.len()));
    for time in &times_s[1..] {
        let until = ((time - times_s[0]) * speed).round() as i64;
        let delay = (until - shown).clamp(SHORTEST_CS, i64::from(u16::MAX));
        delays.push(delay as u16);
        shown += delay;
    }
    let last = ((median * speed).round() as i64).max(SHORTEST_CS) + PAUSE_CS;
    delays.push(last.min(i64::from(u16::MAX)) as u16);
    delays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playback_keeps_the_proportions_of_time() {
        // 3 s at 7 frames a second: 14.29 hundredths each, never more than half of one off.
        let even: Vec<f64> = (0..50).map(|i| 3.0 * f64::from(i)).collect();
        let delays = delays_cs(&even, 7.0);
        assert_eq!((delays.len(), delays[..49].iter().map(|d| u32::from(*d)).sum::<u32>()), (50, 700));
        assert!(delays[..49].iter().all(|d| (14..=15).contains(d)) && delays[49] == 114);
        // Uneven: 1 s, 1 s, 10 s; the median is 1 s.
        assert_eq!(delays_cs(&[5.0, 6.0, 7.0, 17.0], 10.0), [10, 10, 100, 110]);
        // What is too short to show borrows from what follows.
        assert_eq!(delays_cs(&[0.0, 0.01, 1.0, 2.0, 3.0], 10.0)[..4], [2, 8, 10, 10]);
    }
}

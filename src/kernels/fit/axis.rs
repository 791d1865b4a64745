//! The times of frames and of the input function's knots, merged: what a convolution walks along.

use crate::kernel::lanes::Table;

/// Two times closer than this share of the whole span are one.
const SAME_TIME: f64 = 1e-9;

/// One stretch of time on which the input function is linear, and that ends at a frame or a knot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Step {
    /// Its length: an index into [`Steps::lengths`].
    pub(in super::super) length: usize,
    /// The frame at its end, if there is one.
    pub(in super::super) frame: Option<usize>,
}

/// The steps from the input function's first knot to the last frame.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Steps {
    pub(in super::super) steps: Vec<Step>,
    /// The different lengths of steps in s; one if everything is even.
    pub(in super::super) lengths: Table,
    /// The input function at the beginning of each step, and at the end of the last one: mM.
    pub(in super::super) input: Table,
    /// Frames at or before the first knot: nothing has arrived.
    pub(in super::super) before: usize,
}

/// A piecewise-linear function: 0 before its first knot, as at the last one after it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Knots<'a> {
    pub(in super::super) times: &'a [f64],
    pub(in super::super) values: &'a [f64],
}

impl Knots<'_> {
    /// Its value at a time.
    pub(in super::super) fn at(&self, time: f64) -> f64 {
        let next = self.times.partition_point(|t| *t <= time);
        match next {
            0 => 0.0,
            n if n == self.times.len() => self.values[n - 1],
            n => {
                let share = (time - self.times[n - 1]) / (self.times[n] - self.times[n - 1]);
                self.values[n - 1] + share * (self.values[n] - self.values[n - 1])
            }
        }
    }

    /// Its integral up to each of these times, exactly.
    pub(in super::super) fn integral(&self, times: &[f64]) -> Vec<f64> {
        let mut whole = vec![0.0];
        for i in 1..self.times.len() {
            let area = 0.5 * (self.values[i] + self.values[i - 1]) * (self.times[i] - self.times[i - 1]);
            whole.push(whole[i - 1] + area);
        }
        let up_to = |time: f64| match self.times.partition_point(|t| *t <= time) {
            0 => 0.0,
            n => whole[n - 1] + 0.5 * (self.values[n - 1] + self.at(time)) * (time - self.times[n - 1]),
        };
        times.iter().map(|time| up_to(*time)).collect()
    }

    /// The integral of its integral up to each of these times, exactly.
    pub(in super::super) fn double_integral(&self, times: &[f64]) -> Vec<f64> {
        // Over a step of length d from value c and integral I: I d + c d^2 / 2 + slope d^3 / 6.
        let integrals = self.integral(self.times);
        let over = |i: usize, length: f64| {
            let slope = if i + 1 < self.times.len() {
                (self.values[i + 1] - self.values[i]) / (self.times[i + 1] - self.times[i])
            } else {
                0.0
            };
            length * (integrals[i] + length * (self.values[i] / 2.0 + length * slope / 6.0))
        };
        let mut whole = vec![0.0];
        for i in 1..self.times.len() {
            whole.push(whole[i - 1] + over(i - 1, self.times[i] - self.times[i - 1]));
        }
        let up_to = |time: f64| match self.times.partition_point(|t| *t <= time) {
            0 => 0.0,
            n => whole[n - 1] + over(n - 1, time - self.times[n - 1]),
        };
        times.iter().map(|time| up_to(*time)).collect()
    }
}

impl Steps {
    /// Merges frames and knots, the latter `delay` seconds later.
    pub(in super::super) fn new(frames: &[f64], knots: Knots<'_>, delay: f64) -> Self {
        let start = knots.times[0] + delay;
        let end = frames[frames.len() - 1];
        let same = SAME_TIME * (end - frames[0]).max(end - start);
        let before = frames.partition_point(|t| *t <= start + same);
        let mut points: Vec<(f64, Option<usize>)> = (before..frames.len()).map(|i| (frames[i], Some(i))).collect();
        points.extend(knots.times.iter().skip(1).map(|t| (t + delay, None)).filter(|(t, _)| *t < end));
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        // A knot at a frame is that frame.
        let mut merged: Vec<(f64, Option<usize>)> = Vec::with_capacity(points.len());
        for (time, frame) in points {
            match merged.last_mut() {
                Some(last) if time - last.0 <= same && (frame.is_none() || last.1.is_none()) => {
                    if frame.is_some() {
                        *last = (time, frame);
                    }
                }
                _ => merged.push((time, frame)),
            }
        }
        let mut lengths: Vec<f64> = Vec::new();
        let mut input = vec![knots.values[0]];
        let mut steps = Vec::with_capacity(merged.len());
        let mut from = start;
        for (time, frame) in merged {
            let length = time - from;
            let known = lengths.iter().position(|known| (known - length).abs() <= same);
            let length = known.unwrap_or_else(|| {
                lengths.push(length);
                lengths.len() - 1
            });
            steps.push(Step { length, frame });
            input.push(knots.at(time - delay));
            from = time;
        }
        Self { steps, lengths: lengths.into_iter().collect(), input: input.into_iter().collect(), before }
    }

    /// As shaders read it: the input function where the first step begins, then per step the input function at its end, its
    /// length, and the frame there, -1 if there is none.
    pub(in super::super) fn table(&self) -> Vec<f64> {
        let mut numbers: Vec<f64> = self.input.first().copied().into_iter().collect();
        for (step, end) in self.steps.iter().zip(self.input.iter().skip(1)) {
            numbers.extend([*end, self.lengths[step.length], step.frame.map_or(-1.0, |frame| frame as f64)]);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_frames_with_their_own_knots_have_one_length() {
        let times: Vec<f64> = (0..60).map(|i| 5.1 * f64::from(i)).collect();
        let values: Vec<f64> = times.iter().map(|t| t * (-t / 30.0).exp()).collect();
        let steps = Steps::new(&times, Knots { times: &times, values: &values }, 0.0);
        assert_eq!((steps.lengths.len(), steps.steps.len(), steps.before), (1, 59, 1));
        assert!(steps.steps.iter().enumerate().all(|(i, step)| step.frame == Some(i + 1)));
    }

    #[test]
    fn knots_between_frames_are_steps_of_their_own() {
        let knots = Knots { times: &[1.0, 1.5, 4.0], values: &[2.0, 3.0, 0.5] };
        let steps = Steps::new(&[0.0, 2.0, 3.0], knots, 0.25);
        assert_eq!(steps.before, 1);
        let frames: Vec<_> = steps.steps.iter().map(|step| step.frame).collect();
        assert_eq!(frames, [None, Some(1), Some(2)]);
        let total: f64 = steps.steps.iter().map(|step| steps.lengths[step.length]).sum();
        assert!((total - 1.75).abs() < 1e-12);
        assert_eq!(steps.input[..2], [2.0, 3.0]);
        assert_eq!(knots.at(0.9), 0.0);
        assert!((knots.integral(&[1.5, 4.0])[1] - (1.25 + 4.375)).abs() < 1e-12);
    }
}

//! How uncertain a weighted sum over voxels is when neighbouring voxels resemble each other.
//!
//! The map of filling times is one draw of a field that may vary from place to place for reasons of its own (vessels,
//! texture), smoothly. The covariance of its residuals (what a trend leaves) is estimated against distance, a model is
//! fitted to it, and the variance of the sum is the model summed over all pairs of voxels with their weights: the approach
//! of Clifford, Richardson and Hémon (Biometrics 45, 1989) and Dutilleul (Biometrics 49, 1993), with a fitted correlogram,
//! since within a small lesion the empirical one of residuals sums to nothing.

/// Voxels that pairs are formed of, at most.
const MOST_POINTS: usize = 1000;

/// Variance of `sum w_i r_i` for the residuals r at these positions (mm), their covariance falling with distance.
/// Bins are `bin_mm` wide.
pub(super) fn variance_of_sum(positions: &[[f64; 3]], weights: &[f64], residuals: &[f64], bin_mm: f64) -> f64 {
    let n = positions.len();
    if n < 2 {
        return f64::NAN;
    }
    // Evenly spread voxels stand for all.
    let step = n.div_ceil(MOST_POINTS);
    let chosen: Vec<usize> = (0..n).step_by(step).collect();
    let mut bins: Vec<Bin> = Vec::new();
    for (a, i) in chosen.iter().enumerate() {
        for j in &chosen[..a] {
            let squared: f64 = (0..3).map(|x| (positions[*i][x] - positions[*j][x]).powi(2)).sum();
            let at = (squared.sqrt() / bin_mm) as usize;
            if at >= bins.len() {
                bins.resize(at + 1, Bin::default());
            }
            let bin = &mut bins[at];
            bin.pairs += 1.0;
            bin.distance += squared.sqrt();
            bin.products += residuals[*i] * residuals[*j];
            bin.weights += weights[*i] * weights[*j];
        }
    }
    bins.retain(|bin| bin.pairs > 0.0);
    let variance = residuals.iter().map(|r| r * r).sum::<f64>() / n as f64;
    let model = fit(&bins, variance);
    let m = chosen.len() as f64;
    let scale = n as f64 * (n as f64 - 1.0) / (m * (m - 1.0)).max(1.0);
    let between: f64 = bins.iter().map(|bin| 2.0 * bin.weights * model.covariance(bin.distance / bin.pairs)).sum();
    let own: f64 = weights.iter().map(|w| w * w).sum::<f64>() * (variance + model.offset);
    (own + scale * between).max(own * 1e-3)
}

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    pairs: f64,
    distance: f64,
    products: f64,
    weights: f64,
}

/// Covariance at a distance: `sill exp(-(d / range)^power)`; the offset is what taking out a mean has subtracted.
struct Model {
    sill: f64,
    range: f64,
    power: i32,
    offset: f64,
}

impl Model {
    fn covariance(&self, distance: f64) -> f64 {
        self.sill * (-(distance / self.range).powi(self.power)).exp()
    }
}

/// Least squares over the bins, weighted by their pairs, of `sill rho(d) - offset`.
fn fit(bins: &[Bin], variance: f64) -> Model {
    let farthest = bins.iter().map(|bin| bin.distance / bin.pairs).fold(0.0, f64::max);
    let nearest = bins.iter().map(|bin| bin.distance / bin.pairs).fold(f64::INFINITY, f64::min);
    let mut best = (f64::INFINITY, Model { sill: 0.0, range: 1.0, power: 1, offset: 0.0 });
    for power in [1, 2] {
        let mut range = nearest / 2.0;
        while range <= farthest {
            let rho = |bin: &Bin| (-(bin.distance / bin.pairs / range).powi(power)).exp();
            let (mut p, mut px, mut pxx, mut py, mut pxy, mut pyy) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
            for bin in bins {
                let (x, y) = (rho(bin), bin.products / bin.pairs);
                p += bin.pairs;
                px += bin.pairs * x;
                pxx += bin.pairs * x * x;
                py += bin.pairs * y;
                pxy += bin.pairs * x * y;
                pyy += bin.pairs * y * y;
            }
            let determinant = p * pxx - px * px;
            let mut sill = if determinant > 0.0 { (p * pxy - px * py) / determinant } else { 0.0 };
            let mut offset = (sill * px - py) / p;
            if offset < 0.0 || sill < 0.0 {
                offset = 0.0;
                sill = (pxy / pxx.max(1e-300)).max(0.0);
            }
            // The residuals' variance, with what the mean took, bounds the sill.
            sill = sill.min(variance + offset);
            let squares = pyy + sill * sill * pxx + offset * offset * p - 2.0 * sill * pxy + 2.0 * offset * py
                - 2.0 * sill * offset * px;
            if squares < best.0 {
                best = (squares, Model { sill, range, power, offset });
            }
            range *= 1.25;
        }
    }
    best.1
}

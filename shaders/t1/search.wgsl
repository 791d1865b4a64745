// The search for one rate whose other parameters are linear. The Rust text (src/kernels/t1/search.rs) has the same names,
// order and guards.

// A peak on a grid: its place, its second index (a polarity switch) and its height, 0 for none.
struct Peak {
    at: f32,
    branch: f32,
    height: f32,
}

// The grid point `at` with its neighbours' heights: a peak counts by the vertex of the parabola through the three; at an
// end of the grid, or beside a point that is not allowed (height 0), by itself.
fn peak_of(at: f32, branch: f32, before: f32, height: f32, after: f32, at_end: bool) -> Peak {
    let is_peak = height > 0.0 && height >= before && height >= after;
    let bend = (height - before) + (height - after);
    let tilt = after - before;
    let curved = is_peak && !at_end && bend > 0.0 && before > 0.0 && after > 0.0;
    let rise = tilt * tilt / (8.0 * select(1.0, bend, curved));
    return Peak(at, branch, select(0.0, height + select(0.0, rise, curved), is_peak));
}

// A step that misses the bracket by less than this share of the rate is one that rounding turned.
const MARGIN: f32 = 1e-4;

// Where less than this share of the derivative's square is left when the other parameters have imitated it, 32 bits can't
// tell T1.
const LEAST_OWN_SHARE: f32 = 1e-6;

// Where a rate is looked for, and how far the last step went, relative.
struct Bracket {
    x: f32,
    low: f32,
    high: f32,
    step: f32,
}

// One step: Newton's (relative to x: `slope / curvature`) if it stays within the bracket, else to its middle.
fn narrow(bracket: ptr<function, Bracket>, slope: f32, curvature: f32) {
    let x = (*bracket).x;
    let rising = slope > 0.0;
    let low = select((*bracket).low, x, rising);
    let high = select(x, (*bracket).high, rising);
    let convex = curvature > 0.0;
    let newton = x + x * (slope / select(1.0, curvature, convex));
    let margin = x * MARGIN;
    let near = convex && newton >= low - margin && newton <= high + margin;
    let next = select(0.5 * (low + high), min(max(newton, low), high), near);
    (*bracket).step = (next - x) / x;
    (*bracket).low = low;
    (*bracket).high = high;
    (*bracket).x = next;
}

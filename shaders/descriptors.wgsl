// Semi-quantitative maps in one pass. src/kernels/descriptors/reference.rs, areas.rs and onset.rs are the definition:
// the same names, order and guards. Amplitudes are in stored units, as differences from the voxel's first sample; times are in
// seconds after the first frame; results are scaled when they are written.

struct Settings {
    baseline_start: u32,
    baseline_end: u32,
    first_segment: u32,
    noise_elsewhere: u32,
    global_onset_known: u32,
    kind_is_signal: u32,
    late_first: u32,
    recovery_start: u32,
    recovery_end: u32,
    tau_count: u32,
    dt_at: u32,
    inv_dt_at: u32,
    inv_span_at: u32,
    slope_weights_at: u32,
    slope_times_at: u32,
    early_weights_at: u32,
    early_times_at: u32,
    taus_at: u32,
    to_end_at: u32,
    t0: f32,
    inv_baseline: f32,
    inv_baseline_dof: f32,
    sqrt_inv_baseline: f32,
    final_error_factor: f32,
    slope: f32,
    intercept: f32,
    scale: f32,
    inv_scale: f32,
    direction: f32,
    sign: f32,
    noise_value: f32,
    enhancement_threshold: f32,
    onset_parameter: f32,
    global_onset: f32,
    late_from: f32,
    ratio_time_1: f32,
    ratio_time_2: f32,
    early_after_onset: f32,
    early_half_width: f32,
    log_tau_first: f32,
    log_tau_step: f32,
    inv_recovery: f32,
    inv_late: f32,
    inv_slope_window: f32,
    slope_unit: f32,
    area_unit: f32,
    moment_weights_at: u32,
    weight_sums_at: u32,
    windows: array<vec4<f32>, 2>,
    slots: array<vec4<i32>, 13>,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// What a run is, compiled in, since some drivers walk through whatever they can't rule out: `needs` as bits, a bit for every
// slot that is asked for, and settings that choose between ways.
override NEEDS: u32;
override ASKED_LOW: u32;
override ASKED_HIGH: u32;
override NOISE_FROM: u32;
override ONSET_METHOD: u32;
override SLOPE_WINDOW: u32;
override WINDOW_COUNT: u32;
override SUBFRAME: bool;
override LATE_FROM_ONSET: bool;
override EVEN: bool;

const SLOT_BASELINE: u32 = 0u;
const SLOT_BASELINE_SD: u32 = 1u;
const SLOT_PEAK_ENHANCEMENT: u32 = 2u;
const SLOT_RELATIVE_ENHANCEMENT: u32 = 3u;
const SLOT_PEAK_TIME: u32 = 4u;
const SLOT_ONSET: u32 = 5u;
const SLOT_TIME_TO_PEAK: u32 = 6u;
const SLOT_TIME_TO_FRACTION: u32 = 7u;
const SLOT_WASH_IN_SLOPE: u32 = 12u;
const SLOT_MAX_SLOPE: u32 = 13u;
const SLOT_MAX_SLOPE_TIME: u32 = 14u;
const SLOT_WASH_OUT_SLOPE: u32 = 15u;
const SLOT_LATE_SLOPE: u32 = 16u;
const SLOT_AUC: u32 = 17u;
const SLOT_AUMC: u32 = 18u;
const SLOT_MEAN_RESIDENCE_TIME: u32 = 19u;
const SLOT_FWHM: u32 = 20u;
const SLOT_FINAL_ENHANCEMENT: u32 = 21u;
const SLOT_SIGNAL_ENHANCEMENT_RATIO: u32 = 22u;
const SLOT_CURVE_TYPE: u32 = 23u;
const SLOT_PEAK_HEIGHT: u32 = 24u;
const SLOT_PERCENT_SIGNAL_RECOVERY: u32 = 25u;
const SLOT_CONTRAST_TO_NOISE: u32 = 26u;
const SLOT_BASELINE_SE: u32 = 27u;
const SLOT_ONSET_SE: u32 = 28u;
const SLOT_LATE_SLOPE_SE: u32 = 29u;
const SLOT_AUC_SE: u32 = 30u;
const SLOT_AUMC_SE: u32 = 31u;
const SLOT_FINAL_ENHANCEMENT_SE: u32 = 32u;
const SLOT_IAUC: u32 = 33u;
const SLOT_IAUC_SE: u32 = 41u;

const NEEDS_ONSET: u32 = 1u;
const NEEDS_OWN_ONSET: u32 = 2u;
const NEEDS_HALF_RISE: u32 = 4u;
const NEEDS_SLOPE: u32 = 8u;
const NEEDS_MOMENT: u32 = 32u;
const NEEDS_AREA: u32 = 64u;
const NEEDS_POSITIVE_BASELINE: u32 = 128u;

const NON_FINITE_SAMPLE: u32 = 2u;
const BASELINE_NOT_POSITIVE: u32 = 4u;
const NOT_ENHANCING: u32 = 8u;
const GLOBAL_ONSET_USED: u32 = 16u;
const NO_ONSET: u32 = 32u;
const PEAK_AT_LAST_FRAME: u32 = 64u;
const WINDOW_PAST_END: u32 = 128u;
const NOISE_NOT_FROM_BASELINE: u32 = 256u;
const NOT_IDENTIFIABLE: u32 = 8192u;
const CENSORED: u32 = 16384u;
const ONSET_NOT_BEFORE_PEAK: u32 = 32768u;
const NO_DIVISOR: u32 = 65536u;

const NOISE_FROM_BASELINE: u32 = 0u;
const NOISE_FROM_VALUE: u32 = 1u;

const ONSET_PIECEWISE_LINEAR: u32 = 0u;
const ONSET_SATURATING: u32 = 1u;
const ONSET_INTERSECTION: u32 = 2u;
const ONSET_THRESHOLD: u32 = 3u;
const ONSET_SD_THRESHOLD: u32 = 4u;
const ONSET_DERIVATIVE: u32 = 5u;

// Windows of so many samples are looked at while the peak is.
const SCANNED_WINDOW: u32 = 3u;
const NORMAL_975: f32 = 1.95996398;
// Guards a division whose result doesn't matter.
const TINY: f32 = 1e-30;

// The two voxels of a thread, while both are looked at: the first one's place in the slab, and the words of their first
// samples.
var<private> first_voxel: u32;
var<private> first_words: vec2<u32>;

// The voxel in hand: its place in the slab, the word of its first sample, and its mean over the baseline.
var<private> here: u32;
var<private> first_word: u32;
var<private> mean: f32;

fn needs(what: u32) -> bool {
    return (NEEDS & what) != 0u;
}

fn row_of(slot: u32) -> i32 {
    return uniforms.settings.slots[slot >> 2u][slot & 3u];
}

fn asked(slot: u32) -> bool {
    return ((select(ASKED_LOW, ASKED_HIGH, slot >= 32u) >> (slot & 31u)) & 1u) != 0u;
}

fn put(slot: u32, value: f32, valid: bool) {
    write_number(u32(row_of(slot)), here, value, valid);
}

// `a` where the condition holds, else `b`.
fn pick(condition: bool, a: f32, b: f32) -> f32 {
    return select(b, a, condition);
}

fn u_at(i: u32) -> f32 {
    return tables[i];
}

fn dt_at(i: u32) -> f32 {
    return tables[uniforms.settings.dt_at + i];
}

fn inv_dt_at(i: u32) -> f32 {
    return tables[uniforms.settings.inv_dt_at + i];
}

// The stored difference from the first sample, turned so that contrast agent raises it: exact for integers.
fn height_at(i: u32) -> f32 {
    return difference_of_words(stored_word(here, i), first_word, i) * uniforms.settings.sign;
}

// The same of both voxels.
fn heights_at(i: u32) -> vec2<f32> {
    return differences_at(i) * uniforms.settings.sign;
}

fn differences_at(i: u32) -> vec2<f32> {
    let words = stored_words(first_voxel, i);
    return vec2<f32>(
        difference_of_words(words.x, first_words.x, i),
        difference_of_words(words.y, first_words.y, i),
    );
}

// Signed enhancement.
fn e_at(i: u32) -> f32 {
    return (difference_of_words(stored_word(here, i), first_word, i) - mean) * uniforms.settings.sign;
}

struct Peak {
    frame: u32,
    e: f32,
    time: f32,
    enhancing: bool,
}

struct HalfRise {
    frame: u32,
    time: f32,
}

struct SteepestRise {
    slope: f32,
    time: f32,
    e: f32,
}

struct Integral {
    value: f32,
    weights: f32,
    squared_weights: f32,
}

// A time, an error or a value, and whether there is one.
struct Found {
    value: f32,
    found: bool,
}

struct Vertex {
    e: f32,
    time: f32,
}

struct Break {
    gain: f32,
    time: f32,
    found: bool,
}

// The baselines of two voxels: their means, as differences from the first samples, and standard deviations.
struct Baselines {
    mean: vec2<f32>,
    sd: vec2<f32>,
}

// Sets the two voxels of a thread.
fn find_baselines(voxel: u32) -> Baselines {
    let s = &uniforms.settings;
    first_voxel = voxel;
    first_words = stored_words(voxel, 0u);
    var sum = vec2<f32>();
    for (var i = (*s).baseline_start; i < (*s).baseline_end; i++) {
        sum += differences_at(i);
    }
    let means = sum * (*s).inv_baseline;
    var squares = vec2<f32>();
    for (var i = (*s).baseline_start; i < (*s).baseline_end; i++) {
        let deviation = differences_at(i) - means;
        squares += deviation * deviation;
    }
    return Baselines(means, sqrt(squares * (*s).inv_baseline_dof));
}

// Takes one of them in hand.
fn take(which: u32, baselines: Baselines) {
    here = first_voxel + which;
    first_word = first_words[which];
    mean = baselines.mean[which];
}

fn baseline_sd_known() -> bool {
    return uniforms.settings.baseline_end - uniforms.settings.baseline_start >= 2u;
}

fn noise(baseline_sd: f32) -> f32 {
    switch NOISE_FROM {
        case NOISE_FROM_BASELINE: {
            let floor = uniforms.settings.noise_value;
            return pick(baseline_sd_known(), max(baseline_sd, floor), floor);
        }
        case NOISE_FROM_VALUE: {
            return uniforms.settings.noise_value;
        }
        default: {
            return extra_value(0u, here) * uniforms.settings.inv_scale;
        }
    }
}

// What one pass over the frames after the baseline finds in two voxels.
struct Scan {
    frame: vec2<u32>,
    highest: vec2<f32>,
    // The largest lower one of two consecutive heights: both exceed a level if it does.
    pair: vec2<f32>,
    // Of windows of three samples that end no later than the highest one: the steepest, in weighted heights, and its place.
    slope: vec2<f32>,
    window: vec2<u32>,
    // Over the segments from the last baseline frame on: both heights, weighted for even times by 1.
    area: vec2<f32>,
}

fn window_weights(window: u32) -> vec3<f32> {
    let at = uniforms.settings.slope_weights_at + 3u * window;
    return vec3<f32>(tables[at], tables[at + 1u], tables[at + 2u]);
}

// The weight of both heights of a segment in sums over segments: for even times 1.
fn segment_weight(segment: u32) -> f32 {
    if EVEN {
        return 1.0;
    }
    return dt_at(segment) * 0.5;
}

// Looks at every sample once: with `rises` for windows of three, with `areas` for the area, too.
fn scan(rises: bool, areas: bool) -> Scan {
    let b = uniforms.settings.baseline_end;
    let frames = uniforms.slab.frames;
    // Evenly spaced frames have the same weights everywhere.
    var weights = vec3<f32>();
    var before = heights_at(b - 1u);
    var current = heights_at(b);
    if rises && b + 1u < frames {
        weights = window_weights(0u);
    }
    var found = Scan(vec2<u32>(b), current, vec2<f32>(-3.4e38), vec2<f32>(), vec2<u32>(), vec2<f32>());
    if areas {
        found.area = (before + current) * segment_weight(b - 1u);
    }
    var steepest = vec2<f32>();
    var window = vec2<u32>();
    for (var i = b + 1u; i < frames; i++) {
        let height = heights_at(i);
        let higher = height > found.highest;
        if rises {
            let place = i - b - 1u;
            if !EVEN { weights = window_weights(place); }
            let slope = before * weights.x + current * weights.y + height * weights.z;
            let steeper = (slope > steepest) | vec2<bool>(place == 0u);
            steepest = select(steepest, slope, steeper);
            window = select(window, vec2<u32>(place), steeper);
            found.slope = select(found.slope, steepest, higher);
            found.window = select(found.window, window, higher);
        }
        if areas {
            found.area += (current + height) * segment_weight(i - 1u);
        }
        found.highest = select(found.highest, height, higher);
        found.frame = select(found.frame, vec2<u32>(i), higher);
        found.pair = max(found.pair, min(current, height));
        before = current;
        current = height;
    }
    return found;
}

// The peak of the voxel in hand, the one or the other of the scanned.
fn find_peak(found: Scan, which: u32, sigma: f32) -> Peak {
    let level = mean * uniforms.settings.sign;
    let e = found.highest[which] - level;
    let twice = found.pair[which] - level > sigma * 3.0;
    let enhancing = e >= sigma * uniforms.settings.enhancement_threshold && twice;
    let frame = found.frame[which];
    return Peak(frame, e, u_at(frame), enhancing);
}

fn vertex(peak: Peak) -> Vertex {
    let i = peak.frame;
    if i + 1u >= uniforms.slab.frames {
        return Vertex(peak.e, peak.time);
    }
    let before = (e_at(i) - e_at(i - 1u)) * inv_dt_at(i - 1u);
    let after = (e_at(i + 1u) - e_at(i)) * inv_dt_at(i);
    let inv_span = 1.0 / (dt_at(i - 1u) + dt_at(i));
    let slope = (before * dt_at(i) + after * dt_at(i - 1u)) * inv_span;
    let curvature = (after - before) * inv_span;
    let risen = e_at(i - 1u) <= e_at(i);
    let bent = risen && curvature < 0.0;
    let shift = pick(bent, slope / (-2.0 * pick(bent, curvature, -1.0)), 0.0);
    return Vertex(peak.e + slope * shift * 0.5, peak.time + shift);
}

// The first frames from which on two samples reach half of the peak, of both voxels; the peak's where none does.
fn find_half_rises(baselines: Baselines, found: Scan) -> vec2<u32> {
    let sign = uniforms.settings.sign;
    // As e, not as heights: the same numbers as in the definition.
    let half = (found.highest - baselines.mean * sign) * 0.5;
    var frames = found.frame;
    var searching = vec2<bool>(true);
    var e = (differences_at(uniforms.settings.baseline_end) - baselines.mean) * sign;
    for (var i = uniforms.settings.baseline_end; i + 1u < uniforms.slab.frames; i++) {
        let next = (differences_at(i + 1u) - baselines.mean) * sign;
        let reached = searching & (min(e, next) >= half);
        frames = select(frames, vec2<u32>(i), reached);
        searching = searching & !reached;
        if !any(searching) {
            break;
        }
        e = next;
    }
    return frames;
}

// `slope` and `window` are what a scan has found of windows of three.
fn find_steepest_rise(slope: f32, window: u32, peak: Peak) -> SteepestRise {
    let s = &uniforms.settings;
    let start = (*s).baseline_end - 1u;
    let w = SLOPE_WINDOW;
    var steepest = SteepestRise(0.0, 0.0, 0.0);
    let samples = peak.frame - start + 1u;
    if w == SCANNED_WINDOW && samples >= w {
        let first = start + window;
        steepest.slope = slope * (*s).slope_unit;
        steepest.time = tables[(*s).slope_times_at + window];
        // Asked for by an onset only.
        if needs(NEEDS_OWN_ONSET) {
            steepest.e = (e_at(first) + e_at(first + 1u) + e_at(first + 2u)) * (*s).inv_slope_window;
        }
    } else if samples >= w {
        var found = false;
        for (var i = start; i + w <= peak.frame + 1u; i++) {
            var slope = 0.0;
            var sum = 0.0;
            for (var j = 0u; j < w; j++) {
                slope += height_at(i + j) * tables[(*s).slope_weights_at + (i - start) * w + j];
                sum += e_at(i + j);
            }
            if !found || slope > steepest.slope {
                let time = tables[(*s).slope_times_at + i - start];
                steepest = SteepestRise(slope, time, sum * (*s).inv_slope_window);
            }
            found = true;
        }
        steepest.slope *= (*s).slope_unit;
    } else {
        // An early peak leaves fewer samples than a window.
        for (var j = 0u; j < samples; j++) {
            steepest.slope += height_at(start + j) * tables[(*s).early_weights_at + (samples - 2u) * w + j];
            steepest.e += e_at(start + j);
        }
        steepest.time = tables[(*s).early_times_at + samples - 2u];
        steepest.e *= 1.0 / f32(samples);
    }
    return steepest;
}

// Where the curve last rises through a level before a frame, which itself is above; `before` is the frame above there.
struct Rise {
    time: f32,
    found: bool,
    before: u32,
}

fn last_upward_crossing(before: u32, level: f32) -> Rise {
    for (var i = before; i > 0u; i--) {
        let below = e_at(i - 1u);
        if below <= level {
            let rise = e_at(i) - below;
            let upward = rise > 0.0;
            let time = u_at(i - 1u) + dt_at(i - 1u) * (level - below) / pick(upward, rise, 1.0);
            return Rise(time, upward, i);
        }
    }
    return Rise(0.0, false, 0u);
}

fn first_downward_crossing(peak: Peak, level: f32) -> Found {
    for (var i = peak.frame; i + 1u < uniforms.slab.frames; i++) {
        let below = e_at(i + 1u);
        if below <= level {
            let above = e_at(i);
            let fall = above - below;
            let downward = fall > 0.0;
            return Found(u_at(i) + dt_at(i) * (above - level) / pick(downward, fall, 1.0), downward);
        }
    }
    return Found(0.0, false);
}

fn value_at(time: f32) -> Found {
    let i = segment_of(time, 0u);
    let e = e_at(i);
    let along = max(time - u_at(i), 0.0) * inv_dt_at(i);
    return Found(e + (e_at(i + 1u) - e) * along, time <= u_at(uniforms.slab.frames - 1u));
}

// Where in the curve a time lies: the segment, and how far along it from 0 to 1.
struct Place {
    segment: u32,
    left: f32,
    right: f32,
    along: f32,
}

// The last segment from one on that begins at or before a time, or that one.
fn segment_of(time: f32, first: u32) -> u32 {
    // By halving: of the segments that begin later, `above` is the first one that is known.
    var segment = first;
    var above = uniforms.slab.frames - 1u;
    while segment + 1u < above {
        let middle = (segment + above) >> 1u;
        let reached = time >= u_at(middle);
        segment = select(segment, middle, reached);
        above = select(middle, above, reached);
    }
    return segment;
}

fn place(time: f32) -> Place {
    let segment = segment_of(time, uniforms.settings.first_segment);
    let along = min(max((time - u_at(segment)) * inv_dt_at(segment), 0.0), 1.0);
    return Place(segment, height_at(segment), height_at(segment + 1u), along);
}

// The integral of the height from the segment's start.
fn part(here: Place) -> f32 {
    let rise = (here.right - here.left) * here.along;
    return dt_at(here.segment) * here.along * (here.left + rise * 0.5);
}

// The integral of time times height from the segment's start, times counted from the first frame.
fn moment_part(here: Place) -> f32 {
    let rise = (here.right - here.left) * here.along;
    let x = dt_at(here.segment) * here.along;
    return u_at(here.segment) * part(here) + x * x * (here.left * 0.5 + rise * (1.0 / 3.0));
}

// Weights of a segment's two samples in the integral over its part from a to b.
fn segment_weights(segment: u32, a: f32, b: f32) -> vec2<f32> {
    let length = b - a;
    let dt = dt_at(segment);
    let right = dt * ((b + a) * length * 0.5);
    return vec2<f32>(dt * length - right, right);
}

// The sum over whole segments of both heights, weighted for even times by 1, up to a segment and its first height.
struct Whole {
    segment: u32,
    left: f32,
    sum: f32,
}

fn none_whole(start: Place) -> Whole {
    return Whole(start.segment, start.left, 0.0);
}

// On to a later segment.
fn whole_segments(before: Whole, segment: u32) -> Whole {
    var whole = before;
    while whole.segment < segment {
        let right = height_at(whole.segment + 1u);
        whole.sum += (whole.left + right) * segment_weight(whole.segment);
        whole.left = right;
        whole.segment++;
    }
    return whole;
}

// Half the duration of a segment; 0 outside the series.
fn half_step(segment: u32) -> f32 {
    if segment + 1u >= uniforms.slab.frames {
        return 0.0;
    }
    return dt_at(segment) * 0.5;
}

// A sum over the samples from one on: 0 of the squared weights of whole segments, 1 of the products with the weights in
// the moment, 2 of those squared.
fn weight_sum(sample: u32, which: u32) -> f32 {
    return tables[uniforms.settings.weight_sums_at + 3u * sample + which];
}

// The exact integral of the piecewise-linear enhancement from the onset to the end of a window; `whole` reaches to its last
// segment.
fn window_area(start: Place, whole: Whole, end: Place, length: f32) -> Integral {
    let sum = uniforms.settings.area_unit * whole.sum;
    let value = sum + (part(end) - part(start)) - mean * uniforms.settings.sign * length;
    if end.segment == start.segment {
        let within = segment_weights(start.segment, start.along, end.along);
        return Integral(value, length, dot(within, within));
    }
    let first = segment_weights(start.segment, start.along, 1.0);
    let last = segment_weights(end.segment, 0.0, end.along);
    let ends = first.x * first.x + last.y * last.y;
    let both = first.y + last.x;
    if end.segment == start.segment + 1u {
        return Integral(value, length, ends + both * both);
    }
    let second = first.y + half_step(start.segment + 1u);
    let last_but_one = last.x + half_step(end.segment - 1u);
    let between = max(weight_sum(start.segment + 2u, 0u) - weight_sum(end.segment, 0u), 0.0);
    return Integral(value, length, ends + (second * second + between + last_but_one * last_but_one));
}

// The integral of the enhancement from the onset to the last frame, by that of the heights.
fn area_to_end(start: Place, onset_time: f32, heights: f32) -> Integral {
    let length = u_at(uniforms.slab.frames - 1u) - onset_time;
    let first = segment_weights(start.segment, start.along, 1.0);
    let second = first.y + half_step(start.segment + 1u);
    let squares = first.x * first.x + second * second + weight_sum(start.segment + 2u, 0u);
    return Integral(heights - mean * uniforms.settings.sign * length, length, squares);
}

// The exact integral of the time since the onset times the piecewise-linear enhancement, to the last frame.
fn moment(start: Place, onset_time: f32, heights: f32) -> Integral {
    let s = &uniforms.settings;
    let last = uniforms.slab.frames - 1u;
    let length = u_at(last) - onset_time;
    let half_square = length * length * 0.5;
    var sum = 0.0;
    var before = start.left;
    for (var i = start.segment; i < last; i++) {
        let at = (*s).moment_weights_at + 2u * i;
        let after = height_at(i + 1u);
        sum += before * tables[at] + after * tables[at + 1u];
        before = after;
    }
    let of_time = sum - moment_part(start);
    let value = (of_time - onset_time * heights) - mean * (*s).sign * half_square;
    let a = start.along;
    let rest_length = 1.0 - a;
    let first_moment = (1.0 + a) * rest_length * 0.5;
    let second_moment = (1.0 + a + a * a) * rest_length * (1.0 / 3.0);
    let dt = dt_at(start.segment);
    let since = u_at(start.segment) - onset_time;
    let right = dt * (since * first_moment + dt * second_moment);
    let left = dt * (since * rest_length + dt * first_moment) - right;
    let half_after = half_step(start.segment + 1u);
    let step_after = half_after + half_after;
    let second = right + step_after * ((since + dt) * 0.5 + step_after * (1.0 / 6.0));
    let after = start.segment + 2u;
    let products = weight_sum(after, 1u);
    let rest = (weight_sum(after, 2u) - onset_time * (products + products))
        + onset_time * onset_time * weight_sum(after, 0u);
    return Integral(value, half_square, left * left + second * second + max(rest, 0.0));
}

fn standard_error(area: Integral, sigma: f32) -> f32 {
    let baseline_part = area.weights * area.weights * uniforms.settings.inv_baseline;
    return sigma * sqrt(area.squared_weights + baseline_part);
}

// Writes an integral and its standard error, where they are asked for.
fn put_integral(slot: u32, error_slot: u32, integral: Integral, sigma: f32, valid: bool) {
    let scale = uniforms.settings.scale;
    if asked(slot) {
        put(slot, integral.value * scale, valid);
    }
    if asked(error_slot) {
        put(error_slot, standard_error(integral, sigma) * scale, valid);
    }
}

// Zero, then a line from a continuous break point: see onset.rs.
fn piecewise_linear(half_rise: HalfRise) -> Found {
    let first = uniforms.settings.baseline_end - 1u;
    var count = 0.0;
    var sx = 0.0;
    var sxx = 0.0;
    var sy = 0.0;
    var sxy = 0.0;
    var best_gain = 0.0;
    var best_intercept = 0.0;
    var best_slope = -1.0;
    var x_break = 0.0;
    for (var step = first; step < half_rise.frame; step++) {
        let k = half_rise.frame - 1u - (step - first);
        let x = x_break;
        let y = e_at(k + 1u);
        count += 1.0;
        sx += x;
        sxx += x * x;
        sy += y;
        sxy += x * y;
        x_break = half_rise.time - u_at(k);
        let product = x_break * sy - sxy;
        let square = x_break * (x_break * count - sx - sx) + sxx;
        let determinant = count * sxx - sx * sx;
        let slope = count * sxy - sx * sy;
        let intercept = sxx * sy - sx * sxy;
        let crosses = intercept + slope * x_break <= 0.0 && intercept + slope * x > 0.0;
        let knot = product * max(product, 0.0);
        let numerator = pick(crosses, intercept * sy + slope * sxy, knot);
        let denominator = pick(crosses, determinant, square);
        let gain = numerator / max(denominator, TINY);
        let better = gain >= best_gain;
        best_gain = pick(better, gain, best_gain);
        best_intercept = pick(better, pick(crosses, intercept, x_break), best_intercept);
        best_slope = pick(better, pick(crosses, slope, -1.0), best_slope);
    }
    return Found(half_rise.time + best_intercept / best_slope, best_gain > 0.0);
}

fn piecewise_linear_error(half_rise: HalfRise, onset: f32) -> Found {
    let a = uniforms.settings.baseline_start;
    let b = uniforms.settings.baseline_end;
    var count = 0.0;
    var sx = 0.0;
    var sxx = 0.0;
    var sxy = 0.0;
    for (var i = b; i <= half_rise.frame; i++) {
        let x = u_at(i) - onset;
        if x > 0.0 {
            count += 1.0;
            sx += x;
            sxx += x * x;
            sxy += x * e_at(i);
        }
    }
    let usable = sxx > 0.0 && sxy > 0.0;
    let slope = sxy / pick(usable, sxx, 1.0);
    var squares = 0.0;
    for (var i = a; i <= half_rise.frame; i++) {
        let line = max(slope * (u_at(i) - onset), 0.0);
        let residual = e_at(i) - pick(i >= b, line, 0.0);
        squares += residual * residual;
    }
    let dof = f32(half_rise.frame) - f32(a + 2u);
    let determinant = count * sxx - sx * sx;
    let known = usable && count >= 2.0 && dof >= 1.0 && determinant > 0.0;
    let factor = sxx / pick(known, determinant, 1.0) + uniforms.settings.inv_baseline;
    let variance = squares * factor / pick(known, dof * slope * slope, 1.0);
    return Found(sqrt(max(variance, 0.0)), known);
}

// 1 - exp(-x) for x >= 0, without cancellation at small x.
fn one_minus_exp(x: f32) -> f32 {
    let series = x * (1.0 - x * 0.5 * (1.0 - x * (1.0 / 3.0) * (1.0 - x * 0.25 * (1.0 - x * 0.2))));
    return pick(x < 0.05, series, 1.0 - exp(-x));
}

// ln(1 - w) for 0 <= w < 1, without cancellation at small w.
fn ln_one_minus(w: f32) -> f32 {
    var sum = 1.0 / 7.0;
    sum = sum * w + 1.0 / 6.0;
    sum = sum * w + 1.0 / 5.0;
    sum = sum * w + 1.0 / 4.0;
    sum = sum * w + 1.0 / 3.0;
    sum = sum * w + 1.0 / 2.0;
    sum = sum * w + 1.0;
    let small = w < 0.05;
    let rest = pick(small, 0.5, 1.0 - w);
    return pick(small, -(sum * w), log(max(rest, 1e-30)));
}

// The best break point for one time constant: see onset.rs.
fn saturating_break(peak: Peak, tau: f32) -> Break {
    let first = uniforms.settings.baseline_end - 1u;
    let inv_tau = 1.0 / tau;
    var count = 0.0;
    var mean_w = 0.0;
    var mean_y = 0.0;
    var ww = 0.0;
    var wy = 0.0;
    var best_gain = 0.0;
    var best_frame_time = 0.0;
    var best_w = 0.0;
    var found = false;
    for (var step = first; step < peak.frame; step++) {
        let k = peak.frame - 1u - (step - first);
        let rho = one_minus_exp(dt_at(k) * inv_tau);
        let kept = 1.0 - rho;
        // Sample k + 1 joins, at w = rho: its distances from the means so far.
        let below = kept * mean_w;
        let above = e_at(k + 1u) - mean_y;
        let more = count + 1.0;
        let share = 1.0 / more;
        let kept_share = count * share;
        ww = kept * kept * ww + below * below * kept_share;
        wy = kept * wy - below * above * kept_share;
        mean_w = rho + below * (1.0 - share);
        mean_y = mean_y + above * share;
        count = more;
        let slope = wy;
        let intercept = mean_y * ww - mean_w * wy;
        let crosses = count >= 2.0
            && slope > 0.0
            && intercept + slope > 0.0
            && intercept <= 0.0
            && intercept + slope * rho > 0.0;
        let swy = wy + count * mean_w * mean_y;
        let sww = ww + count * mean_w * mean_w;
        let numerator = pick(crosses, wy * wy, swy * swy);
        let denominator = pick(crosses, ww, sww);
        let usable = (crosses || swy > 0.0) && denominator > 0.0;
        let of_mean = pick(crosses, count * mean_y * mean_y, 0.0);
        let gain = of_mean + numerator / pick(usable, denominator, 1.0);
        let better = usable && (!found || gain >= best_gain);
        let w = pick(crosses, -intercept / pick(crosses, slope, 1.0), 0.0);
        best_gain = pick(better, gain, best_gain);
        best_frame_time = pick(better, u_at(k), best_frame_time);
        best_w = pick(better, w, best_w);
        found = found || better;
    }
    return Break(best_gain, best_frame_time - tau * ln_one_minus(best_w), found);
}

fn log_tau(index: f32) -> f32 {
    return uniforms.settings.log_tau_first + index * uniforms.settings.log_tau_step;
}

fn saturating(peak: Peak) -> Found {
    let s = &uniforms.settings;
    var best = 0.0;
    var best_gain = 0.0;
    var onset_before = 0.0;
    var onset_at = 0.0;
    var onset_after = 0.0;
    var previous_onset = 0.0;
    var previous_was_best = false;
    for (var j = 0u; j < (*s).tau_count; j++) {
        let found = saturating_break(peak, tables[(*s).taus_at + j]);
        onset_after = pick(previous_was_best, found.time, onset_after);
        let better = found.gain > best_gain;
        onset_before = pick(better, previous_onset, onset_before);
        onset_at = pick(better, found.time, onset_at);
        best_gain = pick(better, found.gain, best_gain);
        best = pick(better, f32(j), best);
        previous_onset = found.time;
        previous_was_best = better;
    }
    let before = saturating_squares(peak, exp(log_tau(best - 1.0)), onset_before);
    let at = saturating_squares(peak, exp(log_tau(best)), onset_at);
    let after = saturating_squares(peak, exp(log_tau(best + 1.0)), onset_after);
    let curvature = (before - at) + (after - at);
    let inner = best > 0.0 && best < f32((*s).tau_count - 1u) && curvature > 0.0;
    let vertex_shift = (before - after) * 0.5 / pick(inner, curvature, 1.0);
    let shift = pick(inner, min(max(vertex_shift, -1.0), 1.0), 0.0);
    let best_break = saturating_break(peak, exp(log_tau(best + shift)));
    return Found(best_break.time, best_break.found);
}

// The sum of squares that a saturating rise leaves from the baseline to the peak.
fn saturating_squares(peak: Peak, tau: f32, onset: f32) -> f32 {
    let inv_tau = 1.0 / tau;
    var sw = 0.0;
    var sy = 0.0;
    for (var i = uniforms.settings.baseline_end; i <= peak.frame; i++) {
        let w = one_minus_exp(max(u_at(i) - onset, 0.0) * inv_tau);
        sw += w * w;
        sy += w * e_at(i);
    }
    let amplitude = sy / pick(sw > 0.0, sw, 1.0);
    var squares = 0.0;
    for (var i = uniforms.settings.baseline_end; i <= peak.frame; i++) {
        let w = one_minus_exp(max(u_at(i) - onset, 0.0) * inv_tau);
        let residual = e_at(i) - amplitude * w;
        squares += residual * residual;
    }
    return squares;
}

fn intersection(steepest: SteepestRise) -> Found {
    let rising = steepest.slope > 0.0;
    return Found(steepest.time - steepest.e / pick(rising, steepest.slope, 1.0), rising);
}

fn deviation_threshold(level: f32) -> Found {
    for (var i = uniforms.settings.baseline_end; i + 1u < uniforms.slab.frames; i++) {
        let above = e_at(i);
        if above > level && e_at(i + 1u) > level {
            let below = e_at(i - 1u);
            // A last baseline frame above the level means an onset before it.
            let crosses = below <= level;
            let rise = pick(crosses, above - below, 1.0);
            let time = u_at(i - 1u) + dt_at(i - 1u) * (level - below) / rise;
            return Found(time, crosses && rise > 0.0);
        }
    }
    return Found(0.0, false);
}

fn central_difference(i: u32) -> f32 {
    return (e_at(i + 1u) - e_at(i - 1u)) * tables[uniforms.settings.inv_span_at + i];
}

fn derivative(peak: Peak, fraction: f32) -> Found {
    var largest = 0.0;
    var frame = 0u;
    var rising = false;
    for (var i = max(uniforms.settings.baseline_end - 1u, 1u); i + 1u < uniforms.slab.frames; i++) {
        if i <= peak.frame {
            let difference = central_difference(i);
            if difference > largest {
                largest = difference;
                frame = i;
                rising = true;
            }
        }
    }
    if !rising {
        return Found(0.0, false);
    }
    let level = largest * fraction;
    for (var i = frame - 1u; i >= 1u; i--) {
        let below = central_difference(i);
        if below <= level {
            let rise = central_difference(i + 1u) - below;
            let crosses = rise > 0.0;
            return Found(u_at(i) + dt_at(i) * (level - below) / pick(crosses, rise, 1.0), crosses);
        }
    }
    return Found(0.0, false);
}

fn find_onset(peak: Peak, half_rise: HalfRise, steepest: SteepestRise, sigma: f32, enhancing: bool) -> Found {
    if !enhancing {
        return Found(0.0, false);
    }
    let last_baseline = u_at(uniforms.settings.baseline_end - 1u);
    let parameter = uniforms.settings.onset_parameter;
    var onset = Found(0.0, false);
    switch ONSET_METHOD {
        // Fits have their break point at or after the last baseline frame; rounding may not move it before.
        case ONSET_PIECEWISE_LINEAR: {
            onset = piecewise_linear(half_rise);
            onset.value = max(onset.value, last_baseline);
        }
        case ONSET_SATURATING: {
            onset = Found(max(bitcast<f32>(read_state(0u, here)), last_baseline), read_state(1u, here) == 1u);
        }
        case ONSET_INTERSECTION: {
            onset = intersection(steepest);
        }
        case ONSET_THRESHOLD: {
            let rise = last_upward_crossing(peak.frame, peak.e * parameter);
            onset = Found(rise.time, rise.found);
        }
        case ONSET_SD_THRESHOLD: {
            onset = deviation_threshold(sigma * parameter);
        }
        case ONSET_DERIVATIVE: {
            onset = derivative(peak, parameter);
        }
        default: {
        }
    }
    return Found(onset.value, onset.found && onset.value >= last_baseline);
}

fn late_slope(peak: Peak, onset_time: f32, onset_known: bool, sigma: f32, valid: bool) -> bool {
    let s = &uniforms.settings;
    let last = uniforms.slab.frames - 1u;
    let start = onset_time + (*s).late_from;
    let e_last = e_at(last);
    let from_peak = EVEN && !LATE_FROM_ONSET;
    var count = 0.0;
    var sx = 0.0;
    var sxx = 0.0;
    var sy = 0.0;
    var sxy = 0.0;
    var first = peak.frame;
    if LATE_FROM_ONSET {
        // Of the frames at or before the start, the last; a test tells whether it counts.
        first = max(segment_of(start, 0u), (*s).baseline_end);
    }
    for (var i = first; i <= last; i++) {
        let inside = !LATE_FROM_ONSET || start <= u_at(i);
        if inside {
            let x = tables[(*s).to_end_at + i];
            let y = e_at(i) - e_last;
            sy += y;
            sxy += x * y;
            if !from_peak {
                count += 1.0;
                sx += x;
                sxx += x * x;
            }
        }
    }
    if from_peak {
        // Sums of the first whole numbers and of their squares; the area's unit is half the distance of frames.
        count = f32(last + 1u - peak.frame);
        let pairs = count * (count - 1.0);
        let spacing = 2.0 * (*s).area_unit;
        sx = pairs * (*s).area_unit;
        sxx = pairs * (count + count - 1.0) * (spacing * spacing * (1.0 / 6.0));
    }
    let known = select(valid, onset_known, LATE_FROM_ONSET) && count >= 2.0;
    let determinant = pick(known, count * sxx - sx * sx, 1.0);
    if asked(SLOT_LATE_SLOPE) {
        put(SLOT_LATE_SLOPE, (sx * sy - count * sxy) / determinant * (*s).scale, known);
    }
    if asked(SLOT_LATE_SLOPE_SE) {
        let variance = pick(known, count, 1.0) / determinant;
        put(SLOT_LATE_SLOPE_SE, sigma * (*s).scale * sqrt(max(variance, 0.0)), known);
    }
    return known;
}

fn curve_type(target_time: f32, known_target: bool, baseline: f32, sigma: f32) -> u32 {
    if !known_target {
        return 0u;
    }
    let s = &uniforms.settings;
    let frames = uniforms.slab.frames;
    var count = 0.0;
    var sum = 0.0;
    var shared_samples = 0.0;
    // Of the frames at or before the earliest early time, the last is the first that can be early by rounding.
    for (var i = segment_of(target_time - (*s).early_half_width, 0u); i < frames; i++) {
        let after = u_at(i) - target_time;
        if abs(after) <= (*s).early_half_width {
            count += 1.0;
            sum += e_at(i);
            shared_samples += pick(i >= (*s).late_first, 1.0, 0.0);
        } else if after > 0.0 {
            break;
        }
    }
    if count < 1.0 {
        // None: the nearest sample, of two as near the first.
        let segment = segment_of(target_time, 0u);
        let second = abs(target_time - u_at(segment + 1u)) < abs(target_time - u_at(segment));
        let nearest = select(segment, segment + 1u, second);
        sum = e_at(nearest);
        shared_samples = pick(nearest >= (*s).late_first, 1.0, 0.0);
        count = 1.0;
    }
    var late_sum = 0.0;
    for (var i = (*s).late_first; i < frames; i++) {
        late_sum += e_at(i);
    }
    var early = sum / count * (*s).scale;
    var late_mean = late_sum * (*s).inv_late * (*s).scale;
    let is_signal = (*s).kind_is_signal != 0u;
    if is_signal {
        early = baseline + early * (*s).direction;
        late_mean = baseline + late_mean * (*s).direction;
    }
    if !(early > 0.0) {
        return 0u;
    }
    let ratio = late_mean / early;
    let change = 100.0 * (ratio - 1.0);
    var variance = (*s).inv_late + ratio * ratio / count - 2.0 * ratio * shared_samples * (*s).inv_late / count;
    if !is_signal {
        // The baseline's noise is baseline_part to both means and remains in their ratio.
        variance += (1.0 - ratio) * (1.0 - ratio) * (*s).inv_baseline;
    }
    let error = 100.0 * NORMAL_975 * sigma / early * sqrt(max(variance, 0.0));
    if abs(change - 10.0) <= error || abs(change + 10.0) <= error {
        return 4u;
    }
    if change > 10.0 {
        return 1u;
    }
    return select(2u, 3u, change < -10.0);
}

// The search for saturating onsets takes many loop turns, so it has a dispatch of its own.
@compute @workgroup_size(64)
fn saturating_onset(@builtin(global_invocation_id) id: vec3<u32>) {
    let first = first_voxel_of(id);
    if is_outside(first) {
        return;
    }
    let baselines = find_baselines(first);
    let scanned = scan(false, false);
    for (var k = 0u; k < 2u && !is_outside(first + k); k++) {
        take(k, baselines);
        let peak = find_peak(scanned, k, noise(baselines.sd[k]));
        var onset = Found(0.0, false);
        if peak.enhancing {
            onset = saturating(peak);
        }
        write_state(0u, here, bitcast<u32>(onset.value));
        write_state(1u, here, select(0u, 1u, onset.found));
    }
}

@compute @workgroup_size(64)
fn descriptors(@builtin(global_invocation_id) id: vec3<u32>) {
    let first = first_voxel_of(id);
    if is_outside(first) {
        return;
    }
    let baselines = find_baselines(first);
    let rises = needs(NEEDS_SLOPE) && SLOPE_WINDOW == SCANNED_WINDOW;
    let scanned = scan(rises, needs(NEEDS_AREA));
    var half_rises = scanned.frame;
    if needs(NEEDS_HALF_RISE) {
        half_rises = find_half_rises(baselines, scanned);
    }
    for (var k = 0u; k < 2u && !is_outside(first + k); k++) {
        take(k, baselines);
        describe(k, baselines.sd[k], scanned, half_rises[k]);
    }
}

// Everything about the voxel in hand, one of the two that were scanned.
fn describe(which: u32, baseline_sd: f32, scanned: Scan, half_rise_frame: u32) {
    let voxel = here;
    let s = &uniforms.settings;
    let scale = (*s).scale;
    let valid = all_finite(voxel);
    let last = uniforms.slab.frames - 1u;
    let u_last = u_at(last);
    var bits = select(NON_FINITE_SAMPLE, 0u, valid);

    // Baseline.
    let baseline = (*s).slope * (number_of_word(first_word) + mean) + (*s).intercept;

    // Noise.
    let sigma = noise(baseline_sd);
    if (*s).noise_elsewhere != 0u && valid {
        bits |= NOISE_NOT_FROM_BASELINE;
    }

    // Peak.
    let peak = find_peak(scanned, which, sigma);
    let enhancing = peak.enhancing && valid;
    let at_last = peak.frame == last && valid;
    bits |= select(0u, NOT_ENHANCING, valid && !enhancing) | select(0u, PEAK_AT_LAST_FRAME, at_last);
    var e_max = peak.e;
    var peak_time = peak.time;
    if SUBFRAME {
        let top = vertex(peak);
        e_max = top.e;
        peak_time = top.time;
    }

    // Half-rise frame, steepest rise, onset.
    let half_rise = HalfRise(half_rise_frame, u_at(half_rise_frame));
    var steepest = SteepestRise(0.0, 0.0, 0.0);
    if needs(NEEDS_SLOPE) {
        steepest = find_steepest_rise(scanned.slope[which], scanned.window[which], peak);
    }
    var onset_time = (*s).global_onset;
    var onset_known = (*s).global_onset_known != 0u && valid;
    if needs(NEEDS_OWN_ONSET) {
        let own = find_onset(peak, half_rise, steepest, sigma, enhancing);
        let usable = own.found && enhancing && own.value < peak.time;
        onset_time = pick(usable, own.value, onset_time);
        bits |= select(0u, GLOBAL_ONSET_USED, valid && !usable && onset_known);
        onset_known = onset_known || usable;
        if asked(SLOT_ONSET_SE) {
            let error = piecewise_linear_error(half_rise, own.value);
            put(SLOT_ONSET_SE, error.value, error.found && usable);
            bits |= select(0u, NOT_IDENTIFIABLE, usable && !error.found);
        }
    }
    if needs(NEEDS_ONSET) {
        bits |= select(0u, NO_ONSET, valid && !onset_known);
    }
    let timed = enhancing && onset_known;
    let time_to_peak = peak_time - onset_time;
    let rising = timed && time_to_peak > 0.0;
    if needs(NEEDS_ONSET) {
        bits |= select(0u, ONSET_NOT_BEFORE_PEAK, timed && !rising);
    }

    var without_divisor = false;

    // Amplitudes and times.
    if asked(SLOT_BASELINE) {
        put(SLOT_BASELINE, baseline, valid);
    }
    if asked(SLOT_BASELINE_SE) {
        put(SLOT_BASELINE_SE, sigma * scale * (*s).sqrt_inv_baseline, valid);
    }
    if asked(SLOT_BASELINE_SD) {
        put(SLOT_BASELINE_SD, baseline_sd * scale, valid && baseline_sd_known());
    }
    if asked(SLOT_PEAK_ENHANCEMENT) {
        put(SLOT_PEAK_ENHANCEMENT, e_max * scale, valid);
    }
    if asked(SLOT_PEAK_HEIGHT) {
        put(SLOT_PEAK_HEIGHT, e_max * scale, valid);
    }
    let positive = baseline > 0.0;
    if asked(SLOT_RELATIVE_ENHANCEMENT) {
        put(SLOT_RELATIVE_ENHANCEMENT, 100.0 * (e_max * scale) / pick(positive, baseline, 1.0), valid && positive);
    }
    if needs(NEEDS_POSITIVE_BASELINE) {
        bits |= select(0u, BASELINE_NOT_POSITIVE, valid && !positive);
    }
    if asked(SLOT_PEAK_TIME) {
        put(SLOT_PEAK_TIME, peak_time + (*s).t0, enhancing);
    }
    if asked(SLOT_ONSET) {
        put(SLOT_ONSET, onset_time, timed);
    }
    if asked(SLOT_TIME_TO_PEAK) {
        put(SLOT_TIME_TO_PEAK, time_to_peak, rising);
    }
    // From the highest level down: the curve rises through a lower one no later.
    let fractions = array<f32, 5>(0.90, 0.75, 0.50, 0.25, 0.10);
    var before = peak.frame;
    if (ASKED_LOW & (31u << SLOT_TIME_TO_FRACTION)) != 0u {
        for (var i = 0u; i < 5u; i++) {
            let slot = SLOT_TIME_TO_FRACTION + 4u - i;
            if asked(slot) {
                let rise = last_upward_crossing(before, peak.e * fractions[i]);
                put(slot, rise.time - onset_time, timed && rise.found);
                before = rise.before;
            }
        }
    }
    if asked(SLOT_WASH_IN_SLOPE) {
        put(SLOT_WASH_IN_SLOPE, e_max * scale / pick(rising, time_to_peak, 1.0), rising);
    }
    if asked(SLOT_MAX_SLOPE) {
        put(SLOT_MAX_SLOPE, steepest.slope * scale, valid);
    }
    if asked(SLOT_MAX_SLOPE_TIME) {
        put(SLOT_MAX_SLOPE_TIME, steepest.time + (*s).t0, enhancing);
    }
    if asked(SLOT_WASH_OUT_SLOPE) {
        let known = enhancing && !at_last;
        let span = pick(known, peak_time - u_last, 1.0);
        put(SLOT_WASH_OUT_SLOPE, (e_max - e_at(last)) * scale / span, known);
    }
    if asked(SLOT_CONTRAST_TO_NOISE) {
        let known = valid && sigma > 0.0;
        put(SLOT_CONTRAST_TO_NOISE, e_max / pick(known, sigma, 1.0), known);
        without_divisor = without_divisor || (valid && !known);
    }
    if asked(SLOT_FINAL_ENHANCEMENT) {
        put(SLOT_FINAL_ENHANCEMENT, e_at(last) * scale, valid);
    }
    if asked(SLOT_FINAL_ENHANCEMENT_SE) {
        put(SLOT_FINAL_ENHANCEMENT_SE, sigma * scale * (*s).final_error_factor, valid);
    }
    var past_end = false;
    if asked(SLOT_LATE_SLOPE) || asked(SLOT_LATE_SLOPE_SE) {
        let known = late_slope(peak, onset_time, onset_known, sigma, valid);
        past_end = LATE_FROM_ONSET && onset_known && !known;
    }
    if asked(SLOT_FWHM) {
        let half = peak.e * 0.5;
        let rise = last_upward_crossing(peak.frame, half);
        let descent = first_downward_crossing(peak, half);
        put(SLOT_FWHM, descent.value - rise.time, enhancing && rise.found && descent.found);
        bits |= select(0u, CENSORED, enhancing && !descent.found);
    }
    if asked(SLOT_PERCENT_SIGNAL_RECOVERY) {
        var late = 0.0;
        for (var i = (*s).recovery_start; i < (*s).recovery_end; i++) {
            late += e_at(i);
        }
        late *= (*s).inv_recovery;
        let ratio = late / pick(enhancing, e_max, 1.0);
        put(SLOT_PERCENT_SIGNAL_RECOVERY, 100.0 * (1.0 - ratio), enhancing);
    }

    // Areas.
    let started = onset_known && onset_time >= u_at(0u) && onset_time <= u_last;
    past_end = past_end || (onset_known && !started && needs(NEEDS_AREA));
    let start = place(onset_time);
    var whole = none_whole(start);
    for (var i = 0u; i < WINDOW_COUNT; i++) {
        let end_time = onset_time + (*s).windows[i >> 2u][i & 3u];
        let inside = started && end_time <= u_last;
        past_end = past_end || (onset_known && !inside);
        let end = place(end_time);
        if end.segment < whole.segment {
            // Windows come in any order.
            whole = none_whole(start);
        }
        whole = whole_segments(whole, end.segment);
        let window = window_area(start, whole, end, end_time - onset_time);
        put_integral(SLOT_IAUC + i, SLOT_IAUC_SE + i, window, sigma, inside);
    }
    if needs(NEEDS_AREA) {
        var sum: f32;
        if (*s).first_segment + 1u == (*s).baseline_end {
            // All that was scanned, without what lies before the onset's segment.
            let before = Whole((*s).first_segment, height_at((*s).first_segment), 0.0);
            sum = scanned.area[which] - whole_segments(before, start.segment).sum;
        } else {
            sum = whole_segments(whole, last).sum;
        }
        let heights = (*s).area_unit * sum - part(start);
        let area = area_to_end(start, onset_time, heights);
        put_integral(SLOT_AUC, SLOT_AUC_SE, area, sigma, started);
        if needs(NEEDS_MOMENT) {
            let moment = moment(start, onset_time, heights);
            put_integral(SLOT_AUMC, SLOT_AUMC_SE, moment, sigma, started);
            if asked(SLOT_MEAN_RESIDENCE_TIME) {
                let known = started && enhancing && area.value > 0.0;
                put(SLOT_MEAN_RESIDENCE_TIME, moment.value / pick(known, area.value, 1.0), known);
                without_divisor = without_divisor || (started && enhancing && !known);
            }
        }
    }

    // Ratios of early and late samples.
    if asked(SLOT_SIGNAL_ENHANCEMENT_RATIO) {
        let early = value_at(onset_time + (*s).ratio_time_1);
        let late = value_at(onset_time + (*s).ratio_time_2);
        let divisible = abs(late.value) > 0.0;
        let inside = early.found && late.found;
        past_end = past_end || (timed && !inside);
        let ratio = early.value / pick(divisible, late.value, 1.0);
        put(SLOT_SIGNAL_ENHANCEMENT_RATIO, ratio, timed && inside && divisible);
        without_divisor = without_divisor || (timed && inside && !divisible);
    }
    if asked(SLOT_CURVE_TYPE) {
        let target_time = onset_time + (*s).early_after_onset;
        past_end = past_end || (timed && target_time > u_last);
        let known = timed && target_time <= u_last;
        let label = curve_type(target_time, known, baseline, sigma * scale);
        without_divisor = without_divisor || (known && label == 0u);
        write_bits(u32(row_of(SLOT_CURVE_TYPE)), voxel, label);
    }
    bits |= select(0u, WINDOW_PAST_END, past_end) | select(0u, NO_DIVISOR, without_divisor);
    write_status(voxel, bits);
}

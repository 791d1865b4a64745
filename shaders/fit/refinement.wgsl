// Damped steps of Gauss and Newton within a box; src/kernels/fit/refinement.rs is the definition: the same names, order and
// guards. It precedes the text of a kernel, which declares
//     const PARAMETERS: u32 = N;
//     alias Vector = array<f32, N>; alias Triangle = array<Vector, N>; alias Flags = array<bool, N>;
//     const BENT: bool                             // whether pass_bend is filled
//     const STATE_REFINED: u32                     // from here on, what is kept of a refinement
//     fn scales() -> Vector
//     fn equations(voxel: u32, first: f32, parameters: Vector, curves: bool, valid: bool)   // fills pass_...
//     fn variables_at(parameters: Vector) -> Variables
//     fn moved(parameters: Vector, step: Vector) -> Vector

const UNIT: f32 = 1.1920929e-7;
const NEGLIGIBLE: f32 = 1e-9;
const NEGLIGIBLE_OF_ALL: f32 = 1.4e-15;
const UNSEEN: f32 = 2e-8;
const DAMPING: f32 = 1e-3;
const RELAX: f32 = 0.1;
const TIGHTEN: f32 = 8.0;
const SMALLEST_DIAGONAL: f32 = 1e-12;
const FIRM: f32 = 0.05;
const FAR: f32 = 4.2535296e37;
const SMALLEST_SUM: f32 = 1e-30;
const DEPENDENT: f32 = 1e-5;

fn kept(word: u32, voxel: u32) -> f32 {
    return bitcast<f32>(read_state(word, voxel));
}

fn keep(word: u32, voxel: u32, value: f32) {
    write_state(word, voxel, bitcast<u32>(value));
}

// exp(-x) for x from 0 to 80, to 2 ulp: as `exp_f32` in the Rust text.
fn exp_negative(x: f32) -> f32 {
    let k = round(-x * 1.4426950);
    let r = (-x - k * 0.693359375) - k * -2.1219444e-4;
    var p = 1.9875691e-4;
    p = p * r + 1.3981999e-3;
    p = p * r + 8.333452e-3;
    p = p * r + 4.1665796e-2;
    p = p * r + 1.6666665e-1;
    p = p * r + 0.5;
    let mantissa = p * (r * r) + r + 1.0;
    return mantissa * bitcast<f32>(u32(k + 127.0) << 23u);
}

// The refinement's place: its best parameters and triangle so far, and what the last pass added up.
var<private> best_parameters: Vector;
var<private> triangle: Triangle;
var<private> best_sse: f32;
var<private> best_damping: f32;
var<private> best_rhs: Vector;
var<private> best_bend: Triangle;
var<private> pass_sse: f32;
var<private> pass_gram: Triangle;
var<private> pass_rhs: Vector;
// The residual's products with the curve's second derivatives by the variables: the upper triangle.
var<private> pass_bend: Triangle;

// The variables that steps are taken in, at some parameters.
struct Variables {
    at: Vector,
    low: Vector,
    high: Vector,
}

// Least squares have brought the model to |T d - values|^2: what `values` become with the bend, whose part in the
// coordinates T d is K = T^-T bend T^-1; solves (I - K) y = values + T^-T bend put by Cholesky's way.
fn bent(factor_in: Triangle, values_in: Vector, free: Flags, put: Vector) -> Vector {
    var factor = factor_in;
    var values = values_in;
    var is_free = free;
    var to = put;
    var w: Triangle;
    var pull: Vector;
    for (var i = 0u; i < PARAMETERS; i++) {
        for (var j = 0u; j < PARAMETERS; j++) {
            let element = select(0.0, select(best_bend[j][i], best_bend[i][j], i <= j), is_free[i]);
            pull[i] = pull[i] + element * to[j];
            w[i][j] = select(0.0, element, is_free[j]);
        }
    }
    // Rows by T^-1 from the right, then columns by its transpose from the left.
    for (var i = 0u; i < PARAMETERS; i++) {
        for (var j = 0u; j < PARAMETERS; j++) {
            var sum = w[i][j];
            for (var k = 0u; k < j; k++) {
                sum = sum - w[i][k] * factor[k][j];
            }
            w[i][j] = sum / factor[j][j];
        }
    }
    for (var i = 0u; i < PARAMETERS; i++) {
        var sum = pull[i];
        for (var k = 0u; k < i; k++) {
            sum = sum - factor[k][i] * pull[k];
        }
        pull[i] = sum / factor[i][i];
        for (var j = 0u; j < PARAMETERS; j++) {
            var element = w[i][j];
            for (var k = 0u; k < i; k++) {
                element = element - factor[k][i] * w[k][j];
            }
            w[i][j] = element / factor[i][i];
        }
    }
    // L D L' of I - K.
    var l: Triangle;
    var pivots: Vector;
    var solved: Vector;
    var firm = true;
    for (var j = 0u; j < PARAMETERS; j++) {
        var pivot = 1.0 - w[j][j];
        for (var k = 0u; k < j; k++) {
            pivot = pivot - l[j][k] * l[j][k] * pivots[k];
        }
        firm = firm && pivot > FIRM;
        pivot = max(pivot, FIRM);
        for (var i = j + 1u; i < PARAMETERS; i++) {
            var sum = -w[i][j];
            for (var k = 0u; k < j; k++) {
                sum = sum - l[i][k] * l[j][k] * pivots[k];
            }
            l[i][j] = sum / pivot;
        }
        var value = values[j] + pull[j];
        for (var k = 0u; k < j; k++) {
            value = value - l[j][k] * solved[k];
        }
        solved[j] = value;
        pivots[j] = pivot;
    }
    if !firm {
        return values;
    }
    for (var back = 0u; back < PARAMETERS; back++) {
        let j = PARAMETERS - 1u - back;
        var value = solved[j] / pivots[j];
        for (var k = j + 1u; k < PARAMETERS; k++) {
            value = value - l[k][j] * solved[k];
        }
        solved[j] = value;
    }
    return solved;
}

// The lowest place of |r d - rhs|^2 - d' bend d + damping |D d|^2 over the free variables, the others being put where they
// are, by Gram and Schmidt's modified process. Where the bend leaves no lowest place it is left out.
fn damped(lengths: Vector, rhs: Vector, free: Flags, damping: f32, put: Vector) -> Vector {
    var upper: Triangle;
    var lower: Triangle;
    var is_free = free;
    var widths = lengths;
    var to = put;
    var up = rhs;
    for (var j = 0u; j < PARAMETERS; j++) {
        for (var i = 0u; i <= j; i++) {
            upper[j][i] = select(0.0, triangle[i][j], is_free[j]);
            up[i] = up[i] - triangle[i][j] * to[j];
        }
        lower[j][j] = max(select(1.0, sqrt(widths[j] * damping), is_free[j]), 1e-18);
    }
    var low: Vector;
    var factor: Triangle;
    var values: Vector;
    for (var j = 0u; j < PARAMETERS; j++) {
        var square = 0.0;
        for (var i = 0u; i < PARAMETERS; i++) {
            square = square + upper[j][i] * upper[j][i];
        }
        for (var i = 0u; i <= j; i++) {
            square = square + lower[j][i] * lower[j][i];
        }
        let length = sqrt(square);
        factor[j][j] = length;
        let inverse = 1.0 / length;
        for (var i = 0u; i < PARAMETERS; i++) {
            upper[j][i] = upper[j][i] * inverse;
            lower[j][i] = lower[j][i] * inverse;
        }
        for (var k = j + 1u; k < PARAMETERS; k++) {
            var along = 0.0;
            for (var i = 0u; i < PARAMETERS; i++) {
                along = along + upper[j][i] * upper[k][i];
            }
            for (var i = 0u; i <= j; i++) {
                along = along + lower[j][i] * lower[k][i];
            }
            factor[j][k] = along;
            for (var i = 0u; i < PARAMETERS; i++) {
                upper[k][i] = upper[k][i] - along * upper[j][i];
                lower[k][i] = lower[k][i] - along * lower[j][i];
            }
        }
        var along = 0.0;
        for (var i = 0u; i < PARAMETERS; i++) {
            along = along + upper[j][i] * up[i];
        }
        for (var i = 0u; i <= j; i++) {
            along = along + lower[j][i] * low[i];
        }
        values[j] = along;
        for (var i = 0u; i < PARAMETERS; i++) {
            up[i] = up[i] - along * upper[j][i];
            low[i] = low[i] - along * lower[j][i];
        }
    }
    if BENT {
        values = bent(factor, values, free, put);
    }
    var step: Vector;
    for (var back = 0u; back < PARAMETERS; back++) {
        let j = PARAMETERS - 1u - back;
        var sum = values[j];
        for (var k = j + 1u; k < PARAMETERS; k++) {
            sum = sum - factor[j][k] * step[k];
        }
        step[j] = select(0.0, sum / factor[j][j], is_free[j]);
    }
    return step;
}

// The damped step within the box.
fn step_within(held: Flags, damping: f32) -> Vector {
    var v = variables_at(best_parameters);
    var is_held = held;
    var free: Flags;
    var lengths: Vector;
    for (var j = 0u; j < PARAMETERS; j++) {
        var slope = 0.0;
        var length = 0.0;
        for (var i = 0u; i <= j; i++) {
            slope = slope + triangle[i][j] * best_rhs[i];
            length = length + triangle[i][j] * triangle[i][j];
        }
        lengths[j] = length;
        let outwards = (v.at[j] <= v.low[j] && slope <= 0.0) || (v.at[j] >= v.high[j] && slope >= 0.0);
        free[j] = !(is_held[j] || outwards);
    }
    var put: Vector;
    var step = damped(lengths, best_rhs, free, damping, put);
    var beyond = false;
    for (var j = 0u; j < PARAMETERS; j++) {
        let to = v.at[j] + step[j];
        let under = to < v.low[j];
        let over = to > v.high[j];
        let out = (under || over) && free[j];
        beyond = beyond || out;
        put[j] = select(0.0, select(v.high[j], v.low[j], under) - v.at[j], out);
        free[j] = free[j] && !out;
    }
    if beyond {
        var others = damped(lengths, best_rhs, free, damping, put);
        for (var j = 0u; j < PARAMETERS; j++) {
            step[j] = select(put[j], others[j], free[j]);
        }
    }
    return step;
}

// Begins anew at a start: the triangle is that of a curve that changes evenly with all variables.
fn begin_at(start: Vector, damping: f32) {
    var scale = scales();
    for (var i = 0u; i < PARAMETERS; i++) {
        for (var j = 0u; j < PARAMETERS; j++) {
            triangle[i][j] = select(0.0, 1.0 / scale[i], i == j);
        }
    }
    best_parameters = start;
    best_sse = FAR;
    best_damping = damping;
}

// Takes what a pass over the samples has added up as the best place so far.
fn take_in(place: Vector) {
    var scale = scales();
    // Cholesky's factor of the Gram matrix, transposed, and the right-hand side by its inverse.
    var u: Triangle;
    for (var i = 0u; i < PARAMETERS; i++) {
        var square = pass_gram[i][i];
        var value = pass_rhs[i];
        for (var k = 0u; k < i; k++) {
            square = square - u[k][i] * u[k][i];
            value = value - u[k][i] * best_rhs[k];
        }
        square = max(max(square, pass_gram[i][i] * (16.0 * UNIT)), 1e-30);
        u[i][i] = sqrt(square);
        let inverse = 1.0 / u[i][i];
        for (var j = i + 1u; j < PARAMETERS; j++) {
            var sum = pass_gram[i][j];
            for (var k = 0u; k < i; k++) {
                sum = sum - u[k][i] * u[k][j];
            }
            u[i][j] = sum * inverse;
        }
        best_rhs[i] = value * inverse;
    }
    for (var i = 0u; i < PARAMETERS; i++) {
        for (var j = i; j < PARAMETERS; j++) {
            var sum = 0.0;
            for (var k = i; k <= j; k++) {
                sum = sum + u[i][k] * triangle[k][j];
            }
            triangle[i][j] = select(sum, max(sum, SMALLEST_DIAGONAL / scale[i]), i == j);
        }
    }
    best_bend = pass_bend;
    best_parameters = place;
    best_sse = pass_sse;
}

// From the start to the floor of its valley; leaves best_parameters, best_sse and triangle. Gives the number of turns, negative
// if the floor wasn't reached.
fn refine_from(voxel: u32, first: f32, start: Vector, held: Flags, squares: f32, begin: f32, turns: u32) -> i32 {
    let negligible = squares * NEGLIGIBLE_OF_ALL;
    begin_at(start, begin);
    // Roundings may raise the sum of squares, but not step after step.
    var lowest = FAR;
    var trial = start;
    var promised = 0.0;
    for (var turn = 0u; turn < turns; turn++) {
        equations(voxel, first, trial, false, false);
        let tolerance = lowest * (1.0 + 4.0 * UNIT) + squares * (0.25 * UNIT * UNIT);
        let better = pass_sse <= tolerance || turn == 0u;
        if better {
            take_in(trial);
            lowest = min(lowest, best_sse);
        } else if best_damping <= DAMPING && abs(promised) <= best_sse * UNSEEN + negligible {
            return i32(turn) + 1;
        }
        if turn > 0u {
            best_damping = select(min(best_damping * TIGHTEN, 1e4), max(best_damping * RELAX, UNIT * UNIT), better);
        }
        var step = step_within(held, best_damping);
        promised = 0.0;
        for (var i = 0u; i < PARAMETERS; i++) {
            var sum = 0.0;
            for (var j = i; j < PARAMETERS; j++) {
                sum = sum + triangle[i][j] * step[j];
            }
            promised = promised + sum * (best_rhs[i] + best_rhs[i] - sum);
        }
        if BENT {
            for (var j = 0u; j < PARAMETERS; j++) {
                var above = 0.0;
                for (var i = 0u; i < j; i++) {
                    above = above + best_bend[i][j] * step[i];
                }
                promised = promised + step[j] * (above + above + best_bend[j][j] * step[j]);
            }
        }
        if better && abs(promised) <= best_sse * NEGLIGIBLE + negligible {
            return i32(turn) + 1;
        }
        trial = moved(best_parameters, step);
        if leads_nowhere(turn + 1u, trial, abs(promised)) {
            return -i32(turn + 1u);
        }
    }
    return -i32(turns);
}

// The parameters of the best place so far.
fn best_place(voxel: u32) -> Vector {
    var place: Vector;
    for (var i = 0u; i < PARAMETERS; i++) {
        place[i] = kept(STATE_REFINED + i, voxel);
    }
    return place;
}

fn keep_refined(voxel: u32) {
    for (var i = 0u; i < PARAMETERS; i++) {
        keep(STATE_REFINED + i, voxel, best_parameters[i]);
        for (var j = i; j < PARAMETERS; j++) {
            keep(STATE_REFINED + PARAMETERS + PARAMETERS * i + j, voxel, triangle[i][j]);
        }
    }
    keep(STATE_REFINED + PARAMETERS + PARAMETERS * PARAMETERS, voxel, best_sse);
    keep(STATE_REFINED + PARAMETERS + PARAMETERS * PARAMETERS + 1u, voxel, best_damping);
}

var<private> inverse_triangle: Triangle;

// The inverse of the triangle; src/kernels/fit/goodness.rs. Gives whether there is one.
fn invert_triangle() -> bool {
    var regular = true;
    for (var j = 0u; j < PARAMETERS; j++) {
        var length = 0.0;
        for (var i = 0u; i <= j; i++) {
            length = length + triangle[i][j] * triangle[i][j];
        }
        let independent = triangle[j][j] > DEPENDENT * sqrt(length) && triangle[j][j] > 1e-18;
        regular = regular && independent;
        let diagonal = 1.0 / select(1.0, triangle[j][j], independent);
        inverse_triangle[j][j] = diagonal;
        for (var back = 0u; back < j; back++) {
            let i = j - 1u - back;
            var sum = 0.0;
            for (var k = i; k < j; k++) {
                sum = sum + inverse_triangle[i][k] * triangle[k][j];
            }
            inverse_triangle[i][j] = -(sum * diagonal);
        }
    }
    return regular;
}

// The exchange model by the linear method; src/kernels/fit/two_rate/linear.rs is the definition: the same names, order and guards.
// It follows two_rate.wgsl, whose `finish` writes what is found here.
//
// Tables from `linear_at` on: the lengths of both shared columns and the coefficient of the second one on the first, `along` (8
// numbers), one that is reserved; then, frame by frame, the interval before it, the unit vectors, and the four columns of `beside`.

const ALONG: u32 = 3u;
const FRAMES: u32 = 12u;
const PER_FRAME: u32 = 7u;
const DEPENDENT_SHARE: f32 = 1e-12;
const TINY: f32 = 1e-30;
const SIXTH: f32 = 0.16666667;

// What is read at a frame of all voxels' tables.
struct Shared {
    interval: f32,
    // The unit vectors at the frame.
    unit: vec2<f32>,
    // The integrals of both beside the shared columns, and the double integrals.
    once: vec2<f32>,
    twice: vec2<f32>,
}

fn shared_at(frame: u32) -> Shared {
    let at = uniforms.settings.linear_at + FRAMES + PER_FRAME * frame;
    return Shared(
        tables[at],
        vec2<f32>(tables[at + 1u], tables[at + 2u]),
        vec2<f32>(tables[at + 3u], tables[at + 4u]),
        vec2<f32>(tables[at + 5u], tables[at + 6u]),
    );
}

// The walk along C' and its integrals.
struct Integrals {
    before: f32,
    single: f32,
    double: f32,
}

// On to a frame: what its sample has beside the shared columns, and the integrals up to there.
fn advance(walk: Integrals, here: Shared, voxel: u32, frame: u32, first: f32, of_c: vec2<f32>) -> Integrals {
    let value = (concentration(voxel, frame, first) - of_c.x * here.unit.x) - of_c.y * here.unit.y;
    // The first frame's interval is 0.
    let both = walk.before + value;
    let h = here.interval;
    return Integrals(
        value,
        h * (0.5 * both) + walk.single,
        h * (walk.single + h * (SIXTH * (walk.before + both))) + walk.double,
    );
}

// The curve's single and double integral without what lies along the shared columns.
fn columns_at(walk: Integrals, here: Shared, of_c: vec2<f32>, of_once: vec2<f32>, of_twice: vec2<f32>) -> vec2<f32> {
    let once = (walk.single - of_once.x * here.unit.x) - of_once.y * here.unit.y;
    let twice = (walk.double - of_twice.x * here.unit.x) - of_twice.y * here.unit.y;
    return vec2<f32>(
        of_c.x * here.once.x + (of_c.y * here.once.y + once),
        of_c.x * here.twice.x + (of_c.y * here.twice.y + twice),
    );
}

@compute @workgroup_size(64)
fn linear(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let n = uniforms.slab.frames;
    let at = uniforms.settings.linear_at;
    let first = uniforms.settings.slope * first_sample(voxel) + uniforms.settings.intercept;
    var samples_squared = 0.0;
    var of_c = vec2<f32>();
    for (var i = 0u; i < n; i++) {
        let c = concentration(voxel, i, first);
        samples_squared = samples_squared + c * c;
        of_c = of_c + shared_at(i).unit * c;
    }
    var of_once = vec2<f32>();
    var of_twice = vec2<f32>();
    var walk: Integrals;
    for (var i = 0u; i < n; i++) {
        let here = shared_at(i);
        walk = advance(walk, here, voxel, i, first, of_c);
        of_once = of_once + here.unit * walk.single;
        of_twice = of_twice + here.unit * walk.double;
    }
    var squares = 0.0;
    var mixed = 0.0;
    var along = 0.0;
    var twice_squares = 0.0;
    walk = Integrals(0.0, 0.0, 0.0);
    for (var i = 0u; i < n; i++) {
        let here = shared_at(i);
        walk = advance(walk, here, voxel, i, first, of_c);
        let both = columns_at(walk, here, of_c, of_once, of_twice);
        squares = squares + both.x * both.x;
        mixed = mixed + both.x * both.y;
        along = along + both.x * walk.before;
        twice_squares = twice_squares + both.y * both.y;
    }
    let whole_once = of_once + vec2<f32>(
        of_c.x * tables[at + ALONG] + of_c.y * tables[at + ALONG + 2u],
        of_c.x * tables[at + ALONG + 1u] + of_c.y * tables[at + ALONG + 3u],
    );
    let whole_twice = of_twice + vec2<f32>(
        of_c.x * tables[at + ALONG + 4u] + of_c.y * tables[at + ALONG + 6u],
        of_c.x * tables[at + ALONG + 5u] + of_c.y * tables[at + ALONG + 7u],
    );
    let has_first = squares > DEPENDENT_SHARE * (dot(whole_once, whole_once) + squares) && squares > TINY;
    let inverse = select(0.0, 1.0 / max(squares, TINY), has_first);
    let overlap = mixed * inverse;
    let share = along * inverse;
    var twice_own = 0.0;
    var twice_along = 0.0;
    walk = Integrals(0.0, 0.0, 0.0);
    for (var i = 0u; i < n; i++) {
        let here = shared_at(i);
        walk = advance(walk, here, voxel, i, first, of_c);
        let both = columns_at(walk, here, of_c, of_once, of_twice);
        let u = both.y - overlap * both.x;
        twice_own = twice_own + u * u;
        twice_along = twice_along + u * (walk.before - share * both.x);
    }
    let whole = dot(whole_twice, whole_twice) + twice_squares;
    let determined = has_first && twice_own > DEPENDENT_SHARE * whole && twice_own > TINY;
    let x = select(0.0, -(twice_along / max(twice_own, TINY)), determined);
    let y = -(share + x * overlap);
    let products = of_c + (x * whole_twice + y * whole_once);
    let lengths = vec2<f32>(tables[at], tables[at + 1u]);
    let inverses = select(vec2<f32>(), 1.0 / max(lengths, vec2<f32>(TINY)), lengths > vec2<f32>());
    let w = products.y * inverses.y;
    let flow = (products.x - tables[at + 2u] * w) * inverses.x;

    let rest = y * flow - w;
    let flows = abs(flow) > TINY;
    let has_plasma = determined && abs(rest) > TINY;
    let has_space = has_plasma && abs(x) > TINY;
    let has_exchange = has_space && flows;
    let plasma = flow * flow / select(1.0, rest, has_plasma);
    let space = w / select(1.0, x, has_space) - plasma;
    let exchange = x * plasma * space / select(1.0, flow, flows);
    let has_extraction = has_exchange && abs(flow + exchange) > TINY;
    let has_curve = has_exchange && flow > 0.0 && exchange > 0.0 && plasma > 0.0 && space > 0.0;
    let found = Vector(flow, exchange, plasma, space, uniforms.settings.fixed_delay);
    begin_at(found, DAMPING);
    if NEEDS_CURVES && has_curve {
        // The first pass brings the triangle, the second one sees it without loss.
        for (var turn = 0u; turn < 2u; turn++) {
            equations(voxel, first, found, false, false);
            take_in(found);
        }
    }
    keep_refined(voxel);
    keep(STATE_SQUARES, voxel, samples_squared);
    write_state(STATE_FINITE, voxel, select(0u, 1u, all_finite(voxel)));
    write_state(STATE_CONVERGED, voxel, 1u);
    write_state(STATE_TURNS, voxel, 1u);
    write_state(STATE_HAS, voxel, 1u | select(0u, 2u, has_exchange) | select(0u, 4u, has_plasma) | select(0u, 8u, has_space)
        | select(0u, 16u, has_extraction) | select(0u, 32u, has_curve));
}

//! Cines read back by an independent decoder: what stands where, when, in which colour.
#![cfg(feature = "render")]

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::AnimationDecoder;
use image::codecs::{gif::GifDecoder, png::PngDecoder};
use ndarray::{Array3, Array4};
use perfuse::render::{Anatomy, Cine, Colormap, Isochrones, Picture, Plane, Range, View};
use perfuse::{Cancel, Geometry, Mask, Series, TimeAxis};

const SHAPE: [usize; 3] = [16, 14, 8];
const FRAMES: usize = 7;
const TIMES: [f64; FRAMES] = [5.0, 10.0, 15.0, 20.0, 40.0, 45.0, 50.0];

fn in_lesion([x, y, z]: [usize; 3]) -> bool {
    (4..11).contains(&x) && (4..10).contains(&y) && (2..6).contains(&z)
}

/// Enhances by 100 a slice of x later, from frame 2 on.
fn enhancement([x, ..]: [usize; 3], frame: usize) -> f64 {
    if frame >= 2 { (100.0 * (frame as f64 - 1.0) - 20.0 * (x as f64 - 4.0)).max(0.0) } else { 0.0 }
}

fn grey([x, y, z]: [usize; 3]) -> f64 {
    100.0 + 10.0 * x as f64 + 5.0 * y as f64 + 15.0 * z as f64
}

fn case(geometry: Geometry) -> (Series, Mask) {
    let samples = Array4::from_shape_fn((SHAPE[0], SHAPE[1], SHAPE[2], FRAMES), |(x, y, z, t)| {
        let voxel = [x, y, z];
        (grey(voxel) + if in_lesion(voxel) { enhancement(voxel, t) } else { 0.0 }) as f32
    });
    let times = TimeAxis::from_seconds(TIMES.to_vec()).unwrap();
    let series = Series::from_array(samples.view(), times).unwrap().with_geometry(geometry);
    let labels = Array3::from_shape_fn((SHAPE[0], SHAPE[1], SHAPE[2]), |(x, y, z)| u32::from(in_lesion([x, y, z])));
    (series, Mask::from_labels(labels.view()))
}

fn geometry() -> Geometry {
    Geometry::from_voxel_size_mm([2.0, 2.0, 4.0])
}

/// A cine whose colours are known: grey from 0 to 500, enhancement from 0 to 500, nothing below 1.
fn cine<'a>(series: &'a Series, lesion: &'a Mask) -> Cine<'a> {
    Cine::new(series, lesion, 0..2)
        .view(View::Whole)
        .window(Range::Fixed(0.0, 500.0))
        .enhancement_range(Range::Fixed(0.0, 500.0))
        .threshold(1.0)
        .width(480)
}

fn decoded_gif(bytes: &[u8]) -> Vec<image::Frame> {
    GifDecoder::new(Cursor::new(bytes)).unwrap().into_frames().collect_frames().unwrap()
}

fn apart(a: [u8; 3], b: [u8; 3]) -> u8 {
    (0..3).map(|c| a[c].abs_diff(b[c])).max().unwrap()
}

fn pixel(frame: &image::Frame, (x, y): (u32, u32)) -> [u8; 3] {
    let [r, g, b, _] = frame.buffer().get_pixel(x, y).0;
    [r, g, b]
}

#[test]
fn the_gif_shows_enhancement_in_colour_and_the_rest_in_grey() {
    let (series, lesion) = case(geometry());
    let film = cine(&series, &lesion).film().unwrap();
    let bytes = film.gif().unwrap();
    assert!(bytes.windows(11).any(|w| w == b"NETSCAPE2.0"), "the cine doesn't begin anew");
    let frames = decoded_gif(&bytes);
    assert_eq!(frames.len(), FRAMES);
    let [cx, cy, cz] = film.centre();
    assert_eq!([cx, cy, cz], [7, 7, 4]);
    let mut seen = 0;
    for (t, frame) in frames.iter().enumerate() {
        assert_eq!(frame.buffer().dimensions(), film.size());
        for (x, y, z) in
            [(5, cy, cz), (7, cy, cz), (9, 6, cz), (9, 8, cz), (2, 3, cz), (cx, 5, 3), (cx, 2, 1), (13, cy, 6)]
        {
            let voxel = [x, y, z];
            let places = film.pixels_of(voxel);
            assert!(!places.is_empty(), "{voxel:?}");
            let e = if in_lesion(voxel) { enhancement(voxel, t) } else { 0.0 };
            let expected =
                if e > 1.0 { Colormap::Inferno.color(e / 500.0) } else { Colormap::Grey.color(grey(voxel) / 500.0) };
            for place in places {
                seen += usize::from(e > 1.0);
                // 64 greys and 128 colours: never more than a few steps off.
                assert!(
                    apart(pixel(frame, place), expected) <= 6,
                    "{voxel:?}, frame {t}: {:?}, {expected:?}",
                    pixel(frame, place)
                );
            }
        }
    }
    assert!(seen > 20);
}

#[test]
fn frames_last_in_proportion_to_their_time() {
    let (series, lesion) = case(geometry());
    // The median spacing is 5 s; 10 frames a second, so that 20 s are four tenths of a second.
    let film = cine(&series, &lesion).frames_per_second(10.0).film().unwrap();
    let shown: Vec<u32> = decoded_gif(&film.gif().unwrap())
        .iter()
        .map(|frame| {
            let (ms, one) = frame.delay().numer_denom_ms();
            ms / one
        })
        .collect();
    assert_eq!(shown, [100, 100, 100, 400, 100, 100, 1100]);
}

#[test]
fn the_outline_runs_between_inside_and_outside() {
    let (series, lesion) = case(geometry());
    let film = cine(&series, &lesion).film().unwrap();
    let picture = film.frame(0).unwrap();
    let axial = |x, y| film.pixels_of([x, y, 4])[0];
    let light = |from: (u32, u32), to: (u32, u32)| {
        let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1));
        (0..=steps).any(|i| {
            let mix = |a: u32, b: u32| {
                (i64::from(a) + (i64::from(b) - i64::from(a)) * i64::from(i) / i64::from(steps)) as u32
            };
            picture.pixel(mix(from.0, to.0), mix(from.1, to.1)).unwrap().iter().all(|c| *c > 185)
        })
    };
    for (inside, outside) in [([4, 7], [3, 7]), ([10, 6], [11, 6]), ([8, 4], [8, 3]), ([6, 9], [6, 10])] {
        let (a, b) = (axial(inside[0], inside[1]), axial(outside[0], outside[1]));
        assert!(light(a, b), "{inside:?}");
    }
    assert!(!light(axial(6, 6), axial(7, 6)) && !light(axial(1, 2), axial(2, 2)));
}

#[test]
fn planes_are_to_scale_and_turned_to_the_patient() {
    let (series, lesion) = case(geometry());
    let film = cine(&series, &lesion).film().unwrap();
    // In the coronal and the sagittal plane a step along z is twice as long as one along x or y.
    let [cx, cy, cz] = film.centre();
    let corners = |a: [usize; 3], b: [usize; 3]| -> Vec<(i64, i64)> {
        let places = film.pixels_of(a).into_iter().zip(film.pixels_of(b));
        places.map(|(a, b)| (i64::from(b.0) - i64::from(a.0), i64::from(b.1) - i64::from(a.1))).collect()
    };
    let across = corners([2, cy, cz], [12, cy, cz]);
    // x rises to the patient's right, which stands on the left of the axial and the coronal plane.
    assert_eq!(across.len(), 2);
    assert!(across.iter().all(|(x, y)| *x < -50 && *y == 0), "{across:?}");
    // z rises to the head, on top of the coronal and the sagittal plane.
    let up = corners([cx, cy, 1], [cx, cy, 6]);
    assert!(up.iter().all(|(x, y)| *x == 0 && *y < 0), "{up:?}");
    assert!((-up[0].1 as f64 / -across[0].0 as f64 - 5.0 * 4.0 / (10.0 * 2.0)).abs() < 0.05, "{up:?} {across:?}");

    // The other way round in the header: the other way round on the screen.
    let mut turned = geometry();
    turned.srow[0][0] = -2.0;
    let (series, lesion) = case(turned);
    let film = cine(&series, &lesion).film().unwrap();
    assert!(film.pixels_of([2, cy, cz])[0].0 < film.pixels_of([12, cy, cz])[0].0);

    // Stored in sagittal slices: x runs to the front, y to the head, z to the right. The axial plane is one of constant y.
    let mut sagittal = geometry();
    sagittal.srow = [[0.0, 0.0, 4.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]];
    let (series, lesion) = case(sagittal);
    let film = cine(&series, &lesion).planes(&[Plane::Axial]).film().unwrap();
    let [cx, cy, cz] = film.centre();
    assert!(film.pixels_of([cx, cy + 1, cz]).is_empty());
    let (low, front) = (film.pixels_of([2, cy, cz])[0], film.pixels_of([12, cy, cz])[0]);
    assert!(low.0 == front.0 && front.1 < low.1, "front isn't on top");
    let right = film.pixels_of([cx, cy, 7])[0];
    assert!(right.0 < low.0 && film.pixels_of([cx, cy, 0])[0].0 > low.0, "right isn't on the left");
}

fn differing(a: &Picture, b: &Picture) -> usize {
    a.rgb().chunks_exact(3).zip(b.rgb().chunks_exact(3)).filter(|(a, b)| a != b).count()
}

#[test]
fn isochrones_appear_when_the_front_passes() {
    let (series, lesion) = case(geometry());
    let filling = Array3::from_shape_fn((SHAPE[0], SHAPE[1], SHAPE[2]), |(x, ..)| 10.0 + 4.0 * (x as f32 - 4.0));
    let axial = || cine(&series, &lesion).planes(&[Plane::Axial]);
    let lines = |isochrones| {
        axial().filling_time(filling.view()).isochrone_levels(&[18.0, 26.0]).isochrones(isochrones).film().unwrap()
    };
    let (passing, always) = (lines(Isochrones::AsTheyPass), lines(Isochrones::Always));
    let changed: Vec<usize> =
        (0..FRAMES).map(|t| differing(&passing.frame(t).unwrap(), &always.frame(t).unwrap())).collect();
    // None of two lines at 5, 10 and 15 s, one at 20 s, both from 40 s on.
    assert!(changed[0] > 100 && changed[0] == changed[1] && changed[1] == changed[2], "{changed:?}");
    assert!(changed[3] > 50 && changed[3] < changed[2] && changed[4..] == [0, 0, 0], "{changed:?}");
    // The line of 18 s crosses at x = 6, that of 26 s at x = 8: their pixels differ from those before both.
    let (with, without) = (always.frame(0).unwrap(), passing.frame(0).unwrap());
    let column = |x: usize| always.pixels_of([x, 7, 4])[0];
    let near = |x: usize| {
        (column(x).0 - 1..=column(x).0 + 1).any(|u| with.pixel(u, column(x).1) != without.pixel(u, column(x).1))
    };
    assert!(near(6) && near(8) && !near(5) && !near(7) && !near(2));
}

#[test]
fn a_mark_stands_where_it_should() {
    let (series, lesion) = case(geometry());
    let (with, without) =
        (cine(&series, &lesion).mark([7, 7, 4]).film().unwrap(), cine(&series, &lesion).film().unwrap());
    let green = |picture: &Picture, (x, y): (u32, u32)| {
        let [r, g, b] = picture.pixel(x, y).unwrap();
        g > 150 && r < g - 60 && b < g - 60
    };
    for place in with.pixels_of([7, 7, 4]) {
        assert!(green(&with.frame(0).unwrap(), place));
    }
    for place in without.pixels_of([7, 7, 4]) {
        assert!(!green(&without.frame(0).unwrap(), place));
    }
    // Off the lesion's middle: the first plane goes through it all the same.
    for (planes, axis) in [(Plane::ALL.to_vec(), 2), (vec![Plane::Sagittal, Plane::Axial], 0)] {
        let film = cine(&series, &lesion).planes(&planes).mark([5, 9, 2]).film().unwrap();
        let places = film.pixels_of([5, 9, 2]);
        assert_eq!((places.len(), film.centre()[axis]), (1, [5, 9, 2][axis]));
        assert!(green(&film.frame(0).unwrap(), places[0]));
    }
    // A chosen centre stays, and nothing is promised that isn't seen.
    let (centre, mark) = ([7, 7, 4], [5, 9, 2]);
    let film = cine(&series, &lesion).mark(mark).centre(centre).film().unwrap();
    assert!(film.pixels_of(mark).is_empty() && film.centre() == centre);
    let plain = cine(&series, &lesion).centre(centre).film().unwrap();
    let greens = |film: &perfuse::render::Film| {
        let frame = film.frame(0).unwrap();
        (0..frame.height())
            .flat_map(|y| (0..frame.width()).map(move |x| (x, y)))
            .filter(|at| green(&frame, *at))
            .count()
    };
    assert_eq!(greens(&film), greens(&plain));
}

#[test]
fn a_still_ground_and_opacity() {
    let (series, lesion) = case(geometry());
    let still = cine(&series, &lesion).anatomy(Anatomy::Baseline).threshold(1e9).film().unwrap();
    let voxel = [7, 7, 4];
    let place = still.pixels_of(voxel)[0];
    let base = Colormap::Grey.color(grey(voxel) / 500.0);
    assert_eq!(still.frame(FRAMES - 1).unwrap().pixel(place.0, place.1), Some(base));
    let frame = cine(&series, &lesion).threshold(1e9).film().unwrap().frame(FRAMES - 1).unwrap();
    let now = Colormap::Grey.color((grey(voxel) + enhancement(voxel, FRAMES - 1)) / 500.0);
    assert_eq!(frame.pixel(place.0, place.1), Some(now));
    let half = cine(&series, &lesion).anatomy(Anatomy::Baseline).opacity(0.5).film().unwrap().frame(4).unwrap();
    let color = Colormap::Inferno.color(enhancement(voxel, 4) / 500.0);
    let mixed: [u8; 3] = std::array::from_fn(|c| ((u16::from(color[c]) + u16::from(base[c])) / 2) as u8);
    assert!(apart(half.pixel(place.0, place.1).unwrap(), mixed) <= 1);
}

#[test]
fn apng_and_frames_are_exact() {
    let (series, lesion) = case(geometry());
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let film = cine(&series, &lesion)
        .progress(move |_, all| {
            assert_eq!(all, FRAMES);
            count.fetch_add(1, Ordering::Relaxed);
        })
        .film()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    film.save_apng(folder.path().join("cine.png")).unwrap();
    let files = film.save_frames(folder.path().join("frames")).unwrap();
    film.save_gif(folder.path().join("cine.gif")).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 3 * FRAMES);
    assert_eq!(std::fs::read(folder.path().join("cine.gif")).unwrap(), film.gif().unwrap());
    assert!(files[0].ends_with("frames/frame_0001.png") && files.len() == FRAMES);

    let bytes = std::fs::read(folder.path().join("cine.png")).unwrap();
    let decoder = PngDecoder::new(Cursor::new(bytes)).unwrap();
    assert!(decoder.is_apng().unwrap());
    let frames = decoder.apng().unwrap().into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), FRAMES);
    for (t, frame) in frames.iter().enumerate() {
        let drawn = film.frame(t).unwrap();
        let rgb: Vec<u8> = frame.buffer().pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect();
        assert!(rgb == drawn.rgb(), "frame {t}");
        assert_eq!(image::open(&files[t]).unwrap().to_rgb8().into_raw(), drawn.rgb());
    }
    assert!(film.save_gif(folder.path().join("missing").join("cine.gif")).is_err());
    assert!(film.save_apng(folder.path().join("missing").join("cine.png")).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_cancelled_cine_leaves_nothing() {
    let (series, lesion) = case(geometry());
    let cancel = Cancel::new();
    let film = cine(&series, &lesion).cancel(cancel.clone()).film().unwrap();
    cancel.cancel();
    let folder = tempfile::tempdir().unwrap();
    for result in [film.save_gif(folder.path().join("a.gif")), film.save_apng(folder.path().join("a.png"))] {
        assert!(matches!(result, Err(perfuse::Error::Cancelled)));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn odd_series_give_cines() {
    let times = || TimeAxis::uniform(1.0, 4).unwrap();
    let everywhere = |shape| Mask::from_labels(Array3::from_elem(shape, 1u32).view());
    for (shape, value) in [((1, 1, 1), 5.0f32), ((300, 2, 1), 0.0), ((2, 2, 60), f32::NAN), ((5, 4, 3), f32::MAX)] {
        let samples = Array4::from_elem((shape.0, shape.1, shape.2, 4), value);
        for size in [[1.0, 1.0, 1.0], [0.0, f64::NAN, 1.0], [0.05, 40.0, 1.0]] {
            let series = Series::from_array(samples.view(), times()).unwrap();
            let series = series.with_geometry(Geometry::from_voxel_size_mm(size));
            let lesion = everywhere(shape);
            let film = Cine::new(&series, &lesion, 0..1).width(480).title("x".repeat(3000)).film().unwrap();
            assert_eq!(decoded_gif(&film.gif().unwrap()).len(), 4);
            assert!(film.size().1 < 3000, "{film:?}");
        }
    }
}

#[test]
fn refuses_what_it_cannot_show() {
    let (series, lesion) = case(geometry());
    let of = || cine(&series, &lesion);
    let refused: [(&str, Cine<'_>); 14] = [
        ("width", of().width(100)),
        ("frames per second", of().frames_per_second(0.0)),
        ("frames per second", of().frames_per_second(f64::NAN)),
        ("opacity", of().opacity(1.5)),
        ("planes", of().planes(&[])),
        ("centre", of().centre([16, 0, 0])),
        ("margin", of().view(View::Lesion { margin_mm: -1.0 })),
        ("range", of().window(Range::Fixed(3.0, 3.0))),
        ("range", of().enhancement_range(Range::Percentiles(90.0, 10.0))),
        ("threshold", of().threshold(f64::NAN)),
        ("mark", of().mark([0, 0, 8])),
        ("baseline frames", of().baseline_frames(0..0)),
        ("baseline frames", of().baseline_frames(3..8)),
        ("isochrone levels", of().isochrone_levels(&[f64::NAN])),
    ];
    for (name, cine) in refused {
        let error = cine.film().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(';'), "{error}");
    }
    let other = Array3::<f32>::zeros((2, 2, 2));
    assert!(of().filling_time(other.view()).film().is_err());
    let empty = Mask::from_labels(Array3::zeros((SHAPE[0], SHAPE[1], SHAPE[2])).view());
    assert!(Cine::new(&series, &empty, 0..2).film().unwrap_err().to_string().contains("no voxel"));
    assert!(of().film().unwrap().frame(FRAMES).is_err());
}

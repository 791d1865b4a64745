//! Pictures: what they promise about colours, sizes and odd input.
#![cfg(feature = "render")]

use ndarray::Array3;
use perfuse::render::{Colormap, CurvePlot, Montage, Picture, Range, Slices, label_color};
use perfuse::{Geometry, Map, MapData, Mask, Quantity};

fn geometry() -> Geometry {
    Geometry::from_voxel_size_mm([2.0, 2.0, 5.0])
}

fn gradient(shape: (usize, usize, usize)) -> Array3<f32> {
    Array3::from_shape_fn(shape, |(x, y, z)| (x + 2 * y + 3 * z) as f32)
}

fn check_size(picture: &Picture) {
    assert!((900..=2400).contains(&picture.width()), "{picture:?}");
    assert!((100..=2400).contains(&picture.height()), "{picture:?}");
    assert_eq!(picture.rgb().len(), 3 * (picture.width() * picture.height()) as usize);
}

/// Pixels of a colour.
fn count(picture: &Picture, color: [u8; 3]) -> usize {
    picture.rgb().chunks_exact(3).filter(|p| *p == color).count()
}

#[test]
fn the_colour_bar_runs_from_end_to_end_of_the_map() {
    for colormap in [Colormap::Viridis, Colormap::Magma, Colormap::Inferno, Colormap::Grey, Colormap::Diverging] {
        let values = Array3::from_elem((8, 8, 1), 0.37f32);
        let picture = Montage::of_values(values.view(), &geometry())
            .colormap(colormap)
            .range(Range::Fixed(0.0, 1.0))
            .render()
            .unwrap();
        let (top, foot) = (colormap.color(1.0), colormap.color(0.0));
        // Some column of pixels holds 340 colours of the map from the top of the range down to its foot.
        let found = (picture.width() / 2..picture.width()).any(|x| {
            let column: Vec<[u8; 3]> = (0..picture.height()).filter_map(|y| picture.pixel(x, y)).collect();
            column.windows(340).any(|bar| {
                bar[0] == top
                    && bar[339] == foot
                    && (0..340).all(|i| bar[i] == colormap.color(1.0 - f64::from(i as u32) / 339.0))
            })
        });
        assert!(found, "{colormap:?}");
    }
}

#[test]
fn values_take_the_colours_of_their_place_in_the_range() {
    // Four voxels in a row: below, at the middle, above, no value.
    let values = Array3::from_shape_vec((4, 1, 1), vec![-5.0f32, 5.0, 99.0, f32::NAN]).unwrap();
    // A header that doesn't say which way the axes point: no letters in the tile.
    let mut nowhere = geometry();
    nowhere.sform_code = 0;
    let picture = Montage::of_values(values.view(), &nowhere).range(Range::Fixed(0.0, 10.0)).render().unwrap();
    let colors = [0.0, 0.5, 1.0, f64::NAN].map(|f| Colormap::Viridis.color(f));
    let row = picture.height() / 4;
    let mut seen: Vec<[u8; 3]> = (0..picture.width()).filter_map(|x| picture.pixel(x, row)).collect();
    seen.dedup();
    let at = seen.iter().position(|c| *c == colors[0]).expect("the first voxel");
    assert_eq!(seen[at..at + 4], colors);
    assert_eq!(colors[3], Colormap::Viridis.no_value());
}

#[test]
fn y_goes_up_and_x_to_the_right() {
    let mut labels = Array3::<u32>::zeros((2, 2, 1));
    labels[[0, 0, 0]] = 1;
    labels[[1, 1, 0]] = 2;
    let picture = Montage::of_labels(labels.view(), &geometry()).render().unwrap();
    let place = |color: [u8; 3]| {
        let all: Vec<(u32, u32)> = (0..picture.height())
            .flat_map(|y| (0..picture.width() * 3 / 5).map(move |x| (x, y)))
            .filter(|(x, y)| picture.pixel(*x, *y) == Some(color))
            .collect();
        let mean = |of: fn(&(u32, u32)) -> u32| all.iter().map(of).map(f64::from).sum::<f64>() / all.len() as f64;
        (mean(|p| p.0), mean(|p| p.1))
    };
    let (low, high) = (place(label_color(1)), place(label_color(2)));
    assert!(low.0 < high.0 && low.1 > high.1, "{low:?} {high:?}");
}

#[test]
fn the_legend_shows_every_label() {
    let labels = Array3::from_shape_fn((10, 10, 2), |(x, _, _)| if x < 5 { 0u32 } else { 3 });
    let plain = Montage::of_labels(labels.view(), &geometry()).render().unwrap();
    let orange = [250, 120, 10];
    let named =
        Montage::of_labels(labels.view(), &geometry()).label(3, "tumour", None).label(7, "oedema", Some(orange));
    let named = named.render().unwrap();
    check_size(&plain);
    assert!(count(&plain, label_color(3)) > count(&plain, label_color(0)) / 2);
    // A label that doesn't occur stands in the legend when it has a name: a swatch of 22 by 22 pixels.
    assert_eq!(count(&named, orange), 22 * 22);
    // More labels than a legend can hold.
    let many = Array3::from_shape_fn((40, 40, 1), |(x, y, _)| (x * 40 + y) as u32);
    check_size(&Montage::of_labels(many.view(), &geometry()).render().unwrap());
}

#[test]
fn a_map_of_a_run_needs_nothing_else() {
    let map = |quantity: Quantity, data| Map { unit: "a.u./s".into(), quantity, data };
    let slope = map(Quantity::WASH_OUT_SLOPE, MapData::Float(gradient((12, 12, 3))));
    let picture = Montage::of_map(&slope, &geometry()).unwrap().render().unwrap();
    check_size(&picture);
    assert!(count(&picture, Colormap::Diverging.color(1.0)) > 0);
    let types = map(Quantity::CURVE_TYPE, MapData::Label(Array3::from_elem((4, 4, 2), 3)));
    check_size(&Montage::of_map(&types, &geometry()).unwrap().render().unwrap());
    let curves = map(Quantity::ONSET, MapData::Curve(ndarray::Array4::zeros((2, 2, 2, 5))));
    assert!(Montage::of_map(&curves, &geometry()).is_err());
}

#[test]
fn underlay_and_outline_go_beneath_and_above() {
    let mut values = Array3::from_elem((16, 16, 2), f32::NAN);
    values[[8, 8, 0]] = 1.0;
    let grey = gradient((16, 16, 2));
    let mask = Mask::from_labels(Array3::from_shape_fn((16, 16, 2), |(x, _, _)| u32::from(x > 7)).view());
    let bare = Montage::of_values(values.view(), &geometry()).slices(Slices::All);
    let full = bare.clone().underlay(grey.view()).outline(&mask).render().unwrap();
    let bare = bare.render().unwrap();
    let no_value = Colormap::Viridis.no_value();
    assert!(count(&bare, no_value) > 100_000 && count(&full, no_value) == 0);
    let other = gradient((16, 15, 2));
    assert!(Montage::of_values(values.view(), &geometry()).underlay(other.view()).render().is_err());
    let small = Mask::from_labels(Array3::zeros((1, 1, 1)).view());
    assert!(Montage::of_values(values.view(), &geometry()).outline(&small).render().is_err());
}

#[test]
fn odd_maps_give_pictures() {
    let all: Vec<Array3<f32>> = vec![
        Array3::from_elem((20, 20, 4), f32::NAN),
        Array3::from_elem((20, 20, 4), f32::INFINITY),
        Array3::zeros((20, 20, 4)),
        Array3::from_elem((20, 20, 4), -7.5),
        Array3::from_elem((1, 1, 1), 3.0),
        Array3::from_elem((1, 1, 200), 3.0),
        gradient((3000, 2, 3)),
        gradient((1, 700, 2)),
        Array3::from_shape_fn((9, 9, 3), |(x, y, _)| if x > y { f32::MAX } else { f32::MIN }),
        Array3::from_shape_fn((9, 9, 3), |(x, y, _)| 1e-42 * (x * y) as f32),
        Array3::from_shape_fn((9, 9, 3), |(x, y, _)| 1e7 + (x * y) as f32),
    ];
    check_size(&Montage::of_values(gradient((512, 512, 64)).view(), &geometry()).render().unwrap());
    for values in &all {
        for range in [Range::Percentiles(2.0, 98.0), Range::Symmetric, Range::Fixed(-1.0, 1.0)] {
            check_size(&Montage::of_values(values.view(), &geometry()).range(range).render().unwrap());
        }
    }
}

#[test]
fn odd_geometry_gives_pictures() {
    let values = gradient((30, 20, 5));
    let sizes =
        [[0.01, 50.0, 1.0], [50.0, 0.01, 1.0], [0.0, 0.0, 0.0], [f64::NAN, 1.0, 1.0], [-2.0, 1.0, f64::INFINITY]];
    for size in sizes {
        let geometry = Geometry::from_voxel_size_mm(size);
        check_size(&Montage::of_values(values.view(), &geometry).title("odd").render().unwrap());
    }
    let mut turned = geometry();
    turned.srow = [[0.0, 0.0, 0.0, 0.0]; 3];
    check_size(&Montage::of_values(values.view(), &turned).render().unwrap());
}

#[test]
fn refuses_what_it_cannot_show() {
    let values = gradient((8, 8, 4));
    let montage = || Montage::of_values(values.view(), &geometry());
    assert!(montage().slices(Slices::Chosen(vec![4])).render().is_err());
    assert!(montage().slices(Slices::Chosen(vec![])).render().is_err());
    assert!(montage().range(Range::Fixed(1.0, 1.0)).render().is_err());
    assert!(montage().range(Range::Fixed(f64::NAN, 1.0)).render().is_err());
    assert!(montage().range(Range::Percentiles(50.0, 20.0)).render().is_err());
    assert!(montage().slices(Slices::Evenly(0)).render().is_ok());
    let empty = Array3::<f32>::zeros((0, 3, 3));
    assert!(Montage::of_values(empty.view(), &geometry()).render().is_err());
    let deep = Array3::<f32>::zeros((2, 2, 500));
    assert!(Montage::of_values(deep.view(), &geometry()).slices(Slices::All).render().is_err());
    assert!(Montage::of_values(deep.view(), &geometry()).render().is_ok());
}

fn plot() -> CurvePlot {
    let times: Vec<f64> = (0..60).map(|i| 3.0 * f64::from(i)).collect();
    let values: Vec<f64> =
        times.iter().map(|t| 100.0 + 80.0 * (1.0 - (-(t - 40.0f64).max(0.0) / 20.0).exp())).collect();
    CurvePlot::new(&times, &values).title("Lesion").unit("a.u.").baseline(0..12, 100.0).overlay("fit", &times, &values)
}

#[test]
fn odd_curves_give_pictures_or_errors() {
    let marked = plot().onset(40.0, Some(1.0)).peak(177.0, 180.0).slope(45.0, 115.0, 4.0);
    assert_eq!((marked.render().unwrap().width(), marked.render().unwrap().height()), (1200, 760));
    let nan = f64::NAN;
    let odd = [
        plot()
            .onset(nan, Some(nan))
            .peak(nan, 1.0)
            .slope(0.0, 0.0, nan)
            .baseline(std::ops::Range { start: 3, end: 2 }, 1.0),
        plot().baseline(50..1000, 1e9).onset(-500.0, Some(1e6)).peak(1e4, -1e4).slope(1e9, 1e9, 1e30),
        plot().baseline(usize::MAX..usize::MAX, 1.0).slope(50.0, 120.0, 0.0),
        plot().curve("x".repeat(3000), &[nan, 3.0, 4.0], &[1.0, nan, 2.0]).title("y".repeat(3000)).size(480, 600),
        CurvePlot::new(&[1.0], &[2.0]),
        CurvePlot::new(&[0.0, 1.0, 2.0], &[5.0, 5.0, 5.0]),
        CurvePlot::new(&[0.0, 1.0, 2.0], &[0.0, 1e-300, 1e300]).onset(1.0, None),
    ];
    for plot in odd {
        plot.render().unwrap();
    }
    assert!(CurvePlot::new(&[], &[]).render().is_err());
    assert!(CurvePlot::new(&[1.0, 2.0], &[nan, f64::INFINITY]).render().is_err());
    assert!(CurvePlot::new(&[1.0, 2.0], &[1.0]).render().is_err());
    assert!(CurvePlot::new(&[0.0, 1.0], &[f64::MIN, f64::MAX]).render().is_err());
    assert!(plot().size(10, 10).render().is_err());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let values = gradient((30, 20, 6));
    let picture =
        || Montage::of_values(values.view(), &geometry()).title("Time to peak").render().unwrap().png().unwrap();
    assert_eq!(picture(), picture());
    assert_eq!(plot().render().unwrap().png().unwrap(), plot().render().unwrap().png().unwrap());
}

#[test]
fn files_appear_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let picture = plot().render().unwrap();
    let path = folder.path().join("curve.png");
    picture.save(&path).unwrap();
    picture.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), picture.png().unwrap());
    assert!(picture.save(folder.path().join("missing").join("curve.png")).is_err());
    // A folder stands where the file should go: an error, and no temporary file stays behind.
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    assert!(picture.save(folder.path().join("taken")).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

//! The HTML report: well-formed, complete, self-contained, safe with hostile names.
#![cfg(feature = "render")]

use perfuse::analysis::filling::{FillingPattern, FillingReport};
use perfuse::phantom::filling::{FillingPhantom, FillingPhantomSeries, Pattern};
use perfuse::report::{FillingPage, baseline_frames};
use perfuse::{Engine, Mask, RunOptions, Series};

fn analysed(phantom: &FillingPhantomSeries, base: bool) -> FillingReport {
    let mut pattern = FillingPattern::new().draws(50);
    if base {
        pattern = pattern.with_base(phantom.base.clone());
    }
    pattern.run(&Engine::cpu(), &phantom.series, &phantom.lesion, &RunOptions::new()).unwrap()
}

fn centrifugal() -> FillingPhantomSeries {
    FillingPhantom::ball(5.0, [1.0, 1.0, 1.2]).pattern(Pattern::Centrifugal).build().unwrap()
}

/// Elements open and close in order, attributes are quoted, no stray `<` or `&` stands in text. Returns all attributes.
fn check_well_formed(html: &str) -> Vec<(String, String)> {
    const VOID: [&str; 3] = ["meta", "img", "!DOCTYPE"];
    let mut open: Vec<String> = Vec::new();
    let mut attributes = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (text, tail) = rest.split_at(at);
        for part in text.split('&').skip(1) {
            let name = part.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "a stray & in {text:?}");
        }
        let end = tail.find('>').expect("an element ends");
        let (tag, after) = (&tail[1..end], &tail[end + 1..]);
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in another order");
            continue;
        }
        let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut inside) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '!'), "{name:?}");
        if name != "!DOCTYPE" {
            while !inside.trim().is_empty() {
                let (key, value) = inside.trim_start().split_once("=\"").unwrap_or_else(|| panic!("{inside:?}"));
                let (value, after) = value.split_once('"').expect("a value ends");
                attributes.push((format!("{name}.{key}"), value.to_string()));
                inside = after;
            }
        }
        if name == "style" {
            let style = rest.find("</style>").expect("the style ends");
            assert!(!rest[..style].contains("url(") && !rest[..style].contains("@import"));
            rest = &rest[style..];
        }
        if !closed && !VOID.contains(&name) {
            open.push(name.into());
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    attributes
}

/// The cell after this row's head.
fn cell<'h>(html: &'h str, row: &str) -> &'h str {
    let head = format!("<th scope=\"row\">{row}</th><td>");
    let at = html.find(&head).unwrap_or_else(|| panic!("no row {row}"));
    html[at + head.len()..].split("</td>").next().unwrap()
}

fn number(text: &str) -> f64 {
    let text = text.replace('\u{2212}', "-");
    match text.split_once(" × 10") {
        None => text.parse().unwrap_or_else(|_| panic!("{text:?} is no number")),
        Some(_) => panic!("{text:?}: unexpectedly large or small"),
    }
}

/// Without the pictures' bytes, whose letters may form any word.
fn without_data(html: &str) -> String {
    let mut parts = html.split(";base64,");
    let first = parts.next().unwrap().to_string();
    parts.fold(first, |text, part| text + &part[part.find('"').expect("an address ends")..])
}

#[test]
fn the_page_has_every_measure_and_loads_nothing() {
    let phantom = centrifugal();
    let report = analysed(&phantom, true);
    let page = FillingPage::new(&report, &phantom.series, &phantom.lesion).date("2026-01-31").note("operator", "A & B");
    let film = page.film_settings().width(480).film().unwrap();
    let html = page.clone().cine(film.gif().unwrap(), film.frame(film.len() - 1).unwrap()).html().unwrap();

    let attributes = check_well_formed(&html);
    let of = |name: &str| attributes.iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect::<Vec<_>>();
    let html = without_data(&html);
    assert!(!html.contains("http") && !html.contains("<script") && !html.contains("<link"));
    assert!(!html.contains("NaN"));
    let images = of("img.src");
    assert!(images.len() >= 7 && images.iter().all(|src| src.starts_with("data:image/")), "{}", images.len());
    assert!(images.iter().any(|src| src.starts_with("data:image/gif;base64,R0lGODlh")));
    assert_eq!(of("img.alt").len(), images.len());
    assert!(of("img.alt").iter().all(|alt| alt.len() > 20));
    assert!(of("a.href").is_empty());
    // Identifiers are unique, and what refers to them finds them.
    let mut ids: Vec<&String> = attributes.iter().filter(|(key, _)| key.ends_with(".id")).map(|(_, id)| id).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
    for reference in of("svg.aria-labelledby").iter().flat_map(|ids| ids.split(' ')) {
        assert!(ids.iter().any(|id| *id == reference), "{reference}");
    }
    assert_eq!(html.matches("<svg").count(), 5);
    assert!(html.contains("<th scope=\"col\">") && html.contains("<caption>"));

    let close = |row: &str, value: f64| {
        let found = number(cell(&html, row));
        assert!((found - value).abs() <= 0.006 * value.abs() + 1e-9, "{row}: {found}, {value}");
    };
    close("Centrifugality index", report.centrifugality.value);
    close("Index from the base outward", report.from_base.as_ref().unwrap().arrival.value);
    close("Lesion (mL)", report.extent.lesion_ml);
    close("Enhancing fraction (%)", 100.0 * report.extent.enhancing_fraction);
    close("Not enhancing (mL)", report.extent.not_enhancing_ml);
    close("Standard error of the arrival, median (s)", report.arrival_se_s);
    close("Common level (a.u.)", report.level);
    let speed = report.speed.as_ref().unwrap();
    close("Slowness (s/mm)", speed.slowness_s_per_mm);
    assert_eq!(report.outward.sign, 1);
    if let Some(median) = speed.median_mm_per_s {
        close("Apparent front speed (mm/s)", median);
    }
    if let Ok(origin) = &report.origin {
        close("Origin, depth (mm)", origin.depth_mm);
        let found: Vec<f64> = cell(&html, "Origin (world mm)").split(", ").map(number).collect();
        assert!((0..3).all(|a| (found[a] - origin.world_mm[a]).abs() < 0.06), "{found:?}");
    }
    let words = &report.description;
    for sentence in [&words.origin, &words.direction, &words.speed, &words.extent] {
        assert!(html.contains(&format!("<p>{sentence}</p>")), "{sentence}");
    }
    assert!(html.contains(words.caution) && html.contains("2026-01-31") && html.contains("A &amp; B"));
    for (name, _) in &report.settings {
        assert!(html.contains(&format!("<th scope=\"row\">{}</th>", name.replace('_', " "))), "{name}");
    }
    assert!(html.contains(concat!("perfuse ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn names_from_files_cannot_leave_their_place() {
    let phantom = centrifugal();
    let evil = "/home/jane/</title><img src=x onerror=alert(1)>\" ' & {{}} .nii.gz";
    let series: Series = phantom.series.clone().with_source(evil);
    let lesion: Mask = phantom.lesion.clone().with_source("/home/jane/<script>alert(1)</script>.nii");
    let pattern = FillingPattern::new().draws(50);
    let report = pattern.run(&Engine::cpu(), &series, &lesion, &RunOptions::new()).unwrap();
    let page = FillingPage::new(&report, &series, &lesion).note("<i>", "\u{202e}gpj.exe").pictures(false);
    let html = page.html().unwrap();
    check_well_formed(&html);
    assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<i>") && !html.contains('\u{202e}'));
    assert!(!html.contains("jane") && html.contains("alert(1)&gt;&quot; &#39; &amp;"));
}

#[test]
fn nothing_found_is_said() {
    let phantom = FillingPhantom::ball(4.0, [1.0; 3]).pattern(Pattern::None).build().unwrap();
    let report = analysed(&phantom, false);
    let page = FillingPage::new(&report, &phantom.series, &phantom.lesion);
    let html = page.html().unwrap();
    check_well_formed(&html);
    let html = without_data(&html);
    assert!(cell(&html, "Centrifugality index").contains("undetermined"));
    assert!(!html.contains("NaN") && !html.contains(">inf"));
    assert!(cell(&html, "Origin").contains("undetermined"));
    // The cine of what doesn't enhance is drawn, too.
    let film = page.film_settings().width(480).film().unwrap();
    assert!(film.frame(film.len() - 1).unwrap().width() == 480);
}

#[test]
fn baseline_frames_lie_before_the_lesion_fills() {
    let phantom = centrifugal();
    let report = analysed(&phantom, false);
    let frames = baseline_frames(&report);
    let first = phantom.arrival_s.iter().copied().filter(|t| t.is_finite()).fold(f32::INFINITY, f32::min);
    let times = phantom.series.times().unwrap().seconds();
    assert!(frames.start == 0 && times[frames.end - 1] < f64::from(first), "{frames:?} {first}");
    assert!(times[frames.end + 5] > f64::from(first), "{frames:?} {first}");
}

#[test]
fn the_file_appears_whole() {
    let phantom = centrifugal();
    let report = analysed(&phantom, false);
    let page = FillingPage::new(&report, &phantom.series, &phantom.lesion).pictures(false);
    let folder = tempfile::tempdir().unwrap();
    page.save(folder.path().join("report.html")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("report.html")).unwrap(), page.html().unwrap());
    assert!(page.save(folder.path().join("missing").join("report.html")).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // The table for other programs: as many cells in every row.
    let csv = report.shells_csv();
    let cells: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(cells.len(), 1 + report.shells.len());
    assert!(cells.iter().all(|n| *n == 16 + report.times_s.len()), "{cells:?}");
    for (line, shell) in csv.lines().skip(1).zip(&report.shells) {
        let cells: Vec<&str> = line.split(',').collect();
        let median = shell.arrival_quartiles_s[1];
        assert_eq!(cells[9].parse().ok(), Some(median).filter(|t| t.is_finite()));
        assert_eq!(cells[6].parse(), Ok(shell.voxels));
        assert_eq!(cells[16 + 60].parse(), Ok(shell.curve[60]));
    }
}

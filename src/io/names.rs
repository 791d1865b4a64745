//! File names of images and of what lies beside them. Only known endings are taken off: `sub.cbf.nii.gz` is `sub.cbf`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Whether the name ends in this, whatever its case.
pub(super) fn ends_in(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// The file name without `.gz` and without `.nii`, `.hdr` or `.img`.
fn base(path: &Path) -> OsString {
    let mut name = PathBuf::from(path.file_name().unwrap_or_default());
    for endings in [&["gz"][..], &["nii", "hdr", "img"]] {
        if endings.iter().any(|ending| ends_in(&name, ending)) {
            name = PathBuf::from(name.file_stem().unwrap_or_default());
        }
    }
    name.into_os_string()
}

/// The file of the same name with another ending, in the same folder.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = base(path);
    name.push(ending);
    path.with_file_name(name)
}

/// Whether the name is that of a pair's sample file.
pub(super) fn is_img(path: &Path) -> bool {
    ends_in(path, "img")
        || (ends_in(path, "gz") && path.file_stem().is_some_and(|stem| ends_in(Path::new(stem), "img")))
}

/// The other member of a pair, compressed or not, if it is there.
pub(super) fn other_member(path: &Path, ending: &str) -> Option<PathBuf> {
    let upper = ending.to_uppercase();
    [ending.to_string(), format!("{ending}.gz"), upper.clone(), format!("{upper}.GZ")]
        .iter()
        .map(|ending| beside(path, ending))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_names_stay_whole() {
        for (given, sidecar) in [
            ("a/dce.nii.gz", "a/dce.json"),
            ("a/sub.cbf.nii", "a/sub.cbf.json"),
            ("sub-1.2.NII.GZ", "sub-1.2.json"),
            ("x.img.gz", "x.json"),
            ("x.y", "x.y.json"),
            (".nii", ".nii.json"),
        ] {
            assert_eq!(beside(Path::new(given), ".json"), Path::new(sidecar), "{given}");
        }
        assert!(is_img(Path::new("a.b.img.gz")) && is_img(Path::new("A.IMG")) && !is_img(Path::new("img.gz")));
    }
}

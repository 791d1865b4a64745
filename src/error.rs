//! The one error type: every variant says what is wrong and how to mend it.

use std::path::{Path, PathBuf};

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `write`, `rename` …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file's content can't be used.
    #[error("{}: {field} is {value}; {mend}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The field or part of the file that is wrong.
        field: String,
        /// What was found there.
        value: String,
        /// What is accepted, or what to do.
        mend: String,
    },
    /// No usable time axis.
    #[error("{what}: no usable time axis: {found}; {mend}")]
    Time {
        /// The series: a file, or "array".
        what: String,
        /// What was found, and where.
        found: String,
        /// What to do.
        mend: String,
    },
    /// Two images, or an image and its times, don't belong together.
    #[error("{what} does not match {other}: {detail}")]
    Mismatch {
        /// The image that was given to go with `other`.
        what: String,
        /// What it should match.
        other: String,
        /// How they differ.
        detail: String,
    },
    /// A setting has a value that can't be used.
    #[error("setting {name} is {value}; {mend}")]
    Setting {
        /// The setting.
        name: String,
        /// Its value.
        value: String,
        /// What is accepted, or what to do.
        mend: String,
    },
    /// A map that this run doesn't have.
    #[error("there is no map {id:?}; there are: {known}")]
    UnknownMap {
        /// The identifier asked for.
        id: String,
        /// The identifiers there are.
        known: String,
    },
    /// No device answers to the request.
    #[error("no device matches {wanted:?}; found: {found}; {mend}")]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// The devices that are there.
        found: String,
        /// What to do.
        mend: String,
    },
    /// No artery can be found in a series.
    #[error("{series}: no artery found: {found}; {mend}")]
    NoArtery {
        /// The series: a file, or "the series".
        series: String,
        /// What was found instead.
        found: String,
        /// What to do.
        mend: String,
    },
    /// The device or its driver failed.
    #[error("device {device}: {problem}; {mend}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        problem: String,
        /// What to do.
        mend: String,
    },
    /// The work doesn't fit into memory, even in the smallest pieces.
    #[error("{place} has too little memory: {needed_bytes} bytes are needed, {limit_bytes} are allowed; {mend}")]
    OutOfMemory {
        /// Where the memory is missing.
        place: String,
        /// Bytes that the smallest piece of the work needs.
        needed_bytes: u64,
        /// Bytes that may be used.
        limit_bytes: u64,
        /// What to do.
        mend: String,
    },
    /// A result is there already and must not be overwritten unasked.
    #[error("{} exists already; allow overwriting (--force in the examples) or choose another folder", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The caller cancelled the run.
    #[error("cancelled")]
    Cancelled,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn setting(name: impl Into<String>, value: impl ToString, mend: impl Into<String>) -> Self {
        Error::Setting { name: name.into(), value: value.to_string(), mend: mend.into() }
    }

    pub(crate) fn mismatch(what: impl Into<String>, other: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Mismatch { what: what.into(), other: other.into(), detail: detail.into() }
    }

    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    pub(crate) fn file(
        path: impl AsRef<Path>,
        field: impl Into<String>,
        value: impl ToString,
        mend: impl Into<String>,
    ) -> Self {
        Error::File {
            path: path.as_ref().to_path_buf(),
            field: field.into(),
            value: value.to_string(),
            mend: mend.into(),
        }
    }
}

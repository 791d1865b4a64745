//! What the example programs share: arguments, reading, progress, the curve figure and the last words.
#![allow(dead_code, reason = "every program uses a part of this")]

pub(crate) mod arguments;
pub(crate) mod bandwidth;
pub(crate) mod conversion;
pub(crate) mod figure;
pub(crate) mod input;
pub(crate) mod input_function;
pub(crate) mod pictures;
pub(crate) mod progress;
pub(crate) mod summary;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use perfuse::{Error, Result};

/// Prints the error, if any, as one line, and decides the exit code: 0 for success, 2 for a value that can't be used (as
/// clap does for flags that don't exist), 1 for everything else.
pub(crate) fn finish(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    match error {
        Error::Setting { .. } | Error::UnknownMap { .. } | Error::NoDevice { .. } => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

/// Prints to the standard output. That nobody reads it (`| head`) is no reason to fail.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Refuses before any work is done if there is a result already, unless it may be replaced.
pub(crate) fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    if !force && path.exists() { Err(Error::Exists { path: path.into() }) } else { Ok(()) }
}

/// Writes a small file under a temporary name and renames it, so that it appears whole or not at all.
pub(crate) fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|source| {
        // What went wrong first is what the caller should hear.
        let _ = std::fs::remove_file(&temporary);
        Error::Io { action: "write", path: path.into(), source }
    })
}

/// Today's date, UTC, as year-month-day.
pub(crate) fn today() -> String {
    time::UtcDateTime::now().date().to_string()
}

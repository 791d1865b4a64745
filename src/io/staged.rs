//! Files that appear whole or not at all: written under a temporary name, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::options::Overwrite;
use crate::error::{Error, Result};

/// Keeps apart what several threads of this process write at once.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A complete file under a temporary name; it is removed unless it is committed.
pub(super) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
    bytes: u64,
    /// Waits for the disk while the next file is made.
    syncing: Option<JoinHandle<io::Result<()>>>,
}

impl Staged {
    /// Writes a file that [`commit`](Staged::commit) gives its name.
    pub(super) fn write(target: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let temporary = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(|e| Error::io("write", &temporary, e))?;
        // From here on the file is there and has to go if anything fails.
        let mut staged = Self { temporary, target: target.to_path_buf(), bytes: 0, syncing: None };
        let failed = |e| Error::io("write", target, e);
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        content(&mut writer).map_err(failed)?;
        let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
        staged.bytes = file.metadata().map_err(failed)?.len();
        let sync = std::thread::Builder::new().name("sync".into()).spawn(move || file.sync_all());
        staged.syncing = Some(sync.map_err(failed)?);
        Ok(staged)
    }

    /// The name that the file will have, without its folder.
    pub(super) fn name(&self) -> String {
        self.target.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits until the disk has the file.
    pub(super) fn settle(&mut self) -> Result<()> {
        let Some(syncing) = self.syncing.take() else { return Ok(()) };
        let outcome = syncing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.map_err(|e| Error::io("write", &self.target, e))
    }

    fn commit(mut self) -> Result<()> {
        self.settle()?;
        // A file of this name that appeared in the meantime is replaced: there is no portable rename that refuses to.
        fs::rename(&self.temporary, &self.target).map_err(|e| Error::io("rename into place", &self.target, e))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Not every system removes a file that is open.
        let _ = self.settle();
        // After a rename there is nothing left to remove, and while failing there is nobody left to tell.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Gives all files their names, in order. If that fails and nothing was there before, nothing is there afterwards.
pub(super) fn commit_all(files: Vec<Staged>, overwrite: Overwrite) -> Result<()> {
    let mut done: Vec<PathBuf> = Vec::with_capacity(files.len());
    for file in files {
        let target = file.target.clone();
        if let Err(error) = file.commit() {
            if overwrite == Overwrite::Refuse {
                for path in done {
                    let _ = fs::remove_file(path);
                }
            }
            return Err(error);
        }
        done.push(target);
    }
    Ok(())
}

/// Refuses to overwrite, unless told to.
pub(super) fn check_free(targets: impl IntoIterator<Item = PathBuf>, overwrite: Overwrite) -> Result<()> {
    match overwrite {
        Overwrite::Replace => Ok(()),
        Overwrite::Refuse => match targets.into_iter().find(|target| target.symlink_metadata().is_ok()) {
            Some(path) => Err(Error::Exists { path }),
            None => Ok(()),
        },
    }
}

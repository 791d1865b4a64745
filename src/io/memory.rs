//! How much memory there is, and files for what doesn't fit.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// What samples may take where the system doesn't say how much memory there is.
const UNKNOWN: u64 = 4 << 30;

/// Memory that samples may take unless told: a third of the machine's (or of what its container may use), so that maps and
/// other programs have room, and no more than half of what is free.
pub(super) fn default_limit() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    };
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    match field("MemTotal:") {
        Some(total) => {
            let total = total.min(container.unwrap_or(u64::MAX));
            (total / 3).min(field("MemAvailable:").map_or(u64::MAX, |free| free / 2))
        }
        None => UNKNOWN,
    }
}

/// A file that nobody else sees and that is gone when this program is, however it ends.
pub(super) struct Scratch {
    file: File,
    folder: PathBuf,
    needed: u64,
    written: u64,
}

impl Scratch {
    /// Makes one in a folder, for so many bytes.
    pub(super) fn new(folder: Option<&Path>, needed: u64) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let name = format!(".perfuse-{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(windows)]
        {
            // FILE_FLAG_DELETE_ON_CLOSE
            std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0400_0000);
        }
        let file = options.open(&path).map_err(|e| Error::io("write", &path, e))?;
        // An open file lives on without its name.
        #[cfg(not(windows))]
        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        Ok(Self { file, folder, needed, written: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::OutOfMemory {
                    place: format!("the folder {}", self.folder.display()),
                    needed_bytes: self.needed,
                    limit_bytes: self.written,
                    mend: "inflated, the series fits neither the memory limit nor this folder: name another \
                           (ReadOptions::scratch_folder), raise the limit, or inflate the file yourself and give the .nii"
                        .into(),
                }
            }
            _ => Error::io("write", &self.folder, error),
        })?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_file_has_no_name_and_keeps_its_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut scratch = Scratch::new(Some(folder.path()), 6).expect("a file");
        scratch.write(b"abc").expect("room");
        scratch.write(b"def").expect("room");
        if cfg!(unix) {
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        }
        let mut back = [0; 6];
        assert_eq!(crate::stored::read_at(&scratch.into_file(), &mut back, 0).expect("readable"), 6);
        assert_eq!(&back, b"abcdef");
        let missing = Scratch::new(Some(&folder.path().join("none")), 6).err().expect("no folder").to_string();
        assert!(missing.contains("none"), "{missing}");
    }

    #[test]
    fn the_default_limit_is_less_than_the_machine_has() {
        let limit = default_limit();
        assert!(limit > 0 && (limit == UNKNOWN || cfg!(target_os = "linux")));
    }
}

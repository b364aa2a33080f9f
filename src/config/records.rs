//! Whether the file that records of calls go to can be written.

use super::model::Conf;
use crate::settings::RecordsTo;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

impl Conf {
    /// Tries whether records could be written, and leaves nothing behind. A socket's reader may start later.
    pub fn check_records(&self) -> Result<(), String> {
        match &self.records.file {
            Some(RecordsTo::File(path)) => try_file(path).map_err(|error| format!("[records] file: {}: {error}", path.display())),
            Some(RecordsTo::Socket(_)) | None => Ok(()),
        }
    }
}

/// Refuses a FIFO: it can be opened only while somebody reads it, and loses lines if that one stops.
pub fn refuse_fifo(path: &Path) -> io::Result<()> {
    match fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        true => Err(io::Error::new(ErrorKind::InvalidInput, "this is a FIFO: name a file, or a socket after \"unixgram:\"")),
        false => Ok(()),
    }
}

fn try_file(path: &Path) -> io::Result<()> {
    refuse_fifo(path)?;
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => try_folder(path),
        opened => opened.map(drop),
    }
}

/// Whether the file can be made. Another one is, for a moment: this one may be made by the server at the same time.
fn try_folder(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".check-{}", std::process::id()));
    let beside = path.with_file_name(name);
    OpenOptions::new().write(true).create_new(true).open(&beside)?;
    fs::remove_file(&beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_found_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("calls.json");
        try_file(&file).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(&file, "{}\n").unwrap();
        try_file(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "{}\n");
        assert_eq!(try_file(&folder.path().join("none/calls.json")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(try_file(folder.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert!(try_file(Path::new("/proc/calls.json")).is_err());
    }
}

//! Files that a user names: reads have a limit, writes are complete or absent.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use varia_facts::Bytes;

use crate::Failure;

/// Standard input, as a file's name.
pub(crate) const INPUT: &str = "-";

/// Largest accepted description of a host or plan of a VM, in bytes.
const MOST_JSON: u64 = 64 << 20;

/// A file, or standard input; not more than `most` bytes of it.
pub(crate) fn read(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new(INPUT) {
        io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// A text of JSON.
pub(crate) fn read_json(file: &Path) -> io::Result<String> {
    let bytes = read(file, MOST_JSON + 1)?;
    if bytes.len() as u64 > MOST_JSON {
        let text = format!("the file is larger than {}", Bytes(MOST_JSON));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a file.
pub(crate) fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_all(&[(file.to_owned(), bytes.to_owned())])
}

/// Writes all files or none. An existing path that is not a regular file, such as a terminal, is
/// written to.
pub(crate) fn write_all(files: &[(PathBuf, Vec<u8>)]) -> Result<(), Failure> {
    let mut ready = Vec::new();
    for (file, bytes) in files {
        ready.push((
            prepare(file, bytes).map_err(|error| unwritten(file, &error))?,
            file,
        ));
    }
    for (partial, file) in ready {
        let Some((partial, target)) = partial else {
            continue;
        };
        partial
            .persist(target)
            .map_err(|error| unwritten(file, &error.error))?;
    }
    Ok(())
}

/// Temporary file beside the target, and the target with links followed; `None` if the bytes were
/// written to the path itself.
fn prepare(file: &Path, bytes: &[u8]) -> io::Result<Option<(NamedTempFile, PathBuf)>> {
    // through links, those of a process's own files too, which lead to no path
    let there = fs::metadata(file).ok();
    let in_place = |there: &fs::Metadata| {
        !there.is_file() || file.starts_with("/dev") || file.starts_with("/proc")
    };
    if there.as_ref().is_some_and(in_place) {
        File::options().append(true).open(file)?.write_all(bytes)?;
        return Ok(None);
    }
    if there.is_some() {
        // who may not write it may not replace it
        File::options().write(true).open(file)?;
    } else if fs::symlink_metadata(file).is_ok() {
        let text = "the path is a link to a missing file";
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let target = match &there {
        Some(_) => fs::canonicalize(file)?,
        None => file.to_owned(),
    };
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut partial = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    partial.write_all(bytes)?;
    if let Some(there) = there {
        partial.as_file().set_permissions(there.permissions())?;
    }
    Ok(Some((partial, target)))
}

/// Error for a file that can't be written.
pub(crate) fn unwritten(file: &Path, error: &io::Error) -> Failure {
    format!(
        "can't write {}: {error}: name a file in a directory that you may write to",
        file.display()
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_devices_stay_what_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").expect("a file");
        let mode = fs::Permissions::from_mode(0o664);
        fs::set_permissions(&file, mode.clone()).expect("its permissions");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        write(&link, b"new").expect("it is written");
        assert_eq!(fs::read(&file).expect("the file"), b"new");
        let kept = fs::metadata(&file).expect("the file").permissions();
        assert_eq!(kept.mode() & 0o777, mode.mode());
        assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
        write(Path::new("/dev/null"), b"new").expect("it is written");
        let names = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(names, 2);
    }

    #[test]
    fn none_is_written_unless_all_can_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (folder.path().join("one"), folder.path().join("no/two"));
        let files = [(one.clone(), vec![1]), (two.clone(), vec![2])];
        let error = write_all(&files)
            .expect_err("there is no folder")
            .to_string();
        assert!(error.contains(&*two.to_string_lossy()), "{error}");
        assert!(!one.exists());
        let left = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        let bytes = read(Path::new("/dev/zero"), 100).expect("zeros");
        assert_eq!(bytes.len(), 100);
        let error = read_json(Path::new("/dev/zero")).expect_err("there is no end");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}

//! CNI configuration files on disk: one by path, all of a folder, the one with a name, the plugins of a subfolder.
//!
//! Reads bytes and names, bounded; what they mean is for others.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;
/// Most bytes of all files of one folder together.
const MOST_OF_ALL: usize = 4 << 20;
/// Most files of one folder that are looked at.
const MOST_FILES: usize = 1_024;

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Does its name say that it is a list?
    pub is_list: bool,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

/// The file at `path`.
pub fn at(path: &Path) -> io::Result<Found> {
    read(path.to_owned())
}

/// Every configuration of `folder` by name, in the order in which runtimes take them, with what is in it or why that
/// cannot be read.
///
/// # Errors
/// The folder cannot be read.
pub fn all(folder: &Path) -> io::Result<Vec<(String, io::Result<Vec<u8>>)>> {
    let mut room = MOST_OF_ALL;
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let bytes = read(path).map(|found| found.bytes).and_then(|bytes| {
            room = room.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("the folder has too much in it"))?;
            Ok(bytes)
        });
        Some((name, bytes))
    };
    Ok(configurations(folder)?.into_iter().filter_map(named).collect())
}

/// What a search by name came to.
#[derive(Debug, Default)]
pub struct NamedSearch {
    /// The first file of that name.
    pub found: Option<Found>,
    /// Files before it that cannot be used, each with why: somebody else's broken file is no reason to stop.
    pub passed_over: Vec<String>,
}

/// The first configuration in `folder` whose `name` is `name`. A folder that is not there has none.
pub fn named(folder: &Path, name: &str) -> io::Result<NamedSearch> {
    let mut search = NamedSearch::default();
    let paths = match configurations(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(search),
        other => other?,
    };
    for path in paths {
        let shown = path.display().to_string();
        match read(path).and_then(|found| Ok((serde_json::from_slice::<Named>(&found.bytes)?.name, found))) {
            Ok((has, found)) if has.as_deref() == Some(name) => {
                search.found = Some(found);
                break;
            }
            Ok(_) => {}
            Err(error) => search.passed_over.push(format!("{shown}: {error}")),
        }
    }
    Ok(search)
}

/// The name of a file with these bytes beside `path`, whose name begins with that of `path`: what was renamed out of the
/// way, such as `x.conflist.bak`.
pub fn renamed(path: &Path, bytes: &[u8]) -> Option<String> {
    let begins = format!("{}.", path.file_name()?.to_str()?);
    let entries = fs::read_dir(path.parent()?).ok()?.flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| {
        name.starts_with(&begins) && read(path.with_file_name(name)).is_ok_and(|found| found.bytes == bytes)
    })
}

/// Every `*.conf` of `folder`, in order; none if it is not there.
pub fn below(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let paths = match sorted(folder, &["conf"]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    paths.into_iter().map(|path| read(path).map(|found| found.bytes)).collect()
}

fn configurations(folder: &Path) -> io::Result<Vec<PathBuf>> {
    sorted(folder, &["conf", "json", "conflist"])
}

fn sorted(folder: &Path, endings: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().and_then(|e| e.to_str()).is_some_and(|ending| endings.contains(&ending)));
    paths.sort();
    paths.truncate(MOST_FILES);
    Ok(paths)
}

fn read(path: PathBuf) -> io::Result<Found> {
    let mut bytes = Vec::new();
    // Not to wait for the other end of a pipe that somebody put there.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("{} is larger than {MOST_BYTES} bytes", path.display())));
    }
    let is_list = path.extension().is_some_and(|ending| ending == "conflist");
    Ok(Found { path, bytes, is_list })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_path_folder_and_name() {
        let folder = std::env::temp_dir().join(format!("multus-conf-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("10-a.conflist", r#"{"name":"a","plugins":[]}"#),
            ("20-b.conf", r#"{"name":"b","type":"x"}"#),
            ("05-c.txt", r#"{"name":"c"}"#),
            ("07-broken.conf", "{"),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        fs::create_dir(folder.join("01-folder.conf")).unwrap();
        let names: Vec<_> = all(&folder).unwrap().into_iter().map(|(name, read)| (name, read.is_ok())).collect();
        let wanted =
            [("01-folder.conf", false), ("07-broken.conf", true), ("10-a.conflist", true), ("20-b.conf", true)];
        assert_eq!(names, wanted.map(|(name, read)| (name.to_owned(), read)));
        assert!(all(&folder.join("none")).is_err());
        fs::remove_dir(folder.join("01-folder.conf")).unwrap();
        assert!(at(&folder.join("10-a.conflist")).unwrap().is_list);
        fs::create_dir(folder.join("08-folder.conf")).unwrap();
        let search = named(&folder, "b").unwrap();
        assert_eq!(search.found.unwrap().path, folder.join("20-b.conf"));
        let [broken, odd] = search.passed_over.as_slice() else { panic!("{:?}", search.passed_over) };
        assert!(broken.contains("07-broken.conf") && broken.contains("line 1"), "{broken}");
        assert!(odd.contains("08-folder.conf"), "{odd}");
        fs::remove_dir(folder.join("08-folder.conf")).unwrap();
        assert!(named(&folder, "c").unwrap().found.is_none());
        assert!(named(&folder.join("none"), "c").unwrap().found.is_none());
        assert!(at(&folder.join("none")).is_err());
        assert_eq!(below(&folder).unwrap().len(), 2);
        let a = folder.join("10-a.conflist");
        assert_eq!(renamed(&a, br#"{"name":"a","plugins":[]}"#), None);
        fs::rename(&a, folder.join("10-a.conflist.bak")).unwrap();
        assert_eq!(renamed(&a, br#"{"name":"a","plugins":[]}"#).as_deref(), Some("10-a.conflist.bak"));
        assert_eq!(renamed(&a, b"{}"), None);
        fs::remove_dir_all(folder).unwrap();
    }
}

//! CNI configuration files on disk: one by path, the first of a folder, the one with a name, the plugins of a subfolder.
//!
//! Reads bytes and names, bounded; what they mean is for others.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;
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

/// The file at `path`, or the first configuration of the folder at `path`.
pub fn at(path: &Path) -> io::Result<Found> {
    if !path.is_dir() {
        return read(path.to_owned());
    }
    let first = configurations(path)?.into_iter().next();
    first.map_or_else(|| Err(io::Error::other(format!("no configuration in {}", path.display()))), read)
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
    fs::File::open(&path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
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
        assert_eq!(at(&folder).unwrap().path, folder.join("07-broken.conf"));
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
        fs::remove_dir_all(folder).unwrap();
    }
}

//! Which number does a protocol of the operator's own have? The one it had, so that its counters stay its own.
//!
//! Kept as the names of empty folders beside the pins, `protocols/<number>-<name>`, where `ls` shows them. Decides only
//! who gets which number.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::error::DatapathError;

/// Protocols' numbers and names.
pub(super) type Numbered = Vec<(u32, String)>;

/// Numbers of the protocols with these names; the second list is numbers whose protocol is gone or another.
///
/// A name keeps its number; a new one gets the lowest that is free. What finds no number has none.
pub(super) fn assign(kept: &[(u32, String)], names: &[&str], mut free: Range<u32>) -> (Numbered, Numbered) {
    let range = free.clone();
    let (mut given, gone): (Vec<_>, Vec<_>) =
        kept.iter().cloned().partition(|(number, name)| names.contains(&name.as_str()) && range.contains(number));
    for name in names {
        if given.iter().any(|(_, known)| known == name) {
            continue;
        }
        if let Some(number) = free.find(|number| !given.iter().any(|(taken, _)| taken == number)) {
            given.push((number, (*name).to_owned()));
        }
    }
    (given, gone)
}

/// What the folder remembers; one that is not there remembers nothing.
pub(super) fn remembered(folder: &Path) -> Numbered {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut numbers: Numbered = names.filter_map(|name| parse(&name)).collect();
    numbers.sort_unstable();
    numbers
}

/// Remembers `given` and forgets `gone`.
pub(super) fn remember(folder: &Path, given: &[(u32, String)], gone: &[(u32, String)]) -> Result<(), DatapathError> {
    let path = |(number, name): &(u32, String)| folder.join(format!("{number}-{name}"));
    for each in gone {
        done(fs::remove_dir(path(each)), io::ErrorKind::NotFound, "remove", &path(each))?;
    }
    for each in given {
        done(fs::create_dir(path(each)), io::ErrorKind::AlreadyExists, "create", &path(each))?;
    }
    Ok(())
}

fn done(result: io::Result<()>, fine: io::ErrorKind, action: &'static str, path: &Path) -> Result<(), DatapathError> {
    match result {
        Err(source) if source.kind() != fine => Err(DatapathError::Pins { action, path: path.to_owned(), source }),
        _ => Ok(()),
    }
}

fn parse(name: &str) -> Option<(u32, String)> {
    let (number, name) = name.split_once('-')?;
    Some((number.parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(u32, &str)]) -> Numbered {
        pairs.iter().map(|(number, name)| (*number, (*name).to_owned())).collect()
    }

    #[test]
    fn a_name_keeps_its_number_and_new_ones_fill_the_gaps() {
        let kept = list(&[(18, "a"), (19, "b"), (20, "c-d")]);
        let (given, gone) = assign(&kept, &["c-d", "new", "a", "other"], 18..22);
        assert_eq!(given, list(&[(18, "a"), (20, "c-d"), (19, "new"), (21, "other")]));
        assert_eq!(gone, list(&[(19, "b")]));
    }

    #[test]
    fn there_are_no_more_numbers_than_there_are() {
        assert_eq!(assign(&[], &["a", "b", "c"], 18..20).0, list(&[(18, "a"), (19, "b")]));
        let (given, gone) = assign(&list(&[(5, "a")]), &["a"], 18..20);
        assert_eq!((given, gone), (list(&[(18, "a")]), list(&[(5, "a")])), "a number of another table");
    }

    #[test]
    fn folders_remember() {
        let folder = std::env::temp_dir().join(format!("protocol-numbers-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        remember(&folder, &list(&[(18, "a"), (19, "b-c")]), &[]).unwrap();
        remember(&folder, &list(&[(19, "b-c")]), &list(&[(18, "a"), (30, "never")])).unwrap();
        assert_eq!(remembered(&folder), list(&[(19, "b-c")]));
        fs::remove_dir_all(&folder).unwrap();
    }
}

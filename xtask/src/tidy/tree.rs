//! What the repository holds: every file with its text, and for Rust files the code without comments, strings and tests.

mod lexer;

use std::fs;
use std::path::Path;

/// Every file below the root, in order of path; what is not text is empty.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
}

/// One file.
pub(super) struct File {
    /// Path from the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// For `.rs`: the text with comments, literals and test modules blanked, line for line; otherwise empty.
    pub(super) code: String,
}

/// Folders that hold what was built, or git's own.
const NOT_OURS: [&str; 2] = ["target", ".git"];

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let mut files = Vec::new();
        walk(root, "", &mut files)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { files })
    }

    /// The file at `path`, if it is there.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Rust files below `folder`.
    pub(super) fn rust(&self, folder: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.is_rust() && file.path.starts_with(folder))
    }
}

impl File {
    pub(super) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let mut file = Self { path: path.into(), text: text.into(), code: String::new() };
        if file.is_rust() {
            file.code = lexer::without_tests(&lexer::without_prose(&file.text));
        }
        file
    }

    pub(super) fn extension(&self) -> Option<&str> {
        Path::new(&self.path).extension()?.to_str()
    }

    fn is_rust(&self) -> bool {
        self.extension() == Some("rs")
    }
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("list {}: {error}", folder.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) => {
                walk(&entry.path(), &format!("{path}/"), files)?;
            }
            // What is not text (a picture, a capture) is here to be linked to, and nothing is written in it. In a worktree
            // .git is a file.
            Ok(kind) if kind.is_file() && name != ".git" => {
                files.push(File::new(path, fs::read_to_string(entry.path()).unwrap_or_default()));
            }
            _ => {}
        }
    }
    Ok(())
}

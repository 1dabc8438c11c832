//! Debian's packages of other releases, read through an index of our own. Installs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::kernel::Series;
use super::write;
use crate::Outcome;
use crate::project::{capture, run};

/// An index of packages, apart from the machine's own.
pub(super) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Reads the index of every release that `series` come from, from wherever this machine gets its packages.
    pub(super) fn open(folder: &Path, series: &[&Series]) -> Outcome<Self> {
        let archive = Self { folder: folder.join("apt") };
        for part in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(archive.folder.join(part)).map_err(|error| format!("make {part}: {error}"))?;
        }
        let sites = capture(Command::new("apt-get").args(["indextargets", "--format", "$(SITE) $(CODENAME)"]))?;
        let main = sites.lines().filter_map(|line| line.split_once(' ')).find(|(_, release)| !release.contains('-'));
        let (site, _) = main.ok_or("no archive in the machine's package sources; run apt-get update")?;
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let line = |series: &&Series| format!("deb [signed-by={key}] {site} {} main\n", series.release);
        write(&archive.folder.join("sources.list"), series.iter().map(line).collect::<String>().as_bytes())?;
        run(archive.apt("apt-get").args(["--quiet=2", "update"]))?;
        Ok(archive)
    }

    /// Names of the packages that match a regular expression.
    pub(super) fn names(&self, expression: &str) -> Outcome<Vec<String>> {
        let found = capture(self.apt("apt-cache").args(["search", "--names-only", expression]))?;
        Ok(found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Unpacks a package below `root`.
    pub(super) fn unpack(&self, package: &str, root: &Path) -> Outcome {
        let folder = root.join("deb");
        std::fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        run(self.apt("apt-get").args(["--quiet=2", "download", package]).current_dir(&folder))?;
        let files = std::fs::read_dir(&folder).map_err(|error| format!("read {}: {error}", folder.display()))?;
        for file in files.flatten() {
            run(Command::new("dpkg").arg("-x").arg(file.path()).arg(root))?;
        }
        std::fs::remove_dir_all(&folder).map_err(|error| format!("remove {}: {error}", folder.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |part: &str| self.folder.join(part).display().to_string();
        for (key, value) in [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", at("lists")),
            ("Dir::Cache", at("cache")),
            ("Acquire::Languages", "none".into()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.arg("--option").arg(format!("{key}={value}"));
        }
        command
    }
}

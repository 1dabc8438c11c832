//! `completion` and `man`: what shells and man(1) read about this program, printed or put into a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::{Generator as _, Shell};

use crate::cli::output;
use crate::cli::{Ending, help};
use crate::fault::quote;

/// Shown with the long help of `completion`.
pub const COMPLETION_EXAMPLES: &str = "Examples:
  source <(multus-agent completion bash)
  multus-agent completion zsh --dir ~/.zfunc";

/// Shown with the long help of `man`.
pub const MAN_EXAMPLES: &str = "Examples:
  multus-agent man --dir /usr/local/share/man/man1
  multus-agent man | man -l -";

/// The program's name, as it is typed.
const NAME: &str = "multus-agent";

/// Where to put files.
#[derive(Debug, Args)]
pub struct Folder {
    /// Put the files there, and make the folder if it is missing
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// Prints the completions of a shell, or puts them into a file of the name that the shell looks for.
pub fn completion(shell: Shell, folder: &Folder) -> Ending {
    // Whole in memory first: the generator does not take a closed pipe.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut help::tree(), NAME, &mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if shell == Shell::Bash {
        // clap_complete 4.6 says a program's hyphen in two ways, and bash would find no case for what it stands at.
        text = text.replace("multus__subcmd__agent", "multus__agent");
    }
    match &folder.dir {
        None => output::print(&text),
        Some(dir) => told(dir, || fs::write(dir.join(shell.file_name(NAME)), &text)),
    }
}

/// Prints the manual's first page, or puts all its pages into a folder.
pub fn man(folder: &Folder) -> Ending {
    // Pages are not for a terminal, and the groups' titles would carry its codes.
    let tree = help::plain_tree();
    match &folder.dir {
        None => {
            let mut text = Vec::new();
            match clap_mangen::Man::new(tree).render(&mut text) {
                Ok(()) => output::print(&String::from_utf8_lossy(&text)),
                Err(error) => Ending::Failed(format!("make the manual: {error}")),
            }
        }
        Some(dir) => told(dir, || clap_mangen::generate_to(tree, dir)),
    }
}

fn told(dir: &Path, write: impl FnOnce() -> io::Result<()>) -> Ending {
    match fs::create_dir_all(dir).and_then(|()| write()) {
        Ok(()) => Ending::Fine,
        Err(error) => Ending::Failed(format!("write into {}: {error}", quote(&dir.to_string_lossy()))),
    }
}

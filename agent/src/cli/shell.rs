//! `completion` and `man`: what shells and man(1) read about this program, printed or put into a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;

use crate::cli::output;
use crate::cli::{Ending, help};
use crate::fault::quote;

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
    let mut tree = help::tree();
    match &folder.dir {
        None => {
            // Whole in memory first: the generator does not take a closed pipe.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut tree, NAME, &mut text);
            output::print(&String::from_utf8_lossy(&text))
        }
        Some(dir) => told(dir, || clap_complete::generate_to(shell, &mut tree, NAME, dir).map(|_file| ())),
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

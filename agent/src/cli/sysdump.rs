//! `sysdump`: one archive for whoever helps from afar, and what is in it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::output::{self, Format};
use crate::cli::{Agent, Ending, Show, pour};
use crate::fault::quote;
use crate::ops::sysdump::{CONTENTS, NEVER};
use crate::ops::view::API_VERSION;

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent sysdump --list                              what would be in it; nothing is made
  multus-agent sysdump -w node.tar.gz
  kubectl -n kube-system exec POD -- multus-agent sysdump -w - > node.tar.gz

The archive is made of fields that are known to be no secrets; configurations of networks, input of plugins, annotations,
tokens and the environment are not in it, and values from them are taken out of sentences and of the log. Its
MANIFEST.json says what each file is and what was left out. Names of pods, networks, services and addresses are in it.";

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Debug, Args)]
pub struct Sysdump {
    /// Where the agent is.
    #[command(flatten)]
    agent: Agent,
    /// How to print the list.
    #[command(flatten)]
    show: Show,
    /// The archive, which is replaced; - is standard output
    #[arg(short, long, value_name = "FILE", required_unless_present = "list")]
    write: Option<PathBuf>,
    /// Only list what is in an archive; asks nobody
    #[arg(long, conflicts_with = "write")]
    list: bool,
}

/// Writes the archive, or lists what is in one.
pub fn sysdump(asked: &Sysdump) -> Ending {
    let Some(file) = asked.write.as_ref().filter(|_| !asked.list) else { return list(asked.show.output) };
    let mut bytes = 0;
    let poured = pour::pour(&asked.agent.socket, "/v1/sysdump", file, PATIENCE, |piece| bytes += piece.len());
    if let Err(ending) = poured {
        return ending;
    }
    output::complain(&format!(
        "{bytes} bytes in {}; MANIFEST.json in it says what is what",
        quote(&file.to_string_lossy())
    ));
    Ending::Fine
}

fn list(format: Format) -> Ending {
    let items: Vec<_> = CONTENTS.iter().map(|(file, what)| json!({"file": file, "what": what})).collect();
    let document = json!({"apiVersion": API_VERSION, "kind": "SysdumpContents", "items": items, "never": NEVER});
    let text = match format {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => CONTENTS.map(|(file, _)| file).join("\n") + "\n",
        Format::Table | Format::Wide => {
            let rows = CONTENTS.iter().map(|(file, what)| vec![(*file).to_owned(), (*what).to_owned()]).collect();
            let never = NEVER.join("\n  ");
            format!("{}\nNever in it:\n  {never}\n", output::table(&["FILE", "WHAT"], rows))
        }
    };
    output::print(&text)
}

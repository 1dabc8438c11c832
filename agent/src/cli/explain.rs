//! `explain`: what would be attached to a pod and why, down to each plugin's standard input, and what an ADD would be
//! refused with.
//!
//! The agent plans, this prints.

use clap::Subcommand;

use crate::cli::explanation::{Format, Show, table};
use crate::cli::lint::{self, Files};
use crate::cli::{Agent, Ending, output, query};
use crate::names::NadRef;

/// What can be explained.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Plan a pod as its next ADD would be planned, and change nothing
    #[command(
        after_long_help = "Examples:\n  multus-agent explain pod home/home-assistant\n  multus-agent explain pod web -o json | jq .refusal\n\nExit code 1: an ADD would be refused. Manifests that no cluster has yet are for `multus-agent lint`."
    )]
    Pod {
        /// Which pod; without a namespace it is in `default`
        #[arg(value_name = "[NAMESPACE/]NAME", value_parser = pod_name)]
        pod: NadRef,
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
    /// Plan the pods of manifests with the networks of manifests, without an agent; the same as `lint --plan`
    File(Files),
}

fn pod_name(text: &str) -> Result<NadRef, String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    NadRef::new(namespace, name).map_err(|bad| format!("{bad}; write NAMESPACE/NAME"))
}

/// Explains; a refusal is a problem found.
pub fn explain(what: &What) -> Ending {
    match what {
        What::File(files) => lint::lint(files, true),
        What::Pod { pod, agent, show } => {
            let document = match query::document(&agent.socket, &format!("/v1/explain?pod={pod}")) {
                Ok(document) => document,
                Err(ending) => return ending,
            };
            let text = match show.output {
                Format::Json => output::json(&document),
                Format::Yaml => output::yaml(&document),
                Format::Table => table(&document),
            };
            match output::print(&text) {
                Ending::Fine if !document["refusal"].is_null() => Ending::Problem,
                ending => ending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_named_with_or_without_namespace() {
        assert_eq!(pod_name("a/b").unwrap().to_string(), "a/b");
        assert_eq!(pod_name("b").unwrap().to_string(), "default/b");
        for bad in ["", "a/b/c", "A/b", "a b", "a/?x=1"] {
            assert!(pod_name(bad).is_err(), "{bad}");
        }
    }
}

//! What has to be done to a node on which Multus runs, so that we take over, and so that Multus has it back. Decided from
//! what was seen; a node that has changed over already needs nothing.
//!
//! Reads nothing, and does nothing.

mod folders;
pub mod keys;

use crate::cni::NetworkConfig;
use crate::config::Settings;
use crate::plan::master::{self, Candidate};
use crate::plan::runtime_conf;

pub use keys::{Fate, Form, Key, Translation, translate};

/// What was seen of the node.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Our settings, as translated.
    pub settings: &'a Settings,
    /// Their text.
    pub configuration: &'a str,
    /// What is at the place of our configuration now.
    pub standing: Option<&'a [u8]>,
    /// The files in the runtime's folder.
    pub confs: &'a [Candidate],
    /// The networks that every pod gets by configuration, the master first; none: it is not known which.
    pub networks: &'a [NetworkConfig],
    /// Is the file of `multusConfigFile` on the host, where one is configured?
    pub has_config_file: bool,
}

/// One thing to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write our configuration.
    WriteConfiguration,
    /// It stands there already.
    ConfigurationStands,
    /// Another one stands there: it is the operator's.
    ConfigurationDiffers,
    /// Keep a copy of this file of Multus, which goes when Multus ends or the agent serves.
    Keep(String),
    /// This file of Multus sorts before ours and has a name that nobody removes.
    Shadowed(String),
    /// Put the CNI plugin in its place.
    PlacePlugin,
    /// Write this text for the runtime, beside what Multus wrote.
    WriteConf(String),
    /// It is there already.
    ConfStands,
    /// The agent does that, over this file of Multus, when it serves.
    ConfReplaced(String),
    /// The agent does that when it serves: nobody knows the cluster's own network yet.
    ConfLater,
    /// It is a copy of the configured file: under this name, and there already or made by the agent when it serves.
    ConfCopied {
        /// The copy's name.
        file: String,
        /// Is it there?
        stands: bool,
    },
    /// The file to be copied is not on the host.
    NothingToCopy(String),
    /// The agent does that when it serves: ours would take the node from a running Multus, whose file this is, at once.
    ConfAhead(String),
}

/// What has to be done so that we take over.
pub fn forth(seen: &Seen<'_>) -> Vec<Step> {
    let own = seen.settings.generator.plugin.as_str();
    let mut steps = vec![match seen.standing {
        None => Step::WriteConfiguration,
        Some(bytes) if bytes == seen.configuration.as_bytes() => Step::ConfigurationStands,
        Some(_) => Step::ConfigurationDiffers,
    }];
    let superseded = runtime_conf::superseded(seen.confs, runtime_conf::FILE, own);
    steps.extend(superseded.into_iter().map(|file| Step::Keep(file.to_owned())));
    let is_multus = |file: &&Candidate| {
        let content = file.content.as_deref().unwrap_or_default();
        file.file.as_str() < runtime_conf::FILE && master::leads_to_multus(content, own)
    };
    let shadowing =
        seen.confs.iter().filter(is_multus).filter(|file| !runtime_conf::names().contains(&file.file.as_str()));
    steps.extend(shadowing.map(|file| Step::Shadowed(file.file.clone())));
    steps.push(Step::PlacePlugin);
    match &seen.settings.generator.config_file {
        Some(source) => steps.extend(copied(seen, source)),
        None => steps.push(conf(seen, own)),
    }
    steps
}

/// Whoever gives a file as `multusConfigFile` has it copied, by Multus as by us.
fn copied(seen: &Seen<'_>, source: &str) -> Vec<Step> {
    let file = source.rsplit('/').next().unwrap_or(source).to_owned();
    let stands = seen.confs.iter().any(|conf| conf.file == file);
    let mut steps = vec![Step::ConfCopied { file, stands }];
    steps.extend((!seen.has_config_file).then(|| Step::NothingToCopy(source.to_owned())));
    steps
}

/// The folder in which the runtime finds plugins: what Multus calls `binDir` may have its delegates alone. Each with
/// whether Multus's plugin is there; without any sign it is the one that is configured.
pub fn plugins_folder<'a>(configured: Option<(&'a str, bool)>, found: (&'a str, bool)) -> &'a str {
    match configured {
        Some((folder, has_multus)) if has_multus || !found.1 => folder,
        _ => found.0,
    }
}

/// Our file for the runtime, before Multus ends: pods that start in between wait for the agent, and do not start without
/// their networks.
fn conf(seen: &Seen<'_>, own: &str) -> Step {
    let standing = seen.confs.iter().find(|file| file.file == runtime_conf::FILE);
    let is_multus = |file: &&Candidate| master::leads_to_multus(file.content.as_deref().unwrap_or_default(), own);
    let first = seen.confs.iter().filter(is_multus).map(|file| file.file.as_str()).min();
    match standing.map(|file| &file.content) {
        Some(Ok(bytes)) if runtime_conf::is_generated(bytes, own) => Step::ConfStands,
        // Thin mode has the same name for its own: it works until the agent is there.
        Some(_) => Step::ConfReplaced(runtime_conf::FILE.to_owned()),
        None if seen.networks.is_empty() => Step::ConfLater,
        // The runtime takes the first one by name.
        None if let Some(file) = first.filter(|file| *file > runtime_conf::FILE) => Step::ConfAhead(file.to_owned()),
        None => Step::WriteConf(runtime_conf::compose(seen.settings, seen.networks)),
    }
}

/// What is wrong with a file of `confDir` for us; `None`: it is understood. `own` is the plugin that the runtime calls.
pub fn refusal(content: &Result<Vec<u8>, String>, own: &str) -> Option<String> {
    let bytes = match content {
        Ok(bytes) => bytes,
        Err(why) => return Some(why.clone()),
    };
    match NetworkConfig::parse(bytes, None) {
        Err(error) => Some(error.to_string()),
        Ok(config) => {
            master::multus_of(&config, own).map(|plugin| format!("{} would call Multus for ever", plugin.plugin))
        }
    }
}

/// A container that is attached under us, when the node is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four facts that decide together")]
pub struct Held {
    /// The ADD was done, and no DEL has begun.
    pub is_attached: bool,
    /// Its namespace is there, or nobody knows where it is.
    pub may_live: bool,
    /// Is anything left to undo?
    pub is_due: bool,
    /// Multus has its own note of all its networks.
    pub is_noted: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fortune {
    /// Its DEL is done now: nobody will ask for it.
    Finish,
    /// Multus goes by the note that it has.
    Noted,
    /// Multus gets a note, so that its DEL undoes what we attached.
    Note,
}

/// What becomes of a container when the node is given back.
pub fn back(held: Held) -> Fortune {
    match held {
        Held { is_attached: true, may_live: true, is_due: true, is_noted: true } => Fortune::Noted,
        Held { is_attached: true, may_live: true, is_due: true, is_noted: false } => Fortune::Note,
        _ => Fortune::Finish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MULTUS: &str = r#"{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus-shim"}"#;
    const THIN: &str = r#"{"cniVersion":"1.0.0","name":"multus-cni-network","plugins":[{"type":"multus"}]}"#;
    const BRIDGE: &str = r#"{"cniVersion":"1.0.0","name":"cbr0","type":"bridge","capabilities":{"portMappings":true}}"#;

    fn steps(config: &str, standing: Option<&[u8]>, files: &[(&str, &str)], networks: &[NetworkConfig]) -> Vec<Step> {
        let (settings, _) = Settings::parse(config).unwrap();
        let candidate =
            |(file, text): &(&str, &str)| Candidate { file: (*file).to_owned(), content: Ok(text.as_bytes().to_vec()) };
        let confs: Vec<Candidate> = files.iter().map(candidate).collect();
        forth(&Seen {
            settings: &settings,
            configuration: config,
            standing,
            confs: &confs,
            networks,
            has_config_file: false,
        })
    }

    #[test]
    fn our_conf_waits_behind_multus_own() {
        let config = r#"{"cniConfigDir":"/c"}"#;
        let master = NetworkConfig::parse(BRIDGE.as_bytes(), None).unwrap();
        let ours = runtime_conf::compose(&Settings::parse(config).unwrap().0, std::slice::from_ref(&master));
        assert!(ours.contains("portMappings"));
        let files = [("00-multus.conf", MULTUS), ("10-bridge.conf", BRIDGE)];
        let first = steps(config, None, &files, std::slice::from_ref(&master));
        let wanted = [
            Step::WriteConfiguration,
            Step::Keep("00-multus.conf".to_owned()),
            Step::PlacePlugin,
            Step::WriteConf(ours.clone()),
        ];
        assert_eq!(first, wanted);
        let files = [("00-multus.conflist", ours.as_str()), ("10-bridge.conf", BRIDGE)];
        let again = steps(config, Some(config.as_bytes()), &files, std::slice::from_ref(&master));
        assert_eq!(again, [Step::ConfigurationStands, Step::PlacePlugin, Step::ConfStands]);
    }

    #[test]
    fn what_is_not_known_or_not_multus_to_decide_is_left() {
        let config = r#"{"cniConfigDir":"/c"}"#;
        let files = [("00-multus.conflist", THIN), ("00-a-multus.conf", MULTUS), ("70-multus.conf", MULTUS)];
        let seen = steps(config, Some(b"{}"), &files, &[]);
        let wanted = [
            Step::ConfigurationDiffers,
            Step::Shadowed("00-a-multus.conf".to_owned()),
            Step::PlacePlugin,
            Step::ConfReplaced("00-multus.conflist".to_owned()),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(steps(config, None, &[], &[]).last(), Some(&Step::ConfLater));
    }

    #[test]
    fn our_conf_does_not_go_ahead_of_a_multus_that_runs() {
        let config = r#"{"cniConfigDir":"/c"}"#;
        let master = NetworkConfig::parse(BRIDGE.as_bytes(), None).unwrap();
        let table: [(&[&str], Option<&str>); 6] = [
            (&[], None),
            (&["00-multus.conf"], None),
            (&["05-multus.conf"], Some("05-multus.conf")),
            (&["multus.conf", "70-multus.conf"], Some("70-multus.conf")),
            (&["70-multus.conf", "00-multus.conf"], None),
            (&["70-multus.conf", "00-a-multus.conf"], None),
        ];
        for (files, wanted) in table {
            let files: Vec<(&str, &str)> = files.iter().map(|file| (*file, MULTUS)).collect();
            let seen = steps(config, None, &files, std::slice::from_ref(&master));
            let ahead = seen.iter().find_map(|step| match step {
                Step::ConfAhead(file) => Some(file.as_str()),
                _ => None,
            });
            let is_written = seen.iter().any(|step| matches!(step, Step::WriteConf(_)));
            assert_eq!((ahead, is_written), (wanted, wanted.is_none()), "{files:?}");
        }
    }

    #[test]
    fn a_file_that_is_to_be_copied_is_the_conf() {
        let config = r#"{"cniConfigDir":"/c","multusConfigFile":"/m/70-multus.conf"}"#;
        let master = NetworkConfig::parse(BRIDGE.as_bytes(), None).unwrap();
        for (files, stands) in [(&[][..], false), (&[("70-multus.conf", MULTUS)][..], true)] {
            let seen = steps(config, None, files, std::slice::from_ref(&master));
            let wanted = [
                Step::WriteConfiguration,
                Step::PlacePlugin,
                Step::ConfCopied { file: "70-multus.conf".to_owned(), stands },
                Step::NothingToCopy("/m/70-multus.conf".to_owned()),
            ];
            assert_eq!(seen, wanted, "whatever the cluster's network is, nothing is generated");
        }
    }

    #[test]
    fn the_plugin_goes_where_multus_own_is() {
        let table = [
            (None, ("/found", true), "/found"),
            (None, ("/found", false), "/found"),
            (Some(("/configured", true)), ("/found", true), "/configured"),
            (Some(("/configured", false)), ("/found", false), "/configured"),
            (Some(("/configured", false)), ("/found", true), "/found"),
        ];
        for (configured, found, wanted) in table {
            assert_eq!(plugins_folder(configured, found), wanted, "{configured:?} {found:?}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_told() {
        let refused = |content: &str| refusal(&Ok(content.as_bytes().to_vec()), "multus-shim");
        assert_eq!(refused(BRIDGE), None);
        assert_eq!(refusal(&Err("it is a folder".to_owned()), "multus-shim").as_deref(), Some("it is a folder"));
        for (config, part) in [
            (r#"{"name":"x","plugins":[]}"#, "empty list"),
            ("{", "JSON"),
            (r#"{"name":"x","type":"multus"}"#, "for ever"),
        ] {
            let text = refused(config).unwrap_or_default();
            assert!(text.contains(part), "{config}: {text}");
        }
    }

    #[test]
    fn a_container_goes_back_with_a_note_or_is_finished() {
        let live = Held { is_attached: true, may_live: true, is_due: true, is_noted: false };
        let table = [
            (live, Fortune::Note),
            (Held { is_noted: true, ..live }, Fortune::Noted),
            (Held { is_attached: false, ..live }, Fortune::Finish),
            (Held { may_live: false, ..live }, Fortune::Finish),
            (Held { is_due: false, ..live }, Fortune::Finish),
            (Held { may_live: false, is_noted: true, ..live }, Fortune::Finish),
        ];
        for (held, wanted) in table {
            assert_eq!(back(held), wanted, "{held:?}");
        }
    }
}

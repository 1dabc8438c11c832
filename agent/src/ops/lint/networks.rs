//! What is wrong with each network by itself: configuration, annotations, plugins, addresses.

use std::path::Path;
use std::sync::Arc;

use super::Linter;
use super::rules::{self, Rule, Severity};
use crate::cni::passthru;
use crate::fault::quote;
use crate::names::PluginName;
use crate::objects::{Network, annotation};
use crate::ops::{chain, cluster_network};
use crate::plan::ipam::{self, Pools};
use crate::plan::{self, KnownNetwork, master};
use crate::sys::exec;

impl Linter<'_> {
    /// Judges every network, and keeps it for the pods.
    pub(super) fn networks(&mut self, networks: Vec<(String, Network)>) {
        let mut pools: Vec<(String, Pools)> = Vec::new();
        for (place, network) in networks {
            let object = format!("NetworkAttachmentDefinition {}", network.id);
            if self.networks.contains_key(&network.id) {
                let text = "an earlier document defines it already";
                self.say(&rules::TWICE, (&place, &object, None), (text, "remove or rename one of them"));
                continue;
            }
            self.annotations_of(&place, &object, &network);
            if let Some(known) = self.known(&place, &object, &network) {
                self.plugins_of(&place, &object, &known);
                match ipam::pools(&known) {
                    Err(why) => {
                        let field = Some("spec.config".to_owned());
                        self.say(&rules::BAD_RANGE, (&place, &object, field), (&why, "correct the range"));
                    }
                    Ok(Some(own)) => {
                        for (_, other) in &pools {
                            if let Some(text) = ipam::overlap(other, &own) {
                                let remedy = "give each network ranges of its own";
                                let field = Some("spec.config".to_owned());
                                self.say(&rules::OVERLAP, (&place, &object, field), (&text, remedy));
                            }
                        }
                        pools.push((place, own));
                    }
                    Ok(None) => {}
                }
            }
            self.networks.insert(network.id.clone(), Arc::new(network));
        }
    }

    /// The network as far as its configuration is at hand.
    fn known(&mut self, place: &str, object: &str, network: &Network) -> Option<KnownNetwork> {
        let at = (place, object, Some("spec.config"));
        let filled = match cluster_network::filled(&self.conf, Arc::new(network.clone())) {
            Ok(filled) => filled,
            Err(error) => {
                self.tell(&self.empty_spec(), at, &error);
                return None;
            }
        };
        match KnownNetwork::from_nad(&filled) {
            Ok(known) => Some(known),
            Err(error) => {
                self.tell(&rules::BAD_CONFIG, at, &error);
                None
            }
        }
    }

    fn annotations_of(&mut self, place: &str, object: &str, network: &Network) {
        let of = |key: &str| network.annotations.get(key).map(String::as_str);
        let policy = &self.conf.policy.relay;
        let verdicts = [
            (annotation::RELAY, plan::relay::protocols(of(annotation::RELAY), None, policy).err()),
            (annotation::HOST_ACCESS, plan::host_access::host_access(&network.annotations, policy.host_access).err()),
            (annotation::RELAY_COPY, plan::host_access::plain_copy(of(annotation::RELAY_COPY), None).err()),
        ];
        for (key, error) in verdicts {
            if let Some(error) =
                error.map(|error| error.within(format_args!("network {}", quote(&network.id.to_string()))))
            {
                self.tell(&rules::NETWORK_ANNOTATION, (place, object, Some(key)), &error);
            }
        }
    }

    fn plugins_of(&mut self, place: &str, object: &str, known: &KnownNetwork) {
        if let Some(plugin) = master::multus_of(&known.config, &self.given.settings.generator.plugin) {
            let text = format!("network {}: field \"type\" is {}", quote(&known.label), quote(plugin.plugin.as_str()));
            let remedy = "name the plugin that makes the interface; Multus cannot be its own delegate";
            self.say(&rules::LEADS_BACK, (place, object, Some("spec.config".to_owned())), (&text, remedy));
        }
        let plugins = known.config.plugins.iter().flat_map(|plugin| [Some(&plugin.plugin), plugin.ipam.as_ref()]);
        let missing: Vec<PluginName> = plugins.flatten().filter(|plugin| !self.has(plugin)).cloned().collect();
        for plugin in missing {
            let error = chain::not_found(plugin.as_str(), &self.folders());
            self.tell(&rules::MISSING_PLUGIN, (place, object, Some("spec.config")), &error);
        }
    }

    /// Where `confDir` is on this machine, what it lacks is an error; elsewhere nobody knows what the nodes have.
    pub(super) fn empty_spec(&self) -> Rule {
        let severity = if self.has_conf_dir() { Severity::Error } else { Severity::Warning };
        Rule { severity, ..rules::EMPTY_SPEC }
    }

    /// Is the folder of files for empty specs on this machine?
    pub(super) fn has_conf_dir(&self) -> bool {
        Path::new(&self.conf.conf_dir).is_dir()
    }

    /// Is the plugin in the folders that were given, if any were?
    pub(super) fn has(&self, plugin: &PluginName) -> bool {
        let is_built_in = plugin.as_str() == passthru::PLUGIN;
        is_built_in || self.given.bin_dirs.is_empty() || exec::find(plugin, &self.given.bin_dirs).is_some()
    }

    /// The folders, as a search path.
    pub(super) fn folders(&self) -> String {
        self.given.bin_dirs.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":")
    }
}

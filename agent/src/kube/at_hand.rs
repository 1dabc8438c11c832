//! The networks that a node knows by itself: those of a folder of manifests, else those that an agent saw last.
//!
//! Asks no API server, and follows nothing.

use std::path::Path;

use super::documents::Manifest;
use super::folder::Folder;
use super::shelf::Shelf;
use crate::objects::Network;

/// The networks in the folder `objects`, where there is one; else those kept in the folder `kept`.
pub fn networks(objects: Option<&Path>, kept: &Path) -> Vec<Network> {
    let Some(objects) = objects else { return Shelf::new(kept.to_owned()).load() };
    let mut folder = Folder::new(objects.to_owned());
    folder.look();
    let network = |manifest: &Manifest| match manifest {
        Manifest::Network(network) => Some(network.clone()),
        Manifest::Pod(_) => None,
    };
    folder.manifests().filter_map(|(_, manifest)| network(manifest)).collect()
}

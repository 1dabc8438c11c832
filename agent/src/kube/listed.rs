//! Every network of an API server, listed once: for a process that looks at a node, and ends.
//!
//! Follows nothing, keeps nothing, and judges no network.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::kube::Api;
use ::kube::api::ListParams;

use super::ClusterError;
use super::client::{CallError, Contact, Server};
use super::documents;
use super::networks::NetworkAttachmentDefinition;
use crate::objects::Network;

/// Networks of one page.
const PAGE: u32 = 250;
/// Most pages.
const MOST_PAGES: usize = 16;

/// What an API server has.
#[derive(Debug, Default)]
pub struct Listed {
    /// Its networks.
    pub networks: Vec<Network>,
    /// `<namespace>/<name>` of objects that no network can be made of, and why.
    pub unusable: Vec<(String, String)>,
    /// There are more than were listed.
    pub has_more: bool,
}

/// Lists them, within `patience`. Without a kubeconfig as a pod of the cluster does; where the cluster has no such kind of
/// object there are none.
///
/// # Errors
/// There are no usable credentials, or the server did not answer in time, or refused. Nothing of the kubeconfig is in it.
pub async fn networks(kubeconfig: Option<&Path>, patience: Duration) -> Result<Listed, ClusterError> {
    let unavailable = |reason| ClusterError::Unavailable { action: "list the networks of the cluster".into(), reason };
    let listing = async {
        let server = Server::new(kubeconfig, Arc::new(Contact::default())).await?;
        list(&server, patience).await.map_err(|error| unavailable(error.text()))
    };
    let late = || unavailable(format!("no answer within {} ms", patience.as_millis()));
    tokio::time::timeout(patience, listing).await.unwrap_or_else(|_late| Err(late()))
}

async fn list(server: &Server, patience: Duration) -> Result<Listed, CallError> {
    let (mut listed, mut params) = (Listed::default(), ListParams::default().limit(PAGE));
    for _ in 0..MOST_PAGES {
        let api: Api<NetworkAttachmentDefinition> = Api::all(server.client());
        let page = match server.call(("list", "network-attachment-definitions"), patience, api.list(&params)).await {
            Err(CallError::Refused(404, _)) => return Ok(listed),
            page => page?,
        };
        page.items.iter().for_each(|object| take(object, &mut listed));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(listed),
        }
    }
    listed.has_more = true;
    Ok(listed)
}

/// As a manifest is read, which says what is wrong with a field.
fn take(object: &NetworkAttachmentDefinition, listed: &mut Listed) {
    let read = serde_json::to_value(object).map_err(|error| error.to_string());
    match read.and_then(|value| documents::network(&value)) {
        Ok(network) => listed.networks.push(network),
        Err(why) => listed.unusable.push((object.shown(), why)),
    }
}

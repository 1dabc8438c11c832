//! Which object or collection a path means.
//!
//! Knows the kinds the double serves, and nothing about their contents.

use super::resource::{CLAIMS, EVENTS, LEASES, NETWORKS, PODS, Resource, SLICES};
use super::store::Refusal;

/// A collection, an object in it, or a part of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) resource: Resource,
    /// `None`: all namespaces.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) is_status: bool,
}

pub(super) fn read(path: &str) -> Result<Place, Refusal> {
    let not_found = || Refusal::new(404, "NotFound", "the server could not find the requested resource");
    let known = [PODS, EVENTS, NETWORKS, CLAIMS, SLICES, LEASES];
    let (resources, rest) = known
        .iter()
        .find_map(|resource| {
            let rest = path.strip_prefix(resource.root)?.strip_prefix('/')?;
            Some((known.iter().filter(|other| other.root == resource.root).copied().collect::<Vec<_>>(), rest))
        })
        .ok_or_else(not_found)?;
    let mut parts = rest.split('/');
    let mut next = parts.next();
    let mut namespace = None;
    if next == Some("namespaces") {
        namespace = parts.next().map(str::to_owned);
        next = parts.next();
    }
    let resource = resources.into_iter().find(|resource| Some(resource.plural) == next).ok_or_else(not_found)?;
    let name = parts.next().map(str::to_owned);
    let is_status = match parts.next() {
        None => false,
        Some("status") => true,
        Some(_) => return Err(not_found()),
    };
    if name.is_some() && namespace.is_none() {
        return Err(not_found());
    }
    Ok(Place { resource, namespace, name, is_status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let table = [
            ("/api/v1/pods", Some((PODS, None, None, false))),
            ("/api/v1/namespaces/x/pods", Some((PODS, Some("x"), None, false))),
            ("/api/v1/namespaces/x/pods/a/status", Some((PODS, Some("x"), Some("a"), true))),
            ("/api/v1/namespaces/x/events", Some((EVENTS, Some("x"), None, false))),
            (
                "/apis/k8s.cni.cncf.io/v1/namespaces/x/network-attachment-definitions/n",
                Some((NETWORKS, Some("x"), Some("n"), false)),
            ),
            ("/apis/resource.k8s.io/v1/namespaces/x/resourceclaims/c", Some((CLAIMS, Some("x"), Some("c"), false))),
            ("/apis/resource.k8s.io/v1/resourceslices", Some((SLICES, None, None, false))),
            ("/api/v1/secrets", None),
            ("/apis/apps/v1/deployments", None),
        ];
        for (path, expected) in table {
            let expected = expected.map(|(resource, namespace, name, is_status)| Place {
                resource,
                namespace: namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                is_status,
            });
            assert_eq!(read(path).ok(), expected, "{path}");
        }
    }
}

//! Which kinds of objects the double has.

/// One kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    pub(super) root: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
}

/// Pods.
pub const PODS: Resource = Resource { root: "/api/v1", version: "v1", plural: "pods", kind: "Pod" };
/// Events, of the core group.
pub const EVENTS: Resource = Resource { root: "/api/v1", version: "v1", plural: "events", kind: "Event" };
/// NetworkAttachmentDefinitions.
pub const NETWORKS: Resource = Resource {
    root: "/apis/k8s.cni.cncf.io/v1",
    version: "k8s.cni.cncf.io/v1",
    plural: "network-attachment-definitions",
    kind: "NetworkAttachmentDefinition",
};
/// ResourceClaims (Kubernetes 1.34).
pub const CLAIMS: Resource = Resource {
    root: "/apis/resource.k8s.io/v1",
    version: "resource.k8s.io/v1",
    plural: "resourceclaims",
    kind: "ResourceClaim",
};
/// ResourceSlices, which are in no namespace.
pub const SLICES: Resource = Resource {
    root: "/apis/resource.k8s.io/v1",
    version: "resource.k8s.io/v1",
    plural: "resourceslices",
    kind: "ResourceSlice",
};
/// Leases.
pub const LEASES: Resource = Resource {
    root: "/apis/coordination.k8s.io/v1",
    version: "coordination.k8s.io/v1",
    plural: "leases",
    kind: "Lease",
};

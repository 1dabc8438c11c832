//! Whether the agent's view of a cluster follows an API server through everything that happens to one, and a folder.
//!
//! Runs against the API-server double on loopback; needs no privilege.
#![cfg(test)]

mod connection;
mod networks;
mod pods;
mod reports;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lab::apiserver::{ApiServer, EVENTS, NETWORKS, PODS};
use multus_agent::fault::CniError;
use multus_agent::kube::{Cluster, ClusterError, ClusterSettings, EventKind, Source};
use multus_agent::names::{NadRef, ObjectName, PodRef};
use multus_agent::objects::annotation;
use tokio::sync::watch;

/// Longest wait for what happens in the background.
const SOON: Duration = Duration::from_secs(15);
const NODE: &str = "node-1";

/// A folder of this test's own; those of killed runs are swept.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let name = format!("multus-it-kube-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("networks")).unwrap();
        std::fs::create_dir_all(path.join("objects")).unwrap();
        Self(path)
    }

    fn settings(&self, source: Source) -> ClusterSettings {
        ClusterSettings {
            source,
            node_name: Some(NODE.to_owned()),
            networks_dir: self.0.join("networks"),
            annotations_from_runtime: false,
            quiet: Duration::from_millis(400),
            once: false,
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join("objects").join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A task that is just ending may still write what it had in hand.
        for _ in 0..5 {
            drop(std::fs::remove_dir_all(&self.0));
            std::thread::sleep(Duration::from_millis(20));
            if !self.0.exists() {
                return;
            }
        }
    }
}

fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("multus-it-kube-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// A cluster over the double, and what keeps both alive.
struct Bench {
    api: ApiServer,
    folder: Folder,
    cluster: Cluster,
    stop: watch::Sender<bool>,
}

impl Bench {
    async fn new() -> Self {
        Self::over(ApiServer::start().unwrap(), Folder::new()).await
    }

    async fn over(api: ApiServer, folder: Folder) -> Self {
        let kubeconfig = Some(api.write_kubeconfig(&folder.0).unwrap());
        let (stop, stopped) = watch::channel(false);
        let cluster = Cluster::connect(folder.settings(Source::Api { kubeconfig }), stopped).await.unwrap();
        Self { api, folder, cluster, stop }
    }

    /// The same server and disk, seen by a new agent.
    async fn restarted(self) -> Self {
        self.stop.send_replace(true);
        Self::over(self.api, self.folder).await
    }

    async fn synced(&self) {
        until("networks synced", || self.cluster.health().networks_synced).await;
    }

    fn status_of(&self, namespace: &str, name: &str) -> Option<String> {
        let pod = self.api.get(PODS, namespace, name)?;
        pod["metadata"]["annotations"][annotation::NETWORK_STATUS].as_str().map(str::to_owned)
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn nad(namespace: &str, name: &str) -> NadRef {
    NadRef::new(namespace, name).unwrap()
}

fn pod(name: &str, uid: Option<&str>) -> PodRef {
    let object = |text| ObjectName::new(text).unwrap();
    PodRef { namespace: object("x"), name: object(name), uid: uid.map(str::to_owned) }
}

fn deadline() -> Instant {
    Instant::now() + SOON
}

fn selects(networks: &str) -> serde_json::Value {
    serde_json::json!({ annotation::NETWORKS: networks, "other.example/key": "dropped" })
}

fn config_of(cluster: &Cluster, id: &NadRef) -> Option<String> {
    cluster.network(id).and_then(|network| network.config.clone())
}

//! What a Kubernetes API server answers: a double that lists, watches, patches and refuses as the real one does.
//!
//! Speaks HTTP/1.1 on loopback only, keeps everything in memory, and can be slow, down, forgetful or wrong on demand.

mod discovery;
mod door;
mod http;
mod path;
mod protobuf;
mod resource;
mod store;
mod stream;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use self::http::Request;
pub use self::resource::{CLAIMS, EVENTS, LEASES, NETWORKS, PODS, Resource, SLICES};
use self::store::Store;

/// The token in the kubeconfig's token file. Another one is refused, unless [`ApiServer::accept_token`] says otherwise;
/// none at all is let in, because client-go sends no credentials over plain HTTP.
const TOKEN: &str = "lab-token";

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET`, `PATCH`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// After the `?`, as sent.
    pub query: String,
    /// What was sent, if it was JSON or protobuf.
    pub body: Value,
    /// The token of the token file came along.
    pub had_token: bool,
    /// The status code of the answer; 0 while it is under way or when the connection was cut.
    pub status: u16,
}

impl Seen {
    /// True for a watch, whose method is GET too.
    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
    }
}

#[derive(Debug)]
struct Fault {
    method: String,
    path: String,
    times: usize,
    status: u16,
}

/// How the double behaves just now.
#[derive(Debug, Default)]
struct Mood {
    down: bool,
    ended: bool,
    latency: Duration,
    faults: Vec<Fault>,
    /// Watches that began before the last cut end.
    cuts: u64,
    /// Watches send nothing.
    stalled: bool,
    /// The only token there is; none: the first one.
    token: Option<String>,
}

struct State {
    store: Store,
    mood: Mood,
    seen: Vec<Seen>,
    connections: Vec<TcpStream>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the watches.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let out = change(&mut self.lock());
        self.changed.notify_all();
        out
    }
}

/// A running API server; ends, and cuts every connection, when dropped.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    doors: Mutex<Vec<JoinHandle<()>>>,
}

impl ApiServer {
    /// Starts one on a free port of 127.0.0.1.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = State { store: Store::default(), mood: Mood::default(), seen: Vec::new(), connections: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let server = Self { address, shared, doors: Mutex::default() };
        server.open_door(listener)?;
        Ok(server)
    }

    /// The same server at the same address of another namespace: call it there.
    pub fn open_here(&self) -> io::Result<()> {
        self.open_door(TcpListener::bind(self.address)?)
    }

    /// The thread is of the namespace it is begun in, and binds there again after the server was down.
    fn open_door(&self, listener: TcpListener) -> io::Result<()> {
        let (address, shared) = (self.address, Arc::clone(&self.shared));
        let keep = move || door::keep(address, listener, &shared);
        let door = thread::Builder::new().name("apiserver".into()).spawn(keep)?;
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
        Ok(())
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes `kubeconfig` and the token file it names into `folder`; the kubeconfig's path.
    pub fn write_kubeconfig(&self, folder: &Path) -> io::Result<PathBuf> {
        let token = folder.join("token");
        std::fs::write(&token, TOKEN)?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": self.url()}}],
            "users": [{"name": "lab", "user": {"tokenFile": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(path)
    }

    /// Creates or replaces an object as a user would; fills in uid (kept over a replacement) and resourceVersion.
    pub fn put(&self, resource: Resource, object: Value) {
        self.shared.change(|state| state.store.put(resource, object));
    }

    /// Creates or replaces a NetworkAttachmentDefinition.
    pub fn put_network(&self, namespace: &str, name: &str, config: &str) {
        self.put(NETWORKS, json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"config": config}}));
    }

    /// Creates or replaces a pod; `annotations` is an object.
    pub fn put_pod(&self, namespace: &str, name: &str, uid: &str, node: &str, annotations: &Value) {
        let metadata = json!({"namespace": namespace, "name": name, "uid": uid, "annotations": annotations});
        self.put(PODS, json!({"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Pending"}}));
    }

    /// Deletes an object; nothing when it is not there.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) {
        self.shared.change(|state| state.store.delete(resource, namespace, name));
    }

    /// The object as it is now.
    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        self.shared.lock().store.get(resource, namespace, name)
    }

    /// All objects of one kind.
    pub fn all(&self, resource: Resource) -> Vec<Value> {
        self.shared.lock().store.all(resource)
    }

    /// Every answer takes this long from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.change(|state| state.mood.latency = latency);
    }

    /// Refuses connections and cuts those there are, or comes back on the same port.
    pub fn set_down(&self, down: bool) {
        self.shared.change(|state| {
            state.mood.down = down;
            if down {
                state.cut_connections();
            }
        });
        // The door looks every 5 ms; afterwards nobody gets in by mistake.
        thread::sleep(Duration::from_millis(20));
    }

    /// The next `times` requests with this method (empty: any; `WATCH` for watches, which `GET` does not include) whose
    /// path contains `path` are answered `status`.
    pub fn fail(&self, method: &str, path: &str, times: usize, status: u16) {
        let fault = Fault { method: method.into(), path: path.into(), times, status };
        self.shared.change(|state| state.mood.faults.push(fault));
    }

    /// From now on only this token is accepted, and every watch ends, as after the first one was revoked.
    pub fn accept_token(&self, token: &str) {
        self.shared.change(|state| {
            state.mood.token = Some(token.to_owned());
            state.mood.cuts += 1;
        });
    }

    /// Forgets the failures that [`ApiServer::fail`] asked for.
    pub fn heal(&self) {
        self.shared.change(|state| state.mood.faults.clear());
    }

    /// Forgets history, so that watches from an older resourceVersion are answered 410 Gone.
    pub fn compact(&self) {
        self.shared.change(|state| state.store.compact());
    }

    /// Ends every watch without a word.
    pub fn cut_watches(&self) {
        self.shared.change(|state| state.mood.cuts += 1);
    }

    /// Watches send nothing while stalled: the picture of a watch that lags.
    pub fn stall_watches(&self, stalled: bool) {
        self.shared.change(|state| state.mood.stalled = stalled);
    }

    /// The status code for a patch whose uid is not the object's: 409, or 422 as by API servers that validate it.
    pub fn answer_wrong_uid_with(&self, status: u16) {
        self.shared.change(|state| state.store.wrong_uid_status = status);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Requests with this method whose path contains `path`; watches are not counted as GETs.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let is_it = |seen: &&Seen| seen.method == method && seen.path.contains(path) && !seen.is_watch();
        self.shared.lock().seen.iter().filter(is_it).count()
    }

    /// Requests about one pod, itself or its status.
    pub fn count_of_pod(&self, method: &str, namespace: &str, name: &str) -> usize {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let status = format!("{path}/status");
        let is_it = |seen: &&Seen| seen.method == method && (seen.path == path || seen.path == status);
        self.shared.lock().seen.iter().filter(is_it).count()
    }

    /// Watches so far on paths that contain `path`.
    pub fn count_watches(&self, path: &str) -> usize {
        self.shared.lock().seen.iter().filter(|seen| seen.is_watch() && seen.path.contains(path)).count()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.mood.ended = true;
            state.cut_connections();
        });
        for door in self.doors.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            drop(door.join());
        }
    }
}

impl State {
    fn cut_connections(&mut self) {
        self.mood.cuts += 1;
        for connection in self.connections.drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    fn take_fault(&mut self, request: &Request) -> Option<u16> {
        let faults = &mut self.mood.faults;
        let method = if request.is_set("watch") { "WATCH" } else { request.method.as_str() };
        let fits = |fault: &Fault| {
            fault.times > 0 && (fault.method.is_empty() || fault.method == method) && request.path.contains(&fault.path)
        };
        let fault = faults.iter_mut().find(|fault| fits(fault))?;
        fault.times -= 1;
        let status = fault.status;
        faults.retain(|fault| fault.times > 0);
        Some(status)
    }
}

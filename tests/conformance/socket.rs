//! How a foreign client speaks to the daemon's socket, and a daemon's double speaks to the shim: upstream's protocol.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::http::{self, Reply};
use lab::{Call, Pod};
use serde_json::{Value, json};

use crate::node::Node;

/// The body a shim of this kind posts: its whole environment, and its stdin in base64.
pub(crate) fn body(call: &Call) -> Vec<u8> {
    let mut env = json!(call.env);
    env["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin".into();
    json!({"env": env, "config": base64(&call.stdin)}).to_string().into_bytes()
}

/// Posts `verb` for `pod` to `/cni`, as upstream's shim does.
pub(crate) fn cni(node: &Node, verb: &str, pod: Option<&Pod>) -> Reply {
    post(node, "/cni", &body(&node.call(verb, pod)))
}

/// Posts `verb` of the network `config` as interface `ifname` of a running pod, as the dynamic networks controller does.
pub(crate) fn delegate(node: &Node, verb: &str, pod: &Pod, config: &Value, ifname: &str, attributes: &Value) -> Reply {
    let args = format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={}", pod.namespace, pod.name, pod.uid);
    let body = json!({
        "env": {"CNI_COMMAND": verb, "CNI_CONTAINERID": pod.id, "CNI_NETNS": pod.netns.path(), "CNI_IFNAME": ifname,
            "CNI_ARGS": args},
        "config": base64(config.to_string().as_bytes()),
        "interfaceAttributes": attributes
    });
    post(node, "/delegate", body.to_string().as_bytes())
}

/// Posts these bytes.
pub(crate) fn post(node: &Node, target: &str, body: &[u8]) -> Reply {
    http::post_unix(&node.daemon.socket, target, body).unwrap_or_else(|e| panic!("POST {target}: {e}"))
}

/// Sends these bytes and says how the daemon answered, up to its closing the connection; `None` when it holds on longer
/// than `limit`.
pub(crate) fn raw(socket: &Path, bytes: &[u8], limit: Duration) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).expect("connect to the daemon");
    stream.set_read_timeout(Some(limit)).expect("set a deadline");
    stream.write_all(bytes).expect("write to the daemon");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Some(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(answer),
        Err(_) => None,
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// A double of upstream's daemon, from before `/readyz`: it answers 404 to that.
pub(crate) struct Double {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Double {
    /// Listens at `socket`; answers every POST to `/cni` with `status` and `body`.
    pub(crate) fn start(socket: &Path, status: u16, body: &str) -> Self {
        let listener = UnixListener::bind(socket).expect("bind the double's socket");
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).expect("restrict the socket");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (notes, body) = (Arc::clone(&seen), body.to_owned());
        // The thread ends with the process; its socket goes with the lab's folder.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let _ = answer(connection, status, &body, &notes);
            }
        });
        Self { seen }
    }

    /// `METHOD path` of every request so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no thread panics").clone()
    }
}

fn answer(mut connection: UnixStream, status: u16, body: &str, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut block = [0; 4096];
    let line = loop {
        let count = connection.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&block[..count]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if rest.len() >= length.unwrap_or(0) {
            break head.split(" HTTP").next().unwrap_or_default().to_owned();
        }
    };
    let known = line.ends_with(" /cni") || line.ends_with(" /healthz");
    let (status, body) = match (known, line.ends_with(" /cni")) {
        (true, true) => (status, body),
        (true, false) => (200, ""),
        (false, _) => (404, ""),
    };
    seen.lock().expect("no thread panics").push(line);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    connection.write_all(head.as_bytes())?;
    connection.write_all(body.as_bytes())
}

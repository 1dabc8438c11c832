//! What upstream's thick Multus says on the socket: its shim and the hot-plug controller as askers, its daemon as a double.
//!
//! Written from the protocol as it is described, not from its code. The daemon attaches nothing: it answers what it is
//! told to, and writes down what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::runtime::Call;
use crate::{Pod, http};

/// The body of a request: the whole environment of the asker, its standard input in base64, nothing else.
pub fn body(env: &BTreeMap<String, String>, config: &[u8]) -> Value {
    let mut whole = BTreeMap::from(
        [("HOME", "/root"), ("PATH", "/usr/bin:/bin"), ("INVOCATION_ID", "0123"), ("LD_PRELOAD", "/nonexistent.so")]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    whole.extend(env.clone());
    json!({ "env": whole, "config": base64(config) })
}

/// What upstream's shim does with `call`: wait until the daemon is ready, ask once. For a DEL it looks whether the daemon
/// lives, instead of waiting. `Err` is the text it would fail with.
pub fn shim(socket: &Path, call: &Call) -> Result<Value, String> {
    let is_del = call.env.get("CNI_COMMAND").is_some_and(|verb| verb == "DEL");
    let probe = if is_del { "/healthz" } else { "/readyz" };
    let until = Instant::now() + Duration::from_secs(10);
    while !http::post_unix(socket, probe, b"null").is_ok_and(|reply| reply.status == 200) {
        if is_del || Instant::now() > until {
            return Err("timed out waiting for the condition".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ask(socket, "/cni", &body(&call.env, &call.stdin))
}

/// One network of a running pod, as the dynamic-networks controller asks for it.
pub fn delegate(
    socket: &Path,
    verb: &str,
    pod: &Pod,
    ifname: &str,
    network: &Value,
    wishes: &Value,
) -> Result<Value, String> {
    let args = format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={}", pod.namespace, pod.name, pod.uid);
    let env = BTreeMap::from(
        [
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", pod.id.clone()),
            ("CNI_NETNS", pod.netns.path().display().to_string()),
            ("CNI_IFNAME", ifname.to_owned()),
            ("CNI_ARGS", args),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let config = network.as_str().map_or_else(|| network.to_string(), str::to_owned);
    let asked = json!({ "env": env, "config": base64(config.as_bytes()), "interfaceAttributes": wishes });
    ask(socket, "/delegate", &asked)
}

/// Posts `body`; the parsed answer of a success (`null` when it is empty), the text of a failure.
pub fn ask(socket: &Path, path: &str, body: &Value) -> Result<Value, String> {
    let reply = http::post_unix(socket, path, body.to_string().as_bytes()).map_err(|error| error.to_string())?;
    match (reply.status, reply.body.is_empty()) {
        (200, true) => Ok(Value::Null),
        (200, false) => serde_json::from_str(&reply.body).map_err(|error| format!("{error}: {}", reply.body)),
        (status, _) => Err(format!("{status}: {}", reply.body)),
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The inverse of [`base64`]; panics at anything else.
pub fn unbase64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{text:?} is not base64"),
    };
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let letters: Vec<u8> = chunk.iter().copied().filter(|letter| *letter != b'=').map(value).collect();
        let word = letters.iter().fold(0_u32, |word, six| (word << 6) | u32::from(*six)) << (6 * (4 - letters.len()));
        bytes.extend(word.to_be_bytes().into_iter().skip(1).take(letters.len() - 1));
    }
    bytes
}

/// One request as the daemon saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The path.
    pub path: String,
    /// The body, parsed; `null` when it is no JSON.
    pub body: Value,
}

#[derive(Debug, Default)]
struct Script {
    answers: BTreeMap<String, (u16, String)>,
    seen: Vec<Seen>,
}

/// A double of upstream's daemon; ends when dropped.
#[derive(Debug)]
pub struct Daemon {
    socket: PathBuf,
    script: Arc<Mutex<Script>>,
    over: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Serves `multus.sock` in `folder`: `/healthz`, `/cni` and, like newer ones, `/readyz` if `has_readyz`.
    pub fn start(folder: &Path, has_readyz: bool) -> Self {
        if !folder.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).expect("make the socket's folder");
        }
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).expect("close the socket's folder");
        let socket = folder.join("multus.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("bind multus.sock");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let script = Arc::new(Mutex::new(Script::default()));
        let over = Arc::new(AtomicBool::new(false));
        let mut daemon = Self { socket, script: Arc::clone(&script), over: Arc::clone(&over), door: None };
        daemon.answer("/healthz", 200, "");
        daemon.answer("/cni", 200, "");
        if has_readyz {
            daemon.answer("/readyz", 200, "");
        }
        daemon.door = Some(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let script = Arc::clone(&script);
                        std::thread::spawn(move || serve(&stream, &script));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        }));
        daemon
    }

    /// From now on `path` is answered so.
    pub fn answer(&self, path: &str, status: u16, body: &str) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.answers.insert(path.to_owned(), (status, body.to_owned()));
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).seen.clone()
    }

    /// The bodies that came to `path`.
    pub fn asked(&self, path: &str) -> Vec<Value> {
        self.seen().into_iter().filter(|seen| seen.path == path).map(|seen| seen.body).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(door) = self.door.take() {
            let _ = door.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// One request, then the connection ends: upstream turns keep-alive off.
fn serve(stream: &UnixStream, script: &Mutex<Script>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut from = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
        if head.is_empty() {
            head = line;
        }
    }
    let mut body = vec![0; length];
    if from.read_exact(&mut body).is_err() {
        return;
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, answer) = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        script.seen.push(Seen { path: path.clone(), body: serde_json::from_slice(&body).unwrap_or(Value::Null) });
        script.answers.get(&path).cloned().unwrap_or((404, "404 page not found\n".to_owned()))
    };
    let reply = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    let mut to = stream;
    let _ = to.write_all(reply.as_bytes());
}

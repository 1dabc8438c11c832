//! A real Chromium without a window, driven over its debugging pipe: what a person with a browser would see.
//!
//! It has a profile of its own below the lab's folder and lives in the node's namespace. Killed when dropped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Lab, process, sys};

const PROGRAM: &str = "/usr/bin/chromium";
/// How long anything may take: a browser on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const SWITCHES: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--disable-lcd-text",
];

/// True where no Chromium is installed.
pub fn is_missing() -> bool {
    !Path::new(PROGRAM).exists()
}

/// A running browser with one page.
#[derive(Debug)]
pub struct Chromium {
    child: Child,
    to: File,
    from: File,
    received: Vec<u8>,
    number: u64,
    session: Option<String>,
    /// What it told without being asked.
    pub events: Vec<Value>,
}

impl Chromium {
    /// Starts one on the node of `lab`.
    pub fn start(lab: &Lab) -> Self {
        Self::start_with(lab, &[])
    }

    /// The same with scripts switched off: [`Self::html`] is what can be asked of it.
    pub fn start_without_scripts(lab: &Lab) -> Self {
        Self::start_with(lab, &["--blink-settings=scriptEnabled=false"])
    }

    fn start_with(lab: &Lab, switches: &[&str]) -> Self {
        let pipe = |name: &str| {
            let path = lab.dir.join(name);
            process::tool(Command::new("mkfifo").arg(&path));
            // For both directions, so that neither side waits for the other.
            let file = File::options().read(true).write(true).open(&path).expect("open a pipe");
            (path, file)
        };
        let ((to_path, to), (from_path, from)) = (pipe("chromium-to"), pipe("chromium-from"));
        let profile = lab.dir.join("chromium");
        fs::create_dir_all(&profile).expect("make a profile");
        let mut command = lab.node.command("sh");
        command.args(["-c", "exec 3<\"$1\" 4>\"$2\"; shift 2; exec \"$@\"", "sh"]).arg(to_path).arg(from_path);
        command.arg(PROGRAM).args(SWITCHES).args(switches).arg("--remote-debugging-pipe");
        command.arg(format!("--user-data-dir={}", profile.display()));
        let log = File::create(lab.dir.join("chromium.log")).expect("make chromium's log");
        command.env("HOME", &lab.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("start chromium");
        let mut browser = Self { child, to, from, received: Vec::new(), number: 0, session: None, events: Vec::new() };
        let page = browser.ask("Target.createTarget", &json!({"url": "about:blank"}));
        let session = browser.ask("Target.attachToTarget", &json!({"targetId": page["targetId"], "flatten": true}));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Audits"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens `url` and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        self.ask("Page.navigate", &json!({"url": url}));
        let end = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive(end).unwrap_or_else(|| panic!("{url} was not loaded in time"));
            self.events.push(event);
        }
    }

    /// The value of a JavaScript expression in the page; a promise is waited for.
    pub fn value(&mut self, expression: &str) -> Value {
        let wanted = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", &wanted);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer:#}");
        answer["result"]["value"].clone()
    }

    /// The document as it is now.
    pub fn html(&mut self) -> String {
        let root = self.ask("DOM.getDocument", &json!({"depth": 0}))["root"]["nodeId"].clone();
        let html = self.ask("DOM.getOuterHTML", &json!({"nodeId": root}));
        html["outerHTML"].as_str().expect("HTML").to_owned()
    }

    /// The text that a person sees in the first element that `selector` finds.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?})?.innerText"));
        text.as_str().map(str::to_owned).unwrap_or_default()
    }

    /// The text of every element that `selector` finds.
    pub fn texts(&mut self, selector: &str) -> Vec<String> {
        let texts = self.value(&format!("[...document.querySelectorAll({selector:?})].map((e) => e.textContent)"));
        texts.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// Errors of scripts, and what the page was forbidden to do.
    pub fn complaints(&self) -> Vec<&Value> {
        let is_one = |event: &&Value| {
            let error = event["method"] == "Log.entryAdded" && event["params"]["entry"]["level"] == "error";
            let telling = ["Runtime.exceptionThrown", "Audits.issueAdded", "Page.javascriptDialogOpening"];
            error || telling.iter().any(|method| event["method"] == **method)
        };
        self.events.iter().filter(is_one).collect()
    }

    /// A window `width` pixels wide, in the colours of day or night.
    pub fn look(&mut self, width: u32, is_phone: bool, is_dark: bool) {
        let scale = if is_phone { 2 } else { 1 };
        let metrics = json!({"width": width, "height": 800, "deviceScaleFactor": scale, "mobile": is_phone});
        self.ask("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = json!({"name": "prefers-color-scheme", "value": if is_dark { "dark" } else { "light" }});
        self.ask("Emulation.setEmulatedMedia", &json!({"features": [scheme]}));
    }

    /// A piece of the page as PNG, smaller by `scale`: its whole width, from `top` down.
    pub fn picture(&mut self, (top, width, height): (u64, u32, u32), scale: f64) -> Vec<u8> {
        let clip = json!({"x": 0, "y": top, "width": width, "height": height, "scale": scale});
        let wanted = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        from_base64(self.ask("Page.captureScreenshot", &wanted)["data"].as_str().expect("a picture"))
    }

    /// Asks the browser for something; what it tells meanwhile is kept.
    pub fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.number += 1;
        let number = self.number;
        let mut request = json!({"id": number, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = session.clone().into();
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("write to chromium");
        let end = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(end).unwrap_or_else(|| panic!("chromium did not answer {method}"));
            if message["id"] == number {
                assert!(message.get("error").is_none(), "{method}: {message:#}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// The next message: JSON, ended by a zero.
    fn receive(&mut self, end: Instant) -> Option<Value> {
        loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.received.drain(..=at).collect();
                return serde_json::from_slice(&message[..at]).ok();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !sys::readable(&[self.from.as_raw_fd()], left)[0] {
                return None;
            }
            let mut bytes = [0; 16_384];
            let read = self.from.read(&mut bytes).ok()?;
            self.received.extend_from_slice(&bytes[..read]);
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its processes are its own group and end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// RFC 4648 section 4.
fn from_base64(text: &str) -> Vec<u8> {
    let value =
        |c: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|x| *x == c);
    let digits: Vec<usize> = text.bytes().filter_map(value).collect();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for four in digits.chunks(4) {
        let number = four.iter().enumerate().fold(0, |number, (at, digit)| number | digit << (18 - 6 * at));
        bytes.extend((1..four.len()).map(|at| (number >> (24 - 8 * at)) as u8));
    }
    bytes
}

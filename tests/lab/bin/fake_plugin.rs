//! What a delegate plugin might do to us: answer, fail, hang, babble, fork, die. It does what its configuration says.
//!
//! It never does anything of its own: without a programme it succeeds like the smallest honest plugin.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::sys;
use serde_json::{Value, json};

fn main() -> std::process::ExitCode {
    let env: std::collections::BTreeMap<String, String> =
        std::env::vars_os().map(|(k, v)| (k.to_string_lossy().into(), v.to_string_lossy().into())).collect();
    let verb = env.get("CNI_COMMAND").cloned().unwrap_or_default();
    let mut stdin = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut stdin);
    let conf: Value = serde_json::from_slice(&stdin).unwrap_or(Value::Null);
    if let Some(journal) = conf["fake"]["journal"].as_str() {
        note(Path::new(journal), &env, &stdin);
    }
    let programme = &conf["fake"]["do"];
    let act = programme.get(&verb).or_else(|| programme.get("*")).cloned().unwrap_or(json!({}));
    let over = act["until"].as_str().is_some_and(|file| Path::new(file).exists());
    if over { finish(&verb, &conf, &json!({})) } else { misbehave(&act).unwrap_or_else(|| finish(&verb, &conf, &act)) }
}

fn note(journal: &Path, env: &std::collections::BTreeMap<String, String>, stdin: &[u8]) {
    let mounts = fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let data = limits.lines().find_map(|line| line.strip_prefix("Max data size")).unwrap_or_default();
    let data = data.split_whitespace().next().unwrap_or_default();
    let line = json!({
        "pid": std::process::id(), "env": env, "stdin": String::from_utf8_lossy(stdin), "mounts": mounts, "data": data
    });
    let line = line.to_string() + "\n";
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(journal) {
        sys::lock(&file);
        let _ = file.write_all(line.as_bytes());
    }
}

/// Everything bad that ends the program, or precedes its end.
fn misbehave(act: &Value) -> Option<std::process::ExitCode> {
    if let Some(text) = act["stderr"].as_str() {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    babble(&mut std::io::stderr(), act["stderr_bytes"].as_u64());
    if let Some(millis) = act["hold_pipe_ms"].as_u64() {
        sys::fork_holding_descriptors(Duration::from_millis(millis));
    }
    if let Some(millis) = act["sleep_ms"].as_u64() {
        std::thread::sleep(Duration::from_millis(millis));
    }
    if let Some(door) = act["wait_for"].as_str() {
        while !Path::new(door).exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    if act["hang"] == true {
        std::thread::sleep(Duration::from_hours(1));
    }
    if let Some(signal) = act["signal"].as_i64().and_then(|number| i32::try_from(number).ok()) {
        sys::die_by(signal);
    }
    let exit = act["exit"].as_u64().and_then(|code| u8::try_from(code).ok()).map(std::process::ExitCode::from);
    if let Some(error) = act.get("error") {
        let _ = std::io::stdout().write_all(error.to_string().as_bytes());
        return Some(exit.unwrap_or(std::process::ExitCode::from(1)));
    }
    if let Some(text) = act["stdout"].as_str() {
        let _ = std::io::stdout().write_all(text.as_bytes());
        return Some(exit.unwrap_or_default());
    }
    if act["stdout_bytes"].is_u64() {
        babble(&mut std::io::stdout(), act["stdout_bytes"].as_u64());
        return Some(exit.unwrap_or_default());
    }
    exit
}

fn babble(to: &mut dyn Write, bytes: Option<u64>) {
    let block = [b'x'; 8192];
    let mut left = usize::try_from(bytes.unwrap_or(0)).unwrap_or(usize::MAX);
    while left > 0 {
        let now = left.min(block.len());
        if to.write_all(&block[..now]).is_err() {
            return;
        }
        left -= now;
    }
}

/// What an honest plugin does.
fn finish(verb: &str, conf: &Value, act: &Value) -> std::process::ExitCode {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (netns, ifname) = (variable("CNI_NETNS"), variable("CNI_IFNAME"));
    let version = conf["cniVersion"].as_str().unwrap_or("0.1.0");
    match verb {
        "VERSION" => println!(
            "{}",
            json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
        ),
        "ADD" => {
            if act["link"] == true && !make_link(&netns, &ifname) {
                println!("{}", json!({"code": 999, "msg": "the fake plugin could not make its link"}));
                return std::process::ExitCode::from(1);
            }
            let plain = || json!({"interfaces": [{"name": ifname, "sandbox": netns}]});
            let mut result = act.get("result").or_else(|| conf.get("prevResult")).cloned().unwrap_or_else(plain);
            result["cniVersion"] = version.into();
            println!("{result}");
        }
        "DEL" if act["link"] == true => drop(nsenter(&netns, &["ip", "link", "del", &ifname])),
        _ => {}
    }
    std::process::ExitCode::SUCCESS
}

fn make_link(netns: &str, ifname: &str) -> bool {
    let peer = format!("{}p", &ifname[..ifname.len().min(14)]);
    nsenter(netns, &["ip", "link", "add", ifname, "type", "veth", "peer", "name", &peer])
        && nsenter(netns, &["ip", "link", "set", &peer, "up"])
        && nsenter(netns, &["ip", "link", "set", ifname, "up"])
}

fn nsenter(netns: &str, line: &[&str]) -> bool {
    fs::metadata(netns).is_ok()
        && Command::new("nsenter").arg(format!("--net={netns}")).args(line).output().is_ok_and(|o| o.status.success())
}

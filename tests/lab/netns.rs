//! What a network namespace of the lab is: named, entered only by threads and children that end, removed on drop.
//!
//! It never touches the namespace the tests run in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::{process, sys};

/// Where `ip netns` keeps namespaces.
pub const FOLDER: &str = "/run/netns";

// The first `ip netns add` of a machine makes FOLDER a shared mount; two at once can disturb each other.
static ADDING: Mutex<()> = Mutex::new(());

/// A named network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    // Empty after [`Netns::remove`]: an open descriptor would keep the namespace alive.
    file: Mutex<Option<Arc<File>>>,
    keep: bool,
}

impl Netns {
    /// Creates the namespace `name`, with loopback up and IPv6 duplicate address detection off (it only costs time).
    pub fn create(name: &str) -> Self {
        {
            let _one = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
            process::tool(Command::new("ip").args(["netns", "add", name]));
        }
        let path = Path::new(FOLDER).join(name);
        let file = Arc::new(File::open(&path).expect("open the namespace just made"));
        let netns = Self { name: name.to_owned(), path, file: Mutex::new(Some(file)), keep: false };
        netns.enter(|| {
            for key in ["all", "default"] {
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{key}/accept_dad"), "0");
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{key}/accept_ra"), "0");
            }
        });
        netns.ip("link set lo up");
        netns
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, as a runtime would give it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it in place when dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes its name now (as a runtime does before a late DEL); the kernel removes it when nobody is inside.
    pub fn remove(&self) {
        drop(self.file.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }

    fn file(&self) -> Arc<File> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        file.unwrap_or_else(|| panic!("namespace {} was removed", self.name))
    }

    /// Runs `work` inside, on a thread that ends with it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        sys::in_netns(&self.file(), work)
    }

    /// A command that will run inside and die with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        sys::confine(&mut command, self.file(), true);
        command
    }

    /// A command that will run inside and outlive the lab.
    pub fn lasting_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        sys::confine(&mut command, self.file(), false);
        command
    }

    /// Runs `ip` inside with `args` split at spaces; it must succeed.
    pub fn ip(&self, args: &str) {
        process::tool(self.command("ip").args(args.split_whitespace()));
    }

    /// Runs `ip -json` inside; an empty answer is an empty list.
    pub fn ip_json(&self, args: &str) -> Value {
        let text = process::tool(self.command("ip").arg("-json").args(args.split_whitespace()));
        serde_json::from_slice(&text).unwrap_or_else(|_| Value::Array(Vec::new()))
    }

    /// The description of one link, or `None` when there is no such link.
    pub fn link(&self, ifname: &str) -> Option<Value> {
        self.ip_json("-details link show").as_array()?.iter().find(|link| link["ifname"] == ifname).cloned()
    }

    /// Names of all links but loopback.
    pub fn link_names(&self) -> Vec<String> {
        let links = self.ip_json("link show");
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        names.filter(|name| *name != "lo").map(str::to_owned).collect()
    }

    /// Interface index of `ifname`.
    pub fn ifindex(&self, ifname: &str) -> u32 {
        let link = self.link(ifname).unwrap_or_else(|| panic!("no link {ifname} in {}", self.name));
        link["ifindex"].as_u64().expect("ifindex") as u32
    }

    /// MAC address of `ifname`.
    pub fn mac(&self, ifname: &str) -> [u8; 6] {
        let link = self.link(ifname).unwrap_or_else(|| panic!("no link {ifname} in {}", self.name));
        parse_mac(link["address"].as_str().expect("address"))
    }

    /// Addresses with prefix (`10.0.0.2/24`) of `ifname`, without the link-local ones.
    pub fn addresses(&self, ifname: &str) -> Vec<String> {
        self.address_list(ifname, |scope| scope != "link")
    }

    /// The IPv6 link-local address of `ifname`, without prefix.
    pub fn link_local(&self, ifname: &str) -> Option<String> {
        let all = self.address_list(ifname, |scope| scope == "link");
        all.iter().find(|a| a.starts_with("fe80")).and_then(|a| a.split('/').next()).map(str::to_owned)
    }

    fn address_list(&self, ifname: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let links = self.ip_json("address show");
        let link = links.as_array().into_iter().flatten().find(|link| link["ifname"] == ifname);
        let infos = link.and_then(|link| link["addr_info"].as_array()).into_iter().flatten();
        infos
            .filter(|info| info["scope"].as_str().is_some_and(&wanted))
            .filter_map(|info| Some(format!("{}/{}", info["local"].as_str()?, info["prefixlen"].as_u64()?)))
            .collect()
    }

    /// Waits until IPv6 works on `ifname`: the kernel does that a moment after the link is up, on its own time.
    pub fn wait_ipv6(&self, ifname: &str) {
        let multicast_route = || {
            let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
            routes.lines().any(|line| line.starts_with("ff000000") && line.split_whitespace().last() == Some(ifname))
        };
        let ready = crate::wait_until(Duration::from_secs(5), || self.enter(multicast_route));
        assert!(ready, "IPv6 is not ready on {ifname} of {} after 5 s", self.name);
    }

    /// Writes a sysctl of this namespace; `key` as below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.enter(|| fs::write(Path::new("/proc/sys").join(key), value))
            .unwrap_or_else(|e| panic!("set {key} in {}: {e}", self.name));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.keep && self.path.exists() {
            self.remove();
        }
    }
}

/// Reads `aa:bb:cc:dd:ee:ff`.
pub fn parse_mac(text: &str) -> [u8; 6] {
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).unwrap_or_else(|_| panic!("not a MAC: {text}"));
    }
    mac
}

/// Prints a MAC as `aa:bb:cc:dd:ee:ff`.
pub fn print_mac(mac: [u8; 6]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

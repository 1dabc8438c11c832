//! Namespaces and links of a bench, by the programs that an operator has.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use multus_agent::datapath::Mac;
use multus_agent::sys::netns;

pub(crate) fn within<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    netns::inside(&netns_path(netns), work).unwrap()
}

pub(crate) fn netns_path(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// Index and MAC of an interface.
pub(crate) fn link(netns: &str, ifname: &str) -> (u32, Mac) {
    let shown: serde_json::Value =
        serde_json::from_str(&output("ip", &["-n", netns, "-j", "link", "show", ifname])).unwrap();
    let index = u32::try_from(shown[0]["ifindex"].as_u64().unwrap()).unwrap();
    (index, shown[0]["address"].as_str().unwrap().parse().unwrap())
}

pub(crate) fn ip(arguments: &[&str]) {
    output("ip", arguments);
}

/// Standard output of a command that must succeed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {}: {words}", arguments.join(" "));
    String::from_utf8(done.stdout).unwrap()
}

pub(crate) fn make_netns(netns: &str) {
    ip(&["netns", "add", netns]);
    within(netns, || {
        for name in ["conf/all/accept_dad", "conf/default/accept_dad"] {
            fs::write(format!("/proc/sys/net/ipv6/{name}"), "0").unwrap();
        }
        fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
    });
    ip(&["-n", netns, "link", "set", "lo", "up"]);
}

/// Gives an interface an address, and the groups to send to.
pub(crate) fn address(netns: &str, ifname: &str, address: &str) {
    let steps = [
        format!("link set {ifname} up"),
        format!("addr add {address} dev {ifname}"),
        format!("route replace 224.0.0.0/4 dev {ifname}"),
        format!("route replace 255.255.255.255 dev {ifname}"),
    ];
    ip_batch(netns, &steps);
}

/// Several commands of `ip` in one namespace, by one program.
pub(crate) fn ip_batch(netns: &str, steps: &[String]) {
    let mut program = Command::new("ip");
    program.args(["-n", netns, "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = program.spawn().unwrap();
    running.stdin.take().unwrap().write_all(steps.join("\n").as_bytes()).unwrap();
    let done = running.wait_with_output().unwrap();
    assert!(done.status.success(), "ip {steps:?}: {}", String::from_utf8_lossy(&done.stderr));
}

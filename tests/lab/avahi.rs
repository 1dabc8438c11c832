//! A real avahi-daemon in a namespace of the lab: a host with a name, and one service.
//!
//! It has mounts of its own for the two folders whose paths are built into it, and no D-Bus. Killed when dropped.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::{Netns, sys};

/// A running avahi-daemon.
#[derive(Debug)]
pub struct Avahi {
    child: Child,
}

impl Avahi {
    /// Starts one on link `ifname` that calls itself `host`.local and offers `instance`._http._tcp.local; its files are
    /// below `folder`.
    pub fn start(netns: &Netns, ifname: &str, folder: &Path, host: &str, instance: &str) -> Self {
        let folder = folder.join(format!("avahi-{host}"));
        let services = folder.join("services");
        fs::create_dir_all(&services).expect("make avahi's folders");
        let write = |path: &Path, text: String| fs::write(path, text).expect("write avahi's files");
        let conf = folder.join("avahi.conf");
        write(
            &conf,
            format!(
                "[server]\nhost-name={host}\nuse-ipv4=yes\nuse-ipv6=yes\nallow-interfaces={ifname}\nenable-dbus=no\n\
                 [publish]\npublish-hinfo=no\npublish-workstation=no\n"
            ),
        );
        write(
            &services.join("lab.service"),
            format!(
                "<?xml version=\"1.0\" standalone='no'?><!DOCTYPE service-group SYSTEM \"avahi-service.dtd\">\
                 <service-group><name>{instance}</name><service><type>_http._tcp</type><port>80</port></service>\
                 </service-group>"
            ),
        );
        fs::create_dir_all("/run/avahi-daemon").expect("make avahi's run folder");
        let script = "mount -t tmpfs none /run/avahi-daemon && mount --bind \"$1\" /etc/avahi/services && \
                      exec avahi-daemon --no-drop-root --no-chroot --no-rlimits --file \"$0\"";
        let log = fs::File::create(folder.join("log")).expect("make avahi's log");
        let mut command = netns.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&conf).arg(&services);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        Self { child: command.spawn().expect("start avahi-daemon") }
    }
}

impl Avahi {
    /// Lets it say goodbye and end.
    pub fn leave(mut self) {
        sys::signal(self.child.id(), libc::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

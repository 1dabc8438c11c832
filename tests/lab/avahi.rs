//! A real avahi-daemon in a namespace of the lab: a host with a name and services, alone or as a resolver with Avahi's
//! own tools.
//!
//! It has mounts of its own for the two folders whose paths are built into it, and shares nothing with an Avahi of the
//! machine. A daemon that is dropped is killed, like a device that is switched off; a resolver says goodbye.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{Netns, process, sys, wait_until};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A service that the daemon announces.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// Instance.
    pub name: &'a str,
    /// Type, such as `_http._tcp`.
    pub kind: &'a str,
    /// Port.
    pub port: u16,
}

/// A running avahi-daemon.
#[derive(Debug)]
pub struct Avahi {
    child: Child,
}

impl Avahi {
    /// Starts one on link `ifname` that calls itself `host`.local, without D-Bus; its files are below `folder`.
    pub fn start(netns: &Netns, ifname: &str, folder: &Path, host: &str, services: &[Service<'_>]) -> Self {
        Self::spawn(netns, ifname, &folder.join(format!("avahi-{host}")), host, services, None)
    }

    fn spawn(
        netns: &Netns,
        ifname: &str,
        folder: &Path,
        host: &str,
        services: &[Service<'_>],
        bus: Option<&str>,
    ) -> Self {
        for folder in ["services", "run"].map(|name| folder.join(name)) {
            fs::create_dir_all(folder).expect("make avahi's folders");
        }
        let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("write avahi's files");
        let dbus = if bus.is_some() { "yes" } else { "no" };
        write(
            "avahi.conf",
            format!(
                "[server]\nhost-name={host}\nallow-interfaces={ifname}\nuse-ipv4=yes\nuse-ipv6=yes\nenable-dbus={dbus}\n\
                 [publish]\npublish-hinfo=no\npublish-workstation=no\n"
            ),
        );
        for (at, Service { name, kind, port }) in services.iter().enumerate() {
            let service = format!("<service><type>{kind}</type><port>{port}</port></service>");
            let text = format!("<service-group><name>{name}</name>{service}</service-group>\n");
            write(&format!("services/{at}.service"), text);
        }
        fs::create_dir_all("/run/avahi-daemon").expect("make avahi's run folder");
        let script = "mount --bind \"$0/run\" /run/avahi-daemon && mount --bind \"$0/services\" /etc/avahi/services && \
                      exec avahi-daemon --no-drop-root --no-chroot --no-rlimits --file \"$0/avahi.conf\"";
        let log = fs::File::create(folder.join("log")).expect("make avahi's log");
        let mut command = netns.command("sh");
        sys::own_mounts(&mut command);
        command.args(["-c", script]).arg(folder).envs(bus.map(|bus| (BUS, bus)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        Self { child: command.spawn().expect("start avahi-daemon") }
    }

    /// Lets it say goodbye and end.
    pub fn leave(mut self) {
        self.end();
    }

    fn end(&mut self) {
        sys::signal(self.child.id(), libc::SIGTERM);
        wait_until(Duration::from_secs(3), || self.has_ended());
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Avahi and its tools look for the bus.
const BUS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// A daemon on a bus of its own, so that Avahi's tools work with it.
#[derive(Debug)]
pub struct Resolver {
    daemon: Avahi,
    bus: Child,
    dir: PathBuf,
}

impl Resolver {
    /// Starts one as `host`.local on one link; ready when it resolves itself.
    pub fn start(netns: &Netns, ifname: &str, host: &str, services: &[Service<'_>]) -> Self {
        netns.wait_ipv6(ifname);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("mlab-resolver-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("make a folder for a bus");
        let bus = bus(netns, &dir);
        let daemon = Avahi::spawn(netns, ifname, &dir, host, services, Some(&address(&dir)));
        let mut resolver = Self { daemon, bus, dir };
        let ready = wait_until(Duration::from_secs(20), || {
            assert!(!resolver.daemon.has_ended(), "avahi-daemon ended at once");
            resolver.tool(netns, "avahi-resolve", &["-4", "-n", &format!("{host}.local")]).success()
        });
        assert!(ready, "avahi-daemon in {} knows itself", netns.name());
        resolver
    }

    /// Runs one of Avahi's tools against this daemon.
    pub fn tool(&self, netns: &Netns, program: &str, args: &[&str]) -> process::Finished {
        let mut command = netns.command(program);
        command.args(args).env(BUS, address(&self.dir)).env("LC_ALL", "C.UTF-8");
        process::run(&mut command, b"", Duration::from_secs(15))
    }
}

fn bus(netns: &Netns, dir: &Path) -> Child {
    let conf = format!(
        "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
         <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
         <allow send_type=\"method_call\"/></policy></busconfig>\n",
        dir.join("bus").display()
    );
    fs::write(dir.join("bus.conf"), conf).expect("write the bus's configuration");
    let mut command: Command = netns.command("dbus-daemon");
    command.arg(format!("--config-file={}", dir.join("bus.conf").display())).args(["--nofork", "--nopidfile"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let bus = command.spawn().expect("start dbus-daemon");
    assert!(wait_until(Duration::from_secs(10), || dir.join("bus").exists()), "the bus is there");
    bus
}

fn address(dir: &Path) -> String {
    format!("unix:path={}", dir.join("bus").display())
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.daemon.end();
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

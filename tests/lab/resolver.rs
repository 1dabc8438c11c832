//! Avahi in a namespace as responder and resolver both: its daemon with services, and its tools on a bus of its own.
//!
//! Nothing of it is shared with an Avahi of the machine; it ends with its owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{Netns, process, sys, wait_until};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running daemon with its bus.
#[derive(Debug)]
pub struct Resolver {
    daemon: Child,
    bus: Child,
    dir: PathBuf,
}

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

impl Resolver {
    /// Starts one as `host`.local on one link; ready when its bus answers.
    pub fn start(netns: &Netns, ifname: &str, host: &str, services: &[Service<'_>]) -> Self {
        netns.wait_ipv6(ifname);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("mlab-resolver-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for folder in ["services", "run"] {
            fs::create_dir_all(dir.join(folder)).expect("make a folder for Resolver");
        }
        for (at, service) in services.iter().enumerate() {
            let text = format!(
                "<service-group><name>{}</name><service><type>{}</type><port>{}</port></service></service-group>\n",
                service.name, service.kind, service.port
            );
            fs::write(dir.join(format!("services/{at}.service")), text).expect("write a service");
        }
        let conf = format!(
            "[server]\nhost-name={host}\nallow-interfaces={ifname}\nuse-ipv4=yes\nuse-ipv6=yes\nenable-dbus=yes\n\
             [publish]\npublish-workstation=no\n[rlimits]\n"
        );
        fs::write(dir.join("avahi.conf"), conf).expect("write Avahi's configuration");
        let bus_conf = format!(
            "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             <allow send_type=\"method_call\"/></policy></busconfig>\n",
            dir.join("bus").display()
        );
        fs::write(dir.join("bus.conf"), bus_conf).expect("write the bus's configuration");
        let mut bus = netns.command("dbus-daemon");
        bus.arg(format!("--config-file={}", dir.join("bus.conf").display())).args(["--nofork", "--nopidfile"]);
        let bus = quiet(&mut bus);
        assert!(wait_until(Duration::from_secs(10), || dir.join("bus").exists()), "the bus is there");
        // A mount namespace of its own: the daemon's folders are compiled in.
        let script = "mount --bind \"$0/run\" /run/avahi-daemon 2>/dev/null || { mkdir -p /run/avahi-daemon && \
                      mount --bind \"$0/run\" /run/avahi-daemon; }; mount --bind \"$0/services\" /etc/avahi/services && \
                      exec avahi-daemon -f \"$0/avahi.conf\" --no-drop-root --no-chroot --no-rlimits";
        let mut daemon = netns.command("sh");
        sys::own_mounts(&mut daemon);
        daemon.args(["-c", script]).arg(&dir).env("DBUS_SYSTEM_BUS_ADDRESS", address(&dir));
        let mut avahi = Self { daemon: quiet(&mut daemon), bus, dir };
        let ready = wait_until(Duration::from_secs(20), || {
            assert!(matches!(avahi.daemon.try_wait(), Ok(None)), "avahi-daemon ended at once");
            avahi.tool(netns, "avahi-resolve", &["-4", "-n", &format!("{host}.local")]).success()
        });
        assert!(ready, "avahi-daemon in {} knows itself", netns.name());
        avahi
    }

    /// Runs one of Avahi's tools against this daemon.
    pub fn tool(&self, netns: &Netns, program: &str, args: &[&str]) -> process::Finished {
        let mut command = netns.command(program);
        command.args(args).env("DBUS_SYSTEM_BUS_ADDRESS", address(&self.dir)).env("LC_ALL", "C.UTF-8");
        process::run(&mut command, b"", Duration::from_secs(15))
    }
}

fn address(dir: &Path) -> String {
    format!("unix:path={}", dir.join("bus").display())
}

fn quiet(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", command.get_program().display()))
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The daemon says goodbye when it is asked to end.
        sys::signal(self.daemon.id(), libc::SIGTERM);
        if !wait_until(Duration::from_secs(3), || !matches!(self.daemon.try_wait(), Ok(None))) {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

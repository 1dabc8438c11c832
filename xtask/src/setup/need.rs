//! Which Debian packages are needed, and by which file each is recognised. Installs nothing.

use std::path::Path;

use crate::project::find_program;

/// A package, and the files that show it (or another distribution's like) is there.
pub(super) struct Need {
    pub(super) package: &'static str,
    /// Program names, or absolute paths; any one of them will do.
    pub(super) found_as: &'static [&'static str],
}

impl Need {
    pub(super) fn is_met(&self) -> bool {
        self.found_as
            .iter()
            .any(|file| if file.starts_with('/') { Path::new(file).exists() } else { find_program(file).is_some() })
    }
}

const fn need(package: &'static str, found_as: &'static [&'static str]) -> Need {
    Need { package, found_as }
}

/// What compiling the workspace, the tests and the demo use, whatever builds the eBPF objects.
pub(super) const PROGRAMS: [Need; 21] = [
    need("gcc", &["gcc", "cc"]),
    need("libc6-dev", &["/usr/include/stdlib.h"]),
    need("iproute2", &["ip"]),
    need("bpftool", &["bpftool"]),
    need("containernetworking-plugins", &["/usr/lib/cni/macvlan", "/opt/cni/bin/macvlan"]),
    need("avahi-daemon", &["avahi-daemon"]),
    need("avahi-utils", &["avahi-browse"]),
    need("dnsmasq-base", &["dnsmasq"]),
    need("tcpdump", &["tcpdump"]),
    need("tshark", &["tshark"]),
    need("iputils-ping", &["ping"]),
    need("nftables", &["nft"]),
    need("iptables", &["iptables"]),
    need("util-linux", &["nsenter"]),
    need("prometheus", &["promtool"]),
    need("chromium", &["chromium", "chromium-browser"]),
    need("python3-pip", &["pip3"]),
    need("diffutils", &["diff"]),
    need("runc", &["runc"]),
    need("golang-github-containers-common", &["/usr/share/containers/seccomp.json"]),
    need("buildah", &["buildah"]),
];

/// What machines of software need, which nobody else does.
pub(super) const VM: [Need; 6] = [
    need("qemu-system-x86", &["qemu-system-x86_64"]),
    need("busybox-static", &["/bin/busybox"]),
    need("kmod", &["depmod"]),
    need("xz-utils", &["xz"]),
    need("zstd", &["zstd"]),
    need("binutils", &["strip"]),
];

//! What the machine finds when it boots: the test program, the tools it calls, the modules it needs, and one script.
//!
//! Files are taken from this machine with the libraries they are linked to. Boots nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::kernel::Kernel;
use crate::Outcome;
use crate::project::{capture, find_program, run};

/// Programs that the tests start.
const TOOLS: [&str; 5] = ["ip", "tc", "bpftool", "nsenter", "ping"];

/// What the tests need of a kernel that has everything as modules.
const MODULES: [&str; 15] = [
    "macvlan",
    "ipvlan",
    "veth",
    "8021q",
    "dummy",
    "bridge",
    "bonding",
    "ifb",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "act_mirred",
    "nf_tables",
    "tun",
    "sch_tbf",
];

/// Packs the file system for `kernel` and says where it is.
pub(super) fn make(kernel: &Kernel, test: &Path, arguments: &[String], folder: &Path) -> Outcome<PathBuf> {
    let mut content = Content::default();
    content.program(Path::new("/bin/busybox"), "bin/busybox")?;
    for tool in TOOLS {
        let path = find_program(tool).ok_or_else(|| format!("no program {tool} on this machine"))?;
        content.program(&path, &format!("bin/{tool}"))?;
    }
    let stripped = folder.join("test");
    run(Command::new("strip").arg("-o").arg(&stripped).arg(test))?;
    content.program(&stripped, "test")?;
    let modules = content.modules(kernel, folder)?;
    content.file("init", 0o755, script(&modules, arguments).into_bytes());
    let path = folder.join(format!("initramfs-{}", kernel.version));
    compress(&content.cpio(), &path)?;
    Ok(path)
}

fn script(modules: &[String], arguments: &[String]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin MULTUS_EMULATED=1\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         mount -t tmpfs tmp /tmp; mount -t tmpfs run /run; mount -t bpf bpf /sys/fs/bpf\n\
         mkdir -p /run/netns; mount --make-rshared /; ip link set lo up\n\
         for module in {}; do insmod /modules/$module.ko || echo \"no module $module\"; done\n\
         cd /tmp; /test {}; echo \"{}$?\"\n\
         poweroff -f\n",
        modules.join(" "),
        quoted.join(" "),
        super::run::MARK,
    )
}

/// Files by their path, in the order they are packed.
#[derive(Default)]
struct Content {
    files: Vec<(String, u32, Vec<u8>)>,
    seen: BTreeSet<String>,
}

impl Content {
    fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        if self.seen.insert(path.to_owned()) {
            self.files.push((path.to_owned(), 0o100_000 | mode, bytes));
        }
    }

    /// A program under another name, and its libraries under their own.
    fn program(&mut self, program: &Path, name: &str) -> Outcome {
        self.file(name, 0o755, read(program)?);
        // A static program has none, and ldd calls that a failure.
        let libraries = capture(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            self.file(library.trim_start_matches('/'), 0o755, read(Path::new(library))?);
        }
        Ok(())
    }

    /// The modules with all that they need, in the order of loading.
    fn modules(&mut self, kernel: &Kernel, folder: &Path) -> Outcome<Vec<String>> {
        run(Command::new("depmod").arg("-b").arg(&kernel.modules).arg(&kernel.version))?;
        let mut names = Vec::new();
        for module in MODULES {
            let mut show = Command::new("modprobe");
            show.arg("-d").arg(&kernel.modules).args(["-S", &kernel.version, "--show-depends", module]);
            let Ok(steps) = capture(&mut show) else {
                println!("note        kernel {} has no module {module}", kernel.version);
                continue;
            };
            // "insmod PATH [OPTION=VALUE …]"
            for path in steps.lines().filter_map(|line| line.strip_prefix("insmod ")?.split(' ').next()) {
                let path = Path::new(path);
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                let name = file.split(".ko").next().unwrap_or_default().to_owned();
                if !names.contains(&name) {
                    self.file(&format!("modules/{name}.ko"), 0o644, unpacked(path, folder)?);
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// The archive as the kernel reads it ("newc", Documentation/driver-api/early-userspace/buffer-format.rst).
    fn cpio(&self) -> Vec<u8> {
        let mut folders = BTreeSet::from(["proc", "sys", "dev", "tmp", "run", "bin"].map(str::to_owned));
        for (path, ..) in &self.files {
            let parents = Path::new(path).ancestors().skip(1).map(|parent| parent.to_string_lossy().into_owned());
            folders.extend(parents.filter(|parent| !parent.is_empty()));
        }
        let mut archive = Vec::new();
        for folder in folders {
            entry(&mut archive, &folder, 0o040_755, &[]);
        }
        for (path, mode, bytes) in &self.files {
            entry(&mut archive, path, *mode, bytes);
        }
        entry(&mut archive, "TRAILER!!!", 0, &[]);
        archive
    }
}

fn entry(archive: &mut Vec<u8>, path: &str, mode: u32, bytes: &[u8]) {
    let inode = archive.len() / 4 + 1;
    let numbers = [inode, mode as usize, 0, 0, 1, 0, bytes.len(), 0, 0, 0, 0, path.len() + 1, 0];
    archive.extend_from_slice(b"070701");
    for number in numbers {
        archive.extend_from_slice(format!("{number:08x}").as_bytes());
    }
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(bytes);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))
}

/// A module as the kernel takes it without help.
fn unpacked(path: &Path, folder: &Path) -> Outcome<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return read(path),
    };
    let aside = folder.join("module");
    let file = fs::File::create(&aside).map_err(|error| format!("write {}: {error}", aside.display()))?;
    run(Command::new(program).arg("-dc").arg(path).stdout(file))?;
    read(&aside)
}

fn compress(bytes: &[u8], path: &Path) -> Outcome {
    let failed = |error: std::io::Error| format!("write {}: {error}", path.display());
    let file = fs::File::create(path).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    let mut gzip = Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(file).spawn().map_err(failed)?;
    let fed = gzip.stdin.take().map(|mut pipe| pipe.write_all(bytes));
    fed.unwrap_or(Ok(())).map_err(failed)?;
    let ended = gzip.wait().map_err(failed)?;
    if ended.success() { Ok(()) } else { Err(format!("gzip failed: {ended}")) }
}

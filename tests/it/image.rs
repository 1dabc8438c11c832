//! The image: the same programs give the same bytes, there is nothing else in it, and it runs as it is.
//!
//! Its archive is made by `cargo xtask image`, unpacked here without any container engine, and run by runc in the sandbox
//! of the rendered manifest; buildah's image of the Containerfile has the same files.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use lab::bundle::{self, Container, Wanted};
use lab::manifest::Manifest;
use lab::{Lab, agent, http, plugins, process, wait_until};
use serde_json::{Value, json};

const PROGRAMS: [&str; 2] = ["multus-agent", "multus-shim"];

/// Prints straight to the descriptor: the test harness hides what passing tests print.
fn say(text: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{name}: {text}\n"));
}

/// Ends the test, visibly, where no image can be made of the programs under test.
macro_rules! needs_image {
    () => {
        needs_programs!();
        if let Some(reason) = missing() {
            say(&format!("skipped: {reason}"));
            return;
        }
    };
}

fn missing() -> Option<String> {
    if !xtask().exists() {
        return Some(format!("no {}: `cargo build --package xtask` makes it", xtask().display()));
    }
    let dynamic = agent::is_dynamic(&agent::program("multus-agent"));
    dynamic.then(|| "the programs are dynamically linked; `cargo xtask build` makes static ones".to_owned())
}

/// What `cargo xtask` starts.
fn xtask() -> PathBuf {
    plugins::own_programs().join("xtask")
}

/// Has an image made of the programs in `programs`; the folder with the archive.
fn image(lab: &Lab, name: &str, programs: &Path) -> PathBuf {
    let into = lab.dir.join(name);
    let mut command = Command::new(xtask());
    command.arg("image").arg("--programs").arg(programs).arg("--into").arg(&into);
    let done = process::run(&mut command, b"", Duration::from_mins(2));
    assert!(done.success(), "xtask image: {}{}", done.out(), done.err());
    into
}

/// The one file of a folder with this ending.
fn only(folder: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(folder).expect("read a folder").flatten().map(|entry| entry.path());
    let found: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{ending}: {found:?}");
    found[0].clone()
}

fn sha256(path: &Path) -> String {
    let sum = process::tool(Command::new("sha256sum").arg(path));
    String::from_utf8_lossy(&sum).split_whitespace().next().expect("a sum").to_owned()
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read a document")).expect("JSON")
}

fn unpack(archive: &Path, into: &Path) {
    fs::create_dir_all(into).expect("make a folder");
    process::tool(
        Command::new("tar").args(["--extract", "--same-permissions", "--file"]).arg(archive).arg("-C").arg(into),
    );
}

/// An unpacked image: its file system, and what it says of how it is run.
struct Unpacked {
    root: PathBuf,
    config: Value,
    digest: String,
}

impl Unpacked {
    /// From an OCI layout; every blob is what its name says.
    fn of(layout: &Path, root: PathBuf) -> Self {
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
            let path = layout.join("blobs").join(digest.replace(':', "/"));
            assert_eq!(format!("sha256:{}", sha256(&path)), digest);
            assert_eq!(fs::metadata(&path).expect("a blob").len(), descriptor["size"].as_u64().expect("a size"));
            path
        };
        let manifest = &document(&layout.join("index.json"))["manifests"][0];
        let digest = manifest["digest"].as_str().expect("a digest").to_owned();
        let manifest = document(&blob(manifest));
        for layer in manifest["layers"].as_array().expect("layers") {
            unpack(&blob(layer), &root);
        }
        Self { root, config: document(&blob(&manifest["config"]))["config"].clone(), digest }
    }

    /// Every file and folder in it: path, kind, mode and owner.
    fn listed(&self) -> Vec<String> {
        let mut listed = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).expect("read a folder").flatten().map(|entry| entry.path()) {
                let about = fs::symlink_metadata(&path).expect("a file");
                let name = path.strip_prefix(&self.root).expect("below the root").display();
                let (mode, owner, group) = (about.permissions().mode(), about.uid(), about.gid());
                listed.push(format!("{name} {mode:o} {owner}:{group}"));
                folders.extend(about.is_dir().then_some(path));
            }
        }
        listed.sort();
        listed
    }

    /// The two programs under test are all there is in it, and the agent is what runs.
    fn is_the_programs(&self) {
        let folders = ["usr 40755 0:0", "usr/bin 40755 0:0"].map(str::to_owned);
        let files = PROGRAMS.map(|name| format!("usr/bin/{name} 100755 0:0"));
        assert_eq!(self.listed(), [folders, files].concat());
        for name in PROGRAMS {
            assert_eq!(sha256(&self.root.join("usr/bin").join(name)), sha256(&agent::program(name)), "{name}");
        }
        let said = (&self.config["Entrypoint"], &self.config["Env"]);
        assert_eq!(said, (&json!(["/usr/bin/multus-agent"]), &json!(["PATH=/usr/bin"])));
    }
}

/// Makes the image twice, which is to say of the same bytes; the folder of one of both.
fn made_twice(lab: &Lab) -> PathBuf {
    // Elsewhere, with another time and other modes.
    let copies = lab.dir.join("copies");
    fs::create_dir_all(&copies).expect("make a folder");
    for name in PROGRAMS {
        let copy = copies.join(name);
        fs::copy(agent::program(name), &copy).expect("copy a program");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).expect("set a mode");
        let file = File::options().write(true).open(&copy).expect("open a copy");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30)).expect("set a time");
    }
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| image(lab, "other", &copies));
        (image(lab, "one", &agent::program("")), other.join().expect("an image"))
    });
    for ending in [".oci.tar", ".digest", ".cdx.json"] {
        assert_eq!(sha256(&only(&one, ending)), sha256(&only(&other, ending)), "{ending}");
    }
    one
}

#[test]
fn the_same_programs_give_the_same_image_which_runs_as_it_is() {
    needs_image!();
    if let Some(reason) = bundle::missing() {
        return say(&format!("skipped: {reason}"));
    }
    let lab = Lab::new("image");
    let folder = made_twice(&lab);
    let (archive, layout) = (only(&folder, ".oci.tar"), lab.dir.join("layout"));
    let size = fs::metadata(&archive).expect("the archive").len();
    unpack(&archive, &layout);
    let image = Unpacked::of(&layout, lab.dir.join("root"));
    let digest = fs::read_to_string(only(&folder, ".digest")).expect("the digest");
    assert_eq!(digest.trim(), image.digest);
    image.is_the_programs();

    fs::write(lab.cni_conf_dir.join("10-default.conflist"), lab.bridge().to_string()).expect("a default network");
    let mut config = Manifest::rendered().config();
    config["objects"] = lab.objects_dir.display().to_string().into();
    let container = |words: Option<&[&str]>| {
        Container::new(&lab, &Wanted { image: Some(&image.root), words, ..Wanted::new("agent", &config) })
    };
    let entry = image.config["Entrypoint"][0].as_str().expect("an entry point");
    let version = container(Some(&[entry, "version"])).run();
    // No agent runs yet, which the code says; the program's own part is printed all the same.
    assert!(
        version.code == Some(3) && version.out().contains(env!("CARGO_PKG_VERSION")),
        "{}{}",
        version.out(),
        version.err()
    );
    let shim = container(Some(&["/usr/bin/multus-shim"])).run();
    assert!(shim.err().starts_with("multus-shim "), "{}{}", shim.out(), shim.err());

    let agent = container(None);
    let log = lab.dir.join("image.log");
    let mut command = agent.command();
    command.stderr(File::create(&log).expect("a log")).stdin(std::process::Stdio::null());
    let began = Instant::now();
    let mut keeper = command.spawn().expect("start runc");
    let socket = lab.socket_dir.join("multus.sock");
    let ready = wait_until(Duration::from_secs(15), || {
        http::get_unix(&socket, "/readyz").is_ok_and(|reply| reply.status == 200)
    });
    let took = began.elapsed();
    let told = agent.exec(&["/usr/bin/multus-agent", "status", "--brief"]);
    agent.delete();
    keeper.wait().expect("runc ends");
    assert!(ready && told.code == Some(0), "{}{}", told.out(), fs::read_to_string(&log).unwrap_or_default());
    say(&format!("archive of {size} bytes, ready {} ms after runc was started", took.as_millis()));
}

#[test]
fn buildah_makes_the_same_of_the_containerfile() {
    needs_image!();
    if !Path::new("/usr/bin/buildah").exists() {
        return say("skipped: no buildah: run `cargo xtask setup`");
    }
    let lab = Lab::new("buildah");
    let context = lab.dir.join("context/target/release");
    fs::create_dir_all(&context).expect("make a folder");
    for name in PROGRAMS {
        fs::copy(agent::program(name), context.join(name)).expect("copy a program");
    }
    let buildah = |words: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root"]).arg(lab.dir.join("storage"));
        command.arg("--runroot").arg(lab.dir.join("storage-run")).args(words);
        let done = process::run(&mut command, b"", Duration::from_mins(1));
        assert!(done.success(), "{words:?}: {}{}", done.out(), done.err());
    };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/image/Containerfile");
    let (tag, folder) = (format!("{}-image", lab.prefix), lab.dir.join("context").display().to_string());
    buildah(&["build", "--isolation", "chroot", "--timestamp", "0", "--file", file, "--tag", &tag, &folder]);
    let layout = lab.dir.join("theirs");
    buildah(&["push", "--quiet", &tag, &format!("oci:{}", layout.display())]);
    let theirs = Unpacked::of(&layout, lab.dir.join("their-root"));
    theirs.is_the_programs();
}

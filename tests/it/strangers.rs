//! A user of the node who is not root: what they can connect to, and what they can read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::{World, http, process};

/// Asks for the status over a socket; says what came back, or why nothing did.
const ASK: &str = r#"
use IO::Socket::UNIX;
$SIG{PIPE} = 'IGNORE';
$SIG{ALRM} = sub { print "silence"; exit };
alarm 5;
my $asked = IO::Socket::UNIX->new($ARGV[0]) or do { print "refused: $!"; exit };
print $asked "GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
$asked->flush;
my $heard = <$asked>;
print defined $heard ? "heard: $heard" : "closed";
"#;

/// The same line as root, and as nobody in particular.
fn as_user(uid: Option<u32>, program: &str, args: &[&str]) -> process::Finished {
    let mut command = Command::new("setpriv");
    if let Some(uid) = uid {
        command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups", "--inh-caps=-all"]);
    }
    process::run(command.arg(program).args(args), b"", Duration::from_secs(10))
}

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("open to all");
}

#[test]
fn nobody_but_root_is_answered() {
    needs_programs!();
    let world = World::new("strangers");
    let socket = world.agent.socket();
    let path = socket.display().to_string();
    let ask = |uid| as_user(uid, "perl", &["-e", ASK, &path]).out();
    assert!(ask(None).contains("200 OK"), "root is answered: {}", ask(None));
    assert!(ask(Some(65_534)).contains("Permission denied"), "{}", ask(Some(65_534)));
    // Somebody has opened folder and socket to all: the agent looks at who it is.
    open(socket);
    open(socket.parent().expect("a folder"));
    let heard = ask(Some(65_534));
    assert_eq!(heard, "closed");
    assert_eq!(http::get_unix(socket, "/readyz").expect("an answer").status, 200);
}

#[test]
fn nobody_but_root_reads_what_is_kept() {
    needs_programs!();
    let world = World::new("strangers-files");
    let _pod = world.attached("cam", "lan");
    assert!(!world.add(&world.lab.pod("lost").networks("nowhere")).ok(), "one that fails, for its trace");
    let folders = [&world.lab.cni_dir, &world.lab.bpffs];
    for folder in folders {
        let path = folder.display().to_string();
        let root = as_user(None, "find", &[&path]).out();
        let theirs = as_user(Some(65_534), "find", &[&path, "-mindepth", "2"]).out();
        assert!(root.lines().count() > 4, "there is something to read: {root}");
        let comes = as_user(Some(65_534), "find", &[&path, "-maxdepth", "0"]).out();
        assert_eq!(comes.trim(), path, "a stranger comes as far as the folder");
        let seen: Vec<&str> = theirs.lines().filter(|line| !line.contains("/results")).collect();
        assert_eq!(seen, [""; 0], "a stranger sees into {path}");
    }
    // libcni's own folder is everybody's to enter; what lies in it is not to be read.
    let results = world.lab.cni_dir.join("results");
    let kept: Vec<_> = fs::read_dir(&results).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(!kept.is_empty(), "there are results");
    for file in kept {
        let read = as_user(Some(65_534), "cat", &[&file.display().to_string()]);
        assert!(!read.success() && read.stdout.is_empty(), "a stranger reads {}", file.display());
    }
}

//! The web page, as a person with a browser sees it, and as somebody sees it who means harm.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use lab::chromium::{self, Chromium};
use lab::peer::announcement;
use lab::world::Builder;
use lab::{Ear, Family, Lab, Pod, Protocol, Voice, World, traffic, wait_until};
use serde_json::{Value, json};

const ADDRESS: &str = "127.0.0.1:9798";
const PATIENCE: Duration = Duration::from_secs(15);

/// Ends the test, visibly, where no Chromium is installed; with `MULTUS_BIN_DIR` set that is a failure.
macro_rules! needs_chromium {
    () => {
        needs_programs!();
        if chromium::is_missing() {
            assert!(std::env::var_os("MULTUS_BIN_DIR").is_none(), "no Chromium: run `cargo xtask setup`");
            let _ = writeln!(std::io::stderr(), "skipped: no Chromium: run `cargo xtask setup`");
            return;
        }
    };
}

fn with_page(lab: Lab) -> World {
    let builder = Builder::on(lab);
    let (lan, quiet) = (builder.lab.macvlan("bridge"), builder.lab.macvlan("private"));
    let builder = builder.configure(|config, _| config["pageAddress"] = ADDRESS.into());
    builder.network("lan", &lan).network("quiet", &quiet).start()
}

fn url() -> String {
    format!("http://{ADDRESS}/")
}

fn announce(world: &World, service: &str, instance: &[u8], host: &str, last: u8) {
    let lan = world.lab.lan();
    let voice = Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let payload = announcement(service, instance, host, Ipv4Addr::new(192, 168, 50, last), 120);
    let knows = || {
        let told = world.agent.cli(&world.lab, &["get", "services", "-o", "json"]);
        let told: Value = serde_json::from_slice(&told.stdout).expect("a document");
        let instance = String::from_utf8_lossy(instance);
        told["items"].as_array().is_some_and(|all| all.iter().any(|one| one["instance"] == *instance))
    };
    let heard = wait_until(PATIENCE, || {
        voice.send(Family::V4, &payload);
        wait_until(Duration::from_millis(300), knows)
    });
    assert!(heard, "the agent never heard of it");
}

/// A home: three pods, some devices on the LAN, and a pod that announces itself.
fn home(world: &World) -> Vec<Pod> {
    let pods: Vec<Pod> =
        ["home-assistant", "music-assistant", "scrypted"].map(|name| world.attached(name, "lan")).into();
    let apart = world.lab.pod("backup").networks("quiet").annotate("multus-ebpf.io/relay", "none");
    world.add(&apart).expect_ok();
    for (service, instance, host, last) in [
        ("_ipp._tcp", "Office Printer", "printer", 20),
        ("_googlecast._tcp", "Kitchen speaker", "kitchen", 21),
        ("_hap._tcp", "Hall light", "hall-light", 22),
        ("_shelly._tcp", "Washing machine", "shelly-plug-1", 23),
    ] {
        announce(world, service, instance.as_bytes(), host, last);
    }
    let typo = world.lab.pod("frigate").networks("nowhere");
    world.add(&typo).expect_error(101);
    let own = pods[0].netns.addresses("net1");
    let own: Ipv4Addr = own.iter().find_map(|a| a.split('/').next()?.parse().ok()).expect("an IPv4 address");
    let voice = Voice::new(&pods[0].netns, "net1", Protocol::Mdns);
    voice.send(Family::V4, &announcement("_home-assistant._tcp", b"Home", "homeassistant", own, 120));
    let host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    let ear = Ear::new(&pods[0].netns, "net1", Protocol::Mdns);
    assert!(wait_until(PATIENCE, || ear.hears(&host.say(Family::V4), Duration::from_millis(200))));
    pods.into_iter().chain([apart]).collect()
}

#[test]
fn a_browser_shows_what_goes_on_and_keeps_up() {
    needs_chromium!();
    let mut world = with_page(Lab::new("page"));
    let pods = home(&world);
    let mut browser = Chromium::start(&world.lab);
    browser.look(1100, false, false);
    browser.open(&url());

    assert_eq!(browser.text("h1"), "lab-node");
    assert_eq!(browser.text("header p"), "All is well");
    let rows = browser.texts("#attachments tbody th");
    let wanted = ["backup", "home-assistant", "music-assistant", "scrypted"].map(|pod| format!("{pod}default"));
    assert_eq!(rows, wanted, "the pods, and no eth0");
    let address = pods[0].netns.addresses("net1")[0].clone();
    assert!(browser.text("#attachments tbody").contains(&address), "{address}");
    let services = browser.texts("#services tbody th");
    assert!(services.iter().any(|name| name == "Office Printer"), "{services:?}");
    assert!(browser.text("#services tbody").contains("Printer\n_ipp._tcp"), "{}", browser.text("#services tbody"));
    let networks = browser.texts("#networks tbody tr");
    assert_eq!(networks, ["landefaultmacvlan3", "quietdefaultmacvlan1"]);
    let drawn = browser.text("#relay desc") + &browser.texts("#relay desc").concat();
    for sentence in [
        "default/home-assistant and this node hear each other by mdns, ssdp, wsd, coap.",
        "default/backup and this node do not hear each other.",
    ] {
        assert!(drawn.contains(sentence), "{drawn}");
    }
    assert!(browser.text("#refusals tbody").contains("default/nowhere"), "{}", browser.text("#refusals"));
    let lines = browser.value("document.querySelectorAll('#relay svg path.mdns').length");
    assert_eq!(lines, 3, "a line of mDNS for each pod that has it");
    assert!(browser.texts("#relay tbody tr").iter().any(|row| row.starts_with("mdnsnode → pods")));
    assert!(
        browser.texts("#relay svg g.pod").iter().any(|pod| pod.contains("home-assistant") && pod.contains("service"))
    );
    assert_eq!(browser.complaints(), [&Value::Null; 0], "what the page may not do it does not try");

    // Whoever reads a selected address should still have it after the next two seconds.
    browser.value("window.stays = document.querySelector('#attachments tbody tr:nth-child(2)'); 1");
    let sends = "#attachments tbody tr:nth-child(2) td:nth-child(6)";
    let voice = Voice::new(&pods[0].netns, "net1", Protocol::Mdns);
    let saying =
        std::thread::spawn(move || traffic::blast(&voice, Protocol::Mdns, Family::V4, 500, Duration::from_secs(5)));
    let moves = wait_until(PATIENCE, || {
        std::thread::sleep(Duration::from_millis(200));
        browser.text(sends).contains(" kB/s")
    });
    assert!(moves, "the live rate: {}", browser.text(sends));
    assert_eq!(browser.value("window.stays.isConnected && document.querySelectorAll('main').length"), 1);
    assert!(browser.text("footer").ends_with("live"), "{}", browser.text("footer"));
    let late = world.attached("zwave", "lan");
    let comes = wait_until(PATIENCE, || browser.texts("#attachments tbody th").iter().any(|pod| pod.contains("zwave")));
    assert!(comes, "a new pod appears by itself");
    drop(late);
    looks_well(&mut browser);
    let _sent = saying.join();

    if std::env::var_os("MULTUS_REGENERATE").is_some() {
        pictures(&mut browser);
    }
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
    world.agent.kill9();
    let told = wait_until(PATIENCE, || browser.text("#live").contains("does not answer"));
    assert!(told, "a page that is not live any more says so");
}

/// Contrast, headings, table heads and width, on screen and phone, by day and by night.
fn looks_well(browser: &mut Chromium) {
    for (width, is_phone, is_dark) in [(1100, false, false), (1100, false, true), (390, true, false), (390, true, true)]
    {
        browser.look(width, is_phone, is_dark);
        let case = format!("{width} {is_dark}");
        let wide = browser.value("document.documentElement.scrollWidth").as_u64().expect("a width");
        assert!(wide <= u64::from(width), "{case}: the page is {wide} wide");
        let pale = browser.value(include_str!("page/contrast.js"));
        assert_eq!(pale, json!([]), "{case}: WCAG 2.2, 1.4.3");
    }
    let levels = browser.value("[...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])");
    let levels: Vec<u64> = levels.as_array().expect("headings").iter().filter_map(Value::as_u64).collect();
    assert!(levels[0] == 1 && levels.windows(2).all(|two| two[1] <= two[0] + 1), "{levels:?}");
    let bare = browser.value("document.querySelectorAll('th:not([scope]), svg:not([role]):not([aria-hidden])').length");
    assert_eq!(bare, 0, "table heads say what they head, and drawings what they are");
}

/// Pictures for the documentation.
fn pictures(browser: &mut Chromium) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/web-page");
    fs::create_dir_all(&folder).expect("make the folder of pictures");
    for (name, from, (width, height), scale, is_phone, is_dark) in [
        ("light", "header", (960, 960), 1.0, false, false),
        ("dark", "#relay", (960, 1150), 0.85, false, true),
        ("phone", "header", (390, 1100), 0.6, true, false),
    ] {
        browser.look(width, is_phone, is_dark);
        std::thread::sleep(Duration::from_millis(300));
        let top = browser.value(&format!("Math.max(0, document.querySelector({from:?}).offsetTop - 20)"));
        // The lab's folder is nobody's.
        browser.value("document.querySelectorAll('#status dd').forEach((d) => d.textContent = d.textContent.replace(/\\/tmp\\/[^/]+\\/net.d/, '/etc/cni/net.d'))");
        let picture = browser.picture((top.as_u64().expect("a place"), width, height), scale);
        assert!(picture.len() < 150_000, "{name} takes {} bytes", picture.len());
        fs::write(folder.join(format!("{name}.png")), picture).expect("write a picture");
    }
}

#[test]
fn without_scripts_everything_is_shown() {
    needs_chromium!();
    let world = with_page(Lab::new("page-plain"));
    let pod = world.attached("cam", "lan");
    announce(&world, "_http._tcp", b"Web", "box", 9);
    let voice = Voice::new(&pod.netns, "net1", Protocol::Mdns);
    let mut browser = Chromium::start_without_scripts(&world.lab);
    browser.open(&url());
    let html = browser.html();
    for part in
        [">cam<", "net1", "default/lan", ">Web<", "box.local", "<svg viewBox", "192.168.50.9:8080", "http-equiv"]
    {
        assert!(html.contains(part), "{part} is missing in {html}");
    }
    // Who comes again is told the rate since.
    for _ in 0..100 {
        voice.say(Family::V4);
    }
    std::thread::sleep(Duration::from_secs(1));
    browser.open(&url());
    let html = browser.html();
    let row = html.split("<tr>").find(|row| row.contains(">cam<")).expect("the pod's row");
    let sends = row.rsplit("<td>").next().expect("the last cell");
    assert!(sends.contains("/s") && !sends.starts_with("0 B/s") && !sends.starts_with('–'), "{sends}");
}

#[test]
fn hostile_names_stay_text() {
    needs_chromium!();
    let lab = Lab::new("page-hostile");
    let script = "<script>document.title='owned'</script>";
    // Objects that are refused are told of, in the status.
    lab.object(
        "pod-bad",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": script, "namespace": "default"}}),
    );
    lab.network("default", "odd", &json!(format!("{{\"type\":\"{script}\u{202e}\"}}")), &json!({}));
    lab.network("default", "<img src=x onerror=alert(1)>", &lab.macvlan("bridge"), &json!({}));
    let world = with_page(lab);
    let _pod = world.attached("cam", "lan");
    let hostile: [(&[u8], &str); 6] = [
        (script.as_bytes(), script),
        (b"\"><img src=x onerror=alert(1)>", "\"><img src=x onerror=alert(1)>"),
        (b"' onmouseover='alert(1)", "' onmouseover='alert(1)"),
        ("\u{202e}gnp.exe\u{2066}".as_bytes(), "\\u{202e}gnp.exe\\u{2066}"),
        (b"a\x1b[2J\x00\x07\n</th></tr>b", "a\\u{1b}[2J\\u{0}\\u{7}\\n</th></tr>b"),
        (&[b'x'; 63], "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ];
    for (at, (instance, _)) in hostile.iter().enumerate() {
        announce(&world, "_http._tcp", instance, "h<b>o</b>st", u8::try_from(at).expect("few") + 30);
    }
    let victim = world.lab.pod("victim").networks("lan");
    let args = format!("IgnoreUnknown=true;K8S_POD_NAMESPACE=<b>;K8S_POD_NAME={script}");
    assert!(!world.runtime.call("ADD", Some(&victim)).var("CNI_ARGS", args).run(&world.lab.node).ok());
    let mut browser = Chromium::start(&world.lab);
    browser.open(&url());
    let settled = wait_until(PATIENCE, || {
        std::thread::sleep(Duration::from_millis(200));
        browser.text("#live").contains("live") && browser.value("performance.now() > 4500") == true
    });
    assert!(settled, "two rounds of live updates");
    assert_eq!(browser.value("document.title"), "lab-node · networks of pods");
    let shown = browser.texts("#services tbody th");
    for (_, text) in &hostile {
        assert!(shown.iter().any(|one| one == text), "{text} is not among {shown:?}");
    }
    assert!(browser.texts("#services tbody td").iter().any(|host| host.starts_with("h<b>o</b>st.local")));
    let refused = browser.texts("#refusals tbody th");
    assert_eq!(refused, [format!("{script}<b>")], "whoever asks chooses the name of the pod");
    let page = browser.value("document.body.textContent");
    let page = page.as_str().expect("text");
    assert!(page.contains("\\u{202e}") && !page.contains('\u{202e}'), "{page}");
    let strangers =
        browser.value("document.querySelectorAll('main script, main img, main b b, main [onerror]').length");
    assert_eq!(strangers, 0, "elements that are not ours");
    assert_eq!(browser.complaints(), [&Value::Null; 0], "nothing was even tried");
}

/// Says `request` on a connection of its own; gives the answer's head and body.
fn said(world: &World, request: &str) -> (String, String) {
    let mut stream = world.lab.node.enter(|| TcpStream::connect(ADDRESS)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.write_all(request.as_bytes()).expect("send");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn only_reads_and_only_under_its_own_names() {
    needs_programs!();
    let world = with_page(Lab::new("page-http"));
    for host in [ADDRESS, "localhost:9798", "lab-node:1", "[::1]"] {
        let (head, body) = said(&world, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(head.starts_with("http/1.1 200") && body.starts_with("<!doctype html>"), "{host}: {head}");
    }
    for host in ["rebound.example:9798", "127.0.0.1.example", "lab-node.example", "x\"<script>"] {
        let (head, body) = said(&world, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(head.starts_with("http/1.1 421") && body.contains("pageHosts"), "{host}: {head} {body}");
        assert!(head.contains("content-type: text/plain") && !body.contains("lab-node "), "{host}: {head}");
    }
    let (head, _) = said(&world, "GET / HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("http/1.0 421"), "{head}");
    let own =
        |line: &str| said(&world, &format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let (head, _) = own(&format!("{method} /"));
        assert!(head.starts_with("http/1.1 405") && head.contains("allow: get, head"), "{method}: {head}");
    }
    for path in ["/v1/status", "/cni", "/metrics", "/../etc/passwd", "//", "/page.css/"] {
        assert!(own(&format!("GET {path}")).0.starts_with("http/1.1 404"), "{path}");
    }
    for (path, kind) in
        [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")]
    {
        let (head, body) = said(&world, &format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!(head.starts_with("http/1.1 200") && body.is_empty(), "{path}: {head}");
        for header in [
            &format!("content-type: {kind}"),
            "content-security-policy: default-src 'none'; ",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path}: no {header} in {head}");
        }
    }
}

#[test]
fn who_dawdles_or_crowds_keeps_nobody_out() {
    needs_programs!();
    let world = with_page(Lab::new("page-slow"));
    let connect = || world.lab.node.enter(|| TcpStream::connect(ADDRESS)).expect("connect");
    let mut slow: Vec<TcpStream> = (0..40).map(|_| connect()).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: loc");
    }
    let began = Instant::now();
    let (head, _) = said(&world, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("http/1.1 200"), "{head:?} after {:?}", began.elapsed());
    let threads_and_files = world.agent.descriptors_and_threads();
    assert!(threads_and_files.0 < 100, "{threads_and_files:?}");
    drop(slow);
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let (head, _) = said(&world, &long);
    assert!(head.is_empty() || head.starts_with("http/1.1 431"), "{head}");
}

#[test]
fn an_address_that_is_taken_is_told_of() {
    needs_programs!();
    let lab = Lab::new("page-taken");
    let taken = lab.node.enter(|| std::net::TcpListener::bind(ADDRESS)).expect("take the address");
    let world = with_page(lab);
    let status = || world.agent.cli(&world.lab, &["status"]).out();
    let told = wait_until(PATIENCE, || status().contains("serve the page on 127.0.0.1:9798: "));
    assert!(told, "{}", status());
    drop(taken);
}

//! The keys below `datapath`.

use serde_json::{Value, json};

use super::{Key, Kind, Section, duration, own};
use crate::config::datapath::{AttachMode, CustomProtocol, DatapathMode, Guard};
use crate::config::reflect::{self, Election};

const REFLECTED: &[&str] = &reflect::REFLECTED;

fn election(value: &Election) -> Value {
    match value {
        Election::Auto => json!("auto"),
        Election::Lease(None) => json!("lease"),
        Election::Lease(Some(name)) => json!(format!("lease:{name}")),
        Election::None => json!("none"),
        Election::Node(name) => json!(format!("node:{name}")),
    }
}

fn custom(protocol: &CustomProtocol) -> Value {
    let mut fields = json!({"port": protocol.port});
    if let Some(group) = protocol.v4 {
        fields["v4"] = json!(group);
    }
    if let Some(group) = protocol.v6 {
        fields["v6"] = json!(group);
    }
    fields
}

/// The keys, section by section.
pub(super) const KEYS: &[Key] = &[
    own(
        "datapath.mode",
        Kind::Words(&["off", "account", "full"]),
        r#""full""#,
        Section::Datapath,
        |s| {
            json!(match s.datapath.mode {
                DatapathMode::Off => "off",
                DatapathMode::Account => "account",
                DatapathMode::Full => "full",
            })
        },
        "`off`: no eBPF. `account`: count. `full`: count and relay",
    ),
    own(
        "datapath.bpffs",
        Kind::Path,
        r#""/sys/fs/bpf/multus""#,
        Section::Datapath,
        |s| json!(s.datapath.bpffs),
        "folder on a bpf file system; pins go to `<bpffs>/v<layout>/{maps,progs,links}`",
    ),
    own(
        "datapath.attach",
        Kind::Words(&["auto", "tcx", "clsact"]),
        r#""auto""#,
        Section::Datapath,
        |s| {
            json!(match s.datapath.attach {
                AttachMode::Auto => "auto",
                AttachMode::Tcx => "tcx",
                AttachMode::Clsact => "clsact",
            })
        },
        "how programs get onto parents: `tcx` (kernel 6.6), `clsact`, or `auto`: TCX where the kernel takes it. In pods it is always clsact",
    ),
    own(
        "datapath.slots",
        Kind::Number(1, 65_534),
        "512",
        Section::Datapath,
        |s| json!(s.datapath.slots),
        "attachments that can be counted at once, 1 to 65534",
    ),
    own(
        "datapath.log",
        Kind::Flag,
        "false",
        Section::Datapath,
        |s| json!(s.datapath.log),
        "load the tracing object and write its lines to the log; for a look, not for load",
    ),
    own(
        "datapath.lookInterval",
        Kind::Duration,
        r#""30s""#,
        Section::Datapath,
        |s| duration(s.datapath.look_interval),
        "how often it is looked whether [everything is still in place](datapath.md), from `1s` to `1h`; much is noticed at once, too",
    ),
    own(
        "datapath.mark",
        Kind::Pattern("^(0x[0-9a-fA-F]+|[0-9]+) */ *(0x[0-9a-fA-F]+|[0-9]+)$"),
        r#""0x4d550000/0xffff0000""#,
        Section::Datapath,
        |s| json!(format!("{:#010x}/{:#010x}", s.datapath.mark.value, s.datapath.mark.mask)),
        "value and mask of the packet marks that are ours; the low 16 bits are ours too when the value matches",
    ),
    own(
        "datapath.relay.protocols",
        Kind::Protocols,
        r#"["mdns","ssdp","wsd","coap"]"#,
        Section::Datapath,
        |s| json!(s.datapath.relay.protocols),
        "relayed between host and pods where no annotation says otherwise; `[]` relays nothing",
    ),
    own(
        "datapath.relay.allowed",
        Kind::Protocols,
        "all known",
        Section::Datapath,
        |s| s.datapath.relay.allowed.as_ref().map_or(Value::Null, |all| json!(all)),
        "the most that annotations may ask for",
    ),
    own(
        "datapath.relay.custom",
        Kind::Custom,
        "{}",
        Section::Datapath,
        |s| s.datapath.custom.iter().map(|c| (c.name.clone(), custom(c))).collect::<serde_json::Map<_, _>>().into(),
        "at most 12 protocols of your own, see below",
    ),
    own(
        "datapath.hostAccess",
        Kind::Words(&["nad", "off"]),
        r#""nad""#,
        Section::Datapath,
        |s| json!(if s.datapath.relay.host_access { "nad" } else { "off" }),
        "`nad`: a network's [annotation](annotations.md#host-access) decides whether the host and its pods talk. `off`: never",
    ),
    own(
        "datapath.guard",
        Kind::Words(&["off", "tc", "xdp"]),
        r#""off""#,
        Section::Datapath,
        |s| {
            json!(match s.datapath.guard {
                Guard::Off => "off",
                Guard::Tc => "tc",
                Guard::Xdp => "xdp",
            })
        },
        "[storm guard](#storm-guard) on parents: `off`, `tc`, `xdp`",
    ),
    own(
        "datapath.reflect.uplinks",
        Kind::Texts,
        "[]",
        Section::Datapath,
        |s| json!(s.datapath.reflect.uplinks.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "at most 16 interfaces on LANs that [reflection](#reflection) may use; none: nothing is reflected",
    ),
    own(
        "datapath.reflect.namespaces",
        Kind::Texts,
        "[]",
        Section::Datapath,
        |s| json!(s.datapath.reflect.namespaces.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "namespaces whose pods may ask for it with [an annotation](annotations.md#reflection)",
    ),
    own(
        "datapath.reflect.between",
        Kind::SomeOf(REFLECTED),
        "[]",
        Section::Datapath,
        |s| json!(s.datapath.reflect.between),
        "protocols that cross from each of these uplinks to the others: `mdns`, `ssdp`, `wsd`, `coap`",
    ),
    own(
        "datapath.reflect.direction",
        Kind::Words(&["lan_to_pod", "both"]),
        r#""lan_to_pod""#,
        Section::Datapath,
        |s| json!(if s.datapath.reflect.both_ways { "both" } else { "lan_to_pod" }),
        "`lan_to_pod`: pods ask and hear. `both`: their announcements go out, and questions of the LAN come in, too",
    ),
    own(
        "datapath.reflect.election",
        Kind::WordsOr(&["auto", "lease", "none"], "^(lease|node):"),
        r#""auto""#,
        Section::Datapath,
        |s| election(&s.datapath.reflect.election),
        "which of several nodes serves `reflect.between`: `auto`, `lease`, `lease:<name>`, `none` (this one) or `node:<name>`, see below",
    ),
];

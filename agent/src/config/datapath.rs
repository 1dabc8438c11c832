//! What the operator configured about eBPF: counting, relaying, and where the objects live.
//!
//! Nothing here knows what a kernel can do.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::delegation::RelayPolicy;
use super::reflect::ReflectSettings;
use super::section::{ConfigError, Section};
use super::words::duration;

/// Every discovery protocol with a built-in rule.
pub const PROTOCOLS: [&str; 18] = [
    "mdns",
    "ssdp",
    "wsd",
    "coap",
    "llmnr",
    "knx",
    "slp",
    "yeelight",
    "govee",
    "sonos",
    "lifx",
    "kasa",
    "tuya",
    "miio",
    "wiz",
    "roon",
    "hdhomerun",
    "matter",
];
/// Those relayed unless configured otherwise.
pub const RELAYED: [&str; 4] = ["mdns", "ssdp", "wsd", "coap"];

/// What fits `datapath.lookInterval`.
const LOOKS: &str = "a duration from 1s to 1h, such as 30s";
/// What host access is called where protocols are.
const HOST_ACCESS: &str = "host-access";
/// The most protocols of the operator's own: the datapath tells 31 apart.
pub const MOST_CUSTOM: usize = 12;

/// `datapath.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatapathMode {
    /// No eBPF at all.
    Off,
    /// Counting alone.
    Account,
    /// Counting and relaying.
    Full,
}

/// `datapath.attach`: how programs get onto a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX where the kernel takes it, else clsact.
    Auto,
    /// TCX alone (kernel 6.6).
    Tcx,
    /// clsact alone.
    Clsact,
}

/// `datapath.guard`: where parents have their storm guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Nowhere.
    #[default]
    Off,
    /// In the program on the parent's receive path.
    Tc,
    /// In an XDP program before it.
    Xdp,
}

/// `datapath.mark`: the bits of packet marks we own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The bits set on our packets; inside `mask`.
    pub value: u32,
    /// The bits we look at; the low 16 carry slots and are not among them.
    pub mask: u32,
}

impl Mark {
    /// Reads `value/mask`, decimal or `0x…`; `None` unless the value is not zero, inside the mask, and the mask leaves
    /// the low 16 bits alone.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let (value, mask) = text.split_once('/')?;
        let (value, mask) = (number(value.trim())?, number(mask.trim())?);
        (value != 0 && value & !mask == 0 && mask.trailing_zeros() >= 16).then_some(Self { value, mask })
    }
}

/// `datapath.relay.custom`: a protocol of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomProtocol {
    /// The name annotations use.
    pub name: String,
    /// Multicast group.
    pub v4: Option<Ipv4Addr>,
    /// Multicast group.
    pub v6: Option<Ipv6Addr>,
    /// UDP destination port.
    pub port: u16,
}

/// Everything under `datapath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatapathSettings {
    /// How much is done.
    pub mode: DatapathMode,
    /// Folder of the pins.
    pub bpffs: String,
    /// How programs are attached.
    pub attach: AttachMode,
    /// Attachments that can be counted at once.
    pub slots: u32,
    /// Whether the tracing object is loaded.
    pub log: bool,
    /// The marks we own.
    pub mark: Mark,
    /// Which protocols are relayed.
    pub relay: RelayPolicy,
    /// The operator's own protocols.
    pub custom: Vec<CustomProtocol>,
    /// What crosses from link to link.
    pub reflect: ReflectSettings,
    /// Storm guard on parents.
    pub guard: Guard,
    /// How often it is looked whether everything is still in place.
    pub look_interval: Duration,
}

impl DatapathSettings {
    pub(super) fn read(mut section: Section, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let mode = section.word("mode", "off, account or full", |text| match text {
            "off" => Some(DatapathMode::Off),
            "account" => Some(DatapathMode::Account),
            "full" => Some(DatapathMode::Full),
            _ => None,
        })?;
        let attach = section.word("attach", "auto, tcx or clsact", |text| match text {
            "auto" => Some(AttachMode::Auto),
            "tcx" => Some(AttachMode::Tcx),
            "clsact" => Some(AttachMode::Clsact),
            _ => None,
        })?;
        let guard = section.word("guard", "off, tc or xdp", |text| match text {
            "off" => Some(Guard::Off),
            "tc" => Some(Guard::Tc),
            "xdp" => Some(Guard::Xdp),
            _ => None,
        })?;
        let host_access = section.word("hostAccess", "nad or off", |text| match text {
            "nad" => Some(true),
            "off" => Some(false),
            _ => None,
        })?;
        let mark_fits = "value/mask, the value inside the mask and not 0, the mask without its low 16 bits";
        let (mut relay, custom) = read_relay(section.section("relay")?, warnings)?;
        relay.host_access = host_access.unwrap_or(true);
        let reflect = ReflectSettings::read(section.section("reflect")?, warnings)?;
        let settings = Self {
            mode: mode.unwrap_or(DatapathMode::Full),
            bpffs: section.folder("bpffs")?.unwrap_or_else(|| "/sys/fs/bpf/multus".to_owned()),
            attach: attach.unwrap_or(AttachMode::Auto),
            slots: section.number("slots", 1, 65534)?.unwrap_or(512),
            log: section.flag("log")?.unwrap_or(false),
            mark: section
                .word("mark", mark_fits, Mark::parse)?
                .unwrap_or(Mark { value: 0x4d55_0000, mask: 0xffff_0000 }),
            relay,
            custom,
            reflect,
            guard: guard.unwrap_or(Guard::Off),
            look_interval: section.word("lookInterval", LOOKS, read_look)?.unwrap_or(Duration::from_secs(30)),
        };
        section.finish(warnings);
        Ok(settings)
    }
}

fn read_look(text: &str) -> Option<Duration> {
    duration(text).filter(|time| (Duration::from_secs(1)..=Duration::from_hours(1)).contains(time))
}

fn read_relay(
    mut section: Section,
    warnings: &mut Vec<String>,
) -> Result<(RelayPolicy, Vec<CustomProtocol>), ConfigError> {
    let mut custom = Vec::new();
    for (name, fields) in section.sections("custom")? {
        let is_free = !PROTOCOLS.contains(&name.as_str()) && !matches!(name.as_str(), "none" | "default" | HOST_ACCESS);
        if custom.len() == MOST_CUSTOM {
            return Err(section.refuse("custom", &name, "at most 12 protocols"));
        }
        if !is_free || !is_protocol_name(&name) {
            let fits = "a name of a-z, 0-9 and '-', at most 31 characters, that no other protocol has";
            return Err(section.refuse("custom", &name, fits));
        }
        custom.push(read_custom(name, fields, warnings)?);
    }
    let known: Vec<String> =
        PROTOCOLS.iter().map(|name| (*name).to_owned()).chain(custom.iter().map(|each| each.name.clone())).collect();
    let fits = known.join(", ");
    let name = |text: &str| known.iter().find(|known| *known == text).cloned();
    let relay = RelayPolicy {
        protocols: section.list("protocols", &fits, name)?.unwrap_or_else(|| RELAYED.map(str::to_owned).into()),
        allowed: section.list("allowed", &fits, name)?,
        known: known.clone(),
        host_access: true,
    };
    section.finish(warnings);
    Ok((relay, custom))
}

fn read_custom(name: String, mut section: Section, warnings: &mut Vec<String>) -> Result<CustomProtocol, ConfigError> {
    let v4 = section.word("v4", "an IPv4 multicast group", |text| text.parse().ok().filter(Ipv4Addr::is_multicast))?;
    let v6 = section.word("v6", "an IPv6 multicast group", |text| text.parse().ok().filter(Ipv6Addr::is_multicast))?;
    if v4.is_none() && v6.is_none() {
        return Err(section.refuse("v4", "", "a group in v4, v6 or both"));
    }
    let port = section.number("port", 1, 65535)?.and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| section.refuse("port", "", "a UDP port from 1 to 65535"))?;
    section.finish(warnings);
    Ok(CustomProtocol { name, v4, v6, port })
}

fn is_protocol_name(name: &str) -> bool {
    (1..32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_leave_the_low_bits_to_slots() {
        let ours = Some(Mark { value: 0x4d55_0000, mask: 0xffff_0000 });
        for (text, wanted) in [
            ("0x4d550000/0xffff0000", ours),
            ("0x4d550000 / 0xffff0000", ours),
            ("65536/65536", Some(Mark { value: 0x1_0000, mask: 0x1_0000 })),
            ("0x4d550000", None),
            ("0x4d550000/0x00ff0000", None),
            ("0x4d550001/0xffffffff", None),
            ("0/0xffff0000", None),
            ("x/y", None),
        ] {
            assert_eq!(Mark::parse(text), wanted, "{text}");
        }
    }
}

//! How are figures and names of protocols said to people? Short, three digits, one unit.

use super::rates::as_float;

/// Bytes per second; nothing moves below one.
pub(super) fn rate(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{}/s", scaled(bytes)))
}

/// Bytes.
pub(super) fn size(bytes: u64) -> String {
    scaled(as_float(bytes))
}

fn scaled(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes, 0);
    // What would be printed with four digits takes the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let unit_name = UNITS.get(unit).copied().unwrap_or_default();
    match unit {
        0 => format!("{value:.0} {unit_name}"),
        _ if value < 9.95 => format!("{value:.1} {unit_name}"),
        _ => format!("{value:.0} {unit_name}"),
    }
}

/// Frames per second.
pub(super) fn frames(per_second: Option<f64>) -> String {
    match per_second {
        None => "–".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}/s"),
        Some(rate) => format!("{rate:.0}/s"),
    }
}

/// A time that is left.
pub(super) fn left(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// What devices of a service type are, for people.
pub(super) fn service(kind: &str) -> &'static str {
    match kind.split('.').next().unwrap_or_default() {
        "_ipp" | "_ipps" | "_printer" | "_pdl-datastream" => "Printer",
        "_uscan" | "_uscans" | "_scanner" => "Scanner",
        "_googlecast" => "Google Cast",
        "_airplay" | "_raop" => "AirPlay",
        "_spotify-connect" => "Spotify Connect",
        "_sonos" => "Sonos",
        "_hap" => "HomeKit",
        "_matter" | "_matterc" | "_matterd" => "Matter",
        "_meshcop" | "_trel" => "Thread",
        "_home-assistant" => "Home Assistant",
        "_esphomelib" => "ESPHome",
        "_shelly" => "Shelly",
        "_hue" => "Hue",
        "_mqtt" | "_secure-mqtt" => "MQTT",
        "_http" | "_https" => "Web page",
        "_smb" | "_afpovertcp" | "_nfs" | "_adisk" => "File share",
        "_ssh" | "_sftp-ssh" => "SSH",
        "_workstation" | "_device-info" => "Computer",
        "_daap" | "_dacp" | "_mpd" => "Music",
        "_rtsp" | "_axis-video" | "_onvif" => "Camera",
        "_rfb" | "_rdp" => "Remote desktop",
        _ => "",
    }
}

/// Where frames go, for people.
pub(super) fn path(path: &str) -> &str {
    match path {
        "host_to_pod" => "node → pods",
        "pod_to_host" => "pods → node",
        "lan_to_pod" => "LAN → pods",
        "pod_to_lan" => "pods → LAN",
        "link_to_link" => "LAN → LAN",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_one_unit() {
        for (bytes, wanted) in [
            (0.0, "0 B/s"),
            (0.4, "0 B/s"),
            (999.0, "999 B/s"),
            (999.6, "1.0 kB/s"),
            (1540.0, "1.5 kB/s"),
            (9_949.0, "9.9 kB/s"),
            (9_951.0, "10 kB/s"),
            (999_600.0, "1.0 MB/s"),
            (125e6, "125 MB/s"),
            (5e15, "5000 TB/s"),
        ] {
            assert_eq!(rate(Some(bytes)), wanted);
        }
        assert_eq!((rate(None), size(1_000_000)), ("–".to_owned(), "1.0 MB".to_owned()));
        assert_eq!([None, Some(0.0), Some(0.25), Some(300.4)].map(frames), ["–", "0/s", "0.2/s", "300/s"]);
        assert_eq!([0, 119, 120, 7200].map(left), ["0 s", "119 s", "2 min", "2 h"]);
    }
}

//! What `daemon-config.json` says, as a whole: every key of Multus's thick daemon, and ours.
//!
//! Nothing here reads the file, and nothing here changes while the daemon runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::certificate::NodeCertificate;
use super::datapath::DatapathSettings;
use super::delegation::Delegation;
use super::generator::Generator;
use super::log::LogSettings;
use super::section::{ConfigError, Section};
use super::{keys, words};

/// The longest time a request may be given.
const MOST_TIME: Duration = Duration::from_hours(1);

/// Where the settings are from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file they were read from, where there is one.
    pub file: Option<String>,
    /// The keys that are written there.
    pub written: Vec<&'static str>,
    /// What was odd about it.
    pub warnings: Vec<String>,
}

impl Origin {
    /// Is `key` written there?
    pub fn has(&self, key: &str) -> bool {
        self.written.contains(&key)
    }
}

/// The daemon's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where they are from.
    pub origin: Origin,
    /// `objects`: a folder of manifests instead of an API server.
    pub objects: Option<String>,
    /// `kubeconfig`; `None` is the in-cluster one.
    pub kubeconfig: Option<String>,
    /// `nodeName`; `None` is the environment's `MULTUS_NODE_NAME`.
    pub node_name: Option<String>,
    /// `metricsAddress`, or every address at `metricsPort`.
    pub metrics_address: Option<SocketAddr>,
    /// `pageAddress`: where the web page is served.
    pub page_address: Option<SocketAddr>,
    /// `pageHosts`: names by which the page may be asked for, besides the node's own.
    pub page_hosts: Vec<String>,
    /// `requestTimeout`: one deadline per request; more than nothing, at most an hour.
    pub request_timeout: Duration,
    /// `socketDir`: the folder of our socket.
    pub socket_dir: String,
    /// `kubeletDir`: the kubelet's folder, where it tells which devices a pod has.
    pub kubelet_dir: String,
    /// `deviceInfoDir`: the folder of device-info files.
    pub device_info_dir: String,
    /// `chrootDir`: delegates that the agent runs itself see this as their root.
    pub chroot_dir: Option<String>,
    /// `hostExec`: where the agent may run delegates by itself.
    pub host_exec: HostExec,
    /// `connectionLimit`: connections served at once.
    pub connection_limit: Option<u32>,
    /// `enablePprof`: known, and without meaning here.
    pub enable_pprof: bool,
    /// `perNodeCertificate`.
    pub node_certificate: Option<NodeCertificate>,
    /// `retryDeleteOnError`; a record that could not be cleaned up is always kept.
    pub retry_delete_on_error: bool,
    /// `readinessindicatorfile`.
    pub readiness_file: Option<String>,
    /// Where the log goes.
    pub log: LogSettings,
    /// What is written for the container runtime.
    pub generator: Generator,
    /// What goes over the same keys of a request's stdin.
    pub delegation: Delegation,
    /// eBPF.
    pub datapath: DatapathSettings,
}

/// `hostExec`: where the agent may run delegates by itself, for callers that cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostExec {
    /// `auto`: on the host, or in the mount namespace of process 1 where the agent has the right to enter it.
    Auto,
    /// `off`: nowhere.
    Off,
    /// In the mount namespace that this file is, for nodes whose process 1 is not the machine's.
    Namespace(String),
}

impl Settings {
    /// Is the cluster's own network found by searching `multusAutoconfigDir`? What is configured by name goes before.
    pub fn searches_master(&self) -> bool {
        let is_named = self.delegation.cluster_network.is_some() || self.delegation.delegates.is_some();
        self.generator.on && self.generator.config_file.is_none() && !is_named
    }

    /// `binDir` as the host has it: a path below `chrootDir` is the host's as the agent's pod sees it.
    pub fn plugin_folders(&self) -> Vec<PathBuf> {
        let folder = Path::new(self.delegation.bin_dir.as_deref().unwrap_or("/opt/cni/bin"));
        let below = self.chroot_dir.as_deref().and_then(|root| folder.strip_prefix(root).ok());
        vec![below.map_or_else(|| folder.to_owned(), |below| Path::new("/").join(below))]
    }

    /// Reads the text of `daemon-config.json`; the warnings are sentences for the log.
    ///
    /// # Errors
    /// The first key whose value does not fit.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let mut warnings = Vec::new();
        let mut top = Section::parse(text.as_bytes())?;
        top.raw("name"); // Known, and always overwritten: the runtime's network is multus-cni-network.
        let mut delegation = Delegation::read(&mut top)?;
        let alias = top.folder("cniBinDir")?;
        delegation.bin_dir = delegation.bin_dir.or(alias);
        let settings = Self {
            origin: Origin { written: keys::written(text), ..Origin::default() },
            objects: top.folder("objects")?,
            kubeconfig: top.secret_file("kubeconfig")?,
            node_name: top.text("nodeName")?,
            metrics_address: read_metrics_address(&mut top)?,
            page_address: read_page_address(&mut top, &mut warnings)?,
            page_hosts: top.list("pageHosts", "names of hosts, without ports", words::host)?.unwrap_or_default(),
            request_timeout: read_timeout(&mut top)?,
            socket_dir: top.folder("socketDir")?.unwrap_or_else(|| "/run/multus/".to_owned()),
            kubelet_dir: top.folder("kubeletDir")?.unwrap_or_else(|| "/var/lib/kubelet".to_owned()),
            device_info_dir: top
                .folder("deviceInfoDir")?
                .unwrap_or_else(|| "/var/run/k8s.cni.cncf.io/devinfo".to_owned()),
            chroot_dir: top.folder("chrootDir")?,
            host_exec: read_host_exec(&mut top)?,
            connection_limit: top.number("connectionLimit", 1, u32::MAX)?,
            enable_pprof: top.flag("enablePprof")?.unwrap_or(false),
            node_certificate: NodeCertificate::read(&mut top, &mut warnings)?,
            retry_delete_on_error: top.flag("retryDeleteOnError")?.unwrap_or(false),
            readiness_file: top.folder("readinessindicatorfile")?,
            log: LogSettings::read(&mut top, &mut warnings)?,
            generator: Generator::read(&mut top, &mut warnings)?,
            delegation,
            datapath: DatapathSettings::read(top.section("datapath")?, &mut warnings)?,
        };
        top.finish(&mut warnings);
        Ok((settings, warnings))
    }
}

const LISTEN: &str = "an address to listen on, such as 127.0.0.1:9091 or :9091";

fn read_metrics_address(top: &mut Section) -> Result<Option<SocketAddr>, ConfigError> {
    let address = top.word("metricsAddress", LISTEN, words::listen_address)?;
    let port = top.number("metricsPort", 1, 65535)?.and_then(|port| u16::try_from(port).ok());
    Ok(address.or(port.map(words::every_address)))
}

fn read_page_address(top: &mut Section, warnings: &mut Vec<String>) -> Result<Option<SocketAddr>, ConfigError> {
    let address = top.word("pageAddress", LISTEN, words::listen_address)?;
    if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
        warnings.push(format!(
            "pageAddress {address} is not a loopback address: whoever reaches it reads the names and addresses of pods \
             and of the services on their networks"
        ));
    }
    Ok(address)
}

fn read_host_exec(top: &mut Section) -> Result<HostExec, ConfigError> {
    let host_exec =
        top.word("hostExec", "auto, off, or the absolute path of a mount namespace", |text| match text {
            "auto" => Some(HostExec::Auto),
            "off" => Some(HostExec::Off),
            path => path.starts_with('/').then(|| HostExec::Namespace(path.to_owned())),
        })?;
    Ok(host_exec.unwrap_or(HostExec::Auto))
}

fn read_timeout(top: &mut Section) -> Result<Duration, ConfigError> {
    let fits = "a duration of more than nothing and at most 1h, such as 120s or 1m30s";
    let timeout = top.word("requestTimeout", fits, |text| {
        words::duration(text).filter(|time| !time.is_zero() && *time <= MOST_TIME)
    })?;
    Ok(timeout.unwrap_or(Duration::from_mins(2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::Version;
    use crate::config::{AttachMode, DatapathMode, Guard, LogLevel, Mark};

    fn parse(text: &str) -> (Settings, Vec<String>) {
        Settings::parse(text).unwrap()
    }

    #[test]
    fn a_page_for_others_is_a_warning() {
        for (address, warned) in [("127.0.0.1:9092", 0), ("[::1]:9092", 0), ("192.168.1.9:80", 1), (":9092", 1)] {
            let (settings, warnings) = parse(&format!(r#"{{"pageAddress":"{address}","pageHosts":["a.home.arpa"]}}"#));
            assert_eq!((settings.page_address.is_some(), warnings.len()), (true, warned), "{address}: {warnings:?}");
            assert_eq!(settings.page_hosts, ["a.home.arpa"]);
        }
        let refusal = Settings::parse(r#"{"pageHosts":["a:80"]}"#).unwrap_err().to_string();
        assert!(refusal.contains("pageHosts is \"a:80\": write a list: names of hosts"), "{refusal}");
    }

    #[test]
    fn nothing_written_is_every_default() {
        let (settings, warnings) = parse("{}");
        assert!(warnings.is_empty());
        assert_eq!(settings.request_timeout, Duration::from_mins(2));
        assert_eq!(settings.socket_dir, "/run/multus/");
        assert_eq!(settings.kubelet_dir, "/var/lib/kubelet");
        assert_eq!(settings.device_info_dir, "/var/run/k8s.cni.cncf.io/devinfo");
        assert_eq!(settings.generator.cni_version, Version::V0_3_1);
        assert_eq!(settings.generator.plugin, "multus-shim");
        assert!(!settings.generator.on && !settings.searches_master(), "nothing is written where nobody asked for it");
        assert_eq!(settings.delegation, Delegation::default());
        assert_eq!((settings.datapath.mode, settings.datapath.slots), (DatapathMode::Full, 512));
        assert_eq!(settings.datapath.relay.protocols, ["mdns", "ssdp", "wsd", "coap"]);
        assert_eq!(settings.datapath.relay.allowed, None);
        assert!(settings.datapath.relay.host_access && settings.log.to_stderr);
        let null =
            parse(r#"{"cniVersion":null,"datapath":null,"logOptions":null,"requestTimeout":null,"metricsPort":null}"#);
        assert_eq!(null, (settings, warnings));
    }

    #[test]
    fn every_key_is_read() {
        let (settings, warnings) = parse(
            r#"{"name":"x","type":"multus-shim","objects":"/o","kubeconfig":"/k","nodeName":"n1","metricsAddress":"127.0.0.1:9091",
            "metricsPort":9092,"pageAddress":"[::1]:8080","pageHosts":["a.home.arpa"],"requestTimeout":"1m30s","socketDir":"/s","chrootDir":"/host","hostExec":"/proc/1/ns/mnt",
            "kubeletDir":"/kub","deviceInfoDir":"/dev",
            "connectionLimit":10,"enablePprof":true,"retryDeleteOnError":true,"readinessindicatorfile":"/r",
            "perNodeCertificate":{"enabled":true,"bootstrapKubeconfig":"/b","certDir":"/c","certDuration":"24h"},
            "logFile":"/l","logLevel":"Debug","logToStderr":false,
            "logOptions":{"maxSize":1,"maxAge":2,"maxBackups":3,"compress":false},
            "cniVersion":"1.0.0","cniConfigDir":"/cc","multusAutoconfigDir":"/a","multusConfigFile":"/m","multusMasterCNI":"10.conf",
            "forceCNIVersion":true,"overrideNetworkName":true,"daemonSocketDir":"/d","capabilities":{"mac":true},
            "clusterNetwork":"/cn","delegates":[],"defaultNetworks":["a","b"],"namespaceIsolation":true,
            "globalNamespaces":"default, x","systemNamespaces":["s"],"multusNamespace":"m","confDir":"/cd","cniDir":"/ci",
            "binDir":"/bi","auxiliaryCNIChainName":"aux",
            "datapath":{"mode":"account","bpffs":"/bpf","attach":"tcx","slots":7,"log":true,"mark":"0x10000/0xff0000",
              "relay":{"protocols":["mdns","mine"],"allowed":["mdns","mine","knx"],
                       "custom":{"mine":{"v4":"239.1.2.3","v6":"ff05::1234","port":5000}}},
              "hostAccess":"off","reflect":{"uplinks":["eth0"],"namespaces":["home"]},"guard":"xdp"}}"#,
        );
        let [certificate] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(certificate.starts_with("perNodeCertificate is enabled and has no effect"), "{certificate}");
        assert_eq!(settings.metrics_address.unwrap().to_string(), "127.0.0.1:9091");
        assert_eq!(settings.page_address.unwrap().to_string(), "[::1]:8080");
        assert_eq!(settings.page_hosts, ["a.home.arpa"]);
        assert_eq!(settings.request_timeout, Duration::from_secs(90));
        assert_eq!((settings.connection_limit, settings.log.level), (Some(10), Some(LogLevel::Debug)));
        assert_eq!((settings.kubelet_dir.as_str(), settings.device_info_dir.as_str()), ("/kub", "/dev"));
        assert_eq!((settings.log.max_backups, settings.log.compress), (3, false));
        assert_eq!(settings.node_certificate.unwrap().cert_duration, Duration::from_hours(24));
        let generator = settings.generator;
        assert_eq!(generator.config_file.as_deref(), Some("/m"));
        assert_eq!(generator.capabilities.print(), r#"{"mac":true}"#);
        let delegation = settings.delegation;
        assert_eq!(delegation.global_namespaces.unwrap(), ["default", "x"]);
        assert_eq!(delegation.bin_dir.as_deref(), Some("/bi"));
        assert_eq!(delegation.auxiliary_chain.unwrap().as_str(), "aux");
        let datapath = settings.datapath;
        assert_eq!(
            (datapath.mode, datapath.attach, datapath.guard),
            (DatapathMode::Account, AttachMode::Tcx, Guard::Xdp)
        );
        assert_eq!(datapath.mark, Mark { value: 0x1_0000, mask: 0xff_0000 });
        assert_eq!(datapath.relay.protocols, ["mdns", "mine"]);
        assert_eq!(datapath.relay.known.last().map(String::as_str), Some("mine"));
        assert_eq!((datapath.custom[0].port, datapath.relay.host_access), (5000, false));
        assert_eq!(datapath.reflect.uplinks[0].as_str(), "eth0");
    }

    #[test]
    fn the_settings_of_the_guides_load() {
        let k3s = r#"{"chrootDir": "/hostroot", "cniVersion": "0.3.1", "logLevel": "verbose", "logToStderr": true, "cniBinDir": "/opt/cni/bin",
            "cniConfigDir": "/hostroot/var/lib/rancher/k3s/agent/etc/cni/net.d", "multusConfigFile": "auto", "socketDir": "/host/run/multus/"}"#;
        let (settings, warnings) = parse(k3s);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(settings.delegation.bin_dir.as_deref(), Some("/opt/cni/bin"));
        assert_eq!(settings.generator.config_file, None);
        assert!(settings.searches_master());
        assert_eq!(settings.generator.autoconfig_dir, settings.generator.cni_config_dir, "where none else is named");
        let talos = r#"{"cniVersion": "1.2.0", "binDir": "/var/lib/cni/bin", "cniConfigDir": "/var/lib/cni/conf.d", "namespaceIsolation": true}"#;
        let (settings, warnings) = parse(talos);
        assert_eq!(settings.generator.cni_version, Version::V1_1_0);
        assert_eq!(warnings, ["cniVersion \"1.2.0\" is newer than any there is; 1.1.0 is used"]);
        assert_eq!(settings.delegation.namespace_isolation, Some(true));
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_wins() {
        let (settings, warnings) = parse(
            r#"{"LogLevel":"error","CNIVERSION":"0.4.0","DataPath":{"Slots":3},"binDir":"/a","bindir":"/b","BinDir":null}"#,
        );
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(settings.log.level, Some(LogLevel::Error));
        assert_eq!((settings.generator.cni_version, settings.datapath.slots), (Version::V0_4_0, 3));
        assert_eq!(settings.delegation.bin_dir.as_deref(), Some("/b"));
    }

    #[test]
    fn unknown_keys_are_warnings_with_the_nearest_name() {
        let table = [
            (r#"{"binDri":"/x"}"#, "\"binDri\" is not a known key and ignored; the nearest is \"binDir\""),
            (
                r#"{"datapath":{"slot":5}}"#,
                "\"datapath.slot\" is not a known key and ignored; the nearest is \"datapath.slots\"",
            ),
            (r#"{"datapath":{"relay":{"protocol":[]}}}"#, "the nearest is \"datapath.relay.protocols\""),
            (r#"{"logOptions":{"maxsiz":5}}"#, "\"logOptions.maxSize\""),
            (r#"{"logLevel":"loud"}"#, "logLevel \"loud\""),
        ];
        for (text, wanted) in table {
            let (_, warnings) = parse(text);
            assert!(warnings.len() == 1 && warnings[0].contains(wanted), "{warnings:?}");
        }
    }

    #[test]
    fn wrong_values_name_key_value_and_what_fits() {
        let table = [
            ("", "the configuration is JSON ends early"),
            ("[]", "the configuration"),
            (
                r#"{"metricsPort":"9091"}"#,
                "metricsPort is the string \"9091\": write a whole number from 1 to 65535, without quotes",
            ),
            (r#"{"metricsPort":70000}"#, "metricsPort is 70000"),
            (r#"{"metricsAddress":"x"}"#, "metricsAddress is \"x\": write an address to listen on"),
            (r#"{"connectionLimit":0}"#, "connectionLimit is 0"),
            (r#"{"requestTimeout":"0s"}"#, "requestTimeout is \"0s\": write a duration of more than nothing"),
            (r#"{"requestTimeout":120}"#, "requestTimeout is 120: write a duration"),
            (r#"{"requestTimeout":"2 minutes"}"#, "requestTimeout is \"2 minutes\""),
            (r#"{"cniVersion":"0.9.0"}"#, "cniVersion is \"0.9.0\": write one of 0.1.0"),
            (r#"{"logToStderr":"yes"}"#, "logToStderr is the string \"yes\": write true or false"),
            (r#"{"socketDir":"run"}"#, "socketDir is \"run\": write an absolute path"),
            (
                r#"{"kubeconfig":"token: abc"}"#,
                "kubeconfig is no path, and is not shown, for it may hold a token: write an",
            ),
            (r#"{"kubeconfig":{"token":"abc"}}"#, "kubeconfig is no path, and is not shown"),
            (r#"{"globalNamespaces":["a"]}"#, "globalNamespaces is [\\\"a\\\"]: write namespaces joined by commas"),
            (r#"{"systemNamespaces":"a"}"#, "systemNamespaces is the string \"a\": write a list"),
            (r#"{"multusNamespace":"A"}"#, "multusNamespace is \"A\""),
            (r#"{"delegates":[{"type":"a/b"}]}"#, "delegates[0] is not a CNI configuration (field \"type\""),
            (r#"{"multusMasterCNI":"../x"}"#, "multusMasterCNI"),
            (r#"{"perNodeCertificate":{"enabled":true,"certDir":"/c"}}"#, "perNodeCertificate.bootstrapKubeconfig"),
            (r#"{"capabilities":{"mac":1}}"#, "capabilities.mac is 1: write true or false"),
            (r#"{"datapath":"off"}"#, "datapath is the string \"off\": write an object"),
            (r#"{"datapath":{"mode":"on"}}"#, "datapath.mode is \"on\": write off, account or full"),
            (r#"{"datapath":{"slots":0}}"#, "datapath.slots is 0: write a whole number from 1 to 65534"),
            (r#"{"datapath":{"slots":65535}}"#, "datapath.slots is 65535"),
            (r#"{"datapath":{"slots":1.5}}"#, "datapath.slots is 1.5"),
            (r#"{"datapath":{"mark":"0x4d55/0xffff"}}"#, "datapath.mark is \"0x4d55/0xffff\": write value/mask"),
            (r#"{"datapath":{"attach":"xdp"}}"#, "datapath.attach"),
            (r#"{"datapath":{"guard":"on"}}"#, "datapath.guard"),
            (r#"{"datapath":{"hostAccess":"yes"}}"#, "datapath.hostAccess"),
            (
                r#"{"datapath":{"relay":{"protocols":["bonjour"]}}}"#,
                "datapath.relay.protocols is \"bonjour\": write a list: mdns, ssdp",
            ),
            (r#"{"datapath":{"relay":{"allowed":["x"]}}}"#, "datapath.relay.allowed"),
            (r#"{"datapath":{"relay":{"custom":{"mdns":{}}}}}"#, "datapath.relay.custom is \"mdns\""),
            (r#"{"datapath":{"relay":{"custom":{"a b":{}}}}}"#, "datapath.relay.custom is \"a b\""),
            (r#"{"datapath":{"relay":{"custom":{"m":5}}}}"#, "datapath.relay.custom.m is 5: write an object"),
            (r#"{"datapath":{"relay":{"custom":{"m":{"port":1}}}}}"#, "datapath.relay.custom.m.v4"),
            (
                r#"{"datapath":{"relay":{"custom":{"m":{"v4":"10.0.0.1","port":1}}}}}"#,
                "datapath.relay.custom.m.v4 is \"10.0.0.1\"",
            ),
            (r#"{"datapath":{"relay":{"custom":{"m":{"v4":"239.0.0.1"}}}}}"#, "datapath.relay.custom.m.port"),
            (r#"{"datapath":{"reflect":{"uplinks":["a/b"]}}}"#, "datapath.reflect.uplinks is \"a/b\""),
        ];
        for (text, wanted) in table {
            let error = Settings::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn mutated_settings_never_panic() {
        let good = r#"{"cniVersion":"1.0.0","requestTimeout":"1m30s","datapath":{"mark":"0x10000/0xff0000","relay":{"protocols":["mdns"]}}}"#;
        crate::cni::mutation::of(good, 20_000, |bytes| {
            let _ = Settings::parse(&String::from_utf8_lossy(bytes));
        });
    }
}

//! Which folders of the host our configuration names, where Multus's names them as its pod sees them, or not at all.
//!
//! An agent looks at its configuration alone, so what was found has to be in there. Looks at no folder itself.

use super::keys::{Fate, Form, Translation, value};
use crate::fault::quote;
use crate::plan::host::{Places, Preset};

impl Translation {
    /// Puts the folders of this host in: an agent writes a conf only into a folder that is configured. The folder of plugins
    /// goes before one that is written only if it `is_said`: that one may have Multus's delegates alone.
    pub fn settle(&mut self, places: &Places, is_said: bool) {
        self.settle_conf_dir(&places.conf_dir.path);
        let has_bin_dir = self.path("binDir").or_else(|| self.path("cniBinDir")).is_some();
        if is_said || !has_bin_dir {
            self.settle_bin_dir(&places.bin_dir.path);
        }
    }

    /// Another folder than the file's is the same one under another name, so whatever lies in it goes along.
    fn settle_conf_dir(&mut self, found: &str) {
        let usual = || (self.form == Form::Daemon).then(|| Preset::Kubeadm.conf_dir().to_owned());
        let named = self.path("cniConfigDir");
        if let Some(old) = named.clone().or_else(usual).filter(|old| bare(old) != bare(found)) {
            let text = |raw: &str| serde_json::from_str::<String>(raw).ok();
            let inside = |(key, raw): (&str, &serde_json::value::RawValue)| {
                let path = text(raw.get())?;
                let rest = path.strip_prefix(bare(&old)).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
                Some((key.to_owned(), format!("{}{}", bare(found), bare(rest))))
            };
            let moved: Vec<(String, String)> = self.ours.iter().filter_map(inside).collect();
            for (key, path) in moved {
                self.ours.set_json(&key, &path);
                self.tell(&key, &path);
            }
        }
        if named.is_none() {
            self.ours.set_json("cniConfigDir", found);
        }
    }

    fn settle_bin_dir(&mut self, found: &str) {
        let named = self.path("binDir").or_else(|| self.path("cniBinDir"));
        if bare(named.as_deref().unwrap_or(Preset::Kubeadm.bin_dir())) == bare(found) {
            return;
        }
        let is_it = |key: &&str| ["binDir", "cniBinDir"].iter().any(|name| name.eq_ignore_ascii_case(key));
        let written: Vec<String> = self.ours.iter().map(|(key, _)| key).filter(is_it).map(str::to_owned).collect();
        for key in written {
            self.ours.remove(&key);
            self.tell(&key, found);
        }
        self.ours.set_json("binDir", found);
    }

    fn path(&self, key: &str) -> Option<String> {
        value(&self.ours, key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn tell(&mut self, key: &str, path: &str) {
        for told in self.keys.iter_mut().filter(|told| told.key.eq_ignore_ascii_case(key)) {
            (told.fate, told.because) = (Fate::Changed, format!("it is {} on this host", quote(path)));
        }
    }
}

fn bare(path: &str) -> &str {
    path.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::translate;
    use super::*;
    use crate::config::Settings;
    use crate::plan::host::{Facts, Wishes, places};

    const K3S: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d";

    fn settled(text: &str, wishes: &Wishes) -> (Translation, Value) {
        let mut translation = translate(text).unwrap();
        translation.settle(&places(&Facts::default(), wishes), true);
        let ours = serde_json::from_str(&translation.text()).unwrap();
        let (_, warnings) = Settings::parse(&translation.text()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        (translation, ours)
    }

    #[test]
    fn the_hosts_folders_go_before_those_of_the_file_and_what_is_in_them_goes_along() {
        let wishes =
            Wishes { conf_dir: Some(K3S.into()), bin_dir: Some("/var/lib/rancher/k3s/data/cni".into()), preset: None };
        let text = r#"{"cniconfigdir":"/host/etc/cni/net.d/","multusAutoconfigDir":"/host/etc/cni/net.d",
            "clusterNetwork":"/host/etc/cni/net.d/10-flannel.conflist","readinessindicatorfile":"/etc/cni/net.different",
            "cniBinDir":"/opt/cni/bin","cniDir":"/var/lib/cni/multus"}"#;
        let (translation, ours) = settled(text, &wishes);
        let wanted = json!({"cniConfigDir": K3S, "multusAutoconfigDir": K3S,
            "clusterNetwork": format!("{K3S}/10-flannel.conflist"), "readinessindicatorfile": "/etc/cni/net.different",
            "cniDir": "/var/lib/cni/multus", "binDir": "/var/lib/rancher/k3s/data/cni"});
        assert_eq!(ours, wanted);
        let told = |name: &str| translation.keys.iter().find(|key| key.key.eq_ignore_ascii_case(name)).unwrap();
        for (key, part) in [("cniConfigDir", K3S), ("clusterNetwork", "10-flannel"), ("cniBinDir", "k3s/data/cni")] {
            assert!(told(key).fate == Fate::Changed && told(key).because.contains(part), "{:?}", told(key));
        }
        assert_eq!(told("cniDir").fate, Fate::Kept);
    }

    #[test]
    fn a_file_that_names_the_hosts_folders_stays_as_it_is_and_one_without_gets_them() {
        let of_k3s = Wishes { conf_dir: Some(K3S.into()), ..Wishes::default() };
        let table = [
            (
                r#"{"cniConfigDir":"/c/","multusAutoconfigDir":"/a","binDir":"/b"}"#,
                Some("/c"),
                Some("/b/"),
                json!({
                "cniConfigDir": "/c/", "multusAutoconfigDir": "/a", "binDir": "/b"}),
            ),
            // Another folder for the master is another folder.
            (
                r#"{"cniConfigDir":"/c","multusAutoconfigDir":"/a"}"#,
                Some("/d"),
                None,
                json!({
                "cniConfigDir": "/d", "multusAutoconfigDir": "/a"}),
            ),
            (
                r#"{"multusAutoconfigDir":"/host/etc/cni/net.d"}"#,
                of_k3s.conf_dir.as_deref(),
                None,
                json!({
                "cniConfigDir": K3S, "multusAutoconfigDir": K3S}),
            ),
            // Thin mode runs on the host, and sees it as it is.
            (
                r#"{"type":"multus","name":"x","clusterNetwork":"/etc/cni/net.d/10-x.conflist"}"#,
                Some("/d"),
                None,
                json!({
                "cniConfigDir": "/d", "clusterNetwork": "/etc/cni/net.d/10-x.conflist"}),
            ),
        ];
        for (text, conf_dir, bin_dir, wanted) in table {
            let own = |path: Option<&str>| path.map(str::to_owned);
            let wishes = Wishes { conf_dir: own(conf_dir), bin_dir: own(bin_dir), preset: None };
            assert_eq!(settled(text, &wishes).1, wanted, "{text}");
        }
    }
}

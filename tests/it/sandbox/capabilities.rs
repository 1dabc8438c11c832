//! Each capability of the manifest is needed there: without it something named fails, and the agent says which one it is.

use lab::wait_until;
use serde_json::Value;

use super::{SOON, Site, needs_runc};

/// A node whose agent lacks `name`, where `check` and the log both say so with the reason.
fn without(name: &'static str, world: &str, reason: &str) -> Site {
    let site = Site::with(world, Some(name), |_| {});
    let document = site.document(&["check"]);
    let wanted = format!("CAP_{name} is missing, which is needed {reason}");
    let log = site.world.agent.log_text();
    for told in [document.to_string(), log] {
        let said: Vec<_> = told.match_indices("is missing, which is needed").collect();
        assert!(told.contains(&wanted) && said.len() == 1, "not told {wanted:?} alone: {told}");
    }
    site
}

fn column<'a>(document: &'a Value, interface: &str, column: &str) -> &'a str {
    let items = document["items"].as_array().into_iter().flatten();
    let found = items.clone().find(|item| item["interface"] == interface);
    found.and_then(|item| item[column].as_str()).unwrap_or_default()
}

/// By the book the folders are root's; tar archives of the plugins and some installers make them another user's.
#[test]
fn without_dac_override_nothing_is_written_in_folders_of_others() {
    needs_runc!();
    for (without, name) in [(None, "with-dac"), (Some("DAC_OVERRIDE"), "no-dac")] {
        let site = Site::with(name, without, |_| {});
        let folder = &site.world.lab.cni_conf_dir;
        let conf = folder.join("00-multus.conflist");
        assert!(wait_until(SOON, || conf.exists()), "no conf at all");
        std::os::unix::fs::chown(folder, Some(1001), Some(127)).expect("give the folder away");
        std::fs::remove_file(&conf).expect("take the conf away");
        let comes_back = wait_until(if without.is_none() { SOON } else { SOON / 5 }, || conf.exists());
        assert_eq!(comes_back, without.is_none(), "{name}");
        let told = site.kubelet("/readinessProbe/exec/command");
        if without.is_some() {
            let wanted = "its folder belongs to user 1001; give it to root, or CAP_DAC_OVERRIDE to the container";
            assert!(told.code == Some(1) && site.world.agent.log_text().contains(wanted), "{}", told.out());
        }
    }
}

#[test]
fn without_net_admin_nothing_is_counted() {
    needs_runc!();
    let site = without("NET_ADMIN", "no-net-admin", "to put programs on links");
    let pod = site.attached(site.world.lab.pod("cam").networks("lan"));
    let attachments = site.document(&["get", "attachments"]);
    assert!(column(&attachments, "net1", "note").contains("not permitted"), "{attachments:#}");
    let samples = site.world.agent.metrics(&site.world.lab);
    assert_eq!(samples.matching("multus_interface_receive_packets_total", &[("pod", "cam")]).len(), 0);
    site.world.del(&pod).expect_ok();
}

#[test]
fn without_net_raw_nothing_is_heard() {
    needs_runc!();
    let site = without("NET_RAW", "no-net-raw", "to hear");
    let _pod = site.attached(site.world.lab.pod("cam").networks("lan"));
    let packet_sockets = || {
        let list = || std::fs::read_to_string("/proc/thread-self/net/packet").unwrap_or_default();
        site.world.lab.node.enter(list).lines().count().saturating_sub(1)
    };
    assert!(!wait_until(SOON / 8, || packet_sockets() > 0), "it could open a packet socket");
}

#[test]
fn without_sys_admin_no_pod_is_attached() {
    needs_runc!();
    let site = without("SYS_ADMIN", "no-sys-admin", "to enter pods' network namespaces");
    let ready = site.kubelet("/readinessProbe/exec/command");
    assert_eq!(ready.code, Some(1), "{}", ready.out());
    let refusal = site.world.add(&site.world.lab.pod("cam").networks("lan")).expect_error(8);
    assert!(refusal.contains("not permitted"), "{refusal}");
}

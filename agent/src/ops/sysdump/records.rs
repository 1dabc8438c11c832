//! The records, field by field: of what a plugin is given, its length alone.

use serde_json::{Value, json};

use super::keep;
use crate::cni::CniResult;
use crate::names::mac_text;
use crate::ops::context::Context;
use crate::records::{Attachment, Delegate, Link, Record};

/// Every record.
pub(super) fn all(context: &Context) -> Value {
    let records: Vec<Value> = context.ledger.all().iter().map(|each| record(each)).collect();
    json!({"apiVersion": crate::ops::view::API_VERSION, "kind": "RecordList", "items": records})
}

fn record(record: &Record) -> Value {
    let status = record.status.as_ref().and_then(|status| serde_json::from_str::<Value>(status).ok());
    json!({
        "container": record.container,
        "netns": record.netns,
        "pod": record.pod,
        "interface": record.ifname,
        "state": record.state,
        "since": record.since,
        "origin": record.origin,
        "networkStatus": status.map(|status| keep::network_status(&status)),
        "reflect": record.reflect,
        "attachments": record.attachments.iter().map(attachment).collect::<Vec<_>>(),
    })
}

fn attachment(attachment: &Attachment) -> Value {
    json!({
        "network": attachment.network,
        "confName": attachment.conf_name,
        "nad": attachment.nad,
        "interface": attachment.ifname,
        "master": attachment.master,
        "hotplug": attachment.hotplug,
        "delegates": attachment.delegates.iter().map(delegate).collect::<Vec<_>>(),
        "result": attachment.result.as_ref().map(result),
        "link": attachment.link.as_ref().map(link),
        "hasDeviceInfo": attachment.device_info.is_some(),
    })
}

fn delegate(delegate: &Delegate) -> Value {
    json!({
        "plugin": delegate.plugin,
        "cniVersion": delegate.cni_version,
        "stage": delegate.stage,
        "skipsCheck": delegate.skips_check,
        "stdinBytes": delegate.stdin.len(),
        "argsBytes": delegate.args.len(),
    })
}

fn result(value: &Value) -> Value {
    let Ok(result) = CniResult::parse(value.to_string().as_bytes()) else { return Value::Null };
    let interfaces = result.interfaces.iter();
    let routes = result.routes.iter();
    json!({
        "interfaces": interfaces.map(|i| json!({"name": i.name, "mac": i.mac, "mtu": i.mtu})).collect::<Vec<_>>(),
        "ips": result.ips.iter().map(|ip| json!({
            "address": ip.address.to_string(), "gateway": ip.gateway, "interface": ip.interface,
        })).collect::<Vec<_>>(),
        "routes": routes.map(|route| json!({"dst": route.dst.to_string(), "gw": route.gw})).collect::<Vec<_>>(),
        "nameservers": result.dns.nameservers.len(),
    })
}

fn link(link: &Link) -> Value {
    let parent = link.parent.as_ref();
    json!({
        "ifindex": link.ifindex,
        "mac": mac_text(link.mac),
        "kind": link.kind,
        "parent": parent.map(|p| json!({"ifindex": p.ifindex, "name": p.name, "mac": mac_text(p.mac)})),
        "instance": link.instance,
        "slot": link.slot,
        "relay": link.relay,
        "hostAccess": link.host_access,
        "hostPorts": link.host_ports,
        "plainCopy": link.plain_copy,
        "note": link.note,
    })
}

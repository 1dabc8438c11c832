//! Where the device-info files of an attachment are, and whether the text of one is what the specification says.
//!
//! (Device Information Specification 1.1.0 of the Network Plumbing Working Group.) Nothing here touches a file.

use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::attachment::{Attachment, Plan};
use crate::cni::RawObject;
use crate::fault::{CniError, code, quote};
use crate::names::{ContainerId, IfName};

/// The capability under which a plugin learns where its file is.
const CAPABILITY: &str = "CNIDeviceInfoFile";
/// Most bytes of a file name on Linux (`NAME_MAX`).
const MOST_NAME_BYTES: usize = 255;
/// The types there are; each has an object of its own name.
const TYPES: [&str; 4] = ["pci", "vhost-user", "memif", "vdpa"];

/// The files of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// What the device plugin wrote; none where no resource is known.
    pub given: Option<PathBuf>,
    /// What the delegate reads, or writes, and the pod's status shows.
    pub shown: PathBuf,
}

impl Plan {
    /// Names the device-info files below `folder` and tells them to the delegates that have a device. Where a name
    /// would be none, the attachment goes without.
    pub fn place_device_info(&mut self, folder: &Path, container: &ContainerId) {
        for attachment in &mut self.attachments {
            let Some(files) = files(folder, attachment, container) else { continue };
            attachment.runtime_config.set_json(CAPABILITY, &files.shown.to_string_lossy());
            attachment.device_info = Some(files);
        }
    }
}

fn files(folder: &Path, attachment: &Attachment, container: &ContainerId) -> Option<Files> {
    let device = attachment.device_id.as_deref()?;
    let given = attachment.resource.as_deref().and_then(|resource| name(&format!("{resource}-{device}-device.json")));
    let shown = shown(folder, attachment.config.name.as_str(), container, &attachment.ifname)?;
    Some(Files { given: given.map(|name| folder.join("dp").join(name)), shown })
}

/// Where the file of an attachment of network `conf_name` is, below `folder`; also of one that Multus made. `None` where
/// the name would be none.
pub fn shown(folder: &Path, conf_name: &str, container: &ContainerId, ifname: &IfName) -> Option<PathBuf> {
    name(&format!("{conf_name}-{container}_{ifname}")).map(|name| folder.join("cni").join(name))
}

/// A file's name as the specification makes it: every `/` is a `-`, so that it stays in its folder.
fn name(text: &str) -> Option<String> {
    let name = text.replace('/', "-");
    let fits = name.len() <= MOST_NAME_BYTES && !name.chars().any(char::is_control);
    fits.then_some(name)
}

/// The content of a device-info file.
///
/// # Errors
/// Codes 6 and 7 naming the field that is not as specified.
pub fn read(text: &[u8]) -> Result<Box<RawValue>, CniError> {
    let object = RawObject::parse(text)?;
    let missing = |key: &str| {
        CniError::new(code::INVALID_CONFIG, format!("field {} is missing", quote(key)))
            .remedy("write type, version and an object named like the type")
    };
    let kind = object.text("type")?.ok_or_else(|| missing("type"))?;
    object.text("version")?.ok_or_else(|| missing("version"))?;
    if !TYPES.contains(&kind.as_str()) {
        let text = format!("field \"type\" is {}, which is none of {}", quote(&kind), TYPES.join(", "));
        return Err(CniError::new(code::INVALID_CONFIG, text).remedy("write one of them"));
    }
    object.object(&kind)?.ok_or_else(|| missing(&kind))?;
    serde_json::from_slice(text).map_err(|error| CniError::new(code::DECODE, format!("it is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert_eq!(name("vendor.com/vf-0000:03:02.1-device.json").unwrap(), "vendor.com-vf-0000:03:02.1-device.json");
        assert_eq!(name("../../../etc/x-/dev/y-device.json").unwrap(), "..-..-..-etc-x--dev-y-device.json");
        for bad in ["a\0b", "a\nb", &"x".repeat(256)] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn content_is_of_the_specified_shape_or_refused() {
        for good in [
            r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.1"}}"#,
            r#" { "vdpa" : {"driver":"vhost"}, "version":"1.1.0", "type":"vdpa" } "#,
            r#"{"type":"memif","version":"1.0.0","memif":{"role":"master","path":"/x","mode":"ip"},"more":1}"#,
        ] {
            assert!(read(good.as_bytes()).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("", "JSON"),
            ("[]", "not an object"),
            ("{}", "\"type\" is missing"),
            (r#"{"type":5,"version":"1"}"#, "\"type\" is \"5\""),
            (r#"{"type":"pci","pci":{}}"#, "\"version\" is missing"),
            (r#"{"type":"pci","version":"1"}"#, "\"pci\" is missing"),
            (r#"{"type":"pci","version":"1","pci":[]}"#, "\"pci\" is"),
            (r#"{"type":"usb","version":"1","usb":{}}"#, "\"type\" is \"usb\""),
        ] {
            let error = read(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
        crate::cni::mutation::of(r#"{"type":"pci","version":"1","pci":{"pci-address":"a"}}"#, 5_000, |bytes| {
            drop(read(bytes));
        });
    }
}

//! The device-info files of an attachment: handed to its delegate, shown in the pod's status, removed with it.
//!
//! They are a courtesy: a file that is missing or wrong is said, and never fails a request.

use std::path::Path;

use serde_json::value::RawValue;

use crate::fault::escape;
use crate::kube::EventKind;
use crate::ops::context::Context;
use crate::ops::invocation::Invocation;
use crate::ops::pods;
use crate::plan::{self, Attachment};
use crate::records::Record;
use crate::sys::{device_files, files};

/// Copies what the device plugin wrote to where the delegate looks for it.
pub fn hand_over(attachment: &Attachment) {
    let Some(files) = &attachment.device_info else { return };
    let placed = device_files::make_folder(&files.shown).and_then(|()| {
        let given = files.given.as_deref().map(device_files::read).transpose()?.flatten();
        given.map_or(Ok(()), |bytes| device_files::place(&files.shown, &bytes))
    });
    if let Err(error) = placed {
        tracing::warn!(
            "network {}: copy the device-info file to {}: {error}",
            escape(&attachment.network),
            escape(&files.shown.to_string_lossy())
        );
    }
}

/// What the file says after ADD, for the status.
pub fn shown(context: &Context, call: &Invocation, attachment: &Attachment) -> Option<Box<RawValue>> {
    let files = attachment.device_info.as_ref()?;
    let read = match device_files::read(&files.shown) {
        Ok(None) => return None,
        Ok(Some(text)) => plan::device_info::read(&text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    read.inspect_err(|why| {
        let path = escape(&files.shown.to_string_lossy());
        let text =
            format!("network {}: device-info file \"{path}\" is left out of the status: {why}", attachment.network);
        tracing::warn!("{text}");
        pods::event(context, call, EventKind::Warning, "DeviceInfoIgnored", &text);
    })
    .ok()
}

/// Removes the files of `record`, except of attachments that still wait for a DEL. The answer says what did not
/// succeed.
pub fn forget(record: &mut Record) -> Vec<String> {
    let due: Vec<usize> = record.due().into_iter().map(|(attachment, _)| attachment).collect();
    let mut failed = Vec::new();
    for (at, attachment) in record.attachments.iter_mut().enumerate().filter(|(at, _)| !due.contains(at)) {
        let Some(path) = attachment.device_info.as_deref() else { continue };
        match files::remove(path) {
            Ok(()) => attachment.device_info = None,
            Err(error) => failed.push(format!("remove {} of attachment {at}: {error}", shown_path(path))),
        }
    }
    failed
}

/// Removes the files of a record that the shim undid without us.
pub fn forget_undone(record: &Record) {
    for path in record.attachments.iter().filter_map(|attachment| attachment.device_info.as_deref()) {
        if let Err(error) = files::remove(path) {
            tracing::warn!(container = %record.container, "remove {}: {error}", shown_path(path));
        }
    }
}

fn shown_path(path: &Path) -> String {
    format!("device-info file \"{}\"", escape(&path.to_string_lossy()))
}

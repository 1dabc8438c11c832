//! The end of the log file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use crate::config::Settings;

/// How much of it.
const MOST: u64 = 512 << 10;

/// Its last lines; or why there are none.
pub(super) fn end(settings: &Settings) -> Result<String, String> {
    let Some(path) = &settings.log.file else {
        return Err("there is no log file: the log is on standard error, where kubectl logs has it".to_owned());
    };
    read(path).map_err(|error| format!("read the log file: {error}"))
}

fn read(path: &str) -> io::Result<String> {
    let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let begin = about.len().saturating_sub(MOST);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // The first line may have lost its beginning.
    let whole = if begin == 0 { Some(text.as_str()) } else { text.split_once('\n').map(|(_, rest)| rest) };
    Ok(whole.unwrap_or_default().to_owned())
}

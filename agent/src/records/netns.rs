//! Is the namespace of a record still the one that its container was attached in?
//!
//! A path alone does not say: `/proc/<pid>/ns/net` is somebody else's once the process has ended, and where one does not see
//! the host's processes it always was. What is not the recorded namespace counts as gone, so that nobody's links are touched
//! in the name of another. Only looks; enters no namespace.

use super::Record;
use crate::names::{NetnsId, NetnsPath};
use crate::sys::files::netns_id;

/// Below this a path leads to whatever the one who looks sees as a process of that number.
const PROCESSES: &str = "/proc";

impl Record {
    /// The recorded namespace, if it is there. A record of a release that did not look which one it was goes by its path.
    pub fn namespace(&self) -> Option<NetnsPath> {
        let path = self.netns.as_ref()?;
        let now = netns_id(path.as_path())?;
        self.netns_id.as_ref().is_none_or(|then| *then == now).then(|| path.clone())
    }

    /// The same for whoever is about to change something in it: a process's, of which nobody knows which one it was, may be
    /// a stranger's by now.
    pub fn namespace_to_undo(&self) -> Option<NetnsPath> {
        let is_sure = |path: &NetnsPath| self.netns_id.is_some() || !is_a_process(path);
        self.namespace().filter(is_sure)
    }

    /// Is there one under the recorded path of which nobody can say whether it is the recorded one? Then only a request that
    /// names it tells: a DEL without it would be answered with success, and leave the interface where it is.
    pub fn may_be_anothers(&self) -> bool {
        self.namespace().is_some() && self.namespace_to_undo().is_none()
    }

    /// Where a request that names `path` is to be carried out: there, unless that is surely another namespace than the
    /// recorded one; then in the recorded one, if it is there still. `seen`: which one the runtime's side sees there.
    pub fn namespace_asked(&self, path: Option<&NetnsPath>, seen: Option<&NetnsId>) -> Option<NetnsPath> {
        match path.filter(|path| self.may_be_in(path, seen)) {
            Some(path) => Some(path.clone()),
            None => self.namespace_to_undo(),
        }
    }

    /// Could `path` be the recorded namespace? One that nobody can look at might be.
    pub fn may_be_in(&self, path: &NetnsPath, seen: Option<&NetnsId>) -> bool {
        let Some(then) = &self.netns_id else { return true };
        match seen {
            Some(seen) => seen == then,
            None => is_a_process(path) || netns_id(path.as_path()).is_none_or(|now| now == *then),
        }
    }
}

fn is_a_process(path: &NetnsPath) -> bool {
    path.as_path().starts_with(PROCESSES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::record::record;

    #[test]
    fn another_namespace_under_the_same_path_is_not_the_recorded_one() {
        let path = |text: &str| NetnsPath::new(text).unwrap();
        let (own, file) = (path("/proc/self/ns/net"), path("/etc/hostname"));
        let [id, of_file] = [&own, &file].map(|path| netns_id(path.as_path()));
        let stranger = NetnsId::of(0, 0);
        let with = |netns: &NetnsPath, id: Option<&NetnsId>| {
            let mut record = record("a");
            (record.netns, record.netns_id) = (Some(netns.clone()), id.cloned());
            record
        };
        // What is recorded, and whether it is there: to look at, and to change.
        for (netns, id, there) in [
            (&own, id.as_ref(), (true, true)),
            (&own, Some(&stranger), (false, false)),
            (&own, None, (true, false)),
            (&file, None, (true, true)),
            (&path("/nowhere"), None, (false, false)),
            (&path("/nowhere"), id.as_ref(), (false, false)),
        ] {
            let record = with(netns, id);
            let seen = (record.namespace().is_some(), record.namespace_to_undo().is_some());
            assert_eq!(seen, there, "{netns} {id:?}");
            assert_eq!(record.may_be_anothers(), there == (true, false), "{netns} {id:?}");
        }
        // What the request names, which one the runtime's side sees there, and where it is carried out.
        let recorded = with(&file, of_file.as_ref());
        for (asked, seen, there) in [
            (Some(&own), id.as_ref(), Some(&file)),
            (Some(&own), of_file.as_ref(), Some(&own)),
            (Some(&own), None, Some(&own)),
            (Some(&path("/etc/passwd")), None, Some(&file)),
            (Some(&path("/nowhere")), None, Some(&path("/nowhere"))),
            (None, None, Some(&file)),
        ] {
            assert_eq!(recorded.namespace_asked(asked, seen).as_ref(), there, "{asked:?} {seen:?}");
        }
        let gone = with(&file, Some(&stranger));
        assert_eq!(gone.namespace_asked(Some(&own), id.as_ref()), None);
        assert_eq!(with(&file, None).namespace_asked(Some(&own), id.as_ref()), Some(own));
    }
}

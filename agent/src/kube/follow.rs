//! How the objects of an API server are followed, and how its silence is told from its absence.
//!
//! Every watch comes back by itself after whatever ended it. Nothing here keeps objects.

use std::fmt::Debug;
use std::pin::pin;
use std::time::{Duration, Instant};

use ::kube::runtime::watcher::{self, Event};
use ::kube::{Api, Client, Resource};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::client::{CallError, Server, advice, chain, is_answer};
use super::stopped;

/// A watch that is silent longer than the server was asked to keep it open (290 s) is given up after this.
const SILENCE: Duration = Duration::from_secs(330);
/// Longest wait for one page of a list.
const LIST: Duration = Duration::from_mins(1);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Longest wait for a sign of life.
const SIGN: Duration = Duration::from_secs(10);

/// Asks for a sign of life whenever nothing was heard for `quiet`. A watch says nothing while nothing changes, and a
/// connection that a partition cut says nothing either: without this the difference shows after minutes.
pub(super) async fn listen(server: Server, quiet: Duration, mut stop: watch::Receiver<bool>) {
    let mut wait = quiet;
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(wait) => {}
        }
        let silence = server.contact.age().unwrap_or(quiet);
        wait = quiet.checked_sub(silence).filter(|left| !left.is_zero()).unwrap_or(quiet);
        if silence < quiet {
            continue;
        }
        let asked = server.call(("get", "version"), SIGN.min(quiet), server.client().apiserver_version()).await;
        // Any answer will do, also one that refuses or that we cannot read.
        if matches!(asked, Err(CallError::Unreached(_))) {
            server.contact.lost();
        }
    }
}

/// Follows `api`, whose objects are `resource`, of the server's client until `stop`: `see` gets every event, after a
/// restart from `Init` on again.
pub(super) async fn follow<K>(
    (resource, api): (&'static str, impl Fn(Client) -> Api<K>),
    config: watcher::Config,
    server: &Server,
    mut stop: watch::Receiver<bool>,
    mut see: impl FnMut(Event<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let contact = &server.contact;
    let mut losses = contact.losses();
    let mut pause = PAUSE.0;
    while !*stop.borrow() {
        let mut events = pin!(watcher::watcher(api(server.client()), config.clone()));
        let mut patience = LIST;
        let mut listing = Instant::now();
        loop {
            let next = tokio::select! {
                () = stopped(&mut stop) => return,
                // The connection may hang for long without a word from either side.
                _ = losses.changed() => {
                    contact.is_outdated(resource);
                    break;
                }
                next = tokio::time::timeout(patience, events.next()) => next,
            };
            let error = match next {
                Ok(Some(Ok(event))) => {
                    if !matches!(event, Event::Init) {
                        pause = PAUSE.0;
                    }
                    patience = heard(&event, resource, server, &mut listing);
                    see(event);
                    continue;
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => break,
                Err(_) => {
                    contact.failed("the watch gave no sign of life");
                    contact.is_outdated(resource);
                    break;
                }
            };
            let anew = failed(&error, resource, server, listing).await;
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(PAUSE.1);
            if anew {
                break;
            }
        }
    }
}

/// Notes what an event says of the server, and when a list began. The answer: how long the next event may take.
fn heard<K>(event: &Event<K>, resource: &'static str, server: &Server, listing: &mut Instant) -> Duration {
    match event {
        // Only announces the list request.
        Event::Init => {
            *listing = Instant::now();
            return LIST;
        }
        Event::InitDone => server.count(("list", resource), 200, listing.elapsed()),
        _ => {}
    }
    server.contact.worked();
    if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
        server.contact.is_current(resource);
        SILENCE
    } else {
        LIST
    }
}

/// Notes what went wrong with a list or a watch. True: the watcher must begin anew.
async fn failed(error: &watcher::Error, resource: &'static str, server: &Server, listing: Instant) -> bool {
    let status = status_of(error);
    server.contact.is_outdated(resource);
    match error {
        watcher::Error::InitialListFailed(_) => {
            server.count(("list", resource), status.unwrap_or(0), listing.elapsed());
        }
        _ => server.calls.count_broken_watch(resource, status.unwrap_or(0)),
    }
    let reason = format!("{}{}", chain(error), status.map_or("", advice));
    match status {
        Some(code) if is_answer(code) => server.contact.noted(&reason),
        _ => server.contact.failed(&reason),
    }
    if status == Some(401) {
        server.renew().await;
    }
    is_gone(error) || status == Some(401)
}

/// The version we are at is no longer served and only a new list helps. The watcher knows that of an `ERROR` event, but
/// would repeat a watch that is answered 410 as a whole.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(::kube::Error::Api(status)) if status.code == 410)
}

fn status_of(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        WatchError(status) => Some(status.code),
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => match error {
            ::kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        NoResourceVersion => None,
    }
}

/// Between half of `pause` and all of it, so that a cluster's agents do not come back in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = u32::try_from(RandomState::new().hash_one(0) % 512).unwrap_or(0);
    pause / 2 + pause * share / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_half_and_all() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(1));
            assert!(pause >= Duration::from_millis(500) && pause <= Duration::from_secs(1), "{pause:?}");
        }
    }

    #[test]
    fn a_410_is_an_answer() {
        let status = |code| {
            let status = ::kube::core::Status { code, ..::kube::core::Status::success() };
            watcher::Error::WatchStartFailed(::kube::Error::Api(status.boxed()))
        };
        for (code, gone, answer) in [(410, true, true), (403, false, true), (401, false, false), (500, false, false)] {
            let error = status(code);
            assert_eq!((is_gone(&error), status_of(&error).is_some_and(is_answer)), (gone, answer), "{code}");
        }
    }
}

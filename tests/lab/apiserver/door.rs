//! What becomes of a connection: let in while the server is up, its requests noted, answered or refused one by one.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::http::{Connection, Request};
use super::store::{Refusal, Shape};
use super::{Seen, Shared, TOKEN, discovery, path, stream};

/// Lets connections in while the server is up; a closed listener is what refuses.
pub(super) fn keep(address: SocketAddr, listener: TcpListener, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    loop {
        let (down, ended) = {
            let state = shared.lock();
            (state.mood.down, state.mood.ended)
        };
        if ended {
            return;
        }
        if down {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).ok();
        }
        let accepted = listener.as_ref().and_then(|open| {
            open.set_nonblocking(true).ok()?;
            open.accept().ok()
        });
        match accepted {
            Some((connection, _)) => let_in(connection, shared),
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn let_in(connection: TcpStream, shared: &Arc<Shared>) {
    let (Ok(()), Ok(twin)) = (connection.set_nonblocking(false), connection.try_clone()) else { return };
    drop(connection.set_nodelay(true));
    {
        let connections = &mut shared.lock().connections;
        connections.retain(|open| open.peer_addr().is_ok());
        connections.push(twin);
    }
    let shared = Arc::clone(shared);
    // The thread ends with its connection, which is shut down when the server is dropped.
    let run = move || {
        let end = connection.try_clone();
        drop(serve(connection, &shared));
        // The list of connections holds the socket open too.
        drop(end.map(|end| end.shutdown(Shutdown::Both)));
    };
    drop(thread::Builder::new().name("apiserver-conn".into()).spawn(run));
}

fn serve(connection: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut connection = Connection::new(connection);
    while let Some(request) = connection.read()? {
        let (entry, latency, fault, is_known) = {
            let mut state = shared.lock();
            let token = state.mood.token.as_deref().unwrap_or(TOKEN).to_owned();
            let is_known = request.token.as_deref().is_none_or(|given| given == token);
            state.seen.push(Seen {
                method: request.method.clone(),
                path: request.path.clone(),
                query: request.query.clone(),
                body: request.body.clone(),
                had_token: request.token.as_deref() == Some(token.as_str()),
                status: 0,
            });
            (state.seen.len() - 1, state.mood.latency, state.take_fault(&request), is_known)
        };
        thread::sleep(latency);
        let answered = match fault {
            Some(status) => Err(Refusal::new(status, "InjectedFault", "as asked for")),
            None if !is_known => Err(Refusal::new(401, "Unauthorized", "Unauthorized")),
            None => answer(&request, shared),
        };
        let (status, body) = match answered {
            Ok(Answer::Watch(watch)) => {
                note_status(shared, entry, 200);
                return stream::send(&mut connection, shared, watch);
            }
            Ok(Answer::Object(status, body)) => (status, body),
            Err(refusal) => (refusal.code, refusal.status()),
        };
        note_status(shared, entry, status);
        connection.answer(status, &body)?;
    }
    Ok(())
}

fn note_status(shared: &Shared, entry: usize, status: u16) {
    if let Some(seen) = shared.lock().seen.get_mut(entry) {
        seen.status = status;
    }
}

enum Answer {
    Object(u16, Value),
    Watch(stream::Watch),
}

fn answer(request: &Request, shared: &Shared) -> Result<Answer, Refusal> {
    if let Some(document) = discovery::read(&request.path) {
        return Ok(Answer::Object(200, document));
    }
    let place = path::read(&request.path)?;
    let shape = Shape { is_metadata_only: request.accept.contains("as=PartialObjectMetadata") };
    if request.method == "GET" && place.name.is_none() && request.is_set("watch") {
        let state = shared.lock();
        return stream::Watch::new(&state, place, request, shape).map(Answer::Watch);
    }
    let done = shared.change(|state| match (request.method.as_str(), place.name.as_deref()) {
        ("GET", None) => state.store.list(&place, request, shape),
        ("GET", Some(name)) => state.store.read(&place, name).map(|object| shape.of(&object)),
        ("POST", None) => state.store.create(&place, &request.body),
        ("PUT", Some(name)) => state.store.replace(&place, name, &request.body),
        ("PATCH", Some(name)) => state.store.patch(&place, name, &request.body),
        ("DELETE", Some(name)) => state.store.remove(&place, name),
        _ => Err(Refusal::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )),
    })?;
    Ok(Answer::Object(if request.method == "POST" { 201 } else { 200 }, done))
}

//! Connections of the API: how many there may be, and how long each may keep the host waiting.
//!
//! Anyone on the machine can connect, so what a connection costs is bounded before it has shown a token. Where all places are
//! taken, the connection that has been without a token for longest gives way, else the oldest one that only reads. Those that
//! only read have three quarters of the places, so a client with the host's own token always finds one that gives way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::write_timeout::WriteTimeout;
use crate::dataflow::control::locked;

/// Number of connections at a time; a quarter of the files that the process may open, where that is less.
const CONNECTIONS_MAX: usize = 256;
/// Number of connections at a time of one other machine.
const OF_A_PEER_MAX: usize = 64;
/// Time that a connection may take for the head of a request, from the connection or from the last answer on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a connection may take to read a part of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of headers of a request.
const HEADERS_MAX: usize = 64;
/// Size of the head of a request, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Rights that a connection has shown so far; the highest one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// No token yet.
    Unknown,
    /// The token for reading.
    Reader,
    /// The host's own token.
    Admin,
}

/// A connection, as seen by the requests on it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    connections: Arc<Mutex<Connections>>,
    number: u64,
}

impl Caller {
    /// Notes the token that a request of this connection had. Where too many only read, the oldest of them is closed.
    pub(super) fn note_token(&self, standing: Standing) {
        locked(&self.connections).note(self.number, standing);
    }
}

/// Connections that are open.
#[derive(Debug)]
struct Connections {
    max: usize,
    next: u64,
    open: BTreeMap<u64, ConnectionSlot>,
}

#[derive(Debug)]
struct ConnectionSlot {
    peer: IpAddr,
    standing: Standing,
    task: Option<AbortHandle>,
}

/// Decision about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// There is a place.
    Free,
    /// It gets the place of this one, which is closed.
    InPlaceOf(u64),
    /// It is closed.
    Full,
}

impl Connections {
    /// Returns `max` free places.
    const fn new(max: usize) -> Self {
        Self {
            max,
            next: 0,
            open: BTreeMap::new(),
        }
    }

    fn admission(&self, peer: IpAddr) -> Admission {
        let of_peer = |slot: &ConnectionSlot| slot.peer == peer;
        let crowded = !peer.is_loopback() && self.open.values().filter(|slot| of_peer(slot)).count() >= OF_A_PEER_MAX;
        if !crowded && self.open.len() < self.max {
            return Admission::Free;
        }
        let oldest = |standing| self.oldest(|slot| slot.standing == standing && (!crowded || of_peer(slot)));
        let gives_way = oldest(Standing::Unknown).or_else(|| oldest(Standing::Reader));
        gives_way.map_or(Admission::Full, Admission::InPlaceOf)
    }

    /// Returns the oldest connection of a kind.
    fn oldest(&self, is: impl Fn(&ConnectionSlot) -> bool) -> Option<u64> {
        // Numbers grow, so the first is the oldest.
        let found = self.open.iter().find(|(_, slot)| is(slot));
        found.map(|(number, _)| *number)
    }

    /// Takes a place for a connection, if it gets one, and returns its number.
    fn take(&mut self, peer: IpAddr) -> Option<u64> {
        match self.admission(peer) {
            Admission::Free => {}
            Admission::InPlaceOf(other) => self.close(other),
            Admission::Full => return None,
        }
        let number = self.next;
        self.next += 1;
        let slot = ConnectionSlot {
            peer,
            standing: Standing::Unknown,
            task: None,
        };
        self.open.insert(number, slot);
        Some(number)
    }

    /// Notes what a connection has shown, and closes the oldest one that only reads where too many do.
    fn note(&mut self, number: u64, standing: Standing) {
        let Some(slot) = self.open.get_mut(&number) else { return };
        if standing <= slot.standing {
            return;
        }
        slot.standing = standing;
        let is_reader = |slot: &ConnectionSlot| slot.standing == Standing::Reader;
        let readers = self.open.values().filter(|slot| is_reader(slot)).count();
        if readers > self.max - self.max / 4
            && let Some(oldest) = self.oldest(is_reader)
        {
            self.close(oldest);
        }
    }

    fn close(&mut self, number: u64) {
        if let Some(task) = self.open.remove(&number).and_then(|slot| slot.task) {
            task.abort();
        }
    }
}

/// Frees the place of a connection that ends, in whichever way.
struct Taken(Caller);

impl Drop for Taken {
    fn drop(&mut self) {
        locked(&self.0.connections).open.remove(&self.0.number);
    }
}

/// Answers requests until it is to end, and then those that are under way.
pub(super) async fn serve(listener: TcpListener, router: Router, mut ended: watch::Receiver<bool>) {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let max = CONNECTIONS_MAX.min(usize::try_from(files / 4).unwrap_or(CONNECTIONS_MAX));
    let connections = Arc::new(Mutex::new(Connections::new(max)));
    let mut tasks = JoinSet::new();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // `Err`: the other end is gone, and so is the host.
            _ = ended.wait_for(|ended| *ended) => break,
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                is_failing = false;
                let number = locked(&connections).take(peer.ip());
                if let Some(number) = number {
                    let caller = Caller {
                        connections: connections.clone(),
                        number,
                    };
                    let service = TowerToHyperService::new(router.clone());
                    let task = tasks.spawn(connection(stream, service, Taken(caller), ended.clone()));
                    if let Some(slot) = locked(&connections).open.get_mut(&number) {
                        slot.task = Some(task);
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!("connections cannot be accepted, and are tried again: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    taken: Taken,
    mut ended: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let caller = taken.0.clone();
    // A layer would copy every route for each connection.
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        service.call(request)
    });
    let serving = http.serve_connection(TokioIo::new(WriteTimeout::new(stream, WRITE_TIMEOUT)), service);
    tokio::pin!(serving);
    let end = async {
        // An error says that the other end is gone, and so is the host.
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = end => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("a connection has ended: {error}");
    }
    drop(taken);
}

/// Returns the URL by which this machine reaches an address that is listened on.
#[must_use]
pub fn url_of(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_oldest_without_a_token_gives_way_and_then_the_oldest_that_reads() {
        let mut connections = Connections::new(8);
        for _ in 0..8 {
            connections.take(ip("127.0.0.1")).expect("a place");
        }
        connections.note(0, Standing::Admin);
        connections.note(1, Standing::Reader);
        assert_eq!(connections.admission(ip("127.0.0.1")), Admission::InPlaceOf(2));
        assert_eq!(connections.take(ip("10.0.0.1")), Some(8));
        assert!(!connections.open.contains_key(&2) && connections.open.len() == 8);
        for number in 3..9 {
            connections.note(number, Standing::Admin);
        }
        assert_eq!(connections.take(ip("127.0.0.1")), Some(9));
        assert!(!connections.open.contains_key(&1));
        connections.note(9, Standing::Admin);
        assert_eq!(connections.take(ip("127.0.0.1")), None);
        // It does not lose its place by a request that only reads.
        connections.note(9, Standing::Reader);
        assert_eq!(connections.admission(ip("127.0.0.1")), Admission::Full);
    }

    #[test]
    fn those_that_only_read_leave_places_for_others() {
        let mut connections = Connections::new(8);
        for number in 0..8 {
            connections.take(ip("127.0.0.1")).expect("a place");
            connections.note(number, Standing::Reader);
        }
        assert_eq!(connections.open.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
        assert_eq!(connections.admission(ip("127.0.0.1")), Admission::Free);
    }

    #[test]
    fn one_machine_does_not_take_all_places() {
        let mut connections = Connections::new(CONNECTIONS_MAX);
        let first = connections.take(ip("127.0.0.1")).expect("a place");
        for _ in 0..OF_A_PEER_MAX {
            connections.take(ip("10.0.0.1")).expect("a place");
        }
        // It gives way to itself, not to others.
        assert_eq!(connections.admission(ip("10.0.0.1")), Admission::InPlaceOf(first + 1));
        assert_eq!(connections.admission(ip("10.0.0.2")), Admission::Free);
        assert_eq!(connections.admission(ip("127.0.0.1")), Admission::Free);
    }

    #[test]
    fn an_address_has_a_url_on_this_machine() {
        for (listens, url) in [
            ("127.0.0.1:7878", "http://127.0.0.1:7878"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("10.0.0.1:80", "http://10.0.0.1:80"),
        ] {
            assert_eq!(url_of(listens.parse().expect("an address")), url);
        }
    }
}

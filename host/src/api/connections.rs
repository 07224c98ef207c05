//! Connections of the API: how many there may be, and how long each may keep the host waiting.
//!
//! Anyone on the machine can connect, so what a connection costs is bounded before it has shown a token. Where all places are
//! taken, the connection that has been without a token for longest gives way: a client of this host shows its token at once,
//! and is not kept out by others that hold connections open.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
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

use crate::dataflow::control::locked;

/// Number of connections at a time; a quarter of the files that the process may open, where that is less.
const CONNECTIONS_MAX: usize = 256;
/// Number of connections at a time of one other machine.
const OF_A_PEER_MAX: usize = 64;
/// Time that a connection may take for the head of a request, from the connection or from the last answer on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of headers of a request.
const HEADERS_MAX: usize = 64;
/// Size of the head of a request, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection, as seen by the requests on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller(Arc<AtomicBool>);

impl Caller {
    /// Notes that a request of this connection had a token.
    pub(super) fn is_known(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connections that are open.
#[derive(Debug)]
struct Places {
    max: usize,
    next: u64,
    open: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    peer: IpAddr,
    caller: Caller,
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

impl Places {
    /// Returns `max` free places.
    const fn new(max: usize) -> Self {
        Self {
            max,
            next: 0,
            open: BTreeMap::new(),
        }
    }

    fn admission(&self, peer: IpAddr) -> Admission {
        let of_peer = |place: &Place| place.peer == peer;
        let crowded = !peer.is_loopback() && self.open.values().filter(|place| of_peer(place)).count() >= OF_A_PEER_MAX;
        if !crowded && self.open.len() < self.max {
            return Admission::Free;
        }
        // Numbers grow, so the first is the oldest.
        let oldest = self.open.iter().find(|(_, place)| {
            let is_known = place.caller.0.load(Ordering::Relaxed);
            !is_known && (!crowded || of_peer(place))
        });
        oldest.map_or(Admission::Full, |(number, _)| Admission::InPlaceOf(*number))
    }

    /// Takes a place for a connection, if it gets one.
    fn take(&mut self, peer: IpAddr) -> Option<(u64, Caller)> {
        match self.admission(peer) {
            Admission::Free => {}
            Admission::InPlaceOf(other) => {
                if let Some(task) = self.open.remove(&other).and_then(|place| place.task) {
                    task.abort();
                }
            }
            Admission::Full => return None,
        }
        let (number, caller) = (self.next, Caller::default());
        self.next += 1;
        self.open.insert(
            number,
            Place {
                peer,
                caller: caller.clone(),
                task: None,
            },
        );
        Some((number, caller))
    }
}

/// Frees the place of a connection that ends, in whichever way.
struct Taken {
    places: Arc<Mutex<Places>>,
    number: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        locked(&self.places).open.remove(&self.number);
    }
}

/// Answers requests until it is to end, and then those that are under way.
pub(super) async fn serve(listener: TcpListener, router: Router, mut ended: watch::Receiver<bool>) {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let max = CONNECTIONS_MAX.min(usize::try_from(files / 4).unwrap_or(CONNECTIONS_MAX));
    let places = Arc::new(Mutex::new(Places::new(max)));
    let mut connections = JoinSet::new();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // `Err`: the other end is gone, and so is the host.
            _ = ended.wait_for(|ended| *ended) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                is_failing = false;
                let taken = locked(&places).take(peer.ip());
                if let Some((number, caller)) = taken {
                    let taken = Taken {
                        places: places.clone(),
                        number,
                    };
                    let service = TowerToHyperService::new(router.clone());
                    let task = connections.spawn(connection(stream, service, caller, ended.clone(), taken));
                    if let Some(place) = locked(&places).open.get_mut(&number) {
                        place.task = Some(task);
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
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    caller: Caller,
    mut ended: watch::Receiver<bool>,
    taken: Taken,
) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    // A layer would copy every route for each connection.
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        service.call(request)
    });
    let serving = http.serve_connection(TokioIo::new(stream), service);
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
    fn the_oldest_without_a_token_gives_way() {
        let mut places = Places::new(CONNECTIONS_MAX);
        let mut callers = vec![];
        for _ in 0..CONNECTIONS_MAX {
            callers.push(places.take(ip("127.0.0.1")).expect("a place"));
        }
        callers[0].1.is_known();
        assert_eq!(places.admission(ip("127.0.0.1")), Admission::InPlaceOf(1));
        let (number, _) = places.take(ip("10.0.0.1")).expect("a place");
        assert!(!places.open.contains_key(&1) && places.open.contains_key(&number));
        assert_eq!(places.open.len(), CONNECTIONS_MAX);
        for place in places.open.values() {
            place.caller.is_known();
        }
        assert_eq!(places.take(ip("127.0.0.1")).map(|(number, _)| number), None);
    }

    #[test]
    fn one_machine_does_not_take_all_places() {
        let mut places = Places::new(CONNECTIONS_MAX);
        let first = places.take(ip("127.0.0.1")).expect("a place").0;
        for _ in 0..OF_A_PEER_MAX {
            places.take(ip("10.0.0.1")).expect("a place");
        }
        // It gives way to itself, not to others.
        assert_eq!(places.admission(ip("10.0.0.1")), Admission::InPlaceOf(first + 1));
        assert_eq!(places.admission(ip("10.0.0.2")), Admission::Free);
        assert_eq!(places.admission(ip("127.0.0.1")), Admission::Free);
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

//! Decides which connections a port keeps when a limit is reached.
//!
//! Takes the properties of each connection: its client, whether it authenticated, whether a request is in progress. Returns the connection
//! to close for a new one. A client that has not authenticated can never displace one that has, so that idle and half-open connections of
//! an attacker do not lock out a sender behind the same address.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Limits;
use super::closer::Closer;
use crate::daemon::log_limit::LogLimit;

/// Number of clients that are remembered as authenticated.
const MAX_KNOWN_CLIENTS: usize = 256;

/// A client as the limits per client count it: an IPv4 address, or an IPv6 /64 network, since a single host can use all of its
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                Client(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))))
            }
            v4 @ IpAddr::V4(_) => Client(v4),
        }
    }
}

#[derive(Debug)]
struct Connection {
    client: Client,
    /// Sequence number of the latest event on this connection (opened, request started, request ended).
    last_event: u64,
    is_authenticated: bool,
    /// Requests in progress.
    active: usize,
    closer: Closer,
}

/// The open connections of a port.
#[derive(Clone, Debug)]
pub struct Connections {
    limits: Arc<Limits>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Keyed by the client's address and port, which no two open connections share.
    open: HashMap<SocketAddr, Connection>,
    events: u64,
    /// Clients that authenticated, latest last.
    known: VecDeque<Client>,
    log_limit: LogLimit,
}

/// The entry of a connection, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    connections: Connections,
    peer: SocketAddr,
    number: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        // If this entry was evicted, the existing one may belong to a new connection from the same port.
        if state.open.get(&self.peer).is_some_and(|connection| connection.closer.number == self.number) {
            state.open.remove(&self.peer);
        }
    }
}

/// A request in progress.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    connections: Connections,
    peer: SocketAddr,
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        let event = state.next_event();
        if let Some(connection) = state.open.get_mut(&self.peer) {
            connection.active = connection.active.saturating_sub(1);
            connection.last_event = event;
        }
    }
}

impl Connections {
    pub(crate) fn new(limits: Limits) -> Self {
        Connections { limits: Arc::new(limits), state: Arc::default() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a new connection, and closes another one if a limit is reached. Returns `None` if the new one has to be rejected.
    pub(super) fn open(&self, peer: SocketAddr) -> Option<(Permit, Closer)> {
        let client = Client::from(peer.ip());
        let mut state = self.state();
        let of_client = state.open.values().filter(|connection| connection.client == client).count();
        let victim = if of_client >= self.limits.connections_per_address {
            Some(state.victim(Some(client), client)?)
        } else if state.open.len() >= self.limits.connections {
            Some(state.victim(None, client)?)
        } else {
            None
        };
        if let Some(victim) = victim {
            if let Some(connection) = state.open.remove(&victim) {
                connection.closer.close();
            }
            if let Some(suppressed) = state.log_limit.admit() {
                tracing::warn!(
                    client = %peer.ip(),
                    closed = %victim.ip(),
                    suppressed,
                    "connection limit reached: idle connections of unauthenticated clients are closed"
                );
            }
        }
        let number = state.next_event();
        let closer = Closer::new(number);
        let connection = Connection {
            client,
            last_event: number,
            is_authenticated: false,
            active: 0,
            closer: closer.clone(),
        };
        state.open.insert(peer, connection);
        Some((Permit { connections: self.clone(), peer, number }, closer))
    }

    /// Records that a request arrived, and whether it authenticated. The request is in progress until the result is dropped.
    pub(crate) fn request(&self, peer: SocketAddr, is_authenticated: bool) -> ActiveRequest {
        let mut state = self.state();
        let event = state.next_event();
        if let Some(connection) = state.open.get_mut(&peer) {
            connection.active += 1;
            connection.last_event = event;
            connection.is_authenticated = is_authenticated;
        }
        if is_authenticated {
            state.remember(Client::from(peer.ip()));
        }
        ActiveRequest { connections: self.clone(), peer }
    }
}

impl State {
    fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    fn remember(&mut self, client: Client) {
        if self.known.back() == Some(&client) {
            return;
        }
        self.known.retain(|known| *known != client);
        if self.known.len() >= MAX_KNOWN_CLIENTS {
            self.known.pop_front();
        }
        self.known.push_back(client);
    }

    /// The connection to close for a new one from `newcomer`: one of the same client if the client's limit is reached, otherwise one of any
    /// client.
    fn victim(&self, of: Option<Client>, newcomer: Client) -> Option<SocketAddr> {
        let candidates =
            || self.open.iter().filter(|(_, connection)| of.is_none_or(|client| client == connection.client));
        let mut unauthenticated: HashMap<Client, usize> = HashMap::new();
        for (_, connection) in candidates().filter(|(_, connection)| !connection.is_authenticated) {
            *unauthenticated.entry(connection.client).or_default() += 1;
        }
        let known: HashSet<Client> = self.known.iter().copied().collect();
        // Connections that never authenticated are closed before those that did; among them those of the client with the most such
        // connections; among these the oldest.
        let oldest = candidates()
            .filter(|(_, connection)| !connection.is_authenticated)
            .filter(|(_, connection)| {
                of.is_some() || known.contains(&newcomer) || !known.contains(&connection.client)
            })
            .min_by_key(|(_, connection)| {
                let count = unauthenticated.get(&connection.client).copied().unwrap_or(0);
                (known.contains(&connection.client), std::cmp::Reverse(count), connection.last_event)
            });
        // All others authenticated. A new client replaces the connection that has been idle for longest, but only once: its next connection
        // replaces its own.
        let idle = || {
            candidates()
                .filter(|(_, connection)| connection.is_authenticated && connection.active == 0)
                .min_by_key(|(_, connection)| connection.last_event)
        };
        oldest.or_else(idle).map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn connections(total: usize, per_address: usize) -> Connections {
        Connections::new(Limits {
            connections: total,
            connections_per_address: per_address,
            ..Limits::default()
        })
    }

    fn peer(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    fn is_open(connections: &Connections, peer: SocketAddr) -> bool {
        connections.state().open.contains_key(&peer)
    }

    #[test]
    fn an_authenticated_connection_survives_a_flood_from_its_own_address() {
        let connections = connections(100, 4);
        let (_permit, closer) = connections.open(peer(1, 1)).unwrap();
        drop(connections.request(peer(1, 1), true));
        let held: Vec<_> = (2..1000).map(|port| connections.open(peer(1, port)).unwrap()).collect();
        assert!(is_open(&connections, peer(1, 1)) && !closer.is_closed());
        assert_eq!(connections.state().open.len(), 4);
        assert_eq!(held.iter().filter(|(_, closer)| !closer.is_closed()).count(), 3);
        // A new connection of the legitimate sender is not rejected either.
        assert!(connections.open(peer(1, 1000)).is_some());
        drop(held);
        assert_eq!(connections.state().open.len(), 1);
    }

    #[test]
    fn the_client_with_most_unauthenticated_connections_makes_room() {
        let connections = connections(6, 6);
        let mut held: Vec<_> = (1..=2).map(|host| connections.open(peer(host, 1)).unwrap()).collect();
        held.extend((1..=4).map(|port| connections.open(peer(9, port)).unwrap()));
        held.push(connections.open(peer(3, 1)).unwrap());
        assert!(!is_open(&connections, peer(9, 1)));
        assert!((1..=3).all(|host| is_open(&connections, peer(host, 1))));
    }

    #[test]
    fn a_client_that_authenticated_before_is_preferred() {
        let connections = connections(2, 2);
        let (permit, _closer) = connections.open(peer(1, 1)).unwrap();
        drop(connections.request(peer(1, 1), true));
        drop(permit);
        // Its next connection has not authenticated yet.
        let _known = connections.open(peer(1, 2)).unwrap();
        let _other = connections.open(peer(2, 1)).unwrap();
        let _third = connections.open(peer(3, 1)).unwrap();
        assert!(is_open(&connections, peer(1, 2)) && !is_open(&connections, peer(2, 1)));
        let _again = connections.open(peer(1, 3)).unwrap();
        assert!(!is_open(&connections, peer(3, 1)));
        // A new client does not replace a connection of a known one.
        assert!(connections.open(peer(4, 1)).is_none());
    }

    #[test]
    fn a_request_in_progress_of_an_authenticated_client_is_never_interrupted() {
        let connections = connections(2, 2);
        let _first = connections.open(peer(1, 1)).unwrap();
        let _second = connections.open(peer(1, 2)).unwrap();
        let _requests = [1, 2].map(|port| connections.request(peer(1, port), true));
        assert!(connections.open(peer(1, 3)).is_none());
        assert!(connections.open(peer(2, 1)).is_none());
    }

    #[test]
    fn idle_authenticated_connections_give_a_new_client_one_place() {
        let connections = connections(3, 3);
        let _held: Vec<_> = (1..=3)
            .map(|port| {
                let opened = connections.open(peer(1, port)).unwrap();
                drop(connections.request(peer(1, port), true));
                opened
            })
            .collect();
        let _new: Vec<_> = (1..=10).map(|port| connections.open(peer(2, port)).unwrap()).collect();
        assert!(!is_open(&connections, peer(1, 1)));
        assert!(is_open(&connections, peer(1, 2)) && is_open(&connections, peer(1, 3)));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let client = |address: &str| Client::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
    }
}

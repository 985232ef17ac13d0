//! Ports for processes and receivers that start later, or again.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use socket2::{Domain, Socket, Type};

/// They hold their ports until the tests end: a port of nobody can become that of another receiver or of a connection.
static RESERVED: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

/// Returns a port of 127.0.0.1 at which nobody listens. Only who sets `SO_REUSEADDR`, as servers do, can use it.
pub fn free_port() -> u16 {
    let socket = bound(0);
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    RESERVED.lock().unwrap().push(socket);
    port
}

/// Listens at a port of [`free_port`].
pub fn listener(port: u16) -> TcpListener {
    let socket = bound(port);
    socket.listen(128).unwrap();
    socket.into()
}

fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket
}

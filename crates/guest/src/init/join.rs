//! Joins two connections: what arrives on one leaves on the other, until both are closed.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::Shutdown;

/// Bytes that wait in one direction.
const BUFFER: usize = 64 << 10;

/// Connects to a loopback port; development servers listen on either address.
pub(super) fn dial(port: u16) -> std::io::Result<TcpStream> {
    let limit = Duration::from_millis(200);
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit).or_else(|error| {
        TcpStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), limit).map_err(|_| error)
    })
}

/// Two connections.
pub(super) struct Join {
    ends: [OwnedFd; 2],
    ways: [Way; 2],
}

/// From one end to the other.
#[derive(Default)]
struct Way {
    bytes: Vec<u8>,
    ended: bool,
    closed: bool,
}

impl Join {
    pub(super) fn new(a: OwnedFd, b: OwnedFd) -> std::io::Result<Self> {
        for end in [&a, &b] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self { ends: [a, b], ways: [Way::default(), Way::default()] })
    }

    pub(super) fn watch<'a>(&'a self, watched: &mut Vec<PollFd<'a>>) {
        let [forth, back] = &self.ways;
        for (end, from, to) in [(&self.ends[0], forth, back), (&self.ends[1], back, forth)] {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !from.ended && from.bytes.len() < BUFFER);
            flags.set(PollFlags::OUT, !to.bytes.is_empty());
            if !flags.is_empty() {
                watched.push(PollFd::new(end, flags));
            }
        }
    }

    /// Moves what can be moved now; false when the join is over.
    pub(super) fn step(&mut self) -> bool {
        let [a, b] = &self.ends;
        let [forth, back] = &mut self.ways;
        let alive = forth.step(a, b) && back.step(b, a);
        alive && !(forth.closed && back.closed)
    }
}

impl Way {
    fn step(&mut self, from: &OwnedFd, to: &OwnedFd) -> bool {
        let mut chunk = [0; 16 << 10];
        while !self.ended && self.bytes.len() < BUFFER {
            match rustix::io::read(from, &mut chunk) {
                Ok(0) => self.ended = true,
                Ok(length) => self.bytes.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => return false,
            }
        }
        while !self.bytes.is_empty() {
            match rustix::net::send(to, &self.bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(length) => drop(self.bytes.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => return false,
            }
        }
        if self.ended && self.bytes.is_empty() && !self.closed {
            self.closed = true;
            return rustix::net::shutdown(to, Shutdown::Write).is_ok();
        }
        true
    }
}

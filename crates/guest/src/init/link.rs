//! The connection to the host: dials, says who it is, and dials again when it is cut.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hob_guest::frame::{self, Decoder};
use hob_guest::protocol::{FOLDER, FromGuest, HOST_SOCKET, Hello, IDENTITY_FILE, PROTOCOL, Purpose, ToGuest};
use rustix::event::{PollFd, PollFlags};

/// Output waits in its process, not here, while this much is on its way.
const OUT_MAX: usize = 512 << 10;

/// Between dials: doubled after each, up to the second.
const REDIAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Connects to the host and says hello.
pub(super) fn open(purpose: Purpose) -> std::io::Result<UnixStream> {
    let identity = std::fs::read(format!("{FOLDER}/{IDENTITY_FILE}"))?;
    let identity = serde_json::from_slice(&identity)?;
    let stream = UnixStream::connect(format!("{FOLDER}/{HOST_SOCKET}"))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    frame::write(&stream, &Hello { protocol: PROTOCOL, identity, purpose }, &[]).map_err(std::io::Error::other)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// The connection, or the wait for it.
#[derive(Default)]
pub(super) struct Link {
    stream: Option<UnixStream>,
    decoder: Decoder,
    out: Vec<u8>,
    redial: Option<(Instant, Duration)>,
    broken: bool,
}

impl Link {
    /// Dials when there is no connection and the time has come. True when a new connection replaced an old one.
    pub(super) fn dial(&mut self, now: Instant) -> bool {
        if self.broken {
            let pause = self.redial.map_or(REDIAL.0, |(_, pause)| (pause * 2).min(REDIAL.1));
            *self = Self { redial: Some((now + pause, pause)), ..Self::default() };
        }
        if self.stream.is_some() || self.redial.is_some_and(|(at, _)| now < at) {
            return false;
        }
        match open(Purpose::Control) {
            Ok(stream) => self.stream = Some(stream),
            Err(_) => self.broken = true,
        }
        self.stream.is_some()
    }

    /// When to dial next, where there is no connection.
    pub(super) fn redial_at(&self) -> Option<Instant> {
        match (self.broken, &self.stream, self.redial) {
            (true, ..) => Some(Instant::now()),
            (_, None, Some((at, _))) => Some(at),
            _ => None,
        }
    }

    pub(super) fn watch<'a>(&'a self, watched: &mut Vec<PollFd<'a>>) {
        if let Some(stream) = self.stream.as_ref().filter(|_| !self.broken) {
            let writing = if self.out.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            watched.push(PollFd::new(stream, PollFlags::IN | writing));
        }
    }

    /// Whether output may be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.stream.is_some() && !self.broken && self.out.len() < OUT_MAX
    }

    /// Sends. Without a connection it is dropped: the host asks again after a reconnect.
    pub(super) fn send(&mut self, message: &FromGuest, blob: &[u8]) {
        if self.stream.is_some() && !self.broken && frame::encode(message, blob, &mut self.out).is_err() {
            self.broken = true;
        }
    }

    /// Answers that a request failed.
    pub(super) fn fail(&mut self, request: u64, error: &std::io::Error) {
        let not_found = error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH);
        self.send(&FromGuest::Failed { request, not_found, reason: error.to_string() }, &[]);
    }

    /// The next message that has arrived.
    pub(super) fn next(&mut self) -> Option<(ToGuest, Vec<u8>)> {
        match self.decoder.decode() {
            Ok(Some((ToGuest::Welcome, blob))) => {
                self.redial = None;
                Some((ToGuest::Welcome, blob))
            }
            Ok(message) => message,
            Err(_) => {
                self.broken = true;
                None
            }
        }
    }

    /// Reads what can be read now.
    pub(super) fn read(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.broken) else { return };
        let mut bytes = [0; 64 << 10];
        // A bounded number of reads: a host that never pauses must not keep the rest waiting.
        for _ in 0..16 {
            match stream.read(&mut bytes) {
                Ok(0) => self.broken = true,
                Ok(length) => {
                    self.decoder.push(bytes.get(..length).unwrap_or_default());
                    continue;
                }
                Err(error) => self.broken = !is_pause(&error),
            }
            break;
        }
    }

    /// Writes what can be written now.
    pub(super) fn write(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.broken) else { return };
        let mut written = 0;
        while !self.broken && written < self.out.len() {
            match stream.write(self.out.get(written..).unwrap_or_default()) {
                Ok(length) => written += length,
                Err(error) if is_pause(&error) => break,
                Err(_) => self.broken = true,
            }
        }
        self.out.drain(..written);
    }
}

/// Whether an operation only has to be tried again later.
pub(super) fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

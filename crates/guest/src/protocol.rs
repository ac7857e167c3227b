//! What the guest and its host say to each other.
//!
//! The guest opens every connection. It speaks first, with a [`Hello`]. On a control connection the host answers with
//! [`ToGuest::Welcome`], and both send messages from then on; on a dial connection raw bytes follow the hello. The host
//! closes a connection whose hello it does not believe.
//!
//! `request` numbers are the host's choice: each is answered exactly once, with the same number. Output is sent as far
//! as the host has acknowledged plus [`WINDOW`], so that a slow reader holds the process back and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of this protocol. Another one is refused.
pub const PROTOCOL: u32 = 1;

/// Bytes of one stream that may be on their way without an acknowledgement.
pub const WINDOW: u64 = 256 << 10;

/// The longest file that [`ToGuest::Write`] makes.
pub const WRITE_MAX: u64 = 256 << 20;

/// The folder of the guest inside the sandbox: its program, its token and the sockets of the host.
pub const FOLDER: &str = "/.hob";

/// The socket that the guest dials, in [`FOLDER`].
pub const HOST_SOCKET: &str = "host.sock";

/// The socket that connections to [`GATEWAY_PORT`] are joined to, in [`FOLDER`].
pub const GATEWAY_SOCKET: &str = "gateway.sock";

/// The file in [`FOLDER`] with the [`Identity`] as JSON; read again at every dial.
pub const IDENTITY_FILE: &str = "identity.json";

/// The file in [`FOLDER`] with what a container is to be given before process 1 runs in it: [`Entered`] as JSON.
pub const ENTRY_FILE: &str = "entry.json";

/// The loopback port inside that leads to the gateway.
pub const GATEWAY_PORT: u16 = 3128;

/// Who the guest is, as it says in every hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The sandbox's name.
    pub sandbox: String,
    /// The owner's epoch.
    pub epoch: u64,
    /// The secret for this sandbox and epoch.
    pub token: String,
}

/// What a container is given that another program has made, before process 1 runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// The whole environment of process 1.
    pub env: BTreeMap<String, String>,
    /// The longest file that may be written.
    pub file_bytes: u64,
    /// The seccomp filters, as names in [`FOLDER`].
    pub filters: Vec<String>,
}

/// The first message on every connection, from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Who it is.
    pub identity: Identity,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Messages.
    Control,
    /// The bytes of a TCP connection that the host asked for with [`ToGuest::Dial`].
    Dial {
        /// Which.
        request: u64,
    },
}

/// From the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGuest {
    /// The hello is believed.
    Welcome,
    /// Start a command. Answered by `Started` or `Failed`.
    Exec {
        /// Answered with this.
        request: u64,
        /// The command.
        command: Exec,
    },
    /// Send output from these offsets on. Answered by `Started` or `Failed`.
    Attach {
        /// Answered with this.
        request: u64,
        /// Which process.
        exec: u64,
        /// Offsets in standard output and standard error.
        from: (u64, u64),
    },
    /// Nobody listens any more: discard its output, let it run.
    Detach {
        /// Which process.
        exec: u64,
    },
    /// The end of a process was heard; its record may go.
    Forget {
        /// Which process.
        exec: u64,
    },
    /// Tell all processes. Answered by `Processes`.
    List {
        /// Answered with this.
        request: u64,
    },
    /// Bytes for standard input follow.
    Stdin {
        /// Which process.
        exec: u64,
        /// Whether they are the last.
        end: bool,
    },
    /// The host has taken output up to this offset.
    Ack {
        /// Which process.
        exec: u64,
        /// 0: standard output or terminal; 1: standard error.
        stream: u8,
        /// The offset after the last byte taken.
        offset: u64,
    },
    /// A terminal has another size.
    Resize {
        /// Which process.
        exec: u64,
        /// Its size.
        size: (u16, u16),
    },
    /// Kill a process and all that it started. Answered by `Done` when all are gone.
    Kill {
        /// Answered with this.
        request: u64,
        /// Which process; all where absent.
        exec: Option<u64>,
    },
    /// Read a plain file. Answered by `Bytes` or `Failed`.
    Read {
        /// Answered with this.
        request: u64,
        /// Its path.
        path: String,
        /// Where to start.
        offset: u64,
        /// How much, at most [`BLOB_MAX`](crate::frame::BLOB_MAX).
        length: u64,
    },
    /// A part of a new file follows; the parts of a request come in order, and the last one puts the file in place.
    /// Answered by `Done` or `Failed`, once.
    Write {
        /// Answered with this.
        request: u64,
        /// Its path.
        path: String,
        /// Whether this is the last part.
        last: bool,
    },
    /// Tell a folder's entries. Answered by `Entries` (several, the last without `more`) or `Failed`.
    ReadDir {
        /// Answered with this.
        request: u64,
        /// Its path.
        path: String,
    },
    /// Tell what is at a path. Answered by `Stat` or `Failed`.
    Stat {
        /// Answered with this.
        request: u64,
        /// Its path.
        path: String,
    },
    /// Remove what is at a path. Answered by `Done` or `Failed`.
    Remove {
        /// Answered with this.
        request: u64,
        /// Its path.
        path: String,
    },
    /// Connect to a loopback port. Answered by `Failed`, or by a connection with [`Purpose::Dial`].
    Dial {
        /// Answered with this.
        request: u64,
        /// The port.
        port: u16,
    },
}

/// A command to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its folder.
    pub cwd: String,
    /// Environment beside the guest's own.
    pub env: BTreeMap<String, String>,
    /// Whether standard input is open.
    pub stdin: bool,
    /// After this time it is killed with all it started.
    pub timeout_ms: Option<u64>,
    /// Columns and rows of its terminal.
    pub pty: Option<(u16, u16)>,
}

/// From the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGuest {
    /// The process runs, or is attached.
    Started {
        /// Of the request.
        request: u64,
        /// The process's name.
        exec: u64,
    },
    /// It is done.
    Done {
        /// Of the request.
        request: u64,
    },
    /// It failed.
    Failed {
        /// Of the request.
        request: u64,
        /// Whether because nothing was there.
        not_found: bool,
        /// What the kernel said.
        reason: String,
    },
    /// Output follows.
    Output {
        /// Of which process.
        exec: u64,
        /// 0: standard output or terminal; 1: standard error.
        stream: u8,
        /// Offset of its first byte. A gap before it was lost while nobody was attached.
        offset: u64,
    },
    /// The guest has passed on this many bytes of standard input.
    StdinTaken {
        /// To which process.
        exec: u64,
        /// Since the start.
        offset: u64,
    },
    /// Standard input is closed at the other end.
    StdinClosed {
        /// Of which process.
        exec: u64,
    },
    /// The process ended, and all its output was sent before.
    Exited {
        /// Which.
        exec: u64,
        /// How.
        exit: Exit,
    },
    /// The processes that run, or whose end was not heard, or that left something running.
    Processes {
        /// Of the request.
        request: u64,
        /// They.
        processes: Vec<Process>,
    },
    /// Bytes of a file follow.
    Bytes {
        /// Of the request.
        request: u64,
    },
    /// Entries of a folder.
    Entries {
        /// Of the request.
        request: u64,
        /// They.
        entries: Vec<Entry>,
        /// Whether more follow.
        more: bool,
    },
    /// What is at a path.
    Stat {
        /// Of the request.
        request: u64,
        /// It.
        stat: Stat,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Whether its time limit ended it.
    pub timed_out: bool,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its name.
    pub exec: u64,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Bytes written to each stream.
    pub written: (u64, u64),
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub stat: Stat,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// When it was changed, in milliseconds since 1970.
    pub modified_ms: i64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A plain file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, a pipe or a device.
    Other,
}

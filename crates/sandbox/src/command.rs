//! Commands and files of a sandbox, as its owner asks for them and hears of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

/// A command to run in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its folder; `/workspace` when absent.
    pub cwd: Option<String>,
    /// Environment beside the sandbox's own; it wins.
    pub env: BTreeMap<String, String>,
    /// Whether standard input stays open for [`Process::write_stdin`](crate::Process::write_stdin); otherwise it reads
    /// end of file. A terminal always has it.
    pub stdin: bool,
    /// After this time it is killed with all it started.
    pub timeout: Option<Duration>,
    /// Gives it a terminal of this size; standard error then comes as standard output.
    pub pty: Option<Size>,
}

impl Command {
    /// A program with arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            cwd: None,
            env: BTreeMap::new(),
            stdin: false,
            timeout: None,
            pty: None,
        }
    }

    /// A line for the sandbox's shell: `bash -c`, or `sh -c` where there is no bash.
    pub fn shell(line: impl Into<String>) -> Self {
        let pick = "if command -v bash >/dev/null; then exec bash -c \"$1\"; else exec sh -c \"$1\"; fi";
        Self::new(["/bin/sh".to_owned(), "-c".to_owned(), pick.to_owned(), "sh".to_owned(), line.into()])
    }

    /// Sets its folder.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<String>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Keeps standard input open.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Sets its time limit.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Gives it a terminal.
    #[must_use]
    pub fn pty(mut self, size: Size) -> Self {
        self.pty = Some(size);
        self
    }
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Names a process that the owner started, within one life of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// Something that a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It wrote to standard output, or to its terminal.
    Stdout(Bytes),
    /// It wrote to standard error.
    Stderr(Bytes),
    /// It ended, and all that it wrote was told before. Processes that it left behind may still run; they end with
    /// [`Process::kill`](crate::Process::kill) or with the sandbox.
    Exited(Exit),
    /// The sandbox was lost, so nobody will know how it ended.
    Lost,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// Whether its time limit ended it.
    pub timed_out: bool,
}

/// What a process wrote in all, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output, or its terminal; cut at the limit that was asked for.
    pub stdout: Bytes,
    /// Standard error; cut at the limit that was asked for.
    pub stderr: Bytes,
    /// Whether either was cut.
    pub truncated: bool,
    /// How it ended; `None` when the sandbox was lost before.
    pub exit: Option<Exit>,
}

/// A process that the owner started, as [`Sandbox::processes`](crate::Sandbox::processes) shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its name.
    pub id: ProcessId,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How it ended, where it has ended; what it left behind may still run.
    pub exit: Option<Exit>,
    /// Bytes that it wrote so far to standard output (or its terminal) and standard error.
    pub written: (u64, u64),
}

/// A file or folder in a sandbox. Symbolic links are told as such, not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its permission bits.
    pub mode: u32,
    /// When it was changed, in milliseconds since 1970.
    pub modified_ms: i64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A plain file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, a pipe or a device.
    Other,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the folder. Names that are no UTF-8 are shown with replacement characters.
    pub name: String,
    /// What it is.
    pub stat: Stat,
}

/// What a sandbox uses now. `None` where this machine does not count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time since its start, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory in bytes, page cache included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Bytes in its layers on disk.
    pub disk_bytes: Option<u64>,
    /// How often the kernel killed a process of it because memory was full.
    pub oom_kills: Option<u64>,
}

/// Something that the owner of a sandbox should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxEvent {
    /// The kernel killed processes of it because memory was full; the count is since its start.
    OutOfMemory {
        /// Kills since the start.
        kills: u64,
    },
    /// It has written four fifths of what it may.
    DiskNearlyFull {
        /// What its layers hold.
        used_bytes: u64,
        /// What they may hold.
        limit_bytes: u64,
    },
    /// It wrote more than it may; every command of it was killed.
    DiskFull {
        /// What its layers hold.
        used_bytes: u64,
        /// What they may hold.
        limit_bytes: u64,
    },
    /// It reached its limit of processes; the kernel refused new ones.
    ProcessesFull {
        /// Refusals since the start.
        refusals: u64,
    },
}

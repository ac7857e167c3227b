//! The two pipes of an agent: lines in, lines out, both at once.
//!
//! Reading goes on while writing does, since an agent that fills its output before it reads its input would otherwise
//! wait for us as we wait for it. [`Pipes::next`] may be dropped at any await and called again: nothing is lost.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest line that an agent may write.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;
/// What may wait for an agent that does not read.
const UNREAD_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 64 << 10;

/// Where an agent writes to.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;
/// Where an agent reads from.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// Why no further line comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum PipeError {
    /// The agent closed its output, or its process is gone.
    #[error("its output ended")]
    Ended,
    /// The pipe broke.
    #[error("its pipe broke: {0}")]
    Broken(#[from] io::Error),
    /// A line is too long to be a message.
    #[error("it wrote a line of more than {} MiB", LINE_BYTES_MAX >> 20)]
    LineTooLong,
    /// It asks and asks, and reads no answer.
    #[error("it reads nothing: {} MiB wait for it", UNREAD_BYTES_MAX >> 20)]
    Unread,
}

pub(super) struct Pipes {
    output: Output,
    /// `None` once it is closed.
    input: Option<Input>,
    read: BytesMut,
    /// Bytes of `read` that hold no line break.
    searched: usize,
    unwritten: BytesMut,
    unflushed: bool,
}

impl Pipes {
    pub(super) fn new(output: Output, input: Input) -> Self {
        Self {
            output,
            input: Some(input),
            read: BytesMut::new(),
            searched: 0,
            unwritten: BytesMut::new(),
            unflushed: false,
        }
    }

    /// Puts a line in the way out. It leaves while [`Pipes::next`] is awaited.
    pub(super) fn send(&mut self, line: &str) -> Result<(), PipeError> {
        if self.unwritten.len() + line.len() > UNREAD_BYTES_MAX {
            return Err(PipeError::Unread);
        }
        self.unwritten.extend_from_slice(line.as_bytes());
        self.unwritten.extend_from_slice(b"\n");
        Ok(())
    }

    /// The agent's next line that is not empty. Bytes that are no UTF-8 are replaced.
    pub(super) async fn next(&mut self) -> Result<String, PipeError> {
        loop {
            while let Some(line) = self.take_line()? {
                if !line.is_empty() {
                    return Ok(line);
                }
            }
            self.read.reserve(READ_BYTES);
            // An input that broke is no error of its own: the agent's last words may still be in its output.
            let writes = self.input.is_some() && (!self.unwritten.is_empty() || self.unflushed);
            tokio::select! {
                read = self.output.read_buf(&mut self.read) => if read? == 0 {
                    return self.last_line();
                },
                written = write_some(self.input.as_mut(), &mut self.unwritten, &mut self.unflushed), if writes => {
                    if let Err(error) = written {
                        tracing::debug!("an agent no longer reads: {error}");
                        self.input = None;
                    }
                }
            }
        }
    }

    /// Closes the agent's input, which asks it to leave.
    pub(super) async fn close_input(&mut self) {
        if let Some(mut input) = self.input.take()
            && let Err(error) = input.shutdown().await
        {
            tracing::debug!("an agent's input was closed already: {error}");
        }
    }

    fn take_line(&mut self) -> Result<Option<String>, PipeError> {
        let Some(at) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.read.len();
            return if self.searched > LINE_BYTES_MAX { Err(PipeError::LineTooLong) } else { Ok(None) };
        };
        let line = self.read.split_to(self.searched + at);
        self.read.advance(1);
        self.searched = 0;
        if line.len() > LINE_BYTES_MAX {
            return Err(PipeError::LineTooLong);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()))
    }

    /// What an agent wrote before it died, without a line break.
    fn last_line(&mut self) -> Result<String, PipeError> {
        let rest = self.read.split();
        self.searched = 0;
        let line = String::from_utf8_lossy(&rest).trim().to_owned();
        if line.is_empty() { Err(PipeError::Ended) } else { Ok(line) }
    }
}

/// Writes what the pipe takes, or flushes what it took.
async fn write_some(input: Option<&mut Input>, unwritten: &mut BytesMut, unflushed: &mut bool) -> io::Result<()> {
    let Some(input) = input else { return Ok(()) };
    if unwritten.is_empty() {
        input.flush().await?;
        *unflushed = false;
        return Ok(());
    }
    let count = input.write(unwritten).await?;
    if count == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    unwritten.advance(count);
    *unflushed = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads all lines of an agent that writes these pieces.
    async fn lines_of(pieces: Vec<Vec<u8>>) -> (Vec<String>, PipeError) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut pipes = Pipes::new(Box::new(ours), Box::new(tokio::io::sink()));
        let write = async move {
            for piece in pieces {
                if theirs.write_all(&piece).await.is_err() {
                    return; // The reader has seen enough.
                }
            }
        };
        let read = async move {
            let mut lines = Vec::new();
            loop {
                match pipes.next().await {
                    Ok(line) => lines.push(line),
                    Err(error) => return (lines, error),
                }
            }
        };
        tokio::join!(write, read).1
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    #[tokio::test]
    async fn a_line_that_never_ends_is_an_error_and_not_memory() {
        let flood = vec![vec![b'x'; 1 << 20]; 17];
        let (lines, error) = lines_of(flood).await;
        assert!(lines.is_empty() && matches!(error, PipeError::LineTooLong), "{error}");
    }

    #[tokio::test]
    async fn what_a_dying_agent_wrote_last_is_read() {
        let (lines, error) = lines_of(vec![b"one\r\n\n\xff".to_vec()]).await;
        assert_eq!(lines, ["one", "\u{fffd}"]);
        assert!(matches!(error, PipeError::Ended));
    }

    #[tokio::test]
    async fn both_sides_may_be_full_at_once() {
        // The agent writes a megabyte before it reads; we write a megabyte before we read.
        let (our_end, agent_end) = tokio::io::duplex(1024);
        let (output, input) = tokio::io::split(our_end);
        let (mut agent_reads, mut agent_writes) = tokio::io::split(agent_end);
        let mut pipes = Pipes::new(Box::new(output), Box::new(input));
        let long = "y".repeat(1 << 20);
        pipes.send(&long).expect("it fits");
        let agent = async {
            agent_writes.write_all(format!("{}\n", "x".repeat(1 << 20)).as_bytes()).await.expect("written");
            let mut got = vec![0; (1 << 20) + 1];
            agent_reads.read_exact(&mut got).await.expect("read");
            agent_writes.write_all(b"thanks\n").await.expect("written");
            got
        };
        let ours = async { (pipes.next().await.expect("a line").len(), pipes.next().await.expect("a line")) };
        let (got, (length, thanks)) = tokio::join!(agent, ours);
        assert_eq!((got.len(), length, thanks.as_str()), ((1 << 20) + 1, 1 << 20, "thanks"));
    }

    #[tokio::test]
    async fn an_agent_that_reads_nothing_is_found_out() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut pipes = Pipes::new(Box::new(tokio::io::empty()), Box::new(ours));
        let line = "x".repeat(1 << 20);
        let sent = (0..100).map(|_| pipes.send(&line)).find(Result::is_err);
        assert!(matches!(sent, Some(Err(PipeError::Unread))));
    }

    proptest! {
        #[test]
        fn however_a_text_is_cut_its_lines_are_the_same(
            text in "[a-z€\n ]{0,200}", cuts in proptest::collection::vec(1usize..20, 0..40)
        ) {
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.to_vec());
                rest = tail;
            }
            pieces.push(rest.to_vec());
            let (lines, _) = run(lines_of(pieces));
            let expect: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(lines, expect);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            run(lines_of(vec![bytes]));
        }
    }
}

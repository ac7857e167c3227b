//! Takes a key out of whatever goes back inside, also when it is split over two chunks.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

use crate::key::Secret;

/// What stands where a key was.
const REDACTED: &[u8] = b"[redacted]";

/// Looks for one key in a stream of bytes.
///
/// Only bytes that may be the beginning of the key are held back, so that nothing else is delayed.
#[derive(Debug)]
pub(crate) struct Scrubber {
    key: Option<Secret>,
    held: BytesMut,
}

impl Scrubber {
    pub(crate) fn new(key: Option<Secret>) -> Self {
        Self { key, held: BytesMut::new() }
    }

    /// Scrubs the next chunk. The result may be empty, when all of it may be the beginning of the key.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Bytes {
        let Some(key) = self.key.as_ref().map(|key| key.expose().as_bytes()) else { return chunk };
        let chunk = if self.held.is_empty() {
            chunk
        } else {
            self.held.extend_from_slice(&chunk);
            self.held.split().freeze()
        };
        let mut clean = BytesMut::new();
        let mut rest = chunk;
        while let Some(at) = find(&rest, key) {
            clean.extend_from_slice(&rest[..at]);
            clean.extend_from_slice(REDACTED);
            rest = rest.slice(at + key.len()..);
        }
        let tail = tail_that_begins(&rest, key);
        self.held.extend_from_slice(&rest[rest.len() - tail..]);
        rest.truncate(rest.len() - tail);
        if clean.is_empty() {
            return rest;
        }
        clean.extend_from_slice(&rest);
        clean.freeze()
    }

    /// What was held back, at the end of the stream: it did not become the key.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.held.split().freeze()
    }

    /// Takes the key out of headers.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        let Some(key) = self.key.as_ref().map(|key| key.expose().as_bytes()) else { return };
        for value in headers.values_mut().filter(|value| find(value.as_bytes(), key).is_some()) {
            *value = HeaderValue::from_static("[redacted]");
        }
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    let first = word.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| byte == first) {
        let at = from + at;
        if text[at..].starts_with(word) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The length of the longest end of the text that is a beginning of the word, but not all of it.
fn tail_that_begins(text: &[u8], word: &[u8]) -> usize {
    let longest = text.len().min(word.len().saturating_sub(1));
    (1..=longest).rev().find(|length| word.starts_with(&text[text.len() - length..])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::KeyRef;

    async fn scrubber(dir: &std::path::Path) -> Scrubber {
        let path = dir.join("key");
        std::fs::write(&path, "sk-sk-1").unwrap();
        Scrubber::new(KeyRef::File(path).read().await.unwrap())
    }

    fn scrub(scrubber: &mut Scrubber, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut clean: Vec<u8> = chunks.iter().flat_map(|chunk| scrubber.push(chunk.clone().into())).collect();
        clean.extend(scrubber.finish());
        clean
    }

    proptest! {
        #[test]
        fn the_key_never_passes_and_nothing_else_is_lost(chunks in proptest::collection::vec("[sk1-]{0,9}", 0..9)) {
            let dir = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut scrubber = runtime.block_on(scrubber(dir.path()));
            let whole = chunks.concat();
            let chunks: Vec<Vec<u8>> = chunks.into_iter().map(String::into_bytes).collect();
            let clean = String::from_utf8(scrub(&mut scrubber, &chunks)).unwrap();
            prop_assert!(!clean.contains("sk-sk-1"));
            prop_assert_eq!(clean, whole.replace("sk-sk-1", "[redacted]"));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_the_key_is_not_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut scrubber = scrubber(dir.path()).await;
        assert_eq!(scrubber.push(Bytes::from_static(b"data: x\n\n")), "data: x\n\n");
        assert_eq!(scrubber.push(Bytes::from_static(b"a sk-")), "a ");
        assert_eq!(scrubber.push(Bytes::from_static(b"sk-2")), "sk-sk-2");
    }
}

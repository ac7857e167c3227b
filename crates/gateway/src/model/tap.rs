//! Reads usage from an answer as it passes, whatever its chunks, without holding it up and within bounds.

use http::{HeaderMap, header};

use crate::config::WireFormat;
use crate::model::usage::Usage;

/// The largest event of a stream, or whole answer, that is read, in bytes. `response.completed` repeats the answer.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// A tap on one answer.
#[derive(Debug)]
pub(crate) struct Tap {
    format: WireFormat,
    kind: Kind,
    /// The line of a stream, or the document, that is not complete yet.
    pending: Vec<u8>,
    /// The data lines of the event that is not complete yet.
    event: Vec<u8>,
    /// What is pending is larger than is read, and is thrown away to its end.
    overflown: bool,
    usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Events,
    Document,
    Nothing,
}

impl Tap {
    /// A tap for an answer with these headers.
    pub(crate) fn new(format: WireFormat, headers: &HeaderMap) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let kind = match media_type.as_str() {
            "text/event-stream" => Kind::Events,
            json if json == "application/json" || json.ends_with("+json") => Kind::Document,
            _ => Kind::Nothing,
        };
        Self { format, kind, pending: Vec::new(), event: Vec::new(), overflown: false, usage: None }
    }

    /// Takes the next chunk.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        match self.kind {
            Kind::Events => self.push_lines(chunk),
            Kind::Document => self.keep(chunk),
            Kind::Nothing => {}
        }
    }

    /// What is known so far. An answer that broke off may have reported a part.
    pub(crate) fn usage(&mut self) -> Option<Usage> {
        match self.kind {
            // A last line or event may lack its line break.
            Kind::Events => {
                self.end_line();
                self.end_event();
            }
            Kind::Document if !self.overflown => {
                let document = std::mem::take(&mut self.pending);
                self.read(&document);
            }
            Kind::Document | Kind::Nothing => {}
        }
        self.usage
    }

    fn push_lines(&mut self, mut chunk: &[u8]) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.keep(&chunk[..end]);
            if self.end_line() {
                self.end_event();
            }
            chunk = &chunk[end + 1..];
        }
        self.keep(chunk);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.overflown |= self.pending.len() + self.event.len() + bytes.len() > DOCUMENT_BYTES_MAX;
        if self.overflown {
            self.pending.clear();
            self.event.clear();
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Takes the pending line in. Returns whether it was the empty one that ends an event.
    fn end_line(&mut self) -> bool {
        let line = self.pending.strip_suffix(b"\r").unwrap_or(&self.pending);
        // An event that was too large ends with the next empty line; its own line was thrown away.
        let empty = line.is_empty() && !self.overflown;
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.event.is_empty() {
                self.event.push(b'\n');
            }
            self.event.extend_from_slice(data);
        }
        self.pending.clear();
        self.overflown = false;
        empty
    }

    fn end_event(&mut self) {
        let event = std::mem::take(&mut self.event);
        self.read(&event);
        self.event = event;
        self.event.clear();
    }

    fn read(&mut self, document: &[u8]) {
        if let Some(usage) = Usage::read(self.format, document) {
            self.usage = Some(self.usage.map_or(usage, |before| before.merge(usage)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tap(format: WireFormat, content_type: &str) -> Tap {
        Tap::new(format, &HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]))
    }

    const MESSAGES: &str = concat!(
        "event: message_start\r\n",
        "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\r\n\r\n",
        ": ping \u{1f642}\n\n",
        "data: {\"type\":\"content_block_delta\",\n",
        "data:  \"delta\":{\"text\":\"a \\\"usage\\\" of words\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":42}}\n\n",
        "data: [DONE]\n\n",
    );

    proptest! {
        #[test]
        fn usage_is_found_wherever_the_chunks_are_cut(cuts in proptest::collection::vec(0..MESSAGES.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, MESSAGES.len()]);
            cuts.sort_unstable();
            let mut tap = tap(WireFormat::Messages, "text/event-stream; charset=utf-8");
            for pair in cuts.windows(2) {
                tap.push(&MESSAGES.as_bytes()[pair[0]..pair[1]]);
            }
            let usage = tap.usage().unwrap();
            prop_assert_eq!((usage.input, usage.cached, usage.output), (10, 3, 42));
        }

        #[test]
        fn no_input_is_too_odd(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut tap = tap(WireFormat::Responses, "text/event-stream");
            for chunk in &chunks {
                tap.push(chunk);
            }
            tap.usage();
        }
    }

    #[test]
    fn a_stream_that_breaks_off_has_reported_a_part() {
        let mut tap = tap(WireFormat::Messages, "text/event-stream");
        tap.push(&MESSAGES.as_bytes()[..MESSAGES.len() / 2]);
        assert_eq!(tap.usage().unwrap().input, 10);
    }

    #[test]
    fn an_event_beyond_the_bound_is_left_out_and_the_next_is_read() {
        let mut tap = tap(WireFormat::ChatCompletions, "text/event-stream");
        tap.push(b"data: {\"x\":\"");
        for _ in 0..=DOCUMENT_BYTES_MAX / (1 << 20) {
            tap.push(&[b'x'; 1 << 20]);
        }
        assert!(tap.pending.capacity() <= 2 * DOCUMENT_BYTES_MAX);
        tap.push(b"\"}\n\ndata: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n");
        assert_eq!(tap.usage().unwrap().output, 2);
    }

    #[test]
    fn a_whole_answer_is_read_at_its_end() {
        let mut tap = tap(WireFormat::ChatCompletions, "application/json");
        tap.push(b"{\"usage\":{\"prompt_tokens\":5,");
        tap.push(b"\"completion_tokens\":6}}");
        assert_eq!(tap.usage().map(|usage| (usage.input, usage.output)), Some((5, 6)));
        assert_eq!(super::Tap::new(WireFormat::Messages, &HeaderMap::new()).usage(), None);
    }
}

//! Passes a provider's answer on as it comes, reads its usage, and scrubs the key from it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Response, header};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::answer::{Body, BodyError};
use crate::headers::strip_hop_by_hop;
use crate::meter::CallEnd;
use crate::model::call::Call;
use crate::model::scrub::Scrubber;
use crate::model::tap::Tap;

/// The bytes of a provider's answer.
pub(crate) type Bytestream = Pin<Box<dyn Stream<Item = Result<Bytes, reqwest::Error>> + Send>>;

/// An answer on its way in.
pub(crate) struct Passage {
    pub(crate) call: Call,
    pub(crate) tap: Tap,
    pub(crate) scrubber: Scrubber,
    /// A chunk that was waited for before the head was passed on.
    pub(crate) first: Option<Bytes>,
    pub(crate) rest: Bytestream,
    /// The longest silence.
    pub(crate) idle: Duration,
}

struct PassageBody {
    passage: Passage,
    deadline: Pin<Box<Sleep>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    done: bool,
}

impl Passage {
    /// The response for the client.
    pub(crate) fn response(self, status: http::StatusCode, mut headers: HeaderMap) -> Response<Body> {
        strip_hop_by_hop(&mut headers);
        // The length may change when the key is scrubbed, and cookies and the like are between provider and gateway.
        for name in [header::CONTENT_LENGTH, header::SET_COOKIE, header::ALT_SVC, header::STRICT_TRANSPORT_SECURITY] {
            headers.remove(name);
        }
        self.scrubber.headers(&mut headers);
        let deadline = Box::pin(sleep(self.idle));
        let closed = Box::pin(self.call.door().closed.clone().cancelled_owned());
        let body = PassageBody { passage: self, deadline, closed, done: false };
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl PassageBody {
    fn next_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(first) = self.passage.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the session's access was closed".into())));
        }
        if let Poll::Ready(item) = self.passage.rest.as_mut().poll_next(cx) {
            let next = Instant::now() + self.passage.idle;
            self.deadline.as_mut().reset(next);
            return Poll::Ready(item.map(|chunk| chunk.map_err(|error| self.broke(error.without_url().into()))));
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            let error = self.broke("the provider fell silent".into());
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Pending
    }

    fn broke(&mut self, error: BodyError) -> BodyError {
        self.passage.call.ended(CallEnd::Failed);
        error
    }

    /// Reads the usage once, when no more comes.
    fn settle(&mut self) {
        if !std::mem::replace(&mut self.done, true)
            && let Some(usage) = self.passage.tap.usage()
        {
            self.passage.call.used(usage);
        }
    }
}

impl hyper::body::Body for PassageBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while !this.done {
            match std::task::ready!(this.next_chunk(cx)) {
                Some(Ok(chunk)) => {
                    this.passage.tap.push(&chunk);
                    let clean = this.passage.scrubber.push(chunk);
                    if !clean.is_empty() {
                        this.passage.call.first_byte();
                        return Poll::Ready(Some(Ok(Frame::data(clean))));
                    }
                }
                Some(Err(error)) => {
                    this.settle();
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.settle();
                    this.passage.call.ended(CallEnd::Answered);
                    let held = this.passage.scrubber.finish();
                    if !held.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(held))));
                    }
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for PassageBody {
    /// A client that goes away has still used what was reported until then.
    fn drop(&mut self) {
        self.settle();
    }
}

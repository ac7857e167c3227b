//! Takes the gateway's measurements to the sessions' logs.
//!
//! The gateway must not wait, and the engine is opened after it: a bounded queue lies between. What does not fit is
//! counted in `/metrics`; the log loses a line of statistics then, never work.

use std::sync::Arc;
use std::time::Instant;

use hob_gateway::{Meter, ModelCall, Notice, RefusedEgress};
use hob_session::{Engine, EngineError, Refusal, SessionId, event};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::notices::Told;
use crate::metrics::Metrics;

const QUEUE_LEN: usize = 4_096;

/// The gateway's end of the queue.
pub struct QueueMeter {
    queue: mpsc::Sender<Measured>,
    metrics: Arc<Metrics>,
    told: Told,
}

/// The engine's end of the queue.
pub struct Measurements(mpsc::Receiver<Measured>);

enum Measured {
    Call(ModelCall),
    Refused(RefusedEgress),
    Noticed(Notice),
}

/// Both ends of a queue.
pub fn queue(metrics: Arc<Metrics>) -> (QueueMeter, Measurements) {
    let (queue, waiting) = mpsc::channel(QUEUE_LEN);
    (QueueMeter { queue, metrics, told: Told::default() }, Measurements(waiting))
}

impl QueueMeter {
    fn send(&self, measured: Measured) {
        if self.queue.try_send(measured).is_err() {
            self.metrics.unrecorded();
        }
    }
}

impl Meter for QueueMeter {
    fn model_call(&self, call: ModelCall) {
        self.metrics.model_call(&logged(&call));
        self.send(Measured::Call(call));
    }

    fn refused(&self, refused: RefusedEgress) {
        self.metrics.refusal();
        self.send(Measured::Refused(refused));
    }

    fn notice(&self, notice: Notice) {
        if self.told.may_tell(&notice, Instant::now()) {
            self.send(Measured::Noticed(notice));
        }
    }
}

impl Measurements {
    /// Records measurements until `stop` is cancelled, and then those that wait.
    pub async fn record(mut self, engine: Engine, stop: CancellationToken) {
        loop {
            let measured = tokio::select! {
                biased;
                measured = self.0.recv() => measured,
                // Nothing waits: `recv` was asked first.
                () = stop.cancelled() => None,
            };
            let Some(measured) = measured else { return };
            if let Err(error) = record(&engine, measured).await {
                // A session that was archived meanwhile, or taken over: the call happened, its line is not written.
                tracing::debug!("failed to {error}");
            }
        }
    }
}

async fn record(engine: &Engine, measured: Measured) -> Result<(), EngineError> {
    let session = |name: &str| SessionId::new(name).map_err(EngineError::Invalid);
    match measured {
        Measured::Call(call) => engine.record_usage(&session(&call.session)?, call.epoch, logged(&call)).await,
        Measured::Refused(refused) => {
            let refusal = Refusal { host: refused.host, port: refused.port, reason: refused.reason.to_string() };
            engine.record_refusal(&session(&refused.session)?, refused.epoch, refusal).await
        }
        Measured::Noticed(notice) => {
            engine.record_notice(&session(&notice.session)?, notice.epoch, notice.kind.to_string()).await
        }
    }
}

/// A call as the log tells it.
fn logged(call: &ModelCall) -> event::ModelCall {
    event::ModelCall {
        model: call.model.clone(),
        provider: call.provider.clone(),
        status: call.status,
        input_tokens: call.input_tokens,
        cached_tokens: call.cached_tokens,
        output_tokens: call.output_tokens,
        cost_micro_usd: call.cost_micro_usd,
        first_byte_ms: call.first_byte_ms,
        elapsed_ms: call.elapsed_ms,
        attempts: call.attempts,
    }
}

//! The record of one model call: it is told to the meter exactly once, whatever becomes of the call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::access::Door;
use crate::config::Prices;
use crate::gateway::Shared;
use crate::meter::{CallEnd, ModelCall, NoticeKind};
use crate::model::Candidate;
use crate::model::usage::Usage;

/// A call in flight. Dropping it tells the meter.
pub(crate) struct Call {
    shared: Arc<Shared>,
    door: Arc<Door>,
    metered: bool,
    started: Instant,
    first_byte: Option<Duration>,
    prices: Option<Prices>,
    record: ModelCall,
    _permit: OwnedSemaphorePermit,
}

impl Call {
    pub(crate) fn begin(
        shared: Arc<Shared>,
        door: Arc<Door>,
        metered: bool,
        permit: OwnedSemaphorePermit,
        first: Candidate<'_>,
    ) -> Self {
        let record = ModelCall {
            session: door.session.clone(),
            epoch: door.epoch,
            model: first.model.id.clone(),
            provider: first.provider.name.clone(),
            status: 0,
            end: CallEnd::Aborted,
            usage_reported: false,
            input_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            cost_micro_usd: None,
            first_byte_ms: 0,
            elapsed_ms: 0,
            attempts: 0,
        };
        let prices = first.model.price;
        Self { shared, door, metered, started: Instant::now(), first_byte: None, prices, record, _permit: permit }
    }

    pub(crate) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// A request leaves for this model.
    pub(crate) fn attempt(&mut self, candidate: Candidate<'_>) {
        self.record.model.clone_from(&candidate.model.id);
        self.record.provider.clone_from(&candidate.provider.name);
        self.prices = candidate.model.price;
        self.record.attempts += 1;
        self.record.status = 0;
    }

    /// The provider answered.
    pub(crate) fn answered(&mut self, status: u16) {
        self.record.status = status;
    }

    /// The first byte of the answer is passed on.
    pub(crate) fn first_byte(&mut self) {
        let elapsed = self.started.elapsed();
        self.first_byte.get_or_insert(elapsed);
    }

    pub(crate) fn used(&mut self, usage: Usage) {
        self.record.usage_reported = true;
        self.record.input_tokens = usage.input;
        self.record.cached_tokens = usage.cached.min(usage.input);
        self.record.output_tokens = usage.output;
        self.record.cost_micro_usd = self.prices.map(|prices| usage.cost_micro_usd(&prices));
    }

    /// How it ended. A call that is dropped without it was aborted.
    pub(crate) fn ended(&mut self, end: CallEnd) {
        self.record.end = end;
    }

    pub(crate) fn notice(&self, kind: NoticeKind) {
        self.door.notice(&self.shared, kind);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.metered {
            return;
        }
        let elapsed = self.started.elapsed();
        self.record.elapsed_ms = millis(elapsed);
        self.record.first_byte_ms = millis(self.first_byte.unwrap_or(elapsed));
        let record = self.record.clone();
        tracing::info!(
            session.id = %record.session,
            model = %record.model,
            status = record.status,
            attempts = record.attempts,
            tokens.input = record.input_tokens,
            tokens.output = record.output_tokens,
            first_byte_ms = record.first_byte_ms,
            elapsed_ms = record.elapsed_ms,
            "model call {:?}",
            record.end
        );
        self.door.tally.add_call(&record);
        self.shared.meter.model_call(record);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

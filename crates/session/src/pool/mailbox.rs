//! What there is to tell of a warm sandbox before anybody hears it: kept, and handed over in its order.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::event::EventKind;
use crate::services::Hearer;

/// Events that are kept. A service that ends again and again tells of no end; the newest count.
const KEPT_MAX: usize = 200;

/// The events of one warm sandbox.
pub(crate) struct Mailbox {
    state: Mutex<State>,
}

enum State {
    Kept { events: VecDeque<EventKind>, left_out: usize },
    HandedOver(Arc<dyn Hearer>),
}

impl Mailbox {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::Kept { events: VecDeque::new(), left_out: 0 }) }
    }

    /// Hands over what was kept, and whatever comes from now on.
    ///
    /// # Errors
    /// It could not be kept there; words for a person.
    pub(crate) async fn hand_over(&self, to: Arc<dyn Hearer>) -> Result<(), String> {
        // Held until all is told, so that nothing new comes before it.
        let mut state = self.state.lock().await;
        let before = std::mem::replace(&mut *state, State::HandedOver(Arc::clone(&to)));
        let State::Kept { events, left_out } = before else { return Ok(()) };
        if left_out > 0 {
            let text = format!("While the sandbox was kept warm, {left_out} more things happened than are told here.");
            to.hear(EventKind::Notice { text }).await?;
        }
        for event in events {
            to.hear(event).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Hearer for Mailbox {
    async fn hear(&self, event: EventKind) -> Result<(), String> {
        let mut state = self.state.lock().await;
        let to = match &mut *state {
            State::HandedOver(to) => Arc::clone(to),
            State::Kept { events, left_out } => {
                events.push_back(event);
                if events.len() > KEPT_MAX {
                    events.pop_front();
                    *left_out += 1;
                }
                return Ok(());
            }
        };
        drop(state);
        to.hear(event).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    #[async_trait]
    impl Hearer for Log {
        async fn hear(&self, event: EventKind) -> Result<(), String> {
            let EventKind::Notice { text } = event else { return Err("an event of another kind".to_owned()) };
            self.0.lock().await.push(text);
            Ok(())
        }
    }

    fn notice(n: usize) -> EventKind {
        EventKind::Notice { text: n.to_string() }
    }

    #[tokio::test]
    async fn what_was_kept_comes_first_and_the_newest_of_too_much() {
        let (mailbox, log) = (Mailbox::new(), Arc::new(Log::default()));
        for n in 0..KEPT_MAX + 2 {
            mailbox.hear(notice(n)).await.unwrap();
        }
        mailbox.hand_over(Arc::clone(&log) as _).await.unwrap();
        mailbox.hear(notice(999)).await.unwrap();
        let told = log.0.lock().await.clone();
        assert!(told[0].contains("2 more things"), "{told:?}");
        assert_eq!((told[1].as_str(), told.len()), ("2", KEPT_MAX + 2));
        assert_eq!(told.last().map(String::as_str), Some("999"));
    }
}

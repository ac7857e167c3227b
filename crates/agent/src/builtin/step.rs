//! Decides what follows an answer of the model. Pure: [`turn`](super::turn) carries it out.

use super::model::{Answer, AnswerStop};
use crate::agent::StopReason;

/// So many answers without words or tool calls end the turn.
const EMPTY_ANSWERS_MAX: u32 = 3;
/// So many answers cut by the output limit, one after the other, end the turn.
const CUT_ANSWERS_MAX: u32 = 3;
/// A call that failed so many times in the same way earns the model a hint.
const SAME_FAILURES_HINT: u32 = 3;
/// And so many times end the turn.
const SAME_FAILURES_MAX: u32 = 6;

/// What the turn has seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) requests: u32,
    pub(super) requests_max: u32,
    pub(super) empty_answers: u32,
    pub(super) cut_answers: u32,
    /// How often the last failing call has failed in the same way, one step after the other.
    pub(super) same_failures: u32,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Run the answer's tool calls, and ask again with their results.
    RunTools,
    /// Ask again, after these words to the model.
    Nudge(&'static str),
    /// Ask again.
    Ask,
    /// The turn is over; the words, if any, tell the participants why.
    End(StopReason, Option<String>),
}

impl Progress {
    /// Takes an answer into account and says what follows it.
    pub(super) fn after_answer(&mut self, answer: &Answer) -> Next {
        let empty = answer.calls.is_empty() && answer.text.trim().is_empty();
        let cut = answer.stop == AnswerStop::OutputLimit;
        self.empty_answers = if empty && !cut { self.empty_answers + 1 } else { 0 };
        self.cut_answers = if cut { self.cut_answers + 1 } else { 0 };
        match answer.stop {
            AnswerStop::Refused => Next::End(StopReason::Refusal, None),
            AnswerStop::OutputLimit if self.cut_answers >= CUT_ANSWERS_MAX => Next::End(
                StopReason::MaxTokens,
                Some(format!("{CUT_ANSWERS_MAX} answers in a row reached the output limit")),
            ),
            _ if !answer.calls.is_empty() => Next::RunTools,
            AnswerStop::OutputLimit => self.unless_spent(Next::Nudge(
                "Your answer reached the output limit and was cut. Go on from there, in smaller pieces.",
            )),
            AnswerStop::Done if empty && self.empty_answers >= EMPTY_ANSWERS_MAX => Next::End(
                StopReason::EndTurn,
                Some(format!("the model answered {EMPTY_ANSWERS_MAX} times with nothing; the turn ends here")),
            ),
            AnswerStop::Done if empty => self.unless_spent(Next::Nudge(
                "Your answer was empty. Go on with the task, or call finish with a summary when it is done.",
            )),
            AnswerStop::Done => Next::End(StopReason::EndTurn, None),
        }
    }

    /// Says what follows when the answer's tool calls have run.
    pub(super) fn after_tools(&self) -> Next {
        if self.same_failures >= SAME_FAILURES_MAX {
            return Next::End(
                StopReason::MaxTurnRequests,
                Some(format!(
                    "the same tool call failed {} times in the same way; the turn ends here",
                    self.same_failures
                )),
            );
        }
        if self.same_failures > 0 && self.same_failures.is_multiple_of(SAME_FAILURES_HINT) {
            return self.unless_spent(Next::Nudge(
                "This very call has failed several times in the same way. Stop repeating it: look at the error, check \
                 your assumptions by reading the files, and take another way. Ask the person if you are stuck.",
            ));
        }
        self.unless_spent(Next::Ask)
    }

    fn unless_spent(&self, next: Next) -> Next {
        if self.requests < self.requests_max {
            return next;
        }
        let said = format!("the limit of {} model requests in one turn is reached", self.requests_max);
        Next::End(StopReason::MaxTurnRequests, Some(said))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::model::AskedCall;

    fn progress() -> Progress {
        Progress { requests: 1, requests_max: 10, ..Progress::default() }
    }

    fn said(text: &str) -> Answer {
        Answer { text: text.to_owned(), ..Answer::default() }
    }

    fn calling() -> Answer {
        let call = AskedCall { name: "list".to_owned(), input: json!({}), signatures: Vec::new() };
        Answer { calls: vec![call], ..Answer::default() }
    }

    #[test]
    fn words_end_the_turn_and_calls_go_on() {
        assert_eq!(progress().after_answer(&said("done")), Next::End(StopReason::EndTurn, None));
        assert_eq!(progress().after_answer(&calling()), Next::RunTools);
        assert_eq!(progress().after_tools(), Next::Ask);
    }

    #[test]
    fn a_cut_answer_is_asked_to_go_on_until_it_is_cut_three_times() {
        let mut progress = progress();
        let cut = Answer { stop: AnswerStop::OutputLimit, ..said("half") };
        assert!(matches!(progress.after_answer(&cut), Next::Nudge(_)));
        assert!(matches!(progress.after_answer(&cut), Next::Nudge(_)));
        assert!(matches!(progress.after_answer(&cut), Next::End(StopReason::MaxTokens, Some(_))));
    }

    #[test]
    fn a_cut_answer_still_runs_the_calls_that_it_has() {
        let cut = Answer { stop: AnswerStop::OutputLimit, ..calling() };
        assert_eq!(progress().after_answer(&cut), Next::RunTools);
    }

    #[test]
    fn nothing_is_asked_for_again_twice() {
        let mut progress = progress();
        assert!(matches!(progress.after_answer(&said(" ")), Next::Nudge(_)));
        assert!(matches!(progress.after_answer(&said("")), Next::Nudge(_)));
        assert!(matches!(progress.after_answer(&said("")), Next::End(StopReason::EndTurn, Some(_))));
    }

    #[test]
    fn words_between_empty_answers_start_the_count_anew() {
        let mut progress = progress();
        progress.after_answer(&said(""));
        progress.after_answer(&calling());
        assert!(matches!(progress.after_answer(&said("")), Next::Nudge(_)));
        assert_eq!(progress.empty_answers, 1);
    }

    #[test]
    fn a_failure_repeated_is_hinted_at_and_then_ends_the_turn() {
        let after = |same_failures| Progress { same_failures, ..progress() }.after_tools();
        assert_eq!(after(1), Next::Ask);
        assert!(matches!(after(3), Next::Nudge(_)));
        assert_eq!(after(4), Next::Ask);
        assert!(matches!(after(6), Next::End(StopReason::MaxTurnRequests, Some(_))));
    }

    #[test]
    fn the_limit_of_requests_ends_the_turn() {
        let spent = Progress { requests: 10, ..progress() };
        assert!(matches!(spent.after_tools(), Next::End(StopReason::MaxTurnRequests, Some(_))));
    }

    #[test]
    fn a_refusal_ends_the_turn() {
        let refused = Answer { stop: AnswerStop::Refused, ..said("no") };
        assert_eq!(progress().after_answer(&refused), Next::End(StopReason::Refusal, None));
    }
}

//! Every rule of a session, walked along the drawing and then at random.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hob_agent::{Author, PermissionOption, PermissionOptionKind, ToolCall, ToolKind, ToolStatus};
use hob_session::decide::{Denial, Input, Rules, Step, TurnReport, decide};
use hob_session::event::TurnOutcome;
use hob_session::fold::SessionState;
use hob_session::{EventKind, QueuedPrompt, SessionId, State};
use proptest::prelude::*;

const RULES: Rules = Rules { queue_len_max: 3, suspend_after_ms: 1_000 };

/// A session whose steps are carried out by hand, with the log that it leaves.
struct World {
    session: SessionState,
    log: Vec<EventKind>,
    now_ms: u64,
    turns: u32,
    prompts: u32,
    /// What a driver would have under way.
    starting: bool,
    suspending: bool,
    withdrawing: bool,
    turn: Option<String>,
    released: Vec<String>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            session: SessionState::new(SessionId::new("s").unwrap(), 0),
            log: Vec::new(),
            now_ms: 0,
            turns: 0,
            prompts: 0,
            starting: false,
            suspending: false,
            withdrawing: false,
            turn: None,
            released: Vec::new(),
        };
        let created = EventKind::SessionCreated {
            repository: "/r".into(),
            base: None,
            agent: "hob".into(),
            model: "m".into(),
            author: ada(),
        };
        world.session.apply(0, &created);
        world.log.push(created);
        world.give(Input::Opened { alive: false }).unwrap();
        world
    }

    /// An idle session with a sandbox.
    fn idle() -> Self {
        let mut world = Self::new();
        world.sandbox_ready();
        world
    }

    fn state(&self) -> State {
        self.session.summary.state
    }

    fn give(&mut self, input: Input) -> Result<(), Denial> {
        self.once(input)?;
        loop {
            self.turns += 1;
            let before = self.log.len();
            self.once(Input::Next { turn_id: format!("turn-{}", self.turns) }).unwrap();
            if self.log.len() == before {
                return Ok(());
            }
        }
    }

    fn once(&mut self, input: Input) -> Result<(), Denial> {
        let decision = decide(&self.session, &RULES, input, self.now_ms)?;
        for event in decision.record {
            if let EventKind::StateChanged { from, to, .. } = &event {
                assert_eq!(*from, self.state(), "{:#?}", self.log);
                assert!(from.leads_to(*to), "the drawing has no arrow from {from:?} to {to:?}");
            }
            self.session.apply(self.now_ms, &event);
            self.log.push(event);
        }
        for step in decision.then {
            self.session.note(&step);
            self.carry_out(step);
        }
        Ok(())
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::StartSandbox => {
                assert!(!self.starting, "two starts at once");
                self.starting = true;
            }
            Step::WithdrawStart => self.withdrawing = self.starting,
            Step::SuspendSandbox => self.suspending = true,
            Step::RunTurn => {
                assert_eq!(self.turn, None, "two turns at once");
                self.turn = self.session.turn.as_ref().map(|turn| turn.turn_id.clone());
            }
            Step::Release { request_id, .. } => self.released.push(request_id),
            Step::StopTurn(_) => assert!(self.turn.is_some(), "a stop with no turn"),
            Step::DestroySandbox | Step::RememberWant => {}
        }
    }

    fn prompt(&mut self) -> Result<String, Denial> {
        self.prompts += 1;
        let prompt_id = format!("prompt-{}", self.prompts);
        let author = ada();
        let prompt =
            QueuedPrompt { prompt_id: prompt_id.clone(), author, text: "x".into(), attachments: vec![], model: None };
        self.give(Input::Prompt(prompt)).map(|()| prompt_id)
    }

    fn sandbox_ready(&mut self) {
        self.withdrawing = false;
        if std::mem::take(&mut self.starting) {
            self.give(Input::SandboxReady).unwrap();
        }
    }

    /// The start waits for a place.
    fn stand(&mut self) {
        if self.starting {
            let event = EventKind::WaitingForPlace { position: 3, of: 7 };
            self.session.apply(self.now_ms, &event);
            self.log.push(event);
        }
    }

    fn withdrawn(&mut self) {
        if std::mem::take(&mut self.withdrawing) && std::mem::take(&mut self.starting) {
            self.give(Input::Withdrawn).unwrap();
        }
    }

    fn sandbox_failed(&mut self) {
        self.withdrawing = false;
        if std::mem::take(&mut self.starting) {
            self.give(Input::SandboxFailed { reason: "no".into() }).unwrap();
        }
    }

    fn suspended(&mut self) {
        if std::mem::take(&mut self.suspending) {
            self.give(Input::Suspended).unwrap();
        }
    }

    fn finish(&mut self, outcome: TurnOutcome) {
        if let Some(turn_id) = self.turn.take() {
            let report = TurnReport { turn_id, outcome, stop_reason: None, message: "m".into() };
            self.give(Input::TurnFinished(report)).unwrap();
        }
    }

    fn ask_permission(&mut self) -> Option<String> {
        self.turn.as_ref()?;
        let request_id = format!("request-{}", self.log.len());
        let option = PermissionOption { id: "yes".into(), name: "Yes".into(), kind: PermissionOptionKind::AllowOnce };
        let tool_call = ToolCall {
            id: "c".into(),
            name: "shell".into(),
            title: "ls".into(),
            kind: ToolKind::Execute,
            status: ToolStatus::Pending,
            input: serde_json::Value::Null,
            content: vec![],
            locations: vec![],
        };
        let event = EventKind::PermissionRequested { request_id: request_id.clone(), tool_call, options: vec![option] };
        self.session.apply(self.now_ms, &event);
        self.log.push(event);
        Some(request_id)
    }

    /// The engine dies and the next one takes over, with what the log says and no more.
    fn restart(&mut self, alive: bool) {
        let mut session = SessionState::new(SessionId::new("s").unwrap(), 0);
        for event in &self.log {
            session.apply(self.now_ms, event);
        }
        (self.session, self.starting, self.suspending, self.turn) = (session, false, false, None);
        self.withdrawing = false;
        self.give(Input::Opened { alive }).unwrap();
    }

    fn outcomes(&self) -> Vec<TurnOutcome> {
        let ended = self.log.iter().filter_map(|event| match event {
            EventKind::TurnEnded { outcome, .. } => Some(*outcome),
            _ => None,
        });
        ended.collect()
    }
}

fn ada() -> Author {
    Author { name: "Ada".into(), email: "ada@example.org".into() }
}

#[test]
fn every_arrow_of_the_drawing_is_walked() {
    let mut walked = BTreeSet::new();
    let mut walk = |steps: &dyn Fn(&mut World)| {
        let mut world = World::new();
        steps(&mut world);
        for event in &world.log {
            if let EventKind::StateChanged { from, to, .. } = event {
                walked.insert(format!("{from:?} -> {to:?}"));
            }
        }
    };
    walk(&|world| {
        world.sandbox_ready();
        world.prompt().unwrap();
        world.finish(TurnOutcome::Done);
        world.now_ms = 1_000;
        world.give(Input::Tick { in_use: false }).unwrap();
        world.suspended();
        world.prompt().unwrap();
        world.sandbox_ready();
        world.give(Input::SandboxLost { reason: "oom".into() }).unwrap();
    });
    walk(&|world| {
        world.sandbox_failed();
        world.prompt().unwrap();
    });
    walk(&|world| {
        world.prompt().unwrap();
        world.stand();
        world.finish(TurnOutcome::Done);
        world.withdrawn();
    });
    walk(&|world| {
        world.sandbox_ready();
        world.give(Input::SandboxLost { reason: "oom".into() }).unwrap();
    });
    let drawn: BTreeSet<String> = State::ARROWS.iter().map(|(from, to)| format!("{from:?} -> {to:?}")).collect();
    assert_eq!(walked, drawn);
}

#[test]
fn archive_leads_from_every_state_to_the_end() {
    let worlds: [(&dyn Fn() -> World, State); 6] = [
        (&World::new, State::Starting),
        (&World::idle, State::Idle),
        (&|| with(World::idle(), |w| drop(w.prompt())), State::Running),
        (&|| with(World::new(), World::sandbox_failed), State::Failed),
        (&|| with(World::idle(), put_away), State::Suspending),
        (&|| with(with(World::idle(), put_away), World::suspended), State::Suspended),
    ];
    for (make, state) in worlds {
        let mut world = make();
        assert_eq!(world.state(), state);
        world.give(Input::Archive { by: ada() }).unwrap();
        assert_eq!(world.prompt(), Err(Denial::Archived), "from {state:?}");
        world.finish(TurnOutcome::Done);
        assert_eq!(world.state(), State::Archived);
    }
}

fn put_away(world: &mut World) {
    world.now_ms = 1_000;
    world.give(Input::Tick { in_use: false }).unwrap();
}

fn with(mut world: World, change: impl FnOnce(&mut World)) -> World {
    change(&mut world);
    world
}

#[test]
fn the_agent_is_prompted_while_the_sandbox_is_still_starting() {
    let mut world = World::new();
    world.prompt().unwrap();
    assert_eq!((world.state(), world.turn.is_some()), (State::Starting, true));
    world.sandbox_ready();
    assert_eq!(world.state(), State::Running);
}

#[test]
fn a_start_that_fails_ends_the_turn_and_the_next_prompt_tries_again() {
    let mut world = World::new();
    world.prompt().unwrap();
    world.prompt().unwrap();
    world.sandbox_failed();
    assert_eq!(world.state(), State::Failed);
    world.finish(TurnOutcome::Done);
    assert_eq!(world.outcomes(), [TurnOutcome::Failed], "the agent's own word does not count");
    assert_eq!(world.state(), State::Starting);
    world.sandbox_ready();
    world.finish(TurnOutcome::Done);
    assert_eq!(world.outcomes(), [TurnOutcome::Failed, TurnOutcome::Done]);
}

#[test]
fn whoever_needs_the_sandbox_while_it_is_put_away_gets_it_back() {
    let mut world = with(World::idle(), put_away);
    world.give(Input::Want).unwrap();
    world.suspended();
    assert!(world.starting && world.state() == State::Starting);
}

#[test]
fn a_sandbox_in_use_or_wanted_is_not_put_away() {
    let mut world = World::idle();
    world.now_ms = 5_000;
    world.give(Input::Tick { in_use: true }).unwrap();
    assert_eq!(world.state(), State::Idle);
}

#[test]
fn a_stop_takes_back_a_start_that_waits_for_its_place() {
    let mut world = with(World::new(), |world| drop(world.prompt()));
    world.stand();
    assert_eq!(world.session.summary.place.map(|place| (place.position, place.of)), Some((3, 7)));
    world.give(Input::Stop { by: ada() }).unwrap();
    world.finish(TurnOutcome::Stopped);
    assert!(world.withdrawing);
    world.withdrawn();
    assert_eq!((world.state(), world.session.summary.place), (State::Suspended, None));
}

#[test]
fn a_start_that_somebody_wants_after_all_is_not_taken_back() {
    let mut world = with(World::new(), |world| drop(world.prompt()));
    world.stand();
    world.finish(TurnOutcome::Done);
    world.give(Input::Want).unwrap();
    world.withdrawn();
    assert!(world.starting && world.state() == State::Starting);
    world.sandbox_ready();
    assert!(world.session.rests(), "and it can be put away again");
}

#[test]
fn an_idle_sandbox_makes_room_for_others_unless_it_is_in_use() {
    let mut world = World::idle();
    world.give(Input::Spare { in_use: true }).unwrap();
    assert_eq!(world.state(), State::Idle);
    world.give(Input::Spare { in_use: false }).unwrap();
    assert!(world.suspending && world.state() == State::Suspending);
}

#[test]
fn an_open_request_is_told_as_unanswered_before_its_turn_ends() {
    let mut world = with(World::idle(), |world| drop(world.prompt()));
    let request_id = world.ask_permission().unwrap();
    let unknown = Input::AnswerPermission { request_id, option_id: "no".into(), by: ada() };
    assert!(matches!(world.give(unknown), Err(Denial::NoSuchRequest { .. })));
    world.give(Input::Stop { by: ada() }).unwrap();
    world.finish(TurnOutcome::Done);
    let tail: Vec<_> = world.log.iter().rev().take(3).collect();
    assert!(matches!(tail[2], EventKind::PermissionResolved { option_id: None, .. }), "{tail:#?}");
    assert!(matches!(tail[1], EventKind::TurnEnded { outcome: TurnOutcome::Stopped, .. }));
}

#[derive(Debug, Clone, Copy)]
enum Move {
    Prompt,
    Cancel(u8),
    Stop,
    Archive,
    Want,
    Ready,
    StartFails,
    Lost,
    Suspended,
    Finish,
    Ask,
    Answer,
    Expire,
    Wait(u16, bool),
    Stand,
    Withdrawn,
    Spare(bool),
    Restart(bool),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => Just(Move::Prompt),
        2 => any::<u8>().prop_map(Move::Cancel),
        2 => Just(Move::Stop),
        1 => Just(Move::Archive),
        2 => Just(Move::Want),
        5 => Just(Move::Ready),
        1 => Just(Move::StartFails),
        1 => Just(Move::Lost),
        3 => Just(Move::Suspended),
        6 => Just(Move::Finish),
        2 => Just(Move::Ask),
        2 => Just(Move::Answer),
        2 => Just(Move::Expire),
        3 => (any::<u16>(), any::<bool>()).prop_map(|(ms, in_use)| Move::Wait(ms, in_use)),
        2 => Just(Move::Stand),
        2 => Just(Move::Withdrawn),
        1 => any::<bool>().prop_map(Move::Spare),
        2 => any::<bool>().prop_map(Move::Restart),
    ];
    proptest::collection::vec(one, 1..80)
}

fn make(world: &mut World, step: Move) {
    match step {
        Move::Prompt => drop(world.prompt()),
        Move::Cancel(at) => {
            let prompt_id = format!("prompt-{}", u32::from(at) % (world.prompts + 1));
            world.give(Input::CancelPrompt { prompt_id, by: ada() }).ok();
        }
        Move::Stop => world.give(Input::Stop { by: ada() }).unwrap(),
        Move::Archive => world.give(Input::Archive { by: ada() }).unwrap(),
        Move::Want => drop(world.give(Input::Want)),
        Move::Ready => world.sandbox_ready(),
        Move::StartFails => world.sandbox_failed(),
        Move::Lost => world.give(Input::SandboxLost { reason: "gone".into() }).unwrap(),
        Move::Suspended => world.suspended(),
        Move::Finish => world.finish(TurnOutcome::Done),
        Move::Ask => drop(world.ask_permission()),
        Move::Answer => {
            if let Some(request_id) = world.session.permissions.keys().next().cloned() {
                world.give(Input::AnswerPermission { request_id, option_id: "yes".into(), by: ada() }).unwrap();
            }
        }
        Move::Expire => {
            if let Some(request_id) = world.session.permissions.keys().next().cloned() {
                world.give(Input::Expired { request_id }).unwrap();
            }
        }
        Move::Wait(ms, in_use) => {
            world.now_ms += u64::from(ms);
            world.give(Input::Tick { in_use }).unwrap();
        }
        Move::Stand => world.stand(),
        Move::Withdrawn => world.withdrawn(),
        Move::Spare(in_use) => world.give(Input::Spare { in_use }).unwrap(),
        Move::Restart(alive) => world.restart(alive),
    }
}

/// What must hold of every log.
fn check(log: &[EventKind]) {
    let mut open: Option<&str> = None;
    let mut started = BTreeMap::new();
    let mut waiting: VecDeque<&str> = VecDeque::new();
    let mut archived = false;
    for event in log {
        match event {
            EventKind::PromptQueued { prompt_id, .. } => {
                assert!(!archived);
                waiting.push_back(prompt_id);
            }
            EventKind::PromptCancelled { prompt_id, .. } => {
                assert!(!started.contains_key(prompt_id.as_str()), "cancelled after its start");
                waiting.retain(|waiting| waiting != prompt_id);
            }
            EventKind::TurnStarted { turn_id, prompt_id } => {
                assert!(open.is_none(), "two turns at once");
                assert!(!archived);
                assert_eq!(waiting.pop_front(), Some(prompt_id.as_str()), "out of order");
                assert!(started.insert(prompt_id.as_str(), turn_id).is_none(), "a prompt runs twice");
                open = Some(turn_id);
            }
            EventKind::TurnEnded { turn_id, .. } => {
                assert_eq!(open.take(), Some(turn_id.as_str()), "an end without a start, or a second one");
            }
            EventKind::PermissionRequested { .. } => assert!(open.is_some()),
            EventKind::Archived { .. } => {
                assert!(!archived && open.is_none() && waiting.is_empty());
                archived = true;
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_log_keeps_its_promises(moves in moves()) {
        let mut world = World::new();
        for step in moves {
            make(&mut world, step);
            check(&world.log);
            assert!(world.session.queue.len() <= RULES.queue_len_max);
            assert_eq!(world.session.turn.is_some(), world.turn.is_some());
        }
        // Left alone, everything that was accepted comes to its end.
        for _ in 0..50 {
            make(&mut world, Move::Suspended);
            make(&mut world, Move::Ready);
            make(&mut world, Move::Finish);
        }
        check(&world.log);
        assert!(world.session.turn.is_none() && world.session.queue.is_empty(), "{:?}: {:#?}", world.state(), world.log);
    }

    #[test]
    fn the_state_is_what_the_log_says(moves in moves()) {
        let mut world = World::new();
        for step in moves {
            make(&mut world, step);
        }
        let mut read = SessionState::new(SessionId::new("s").unwrap(), 0);
        for event in &world.log {
            read.apply(0, event);
        }
        prop_assert_eq!(read.summary.state, world.session.summary.state);
        prop_assert_eq!(read.queue, world.session.queue);
        prop_assert_eq!(read.archiving, world.session.archiving);
        prop_assert_eq!(read.permissions, world.session.permissions);
        prop_assert_eq!(read.turn.map(|turn| turn.turn_id), world.session.turn.map(|turn| turn.turn_id));
    }
}

//! IDs of messages and tool calls: counted, never random.

/// Gives out IDs that are unique in the session as long as the prefix is.
#[derive(Debug)]
pub(super) struct Ids {
    prefix: String,
    next: u64,
}

impl Ids {
    /// Providers take letters, digits, `_` and `-` in the ID of a call, and no more than 64 of them.
    pub(super) fn new(prefix: &str) -> Self {
        let allowed = |char: &char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
        Self { prefix: prefix.chars().filter(allowed).take(32).collect(), next: 1 }
    }

    pub(super) fn call(&mut self) -> String {
        self.id("call")
    }

    pub(super) fn message(&mut self) -> String {
        self.id("msg")
    }

    fn id(&mut self, kind: &str) -> String {
        let number = self.next;
        self.next += 1;
        if self.prefix.is_empty() { format!("{kind}_{number}") } else { format!("{kind}_{}_{number}", self.prefix) }
    }
}

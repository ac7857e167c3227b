//! What every command in a sandbox finds set.

use std::collections::BTreeMap;

use crate::environment::Environment;

/// Git trusts the checkout, whoever owns its files inside; nothing waits for a person, and no tool advertises its next
/// version in what the agent reads.
const OURS: [(&str, &str); 10] = [
    ("GIT_CONFIG_COUNT", "1"),
    ("GIT_CONFIG_KEY_0", "safe.directory"),
    ("GIT_CONFIG_VALUE_0", "*"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_PAGER", "cat"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("NO_UPDATE_NOTIFIER", "1"),
    ("npm_config_update_notifier", "false"),
    ("npm_config_fund", "false"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
];

/// The variables of every command: the base's, over them the repository's, over them Hob's own.
pub(crate) fn variables(environment: &Environment, base: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = OURS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    base.clone().into_iter().chain(environment.env.clone()).chain(ours).collect()
}

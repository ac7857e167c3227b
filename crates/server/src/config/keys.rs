//! The table of all keys of `hob.toml`: what the reference is generated from, and what a wrong key is compared with.

use std::fmt::Write as _;

use hob_session::keys::{Key, TABLE_HEAD, key};

/// All keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("server.listen", "address", "`\"127.0.0.1:4660\"`", "Where HTTP is served. Port 0 takes any free one."),
    key(
        "server.data_dir",
        "path",
        "the user's data folder",
        "Where sessions, checkouts, agents and logs are kept. One server at a time uses it.",
    ),
    key(
        "server.hosts",
        "list of names",
        "`[]`",
        "Further names under which browsers reach the server. `localhost` and addresses always work; any other `Host` is refused, since a page elsewhere could have pointed its own name here.",
    ),
    key(
        "server.shutdown_after",
        "time",
        "`\"10s\"`",
        "How long a shutdown waits for open requests. Sandboxes live on in any case.",
    ),
    key("owner.name", "text", "`git config user.name`", "Author of commits when a request does not name a person."),
    key("owner.email", "text", "`git config user.email`", "The author's address."),
    key("session.agent", "name", "`\"hob\"`", "The agent when a request names none. `hob agent list` shows them."),
    key("session.model", "model ID", "the first one", "The model when a request names none."),
    key(
        "session.base_checks",
        "`\"always\"` or `\"when_red\"`",
        "`\"always\"`",
        "When the checks run on the base commit, so that what was red before is not blamed on the change.",
    ),
    key(
        "session.max_rounds",
        "number",
        "`3`",
        "How often red checks go back to the agent, where `.hob/environment.toml` does not say.",
    ),
    key(
        "session.permissions",
        "`\"allow\"` or `\"ask\"`",
        "`\"allow\"`",
        "Who answers an agent's permission requests. `allow` grants and records them: the sandbox is the boundary.",
    ),
    key(
        "session.push",
        "`\"auto\"` or `\"never\"`",
        "`\"auto\"`",
        "Whether finished branches are pushed to the repository's origin: `auto` where that is a URL or a bare repository, and never to the base branch.",
    ),
    key("session.agent_idle", "time", "`\"15m\"`", "Longest silence of an agent in a turn."),
    key("session.answer_deadline", "time", "`\"10m\"`", "How long an agent waits for a person's answer."),
    key("session.suspend_after", "time", "`\"10m\"`", "How long a sandbox stays up with nothing to do."),
    key(
        "session.turn_snapshot_max",
        "size",
        "`\"128MiB\"`",
        "The end of a turn is followed by a snapshot as long as the sandbox has written no more than this since it was started. `\"0\"` takes none.",
    ),
    key(
        "sandbox.provider",
        "`\"local\"` or `\"docker\"`",
        "`\"local\"`",
        "What makes sandboxes: `local` by namespaces of this machine, without a daemon; `docker` by a Docker or Podman daemon on it, as containers.",
    ),
    key("sandbox.cpus", "number", "`2.0`", "Processor time, in cores."),
    key("sandbox.memory", "size", "`\"4GiB\"`", "Memory, page cache included."),
    key("sandbox.processes", "number", "`4096`", "Processes and threads at once."),
    key("sandbox.disk", "size", "`\"10GiB\"`", "What a sandbox may write."),
    key("sandbox.start_deadline", "time", "`\"1m\"`", "Longest wait for a sandbox to come up."),
    key(
        "sandbox.docker.socket",
        "path",
        "`\"/var/run/docker.sock\"`",
        "The daemon's unix socket, where `sandbox.provider` is `\"docker\"`. Podman's is `/run/podman/podman.sock`, or `podman/podman.sock` in `$XDG_RUNTIME_DIR`.",
    ),
    key(
        "sandbox.docker.runtime",
        "name",
        "the daemon's own",
        "The runtime of the containers, as the daemon knows it: `\"runsc\"` for gVisor (registered with `--host-uds=create`), or one of Kata's.",
    ),
    key(
        "sandbox.docker.image",
        "name",
        "none",
        "The image that the daemon has for repositories whose environment names no base. It stands for this machine's own system, which a container cannot have, and needs git. Without it such repositories are refused.",
    ),
    key(
        "capacity.sandboxes",
        "number",
        "none",
        "Sandboxes that run at once. Without it, as many as memory and processor time allow.",
    ),
    key(
        "capacity.memory",
        "size",
        "twice the machine's",
        "Memory that may be promised to sandboxes that run. Each counts with its `sandbox.memory`, or with less where its repository asks for less. Who finds no room waits in a queue, fair between people; idle sandboxes are put away early while somebody waits.",
    ),
    key(
        "capacity.cpus",
        "number",
        "eight times the machine's",
        "Processor time that may be promised likewise, in cores: agents wait for models most of the time.",
    ),
    key("capacity.wait", "time", "`\"1h\"`", "Longest wait for a place."),
    key(
        "pool.sandboxes",
        "number",
        "`4`",
        "Sandboxes that are kept warm for sessions to come, in all; 0 keeps none. They never hold a place that somebody waits for.",
    ),
    key("pool.per_repository", "number", "`2`", "Those of one repository, also where its `pool` asks for more."),
    key("pool.per_person", "number", "`2`", "How many one person may have made warm by beginning to write prompts."),
    key("pool.typing_for", "time", "`\"2m\"`", "How long such a one waits after the last sign of writing."),
    key(
        "pool.reserve",
        "size",
        "an eighth of the machine's",
        "Memory that the machine keeps available: with less of it, the pool is drained.",
    ),
    key(
        "images.registries",
        "list",
        "the large public ones",
        "Registries that images of environments are pulled from, such as `docker.io`, beside those in `[registries]`. The server itself reaches out for them, so repositories cannot add any.",
    ),
    key("images.at_once", "number", "`2`", "Images that are built at once."),
    key("images.build_deadline", "time", "`\"1h\"`", "Longest time to build one."),
    key(
        "images.rebuild_every",
        "time",
        "`\"30m\"`",
        "How often it is looked whether a branch that is used has moved on; its image is then built again on top of the one before.",
    ),
    key("images.keep_for", "time", "`\"14d\"`", "How long an image stays that no session starts from."),
    key(
        "images.size",
        "size",
        "`\"100GiB\"`",
        "What all images together may take; the one that was not used for longest goes first. Sessions keep what they need of it.",
    ),
    key(
        "registries.NAME.username",
        "text",
        "required",
        "The name to sign in with at the registry of that name, such as `\"ghcr.io\"`.",
    ),
    key(
        "registries.NAME.password",
        "`env:NAME` or `file:PATH`",
        "required",
        "Where the password or token lies; it is read when the server starts, and never enters a sandbox.",
    ),
    key(
        "egress.registries",
        "true or false",
        "`true`",
        "Whether the package registries of cargo, npm, PyPI, Debian and Go are allowed.",
    ),
    key("egress.allow", "list", "`[]`", "Further hosts that sandboxes may reach: `host`, `host:port` or `*.domain`."),
    key(
        "egress.private",
        "list",
        "`[]`",
        "Further hosts, written likewise, that may lead to addresses of private networks: registries on an intranet.",
    ),
    key("egress.forge", "true or false", "`true`", "Whether a session may reach the host of its repository's URL."),
    key(
        "egress.repositories_may_add",
        "true or false",
        "`true`",
        "Whether the `egress` of a repository's `.hob/environment.toml`, as of the commit that a session starts from, is added for its sessions. What it names never leads to private addresses. Say `false` where those who push to a repository are trusted less than those who run the server.",
    ),
    key(
        "egress.proxy",
        "URL",
        "none",
        "A proxy that this machine itself must use, as `http://host:port`. The environment's is never taken unasked.",
    ),
    key(
        "providers.NAME.kind",
        "`\"anthropic\"`, `\"openai\"` or `\"gemini\"`",
        "required",
        "Whose interface it speaks. Most local servers speak OpenAI's.",
    ),
    key(
        "providers.NAME.base_url",
        "URL",
        "the vendor's own",
        "Where it is; for a local server, something like `http://127.0.0.1:11434/v1`.",
    ),
    key(
        "providers.NAME.key",
        "`env:NAME` or `file:PATH`",
        "none",
        "Where its key lies. The key itself is never written here, and never enters a sandbox.",
    ),
    key("models.ID.provider", "name", "required", "The provider that serves it."),
    key("models.ID.name", "text", "the ID", "Its name at the provider."),
    key("models.ID.context_tokens", "number", "`128000`", "Tokens that fit its window."),
    key("models.ID.max_output_tokens", "number", "`8192`", "Tokens of its longest answer."),
    key(
        "models.ID.fallback",
        "list of model IDs",
        "`[]`",
        "Models that stand in, in this order, when the provider fails.",
    ),
    key(
        "models.ID.input_usd",
        "number",
        "none",
        "Price of a million tokens read, in US dollars. Without it, cost is not shown.",
    ),
    key("models.ID.cached_usd", "number", "`input_usd`", "Price of a million tokens read from the provider's cache."),
    key("models.ID.output_usd", "number", "none", "Price of a million tokens written."),
];

/// `docs/configuration.md`, whole.
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    let mut table = "";
    for key in KEYS {
        let (head, _) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if head != table {
            table = head;
            let _infallible = write!(text, "\n## `[{head}]`\n\n{TABLE_HEAD}");
        }
        text.push_str(&key.row());
    }
    text.push_str(EXAMPLE);
    text
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from crates/server/src/config/keys.rs. To renew it: HOB_REGENERATE=1 cargo test -p hob --test generated -->

`hob serve` works without any of this. It reads `--config FILE`, or else `hob/hob.toml` in the user's configuration
folder (`$XDG_CONFIG_HOME`, or `~/.config`). It does not look in the current folder, which may be somebody else's
checkout.

A **time** is a whole number and `ms`, `s`, `m`, `h` or `d`. A **size** is a whole number and `KiB`, `MiB`, `GiB` or
`TiB`. An unknown key is an error that says what was probably meant.

Where no model is configured, the vendors' own variables are used: `ANTHROPIC_API_KEY`, `OPENAI_API_KEY`,
`GEMINI_API_KEY`, each with its `ANTHROPIC_BASE_URL`, `OPENAI_BASE_URL` or `GEMINI_BASE_URL`. `HOB_MODEL` names the
model. A local server that speaks OpenAI's format needs two:
`OPENAI_BASE_URL=http://127.0.0.1:11434/v1 HOB_MODEL=qwen3-coder`.
";

const EXAMPLE: &str = "
## Example

```toml
[session]
model = \"claude-sonnet-4-5\"

[providers.anthropic]
kind = \"anthropic\"
key = \"env:ANTHROPIC_API_KEY\"

[providers.local]
kind = \"openai\"
base_url = \"http://127.0.0.1:11434/v1\"

[models.\"claude-sonnet-4-5\"]
provider = \"anthropic\"
context_tokens = 200000
fallback = [\"qwen3-coder\"]
input_usd = 3.0
cached_usd = 0.3
output_usd = 15.0

[models.qwen3-coder]
provider = \"local\"

[egress]
allow = [\"*.internal.example\"]
```
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// Every key with a value, so that what serde knows can be compared with the table.
    const FULL: &str = r#"
        [server]
        listen = "127.0.0.1:0"
        data_dir = "/d"
        hosts = ["h"]
        [owner]
        name = "n"
        email = "e"
        [session]
        model = "ID"
        [sandbox.docker]
        runtime = "runsc"
        image = "i"
        [capacity]
        sandboxes = 1
        memory = "1GiB"
        cpus = 1.0
        [pool]
        reserve = "1GiB"
        [registries.NAME]
        username = "u"
        password = "env:X"
        [egress]
        proxy = "http://p:1"
        [providers.NAME]
        kind = "gemini"
        base_url = "http://x"
        key = "env:X"
        [models.ID]
        provider = "NAME"
        name = "n"
        fallback = ["ID"]
        input_usd = 1.0
        cached_usd = 1.0
        output_usd = 1.0
    "#;

    fn leaves(value: &toml::Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, into);
                }
            }
            _ => drop(into.insert(path.to_owned())),
        }
    }

    #[test]
    fn the_table_and_the_types_know_the_same_keys() {
        let config = Config::parse(FULL, Path::new("full.toml")).unwrap();
        let mut typed = BTreeSet::new();
        leaves(&toml::Value::try_from(&config).unwrap(), "", &mut typed);
        let table: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        assert_eq!(typed, table);
    }

    #[test]
    fn the_defaults_in_the_table_are_the_defaults_in_the_types() {
        let defaults = toml::Value::try_from(Config::default()).unwrap();
        for key in KEYS {
            let value = key.path.split('.').try_fold(&defaults, |value, segment| value.get(segment));
            let written = key.default.trim_matches('`');
            if let (Some(value), true) = (value, key.default.starts_with('`')) {
                assert_eq!(value.to_string(), written, "{}", key.path);
            }
        }
    }

    #[test]
    fn the_example_is_a_configuration() {
        let toml = EXAMPLE.split("```").nth(1).and_then(|block| block.strip_prefix("toml\n")).unwrap();
        Config::parse(toml, Path::new("example.toml")).unwrap();
    }
}

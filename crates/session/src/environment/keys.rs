//! The table of all keys of an environment file: what the reader knows, what a wrong key is compared with, and what
//! the reference is generated from.

use std::fmt::Write as _;

use crate::keys::{Key, TABLE_HEAD, key};

/// All keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("base", "text or table", "`\"host\"`", "What the sandbox is made of; see below."),
    key(
        "setup",
        "command or list",
        "`[]`",
        "Runs once for an image, after the packages, before the repository is there.",
    ),
    key(
        "warm",
        "command or list",
        "`[]`",
        "Runs once for an image, in the checkout: build, run the application and the tests, so that caches are there.",
    ),
    key("start", "command or list", "`[]`", "Runs in the checkout whenever a sandbox starts, before its services."),
    key(
        "egress",
        "list of hosts",
        "`[]`",
        "Hosts to reach beside the usual ones: `host`, `host:port` or `*.host`. The operator's policy has the last word.",
    ),
    key("secrets", "list of names", "`[]`", "Secrets that it uses. Their values never stand in the repository."),
    key("user", "text", "`\"root\"`", "The user that commands run as; root of the sandbox is nobody outside it."),
    key("ports", "list of ports", "`[]`", "Ports that people want to reach from outside."),
    key(
        "cpu",
        "number",
        "the operator's",
        "Processor time, in cores. Like the other limits: never more than the operator allows.",
    ),
    key("memory", "size", "the operator's", "Memory, page cache included."),
    key("disk", "size", "the operator's", "What a sandbox may write."),
    key("processes", "number", "the operator's", "Processes and threads at once."),
    key("max_rounds", "number", "the operator's", "How often red checks go back to the agent, at most 20."),
    key(
        "pool",
        "number",
        "by use",
        "Sandboxes that are kept warm for the next sessions, at most 16 and at most what `[pool]` of the server allows. Without it, as many as were lately used at once.",
    ),
    key("env", "table of texts", "`{}`", "Variables of every command."),
    key("packages", "table", "`{}`", ""),
    key("services", "list of tables", "`[]`", ""),
    key("checks", "list of tables", "detected", ""),
    key("base.dockerfile", "path", "needed", "The file to build."),
    key("base.context", "path", "`\".\"`", "The folder that is sent to the builder."),
    key("base.target", "text", "the last one", "The stage to build."),
    key("base.args", "table of texts", "`{}`", "Build arguments."),
    key("packages.apt", "list", "`[]`", "Debian packages: `name`, `name=version` or `name/suite`."),
    key("packages.pip", "list", "`[]`", "Python packages, such as `ruff==0.5`."),
    key("packages.npm", "list", "`[]`", "Node packages, installed globally."),
    key("packages.commands", "command or list", "`[]`", "Whatever else, after the lists."),
    key("services.name", "text", "needed", "Its name."),
    key(
        "services.command",
        "command",
        "needed",
        "What runs. It stays in the foreground; when it ends, it is started again.",
    ),
    key(
        "services.port",
        "port",
        "none",
        "The port on the sandbox's loopback. The service is ready when something listens there.",
    ),
    key(
        "services.ready",
        "command",
        "none",
        "The service is ready when this exits with 0. It counts instead of the port. Without both, it is ready when it still runs after a second.",
    ),
    key(
        "services.ready_within",
        "time",
        "`\"60s\"`",
        "After this without being ready, it has failed. At most 30 minutes.",
    ),
    key("services.after", "list of names", "`[]`", "Services that must be ready before."),
    key("services.directory", "path", "the checkout", "Where it runs."),
    key("services.env", "table of texts", "`{}`", "Its variables."),
    key("checks.name", "text", "needed", "Its name, such as `test`."),
    key("checks.command", "command", "needed", "What runs. Exit code 0 is green."),
    key("checks.directory", "path", "the checkout", "Where it runs."),
    key("checks.timeout", "time", "`\"20m\"`", "How long it may take, at most 6 hours."),
    key("checks.parser", "name", "`\"auto\"`", "Who reads its output; a wrong name is answered with the list."),
    key(
        "checks.prepare",
        "command",
        "none",
        "What must have succeeded before, once for each sandbox, such as `npm ci`.",
    ),
];

/// The keys of a table, by the path before them: `names("services.")`.
pub(super) fn names(prefix: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| key.path.strip_prefix(prefix)).filter(|name| !name.contains('.'))
}

/// A file that uses most of it. It stands in the reference, and is read in a test.
pub const EXAMPLE: &str = r#"base = "debian:bookworm"
warm = ["npm ci", "npm run build"]
egress = ["api.example.com"]
secrets = ["STRIPE_TEST_KEY"]
memory = "2 GiB"

[packages]
apt = ["nodejs", "npm", "postgresql", "redis-server"]

[env]
DATABASE_URL = "postgres://postgres@127.0.0.1/app"

[[services]]
name = "redis"
command = "redis-server --save '' --port 6379"
port = 6379

[[services]]
name = "web"
command = "npm run dev"
port = 3000
ready = "curl --fail --silent http://127.0.0.1:3000/healthz"
ready_within = "2m"
after = ["redis"]

[[checks]]
name = "lint"
command = "npm run lint"
parser = "eslint"

[[checks]]
name = "test"
command = "npm test"
timeout = "10m"
"#;

const HEAD: &str = "# The environment of a repository

<!-- Generated from crates/session/src/environment/keys.rs. To renew it: HOB_REGENERATE=1 cargo test -p hob --test generated -->

`.hob/environment.toml` says what a repository's sandboxes are made of, what runs in them, and what proves work in them.
Every key is optional: without the file, the sandbox has this machine's own system, and the checks are detected. It is
read from the commit that a session starts from, so an agent cannot make its own proof easier. `hob env init` drafts it from what the
repository's own files prove, and `hob env check` says what it means before it is committed.

A **command** is a line for the shell. A **time** is seconds, or a text such as `\"90s\"`, `\"10m\"` or `\"1h\"`. A **size**
is a text such as `\"512 MiB\"` or `\"4 GiB\"`. A **path** is relative to the repository's top folder. A wrong key or value
is an error with its line and column, and says what was probably meant; what is asked for and not done is told at the
session's start.
";

const TAIL: &str = "## `devcontainer.json`

Where there is no `.hob/environment.toml`, `.devcontainer/devcontainer.json` or `.devcontainer.json` is read instead, or
`.devcontainer/NAME/devcontainer.json` where there is just one. So is one that `base` names; what stands beside `base`
then counts more.

| key | becomes |
|---|---|
| `image`, `build` | `base` |
| `features` | install scripts, after the packages |
| `onCreateCommand`, `updateContentCommand`, `postCreateCommand` | `warm`, in this order |
| `postStartCommand` | `start` |
| `containerEnv`, `remoteEnv` | `env` |
| `forwardPorts` | `ports` |
| `remoteUser`, or else `containerUser` | `user` |

Whatever else changes what the container is (`dockerComposeFile`, `mounts`, `runArgs`, …) is told at the session's start.
";

/// The reference, as Markdown.
pub fn reference() -> String {
    let mut page = format!("{HEAD}\n```toml\n{EXAMPLE}```\n");
    for (title, prefix, words) in [
        ("At the top", "", ""),
        ("`base`", "base.", BASE),
        ("`[packages]`", "packages.", "Installed in this order.\n"),
        ("`[[services]]`", "services.", SERVICES),
        ("`[[checks]]`", "checks.", "Without any, the checks are detected; `checks = []` is none at all.\n"),
    ] {
        let _infallible = write!(page, "\n## {title}\n\n{words}");
        if !words.is_empty() {
            page.push('\n');
        }
        page.push_str(TABLE_HEAD);
        for name in names(prefix) {
            let path = format!("{prefix}{name}");
            page.extend(KEYS.iter().find(|key| key.path == path).map(Key::row));
        }
    }
    format!("{page}\n{TAIL}")
}

const BASE: &str = "| `base =` | the sandbox is made of |
|---|---|
| `\"host\"` | this machine's own system, with everything private left out |
| `\"debian:bookworm\"` | Debian, made from its packages |
| `\"python:3.12\"`, `\"ghcr.io/acme/dev:1\"` | an OCI image; the one named `debian` is `docker.io/library/debian` |
| `\"Dockerfile\"`, or a table | an image that is built from a file of the repository |
| `\".devcontainer/devcontainer.json\"` | what that file says |

As a table, such as `base = { dockerfile = \"dev/Dockerfile\", target = \"dev\" }`:
";

const SERVICES: &str = "They start with the sandbox, in an order in which each comes after those that it needs, while the agent begins its work.
A service that ends is started again, after a wait that grows, and given up when it ends again and again. One that has
failed does not fail the session: the participants and the agent are told, with its last lines. Checks wait until the
services are ready or have failed.
";

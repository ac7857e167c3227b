//! How each agent is started. Every value was tried with the pinned version; see `tests/real_agents.rs`.

use serde_json::{Value, json};

use super::{Access, ConfigFile, LaunchSpec, Permissions};
use crate::acp::Setting;
use crate::builtin::ModelFormat;

impl Access {
    fn tool(&self, path: &str) -> String {
        format!("{}/node_modules/{path}", self.toolchain)
    }

    fn state(&self, path: &str) -> String {
        format!("{}/.hob/{path}", self.home)
    }

    fn by_permissions<'a>(&self, unattended: &'a str, ask: &'a str) -> &'a str {
        match self.permissions {
            Permissions::Unattended => unattended,
            Permissions::Ask => ask,
        }
    }

    fn spec(&self, argv: &[String], env: &[(&str, &str)]) -> LaunchSpec {
        let common = [("HOME", self.home.as_str()), ("NO_BROWSER", "1"), ("NO_COLOR", "1")];
        LaunchSpec {
            argv: argv.to_vec(),
            env: common.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            path: Vec::new(),
            files: Vec::new(),
            settings: Vec::new(),
            model_prefix: String::new(),
        }
    }
}

pub(super) fn opencode(access: &Access) -> LaunchSpec {
    let (package, base) = match access.format {
        ModelFormat::OpenAiChat => ("@ai-sdk/openai-compatible", "openai/v1"),
        ModelFormat::OpenAiResponses => ("@ai-sdk/openai", "openai/v1"),
        ModelFormat::Anthropic => ("@ai-sdk/anthropic", "anthropic/v1"),
        ModelFormat::Gemini => ("@ai-sdk/google", "gemini/v1beta"),
    };
    // A model that declares no pictures makes a prompt with one fail as a whole.
    let model = json!({"name": access.model, "attachment": true, "tool_call": true, "reasoning": true,
        "modalities": {"input": ["text", "image"], "output": ["text"]},
        "limit": {"context": access.context_tokens, "output": access.max_output_tokens}});
    let models: Value = [(access.model.clone(), model)].into_iter().collect();
    let name = format!("hob/{}", access.model);
    let config = json!({
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": false, "share": "disabled", "model": name, "small_model": name, "enabled_providers": ["hob"],
        "provider": {"hob": {"name": "Hob's gateway", "npm": package, "models": models,
            "options": {"baseURL": format!("{}/{base}", access.gateway), "apiKey": access.token}}},
    });
    let file = access.state("opencode.json");
    let asks = r#"{"*":"allow","edit":"ask","bash":"ask","webfetch":"ask"}"#;
    LaunchSpec {
        files: vec![ConfigFile { path: file.clone(), text: config.to_string() }],
        path: vec![access.tool("@vscode/ripgrep-linux-x64/bin")],
        model_prefix: "hob/".into(),
        ..access.spec(
            &[access.tool("opencode-linux-x64-baseline/bin/opencode"), "acp".into()],
            &[
                ("OPENCODE_CONFIG", &file),
                ("OPENCODE_PERMISSION", access.by_permissions(r#"{"*":"allow"}"#, asks)),
                ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
                ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
                ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
                ("OPENCODE_DISABLE_SHARE", "1"),
                // A configuration in the repository could name other providers and plugins.
                ("OPENCODE_DISABLE_PROJECT_CONFIG", "1"),
            ],
        )
    }
}

pub(super) fn claude(access: &Access) -> LaunchSpec {
    let model = access.model.as_str();
    let base = format!("{}/anthropic", access.gateway);
    LaunchSpec {
        settings: vec![Setting::Mode(access.by_permissions("bypassPermissions", "default").into())],
        ..access.spec(
            &[access.tool(".bin/node"), access.tool("@agentclientprotocol/claude-agent-acp/dist/index.js")],
            &[
                ("ANTHROPIC_BASE_URL", &base),
                ("ANTHROPIC_API_KEY", &access.token),
                ("ANTHROPIC_MODEL", model),
                ("ANTHROPIC_SMALL_FAST_MODEL", model),
                ("ANTHROPIC_DEFAULT_OPUS_MODEL", model),
                ("ANTHROPIC_DEFAULT_SONNET_MODEL", model),
                ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model),
                ("CLAUDE_CODE_SUBAGENT_MODEL", model),
                ("CLAUDE_CONFIG_DIR", &access.state("claude")),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
                ("DISABLE_AUTOUPDATER", "1"),
                ("DISABLE_TELEMETRY", "1"),
                ("DISABLE_ERROR_REPORTING", "1"),
                // It refuses to run unattended as root unless it is told that it runs in a sandbox.
                ("IS_SANDBOX", "1"),
            ],
        )
    }
}

pub(super) fn codex(access: &Access) -> LaunchSpec {
    let unattended = access.permissions == Permissions::Unattended;
    let (approval, sandbox) = if unattended { ("never", "danger-full-access") } else { ("on-request", "read-only") };
    // TOML's basic strings take what JSON's do.
    let text = |text: &str| Value::from(text).to_string();
    let config = format!(
        r#"model = {model}
model_provider = "hob"
model_context_window = {context}
approval_policy = "{approval}"
sandbox_mode = "{sandbox}"
check_for_update_on_startup = false

[model_providers.hob]
name = "Hob's gateway"
base_url = {base}
wire_api = "responses"
env_key = "HOB_MODEL_TOKEN"
supports_websockets = false

[projects.{workspace}]
trust_level = "trusted"

[analytics]
enabled = false

[feedback]
enabled = false
"#,
        model = text(&access.model),
        context = access.context_tokens,
        base = text(&format!("{}/openai/v1", access.gateway)),
        workspace = text(&access.workspace),
    );
    LaunchSpec {
        files: vec![ConfigFile { path: access.state("codex/config.toml"), text: config }],
        settings: vec![
            // Its own default asks a model to review each risky action.
            Setting::Mode(access.by_permissions("agent-full-access", "read-only").into()),
            // Without a title, it asks one certain model for one, which the gateway need not offer.
            Setting::Title("Hob".into()),
        ],
        ..access.spec(
            &[access.tool(".bin/node"), access.tool("@agentclientprotocol/codex-acp/dist/index.js")],
            &[("CODEX_HOME", &access.state("codex")), ("HOB_MODEL_TOKEN", &access.token)],
        )
    }
}

pub(super) fn gemini(access: &Access) -> LaunchSpec {
    let settings = json!({
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": false}},
        "general": {"disableAutoUpdate": true, "enableAutoUpdate": false, "enableAutoUpdateNotification": false},
        "privacy": {"usageStatisticsEnabled": false},
        "telemetry": {"enabled": false},
        "model": {"name": access.model},
    });
    let file = access.state("gemini/settings.json");
    LaunchSpec {
        files: vec![ConfigFile { path: file.clone(), text: settings.to_string() }],
        settings: vec![Setting::Mode(access.by_permissions("yolo", "default").into())],
        ..access.spec(
            &[access.tool(".bin/node"), access.tool("@google/gemini-cli/bundle/gemini.js"), "--acp".into()],
            &[
                ("GEMINI_CLI_SYSTEM_SETTINGS_PATH", &file),
                ("GOOGLE_GEMINI_BASE_URL", &format!("{}/gemini", access.gateway)),
                ("GEMINI_API_KEY", &access.token),
                ("GEMINI_MODEL", &access.model),
                // Without it, it starts itself a second time to raise its memory limit.
                ("GEMINI_CLI_NO_RELAUNCH", "true"),
            ],
        )
    }
}

pub(super) fn goose(access: &Access) -> LaunchSpec {
    let program = access.tool("@aaif/goose-binary-linux-x64/bin/goose");
    access.spec(
        &[program, "acp".into(), "--with-builtin".into(), "developer".into()],
        &[
            ("GOOSE_PROVIDER", "openai"),
            ("GOOSE_MODEL", &access.model),
            ("OPENAI_HOST", &access.gateway),
            ("OPENAI_API_KEY", &access.token),
            ("OPENAI_BASE_PATH", "openai/v1/chat/completions"),
            ("GOOSE_CONTEXT_LIMIT", &access.context_tokens.to_string()),
            ("GOOSE_MODE", access.by_permissions("auto", "approve")),
            ("GOOSE_PATH_ROOT", &access.state("goose")),
            ("GOOSE_DISABLE_KEYRING", "1"),
            ("GOOSE_TELEMETRY_ENABLED", "false"),
            ("GOOSE_TELEMETRY_OFF", "1"),
        ],
    )
}

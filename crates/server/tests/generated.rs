//! What is generated from the code is what stands in `docs/`. `HOB_REGENERATE=1` writes it anew.

#![expect(clippy::expect_used, reason = "helpers of tests are test code too")]

use std::path::Path;

#[track_caller]
fn check_generated(file: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
    if std::env::var_os("HOB_REGENERATE").is_some() {
        std::fs::write(&path, now).expect("docs/ can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "docs/{file} is not what the code says; HOB_REGENERATE=1 cargo test -p hob --test generated"
    );
}

#[test]
fn the_configuration_reference_is_what_the_server_reads() {
    check_generated("configuration.md", &hob::config::reference());
}

#[test]
fn the_reference_of_environments_is_what_is_read_of_a_repository() {
    check_generated("environment.md", &hob_session::environment::reference());
}

#[test]
fn the_openapi_document_is_what_the_server_serves() {
    check_generated("openapi.json", &(hob::api::openapi().to_pretty_json().unwrap() + "\n"));
}

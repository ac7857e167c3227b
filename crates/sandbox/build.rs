//! Builds the guest as a small static program, so that the server can carry it inside itself.
//!
//! A nested cargo with a target folder of its own: the guest wants another link mode and another profile than the
//! workspace, and a shared folder would wait for the lock that this build holds.

#![expect(clippy::expect_used, reason = "a build script speaks to cargo by printing and failing")]

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));
    let target = std::env::var("TARGET").expect("cargo sets it");
    for input in ["../guest/src", "../guest/Cargo.toml", "../../Cargo.lock", "build.rs"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let folder = out.join("guest");
    let status = Command::new(std::env::var("CARGO").expect("cargo sets it"))
        .args(["build", "--release", "--locked", "--quiet", "--package", "hob-guest", "--bin", "hob-guest"])
        .args(["--target", &target, "--target-dir"])
        .arg(&folder)
        .arg("--manifest-path")
        .arg(here.join("../../Cargo.toml"))
        .args(["--config", &format!("target.{target}.rustflags=['-C','target-feature=+crt-static']")])
        .args(["--config", "profile.release.opt-level='s'", "--config", "profile.release.strip=true"])
        .args(["--config", "profile.release.panic='abort'"])
        // What the outer build says to its own compilers is not meant for this one.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the guest does not build: see above");
    let built = folder.join(target).join("release/hob-guest");
    std::fs::copy(built, out.join("hob-guest")).expect("the guest was built");
}

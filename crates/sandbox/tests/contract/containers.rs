//! What only containers have: images as bases, a daemon that knows of them, and that can lose them.

use std::os::unix::fs::symlink;
use std::path::Path;

use hob_sandbox::{Base, Limits, Spec};
use rustix::fs::{CWD, FileType, Mode};

use crate::common::{id, ok};
use crate::daemon;
use crate::house::House;
use crate::root;

pub async fn this_machines_own_system_is_refused_with_a_word_that_helps(house: &mut House) {
    let refused = house.provider().create(Spec { base: Base::Host, ..house.spec("host") }).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("sandbox.docker.image") && told.contains(".hob/environment.toml"), "{told}");
    let missing = Base::Directory(house.folder.path().join("none"));
    assert!(house.provider().create(Spec { base: missing, ..house.spec("none") }).await.is_err());
    assert!(house.provider().list().await.unwrap().is_empty(), "what never was is not listed");
}

/// Hides a name of the layers below, as an overlay does.
fn without(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

pub async fn unpacked_layers_are_a_base_as_they_would_be_mounted(house: &mut House) {
    let lower = house.host_folder("lower", &[("opt/gone", "x"), ("opt/kept", "lower\n"), ("srv/hidden", "x")]);
    let upper = house.host_folder("upper", &[("opt/new", "upper\n"), ("srv/seen", "upper\n")]);
    without(&upper.join("opt/gone"));
    rustix::fs::lsetxattr(upper.join("srv"), "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    symlink("opt/new", upper.join("link")).unwrap();
    let base = Base::Layers(vec![upper, lower, root::root()]);
    let sandbox = house.create(Spec { base, ..house.spec("layers") }).await;
    assert_eq!(
        ok(&sandbox, "ls /opt /srv; cat /opt/kept /link; id -u").await,
        "/opt:\nkept\nnew\n\n/srv:\nseen\nlower\nupper\n0"
    );
}

pub async fn a_removed_container_is_told_and_its_snapshot_stands_in(house: &mut House) {
    ok(&house.sandbox("loses").await, "echo first > /workspace/first").await;
    house.provider().snapshot(&id("loses")).await.unwrap();
    ok(&house.sandbox("loses").await, "echo second > /workspace/second").await;
    house.provider().suspend(&id("loses")).await.unwrap();
    daemon::remove_all(&house.data());
    let again = house.sandbox("loses").await;
    assert!(again.lost().unwrap().contains("the snapshot before it"), "{:?}", again.lost());
    assert_eq!(ok(&again, "ls /workspace").await, "first");
}

pub async fn a_sweep_removes_what_no_record_speaks_of_and_nothing_that_runs(house: &mut House) {
    let running = house.sandbox("runs").await;
    house.sandbox("stray").await;
    // As a start leaves it that was cut short before its container was known.
    let record = house.data().join("sandboxes/stray/record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["container"] = serde_json::Value::Null;
    std::fs::write(&record, value.to_string()).unwrap();
    house.open_again().await;
    house.provider().sweep().await.unwrap();
    let left = daemon::left(&house.data(), &id("stray"));
    assert_eq!(left, Vec::<String>::new());
    let again = house.attach("runs", 2).await.expect("it runs on");
    assert_eq!((ok(&again, "echo well").await.as_str(), running.id()), ("well", &id("runs")));
}

pub async fn the_daemon_is_told_no_token_and_no_variable(house: &mut House) {
    let env = [("PASSWORD".to_owned(), "hunter2-of-the-suite".to_owned())].into();
    let sandbox = house.create(Spec { env, limits: Limits::default(), ..house.spec("secret") }).await;
    assert_eq!(ok(&sandbox, "echo $PASSWORD").await, "hunter2-of-the-suite");
    let told = daemon::inspect(&house.data(), &id("secret")).to_string();
    assert!(told.contains("hob.sandbox") && !told.contains("hunter2") && !told.contains("PASSWORD"), "{told}");
}

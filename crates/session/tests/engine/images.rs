//! Images: what sessions start from, built ahead by real commands in real sandboxes.

use hob_session::event::{EventKind, PhaseStatus};
use hob_session::{SessionId, State};

use crate::house::{House, git};
use crate::turns::fix;

/// An environment whose every step leaves a mark, and counts how often it ran.
const MARKS: &str = "setup = 'echo set up > /root/setup; date +%s%N > /root/when'\n\
    warm = ['test -e /root/setup', 'echo built by $(cat calc.py | wc -l) lines > built.txt; echo x >> .gitignore']\n\
    [packages]\ncommands = ['echo installed > /opt/installed']\n[env]\nDOOR = 'green'\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_starts_from_what_its_environment_has_built() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&id, "cat /opt/installed /root/setup built.txt").await, "installed\nset up\nbuilt by 2 lines");
    assert_eq!(
        phases(&house, &id).await,
        ["queue", "workspace", "packages", "setup", "clone", "warm", "image", "sandbox", "sync"]
    );

    // What the warm-up left behind is nobody's change.
    assert_eq!(house.sh(&id, "git status --porcelain; git branch --show-current | cut -c1-4").await, "hob/");
    assert_eq!(house.engine.diff(&id).await.unwrap(), "");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_session_starts_from_the_same_image_and_from_the_newest_commit() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    let made = house.sh(&first, "cat /root/when").await;
    std::fs::write(house.repo().join("calc.py"), "# Newer.\n").unwrap();
    git(&house.repo(), &["commit", "--quiet", "--all", "-m", "Newer"]);

    let second = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&second, "cat /root/when").await, made);
    assert_eq!(phases(&house, &second).await, ["queue", "workspace", "image", "sandbox", "sync"]);
    assert_eq!(
        house.sh(&second, "cat calc.py; git log --format=%s; cat built.txt; git status --porcelain").await,
        "# Newer.\nNewer\nAnother environment\nA calculator\nbuilt by 2 lines"
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_environment_is_built_from_the_layer_that_changed() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    let made = house.sh(&first, "cat /root/when").await;
    house.environment(&MARKS.replace("built by", "compiled by"));
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&second, "cat built.txt /root/when").await, format!("compiled by 2 lines\n{made}"));
    assert_eq!(phases(&house, &second).await[2..5], ["clone", "warm", "image"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_that_fails_is_told_and_the_session_starts_without_it() {
    let house = House::new(fix()).await;
    house.environment("warm = ['echo made > made.txt', 'echo no such wombat >&2; exit 3']\n");
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&id, "cat calc.py | head -1; ls made.txt 2>&1 | wc -l").await, "def add(a, b):\n1");
    let told = house.notices(&id).await;
    assert!(told.contains("`echo no such wombat >&2; exit 3` ended with exit code 3: no such wombat"), "{told}");
    assert!(told.contains("without what the warm-up would have made"), "{told}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_image_fails_the_last_good_one_is_used_and_said() {
    let house = House::new(fix()).await;
    house.environment(MARKS);
    let first = house.engine.create(house.new_session()).await.unwrap().session;
    house.state(&first, State::Idle).await;
    house.environment(&MARKS.replace("echo set up", "false; exit 7"));
    let second = house.engine.create(house.new_session()).await.unwrap().session;
    assert_eq!(house.sh(&second, "cat /root/setup; git log -1 --format=%s").await, "set up\nAnother environment");
    let told = house.notices(&second).await;
    assert!(told.contains("ended with exit code 7") && told.contains("starts from the one before it"), "{told}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_image_the_session_fails_and_says_what_failed() {
    let house = House::new(fix()).await;
    house.environment("[packages]\ncommands = ['echo the package is gone >&2; exit 100']\n");
    let id = house.engine.create(house.new_session()).await.unwrap().session;
    let failed = house.state(&id, State::Failed).await;
    let EventKind::StateChanged { cause, .. } = failed.kind else { panic!() };
    assert!(cause.contains("exit code 100: the package is gone"), "{cause}");
    house.close().await;
}

/// The phases that have ended, in order.
async fn phases(house: &House, id: &SessionId) -> Vec<String> {
    let ended = house.log(id).await.into_iter().filter_map(|event| match event.kind {
        EventKind::Phase { name, status: PhaseStatus::Ended, .. } if name != "agent" => Some(name),
        _ => None,
    });
    ended.collect()
}

//! What a repository says of its environment, and what its sessions get of it.

use hob_session::EventKind;

use crate::house::{House, git};
use crate::turns::fix;

#[tokio::test(flavor = "multi_thread")]
async fn what_an_environment_asks_for_and_does_not_get_is_told() {
    let house = House::new(fix()).await;
    house.environment("memory = '500 GiB'\nsecrets = ['TOKEN']\n");
    let id = house.session("@@script:note@@").await;
    house.turn_ended(&id, 1).await;
    let told = house.notices(&id).await;
    for expect in ["`TOKEN`", "It gets 4096 MiB of memory."] {
        assert!(told.contains(expect), "{told}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_is_told_with_its_place() {
    let house = House::new(fix()).await;
    house.environment("cpu = 1\nmemroy = '1 GiB'\n");
    let id = house.session("@@script:note@@").await;
    let notice = house.wait(&id, |kind| matches!(kind, EventKind::Notice { .. })).await;
    let EventKind::Notice { text } = notice.kind else { panic!() };
    assert_eq!(
        text,
        "failed to read .hob/environment.toml: line 2, column 1: unknown key `memroy`; did you mean `memory`?"
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_variables_reach_every_command() {
    let house = House::new(fix()).await;
    house.environment("[env]\nCOLOUR_OF_DOOR = \"green\"\nGIT_PAGER = \"less\"\n");
    let id = house.session("@@script:note@@").await;
    assert_eq!(house.sh(&id, "echo $COLOUR_OF_DOOR $GIT_PAGER").await, "green cat");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_devcontainer_counts_where_there_is_no_file_of_our_own() {
    let house = House::new(fix()).await;
    let devcontainer = "{\n  // The same as in the editor.\n  \"containerEnv\": {\"DOOR\": \"blue\"},\n}\n";
    std::fs::write(house.repo().join(".devcontainer.json"), devcontainer).unwrap();
    git(&house.repo(), &["rm", "--quiet", ".hob/environment.toml"]);
    git(&house.repo(), &["add", "."]);
    git(&house.repo(), &["commit", "--quiet", "-m", "A devcontainer"]);
    let id = house.session("@@script:note@@").await;
    assert_eq!(house.sh(&id, "echo $DOOR").await, "blue");
    house.close().await;
}

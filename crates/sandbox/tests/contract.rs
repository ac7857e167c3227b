//! What every provider promises, as one suite that each of them is put through.

#![allow(unreachable_pub, reason = "the checks are named by a macro")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so")]

#[path = "contract/barriers.rs"]
mod barriers;
#[path = "contract/commands.rs"]
mod commands;
mod common;
#[path = "contract/containers.rs"]
mod containers;
#[path = "contract/daemon.rs"]
mod daemon;
#[path = "contract/house.rs"]
mod house;
#[path = "contract/life.rs"]
mod life;
#[path = "contract/root.rs"]
mod root;
#[path = "contract/snapshots.rs"]
mod snapshots;

/// One test for each check, in a house of the given kind.
macro_rules! suite {
    ($kind:expr) => {
        suite! { $kind;
            barriers: a_closed_workspace_is_held_until_it_is_opened,
            barriers: disk_is_limited_and_its_end_is_told,
            barriers: memory_is_limited_and_its_end_is_told,
            barriers: processes_are_limited_and_the_sandbox_can_still_be_stopped,
            barriers: processor_time_is_limited,
            barriers: the_kernel_refuses_what_only_its_owner_may,
            barriers: there_is_no_network_but_the_gateway,
            commands: a_command_runs_as_root_and_ends_as_it_says,
            commands: a_kill_reaches_what_left_its_group_and_its_parent,
            commands: a_port_inside_is_dialled,
            commands: a_terminal_has_a_size_an_echo_and_an_end,
            commands: files_are_written_whole_read_in_parts_listed_and_removed,
            commands: the_workspace_is_a_copy_and_what_is_mounted_is_read_only,
            life: a_sandbox_outlives_its_owner_and_answers_the_next,
            life: a_sandbox_that_dies_is_told_of_and_made_again,
            life: a_sandbox_that_is_destroyed_leaves_nothing,
            life: a_suspended_sandbox_comes_back_with_its_files,
            life: a_token_of_an_older_epoch_is_refused,
            life: making_a_sandbox_twice_gives_the_same_one,
            life: the_list_is_sorted_and_says_what_runs,
            snapshots: a_fork_goes_on_from_a_snapshot_and_neither_sees_the_other,
            snapshots: files_of_every_kind_come_back_from_a_snapshot,
            snapshots: layers_stay_as_long_as_a_sandbox_or_a_pin_needs_them,
            snapshots: snapshots_of_snapshots_keep_what_each_has_added,
        }
    };
    ($kind:expr; $($topic:ident: $check:ident,)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                super::house::within($kind, super::$topic::$check).await;
            }
        )*
    };
}

mod local {
    suite!(crate::house::Kind::Local);
}

mod docker {
    suite!(crate::house::Kind::Docker);
    suite! { crate::house::Kind::Docker;
        containers: a_removed_container_is_told_and_its_snapshot_stands_in,
        containers: a_sweep_removes_what_no_record_speaks_of_and_nothing_that_runs,
        containers: the_daemon_is_told_no_token_and_no_variable,
        containers: this_machines_own_system_is_refused_with_a_word_that_helps,
        containers: unpacked_layers_are_a_base_as_they_would_be_mounted,
    }
}

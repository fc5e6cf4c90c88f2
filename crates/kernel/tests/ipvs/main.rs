//! The ipvs target on a kernel that has IPVS: this one, or Debian's in a machine of its own (scripts/machine.sh).
//!
//! This is no libtest program: one run of the machine serves all tests, which are functions of a table.
#![allow(clippy::unwrap_used)] // A test that can't set up its network has failed.

#[allow(dead_code)]
#[path = "../rules/bed.rs"]
mod bed;
mod connections;
mod servers;
#[path = "../../../dataplane/tests/world/mod.rs"]
mod world;

use std::panic::catch_unwind;
use std::process::ExitCode;

use portolan_kernel::machine::{self, Ended, Luggage};

/// A test.
struct Test {
    name: &'static str,
    run: fn(),
}

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$(Test { name: stringify!($name), run: $module::$name }),*]
    };
}

const TESTS: [Test; 10] = tests![
    servers::what_is_applied_is_read_back,
    servers::every_scheduler_of_the_kernel_stands,
    servers::a_new_target_takes_over_what_stands,
    servers::servers_of_others_stay,
    servers::the_namespace_is_set_up,
    connections::a_connection_outlives_its_endpoint_and_its_service,
    connections::a_client_is_remembered_until_its_endpoint_goes,
    connections::a_udp_client_leaves_the_endpoint_that_is_gone_and_only_that,
    connections::who_waits_for_an_ejected_endpoint_gets_another_one,
    connections::cleaning_up_waits_for_connections,
];

#[expect(clippy::print_stdout, reason = "a test program")]
fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let listed = std::env::args().any(|argument| argument == "--list");
    let chosen =
        |test: &&Test| wanted.is_empty() || wanted.iter().any(|w| test.name.contains(w.as_str()));
    let tests: Vec<&Test> = TESTS.iter().filter(chosen).collect();
    if listed {
        tests
            .iter()
            .for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    if !portolan_kernel::ipvs::is_known() {
        return in_machine(&wanted);
    }
    let mut failed = 0;
    for test in &tests {
        let ok = catch_unwind(test.run).is_ok();
        failed += usize::from(!ok);
        println!("{} {}", if ok { "ok     " } else { "FAILED " }, test.name);
    }
    println!("ipvs: {} passed, {failed} failed", tests.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

#[expect(clippy::print_stdout, reason = "a test program")]
fn in_machine(wanted: &[String]) -> ExitCode {
    println!("this kernel has no IPVS: in a machine with another one");
    let ended = machine::run(wanted, &Luggage::default(), |line| println!("  {line}")).unwrap();
    match ended {
        Ended::Status(0) => ExitCode::SUCCESS,
        Ended::Status(_) => ExitCode::FAILURE,
        Ended::Missing => {
            println!("SKIPPED: QEMU or its kernel is missing: run scripts/setup.sh");
            // CI's machine can do everything.
            ExitCode::from(u8::from(std::env::var_os("CI").is_some()))
        }
    }
}

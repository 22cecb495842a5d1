//! `--keep`: the cluster stays up, and its user learns how to get in.

use super::interrupt::Interrupt;
use dpr_lab::{Cluster, Machine};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Says how to enter each machine and waits for Ctrl-C.
pub(super) fn until_interrupted(cluster: &Cluster, interrupt: &Interrupt) {
    eprintln!("\nThe cluster stays up until Ctrl-C. To get a shell on a machine:");
    for machine in cluster.nodes.iter().map(dpr_lab::Node::machine).chain(&cluster.clients) {
        eprintln!("  {:4} {:13} {}", machine.name(), machine.address().to_string(), enter_command(machine));
    }
    eprintln!("Control sockets:");
    for node in &cluster.nodes {
        match node.daemon_id() {
            Some(_) => {
                eprintln!("  {:4} dpr status --socket {}", node.name(), node.control_socket().display());
            }
            None => eprintln!("  {:4} is dead", node.name()),
        }
    }
    while !interrupt.came() {
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("Everything is removed.");
}

fn enter_command(machine: &Machine) -> String {
    let process = std::process::id();
    let namespace = machine.namespace().as_fd().as_raw_fd();
    let user = match dpr_host::is_initial_user_namespace() {
        Ok(true) => String::new(),
        _ => format!("--target {process} --user --preserve-credentials "),
    };
    format!("nsenter {user}--net=/proc/{process}/fd/{namespace}")
}

//! A user namespace of one's own: what root can do to the network, without being root.
//!
//! Where the host forbids it, the error says which switch does and how to turn it.

use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// `PROC_USER_INIT_INO` of `linux/proc_ns.h`: the inode number of the first user namespace.
const INITIAL_USER_NAMESPACE: u64 = 0xefff_fffd;

const UNPRIVILEGED_CLONE: &str = "kernel.unprivileged_userns_clone";
const APPARMOR_RESTRICTION: &str = "kernel.apparmor_restrict_unprivileged_userns";
const NAMESPACES_MAX: [&str; 2] = ["user.max_user_namespaces", "user.max_net_namespaces"];

/// Why a user namespace could not be had. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// A sysctl of the host forbids it.
    #[error(
        "{name} = {value} forbids unprivileged user namespaces: \
         allow them with `sudo sysctl -w {name}={allowing}`, or run as root"
    )]
    Sysctl {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// A value that allows them.
        allowing: u32,
    },
    /// As many exist as a sysctl of the host allows.
    #[error(
        "all {value} namespaces that {name} allows are in use: raise it with `sudo sysctl -w`, or run as root"
    )]
    UsedUp {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The process is in a sandbox.
    #[error(
        "a seccomp filter (container runtime or service sandbox) forbids user namespaces: \
         start the container with `--security-opt seccomp=unconfined`, or the service without \
         `RestrictNamespaces=`, or run as root with CAP_NET_ADMIN and CAP_NET_RAW"
    )]
    Seccomp,
    /// The kernel was built without them.
    #[error("this kernel has no user namespaces (CONFIG_USER_NS): run as root")]
    NotBuilt,
    /// The caller has more than one thread.
    #[error(
        "a process of {threads} threads cannot enter a user namespace: enter it first, start threads later"
    )]
    ManyThreads {
        /// Threads of the process.
        threads: usize,
    },
    /// Something else.
    #[error("cannot {step}: {source}; run as root instead")]
    Other {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Moves the process, which must have one thread only, into a new user namespace in which it is
/// root, with a new network namespace that belongs to it.
///
/// Group changes are given up for it (`setgroups(2)`), and only this one user exists inside. After an
/// error the process may be neither here nor there, and does best to end.
pub fn enter_user_namespace() -> Result<(), UserNamespaceError> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(UserNamespaceError::ManyThreads { threads });
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: only CLONE_FILES makes unshare unsafe, and it is not among the flags.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }
        .map_err(|error| diagnose("create a user namespace", error.into(), &Host::observe()))?;
    write_map("/proc/self/setgroups", "deny", "give up group changes")?;
    write_map("/proc/self/uid_map", &format!("0 {user} 1"), "map the user")?;
    write_map("/proc/self/gid_map", &format!("0 {group} 1"), "map the group")
}

/// Whether the process is in the first user namespace, where root is root of the machine.
pub fn is_initial_user_namespace() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self/ns/user")?.ino() == INITIAL_USER_NAMESPACE)
}

fn write_map(path: &str, content: &str, step: &'static str) -> Result<(), UserNamespaceError> {
    // The kernel takes a map in one write only, and `fs::write` makes one of it.
    fs::write(path, content).map_err(|error| diagnose(step, error, &Host::observe()))
}

/// What the host says about user namespaces.
#[derive(Clone, Debug, Default)]
struct Host {
    built: bool,
    unprivileged_clone: Option<String>,
    apparmor_restriction: Option<String>,
    namespaces_max: [Option<String>; 2],
    seccomp_filtered: bool,
}

impl Host {
    fn observe() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            built: Path::new("/proc/self/ns/user").exists(),
            unprivileged_clone: sysctl(UNPRIVILEGED_CLONE),
            apparmor_restriction: sysctl(APPARMOR_RESTRICTION),
            namespaces_max: NAMESPACES_MAX.map(sysctl),
            // SECCOMP_MODE_FILTER is 2 (proc(5)).
            seccomp_filtered: status
                .lines()
                .filter_map(|line| line.strip_prefix("Seccomp:"))
                .any(|mode| mode.trim() == "2"),
        }
    }
}

fn sysctl(name: &'static str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Finds out which of the known switches explains a refusal.
fn diagnose(step: &'static str, source: io::Error, host: &Host) -> UserNamespaceError {
    let errno = source.raw_os_error();
    let forbidden = |name, value: &Option<String>, allowing| UserNamespaceError::Sysctl {
        name,
        value: value.clone().unwrap_or_default(),
        allowing,
    };
    if !host.built {
        return UserNamespaceError::NotBuilt;
    }
    if errno == Some(libc::ENOSPC) {
        let zero = host.namespaces_max.iter().position(|max| max.as_deref() == Some("0"));
        return match zero {
            Some(limit) => forbidden(NAMESPACES_MAX[limit], &host.namespaces_max[limit], 16_384),
            None => UserNamespaceError::UsedUp {
                name: NAMESPACES_MAX[0],
                value: host.namespaces_max[0].clone().unwrap_or_default(),
            },
        };
    }
    if !matches!(errno, Some(libc::EPERM | libc::EACCES)) {
        return UserNamespaceError::Other { step, source };
    }
    if host.unprivileged_clone.as_deref() == Some("0") {
        return forbidden(UNPRIVILEGED_CLONE, &host.unprivileged_clone, 1);
    }
    if host.apparmor_restriction.as_ref().is_some_and(|value| value != "0") {
        return forbidden(APPARMOR_RESTRICTION, &host.apparmor_restriction, 0);
    }
    if host.seccomp_filtered {
        return UserNamespaceError::Seccomp;
    }
    UserNamespaceError::Other { step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn willing() -> Host {
        Host {
            built: true,
            namespaces_max: [Some("63000".to_owned()), Some("63000".to_owned())],
            ..Host::default()
        }
    }

    fn diagnosis(errno: i32, host: &Host) -> String {
        diagnose("create a user namespace", io::Error::from_raw_os_error(errno), host).to_string()
    }

    #[test]
    fn debians_switch_is_named_with_the_command_that_turns_it() {
        let host = Host { unprivileged_clone: Some("0".to_owned()), ..willing() };

        let text = diagnosis(libc::EPERM, &host);

        assert!(text.contains("`sudo sysctl -w kernel.unprivileged_userns_clone=1`"), "{text}");
    }

    #[test]
    fn ubuntus_switch_is_named_with_the_command_that_turns_it() {
        let host = Host { apparmor_restriction: Some("1".to_owned()), ..willing() };

        let text = diagnosis(libc::EACCES, &host);

        assert!(text.contains("`sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"), "{text}");
    }

    #[test]
    fn a_limit_of_zero_is_found_whichever_limit_it_is() {
        for (index, name) in NAMESPACES_MAX.into_iter().enumerate() {
            let mut host = willing();
            host.namespaces_max[index] = Some("0".to_owned());

            let text = diagnosis(libc::ENOSPC, &host);

            assert!(text.starts_with(&format!("{name} = 0 ")), "{text}");
        }
    }

    #[test]
    fn a_limit_that_is_reached_is_not_called_a_prohibition() {
        let text = diagnosis(libc::ENOSPC, &willing());

        assert!(text.starts_with("all 63000 namespaces that user.max_user_namespaces allows"), "{text}");
    }

    #[test]
    fn a_sandbox_is_blamed_only_when_no_switch_explains_the_refusal() {
        let filtered = Host { seccomp_filtered: true, ..willing() };

        assert!(diagnosis(libc::EPERM, &filtered).contains("seccomp"));
        assert!(!diagnosis(libc::EPERM, &willing()).contains("seccomp"));
    }

    #[test]
    fn a_process_with_threads_is_told_so() {
        let error = std::thread::scope(|scope| {
            scope.spawn(enter_user_namespace).join().expect("the thread does not panic").unwrap_err()
        });

        assert!(matches!(error, UserNamespaceError::ManyThreads { threads } if threads > 1));
    }
}

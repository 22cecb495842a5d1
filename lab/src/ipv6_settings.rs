//! How IPv6 behaves in a lab's namespaces.

use crate::error::LabError;

/// Keeps IPv6 off in the calling thread's namespace: its addresses and routes appear seconds after a link is up, which
/// would disturb comparisons of the host's state.
pub(crate) fn disable_ipv6() -> Result<(), LabError> {
    for scope in ["all", "default"] {
        set(scope, "disable_ipv6", "1")?;
    }
    Ok(())
}

/// Makes IPv6 usable at once in the calling thread's namespace: no search for duplicates and routers.
pub(crate) fn quiet_ipv6() -> Result<(), LabError> {
    for scope in ["all", "default", crate::machine::INTERFACE] {
        for setting in ["accept_dad", "accept_ra", "autoconf"] {
            set(scope, setting, "0")?;
        }
    }
    Ok(())
}

fn set(scope: &str, setting: &str, value: &str) -> Result<(), LabError> {
    let path = format!("/proc/sys/net/ipv6/conf/{scope}/{setting}");
    match std::fs::write(&path, value) {
        // A kernel without IPv6 has nothing to set.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::io(|| format!("write {path}"))(error))
        }
        _ => Ok(()),
    }
}

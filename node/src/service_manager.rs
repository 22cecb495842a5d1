//! What systemd is told about the daemon: sd_notify(3) is one datagram, so no library is needed.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What the daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// It serves.
    Ready,
    /// It ends.
    Stopping,
}

/// Tells the service manager, if there is one that wants to know; a failure is logged, as nothing depends on it.
pub(crate) fn announce(announcement: Announcement) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message: &[u8] = match announcement {
        Announcement::Ready => b"READY=1",
        Announcement::Stopping => b"STOPPING=1",
    };
    if let Err(error) = send(socket.as_bytes(), message) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

fn send(socket: &[u8], message: &[u8]) -> std::io::Result<()> {
    let address = match socket {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_gets_the_message_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("dpr-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut buffer = [0; 16];

        send(path.as_os_str().as_bytes(), b"READY=1").unwrap();
        send(format!("@{name}").as_bytes(), b"READY=1").unwrap();

        for socket in [by_path, by_name] {
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
    }
}

//! The command line's end of the control socket.

use super::protocol::{Request, Response};
use anyhow::{Context as _, bail};
use rustix::net::sockopt;
use rustix::process::{PidfdFlags, pidfd_open};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the daemon may take; its event loop answers within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the daemon at a control socket. Blocks.
///
/// # Errors
/// No daemon is there, it may not be asked, it does not answer, or it refuses; with what to do about it.
pub(crate) fn ask(socket: &Path, request: &Request) -> anyhow::Result<Response> {
    let mut stream = UnixStream::connect(socket).map_err(|error| explain(socket, error))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("asking the daemon")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("waiting for the daemon's answer")?;
    match serde_json::from_str(&answer)
        .context("the daemon's answer makes no sense; is it of another version?")?
    {
        Response::Error(reason) => bail!("the daemon refused: {reason}"),
        response => Ok(response),
    }
}

/// The process that listens at a control socket, to wait for its end; `None` if nobody does.
///
/// # Errors
/// It may not be asked, or is out of sight in another process namespace.
pub(crate) fn process_at(socket: &Path) -> anyhow::Result<Option<OwnedFd>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(explain(socket, error)),
    };
    let peer = sockopt::socket_peercred(&stream).context("asking who listens at the control socket")?;
    let process = pidfd_open(peer.pid, PidfdFlags::empty()).context("watching the daemon's process")?;
    Ok(Some(process))
}

fn explain(socket: &Path, error: std::io::Error) -> anyhow::Error {
    let socket = socket.display();
    let advice = match error.kind() {
        ErrorKind::NotFound => {
            format!(
                "no daemon is running at {socket}; start one with `dpr run`, or name its socket with --socket"
            )
        }
        ErrorKind::ConnectionRefused => {
            format!("the daemon at {socket} is not running any more; start it again with `dpr run`")
        }
        ErrorKind::PermissionDenied => {
            format!("{socket} belongs to the user that runs the daemon; try again as that user, or with sudo")
        }
        _ => format!("cannot reach the daemon at {socket}"),
    };
    anyhow::Error::new(error).context(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_run_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let (absent, stale) = (directory.path().join("absent"), directory.path().join("stale"));
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());

        let no_daemon = ask(&absent, &Request::Status).unwrap_err();
        let dead_daemon = ask(&stale, &Request::Status).unwrap_err();

        assert!(no_daemon.to_string().starts_with("no daemon is running"), "{no_daemon}");
        assert!(dead_daemon.to_string().contains("not running any more"), "{dead_daemon}");
    }
}

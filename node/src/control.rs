//! The control socket: how `dpr status` and its like talk to the daemon.
//!
//! Only the user that runs the daemon can connect. The server parses and waits; every answer is the event loop's.

pub(crate) mod client;
pub(crate) mod protocol;

use anyhow::{Context as _, bail};
use protocol::{REQUEST_MAX, Request, Response};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Clients at once; further ones wait.
const CLIENTS_MAX: usize = 16;

/// How long a client may take to ask and to take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A question to the event loop.
#[derive(Debug)]
pub(crate) struct Question {
    /// What is asked.
    pub(crate) request: Request,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Response>,
}

/// The bound socket; its path disappears with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: Option<std::os::unix::net::UnixListener>,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket for its owner only. To be called by who holds the lock of [`crate::incarnation::Life`]: a socket
    /// that is there already is stale.
    ///
    /// # Errors
    /// The path is taken by something that is no socket, or cannot be made.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                bail!(
                    "{} exists and is no socket; remove it or choose another control.socket",
                    path.display()
                );
            }
            std::fs::remove_file(path)
                .with_context(|| format!("removing the stale socket {}", path.display()))?;
        }
        let listener = listen_for_owner_only(path)
            .with_context(|| format!("binding the control socket {}", path.display()))?;
        Ok(Self { listener: Some(listener), path: path.to_owned() })
    }

    /// Begins to pass questions to the event loop. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot take the socket, or has it already.
    pub(crate) fn serve(&mut self, questions: mpsc::Sender<Question>) -> anyhow::Result<()> {
        let listener = self.listener.take().context("the control socket is served already")?;
        let listener = UnixListener::from_std(listener).context("registering the control socket")?;
        tokio::spawn(accept(listener, questions));
        Ok(())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the control socket was gone already");
        }
    }
}

/// The path is never open to others, as with a `chmod` after binding, and no other file is affected, as with an umask:
/// Linux gives it the mode that the socket has when it is bound (`unix_bind_bsd` in `net/unix/af_unix.c`).
fn listen_for_owner_only(path: &Path) -> std::io::Result<std::os::unix::net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(CLIENTS_MAX as i32)?;
    Ok(socket.into())
}

async fn accept(listener: UnixListener, questions: mpsc::Sender<Question>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let questions = questions.clone();
                tokio::spawn(async move {
                    let served = tokio::time::timeout(CLIENT_TIMEOUT, converse(stream, questions)).await;
                    if !matches!(served, Ok(Ok(()))) {
                        tracing::debug!(?served, "a control client went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "the control socket refuses to accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One line in, one line out.
async fn converse(mut stream: UnixStream, questions: mpsc::Sender<Question>) -> std::io::Result<()> {
    let mut line = Vec::new();
    let (reader, mut writer) = stream.split();
    BufReader::new(reader.take(REQUEST_MAX)).read_until(b'\n', &mut line).await?;
    let response = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => ask(request, &questions).await,
        Err(error) => Response::Error(format!("that is no request: {error}")),
    };
    let mut answer = serde_json::to_vec(&response)?;
    answer.push(b'\n');
    writer.write_all(&answer).await
}

async fn ask(request: Request, questions: &mpsc::Sender<Question>) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked = questions.send(Question { request, reply }).await;
    let answered = if asked.is_ok() { answer.await.ok() } else { None };
    answered.unwrap_or_else(|| Response::Error("the daemon is ending".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn answer_done(mut asked: mpsc::Receiver<Question>) {
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                question.reply.send(Response::Done).unwrap();
            }
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_client_gets_its_answer_and_nonsense_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let mut socket = ControlSocket::bind(&path).unwrap();
        let (questions, asked) = mpsc::channel(1);
        socket.serve(questions).unwrap();
        answer_done(asked);

        let stop =
            tokio::task::block_in_place(|| client::ask(&path, &Request::Stop { at_once: false })).unwrap();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"{\"request\":\"dance\"}\n").await.unwrap();
        let mut nonsense = String::new();
        stream.read_to_string(&mut nonsense).await.unwrap();

        assert_eq!(stop, Response::Done);
        assert!(nonsense.starts_with("{\"error\":\"that is no request"), "{nonsense}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (stale, file) = (directory.path().join("stale"), directory.path().join("file"));
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        std::fs::write(&file, "mine").unwrap();

        let bound = ControlSocket::bind(&stale).unwrap();
        let refused = ControlSocket::bind(&file).unwrap_err();

        assert!(refused.to_string().contains("is no socket"), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
        drop(bound);
        assert!(!stale.exists(), "the path disappears with the daemon");
    }
}

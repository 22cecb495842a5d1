//! Processes inside a machine that never outlive the lab.

use crate::error::LabError;
use rustix::process::{Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

/// A process; dropping it kills it and what it started.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command` in a network namespace, in a process group of its own.
    pub(crate) fn spawn(command: Command, namespace: OwnedFd, name: String) -> Result<Self, LabError> {
        let doing = || format!("start {name}");
        let child = NURSERY.spawn(confined(command, namespace)).map_err(LabError::io(doing))?;
        Ok(Self { child, name })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process and all that it started.
    ///
    /// # Errors
    ///
    /// It has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let doing = || format!("send {signal:?} to {}", self.name);
        kill_process_group(self.group(), signal).map_err(io::Error::from).map_err(LabError::io(doing))
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    ///
    /// The system does not know the process.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::io(|| format!("look after {}", self.name)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It did not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if began.elapsed() > limit {
                let what = format!("{} to end", self.name);
                return Err(LabError::Waited { what, waited: limit, last: "it still runs".to_owned() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(mut self) -> ExitStatus {
        self.end()
    }

    fn group(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("process ids are below 2^22");
        Pid::from_raw(id).expect("a child's id is not zero")
    }

    fn end(&mut self) -> ExitStatus {
        if let Ok(Some(status)) = self.child.try_wait() {
            return status;
        }
        // Only fails when the group is gone already.
        let _ = kill_process_group(self.group(), Signal::KILL);
        self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn confined(mut command: Command, namespace: OwnedFd) -> Command {
    let parent = Pid::as_raw(Some(rustix::process::getpid()));
    command.process_group(0);
    let prepare = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The signal is not sent for a parent that died before it was asked for.
        if Pid::as_raw(getppid()) != parent {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only: it neither allocates nor takes locks.
    unsafe { command.pre_exec(prepare) };
    command
}

/// The thread that starts all processes.
///
/// The kernel sends the parent-death signal when the *thread* ends that started the child, so the starting thread has
/// to live as long as the whole process.
static NURSERY: LazyLock<Nursery> = LazyLock::new(Nursery::start);

struct Nursery(Mutex<mpsc::Sender<Birth>>);

struct Birth {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

impl Nursery {
    fn start() -> Self {
        let (births, queue) = mpsc::channel::<Birth>();
        std::thread::Builder::new()
            .name("nursery".to_owned())
            .spawn(move || {
                for mut birth in queue {
                    // Nobody waits for the reply only if the asking thread was ended.
                    let _ = birth.reply.send(birth.command.spawn());
                }
            })
            .expect("a process that starts others may start a thread");
        Self(Mutex::new(births))
    }

    fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = mpsc::channel();
        let births = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        births.send(Birth { command, reply }).expect("the nursery lives as long as the process");
        drop(births);
        answer.recv().expect("the nursery answers every birth")
    }
}

//! A node of the lab: a machine, its `dpr` daemon, its servers, and what can befall them.

use crate::bpf_file_system::BpfFileSystem;
use crate::control::{ANSWER_TIMEOUT, Control};
use crate::error::LabError;
use crate::halt::Halt;
use crate::http_load::Kill;
use crate::ip_version::IpVersion;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::node_plan::{Addresses, NodePlan, Plane, Server};
use crate::paired::PairedServer;
use crate::process::Process;
use crate::wait::wait_until;
use dpr_model::status::{Connection, Status};
use dpr_model::{LoadPermille, NodeId};
use rustix::process::Signal;
use std::fs::{self, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a daemon may take until it answers on its control socket.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a daemon may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Number of the service address that all nodes share.
const SHARED_ADDRESS: u8 = 50;
/// Name of a node's configuration file.
const CONFIGURATION: &str = "dpr.toml";
/// Lines of a log that an error shows.
const LOG_TAIL_LINES: usize = 20;

/// A machine that runs `dpr run`; dropping it removes both.
#[derive(Debug)]
pub struct Node {
    // Dropped in this order: programs before the machine they run on.
    daemon: Option<Process>,
    server: Option<PairedServer>,
    bpf: Option<BpfFileSystem>,
    machine: Machine,
    lab: Lab,
    number: u8,
    plan: NodePlan,
    binary: PathBuf,
    directory: PathBuf,
    addresses: Addresses,
}

impl Node {
    /// Makes the machine of node `number` and the configuration, but starts no daemon yet.
    ///
    /// `binary` is the program that is started as `dpr run`.
    ///
    /// # Errors
    ///
    /// The number is out of range or in use, or the host refuses.
    pub fn new(lab: &Lab, number: u8, plan: NodePlan, binary: &Path) -> Result<Self, LabError> {
        let machine = machine_of(lab, number, &plan)?;
        let directory = lab.directory().join(machine.name());
        let doing = || format!("write the configuration of {}", machine.name());
        fs::create_dir_all(&directory).map_err(LabError::io(doing))?;
        let addresses = Addresses {
            node: address_in(&machine, plan.node_version)?,
            service: match (plan.shared, plan.separate_service_address) {
                (Some(_), _) => Lab::service_address(SHARED_ADDRESS, plan.service_version),
                (None, true) => Lab::service_address(number, plan.service_version),
                (None, false) => address_in(&machine, plan.service_version)?,
            },
        };
        let bpf = if plan.plane.has_programs() {
            Some(BpfFileSystem::mount(&directory.join("bpf"))?)
        } else {
            None
        };
        let pins = bpf.as_ref().map(BpfFileSystem::path);
        let file = plan.file(machine.name(), addresses, &directory.join("control.sock"), pins)?;
        fs::write(directory.join(CONFIGURATION), file).map_err(LabError::io(doing))?;
        Ok(Self {
            daemon: None,
            server: None,
            bpf,
            machine,
            lab: lab.clone(),
            number,
            plan,
            binary: binary.to_owned(),
            directory,
            addresses,
        })
    }

    /// Its name: `n1`, `n2`, …
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Its identity in the cluster.
    pub fn id(&self) -> NodeId {
        NodeId::from_address(self.addresses.node)
    }

    /// Its node address.
    pub fn address(&self) -> IpAddr {
        self.addresses.node
    }

    /// The machine it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What clients connect to.
    pub fn service(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.service, self.plan.service_port)
    }

    /// Path of its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.join(CONFIGURATION)
    }

    /// Path of its control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Path of its log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("dpr.log")
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Directories in which its daemon has pinned something.
    pub fn pinned(&self) -> Vec<PathBuf> {
        let entries = self.bpf.iter().filter_map(|bpf| fs::read_dir(bpf.path()).ok()).flatten();
        // The kernel itself puts files there.
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// Process id of the daemon, if one runs.
    pub fn daemon_id(&self) -> Option<u32> {
        self.daemon.as_ref().map(Process::id)
    }

    /// Starts a verifying server on the service port; the plan has to leave the port to it ([`Server::Paired`]).
    ///
    /// # Errors
    ///
    /// The port is in use.
    pub fn serve_paired(&mut self) -> Result<(), LabError> {
        self.server = Some(PairedServer::start(&self.machine, self.machine.name(), self.plan.service_port)?);
        Ok(())
    }

    /// The verifying server, if it was started.
    pub fn paired(&mut self) -> Option<&mut PairedServer> {
        self.server.as_mut()
    }

    /// Starts the daemon and waits until it answers on its control socket.
    ///
    /// # Errors
    ///
    /// It ended, or did not answer within thirty seconds.
    pub fn start(&mut self) -> Result<(), LabError> {
        self.spawn_daemon()?;
        self.wait_until_ready()
    }

    /// Waits until a started daemon answers on its control socket.
    ///
    /// # Errors
    ///
    /// It ended, or did not answer within thirty seconds.
    pub fn wait_until_ready(&mut self) -> Result<(), LabError> {
        let began = Instant::now();
        loop {
            let Err(error) = self.status() else { return Ok(()) };
            self.check_alive()?;
            if began.elapsed() > READY_LIMIT {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the daemon without waiting for anything.
    ///
    /// # Errors
    ///
    /// The program could not be started.
    pub fn spawn_daemon(&mut self) -> Result<(), LabError> {
        let log = self.log();
        let doing = || format!("write {}", log.display());
        let file = OpenOptions::new().create(true).append(true).open(&log).map_err(LabError::io(doing))?;
        let mut command = Command::new(&self.binary);
        command.args(["run", "--allow-load-override", "--config"]).arg(self.configuration());
        command.stdout(file.try_clone().map_err(LabError::io(doing))?).stderr(file);
        command.stdin(std::process::Stdio::null());
        self.daemon = Some(self.machine.spawn(command)?);
        Ok(())
    }

    /// What the node says about itself and its cluster.
    ///
    /// # Errors
    ///
    /// The daemon does not run or does not answer.
    pub fn status(&self) -> Result<Status, LabError> {
        self.control(&self.control_socket()).status()
    }

    /// Its connection-forwarding table, at most `limit` entries.
    ///
    /// # Errors
    ///
    /// The daemon does not run or does not answer.
    pub fn connections(&self, limit: u32) -> Result<Vec<Connection>, LabError> {
        self.control(&self.control_socket()).connections(limit)
    }

    /// Makes the node report `load` instead of what it measures; `None` makes it measure again.
    ///
    /// # Errors
    ///
    /// The daemon does not run or does not answer.
    pub fn override_load(&self, load: Option<LoadPermille>) -> Result<(), LabError> {
        self.control(&self.control_socket()).override_load(load)
    }

    /// Waits until this node has every one of `peers` alive with a load report younger than `age`.
    ///
    /// # Errors
    ///
    /// It does not within `limit`.
    pub fn wait_until_it_sees(&self, peers: &[NodeId], limit: Duration) -> Result<(), LabError> {
        let what = format!("{} to see {} peers", self.name(), peers.len());
        wait_until(&what, limit, || {
            let status = self.status().map_err(|error| error.to_string())?;
            let active = |id: &&NodeId| {
                status.peers.iter().any(|peer| {
                    peer.node.id == **id && peer.alive && peer.node.state == dpr_model::NodeState::Active
                })
            };
            let missing: Vec<&NodeId> = peers.iter().filter(|id| !active(id)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("missing {missing:?}")) }
        })
    }

    /// Takes its interface away, and after a while gives it another one with the same name and addresses.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn replace_interface(&mut self, gone: Duration) -> Result<(), LabError> {
        self.machine.replace_interface(gone)?;
        if self.plan.plane.has_programs() {
            self.machine.finish_checksums()?;
        }
        Ok(())
    }

    /// *daemon-kill*: SIGKILL of the process.
    pub fn kill_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// *node-kill*: cuts the link, then kills every process. Nothing of the node's last words gets out.
    ///
    /// # Errors
    ///
    /// The link could not be cut.
    pub fn node_kill(&mut self) -> Result<Kill, LabError> {
        self.machine.cut()?;
        let address = self.machine.address();
        let kill = Kill { node: self.name().to_owned(), address, at: Instant::now() };
        self.kill_daemon();
        self.server = None;
        Ok(kill)
    }

    /// Switches a killed node on again: a new machine with the same addresses and none of its former connections, a
    /// verifying server if the plan has one, and a new daemon that is ready when this returns.
    ///
    /// # Errors
    ///
    /// The host refuses, or the daemon does not come up.
    pub fn revive(&mut self) -> Result<(), LabError> {
        self.kill_daemon();
        self.server = None;
        // The port's name is free only once the old machine is gone.
        self.machine.unplug();
        self.machine = machine_of(&self.lab, self.number, &self.plan)?;
        if self.plan.server == Server::Paired {
            self.serve_paired()?;
        }
        self.start()
    }

    /// Stops the daemon in its tracks (SIGSTOP).
    ///
    /// # Errors
    ///
    /// No daemon runs.
    pub fn pause(&self) -> Result<(), LabError> {
        self.running()?.signal(Signal::STOP)
    }

    /// Lets a stopped daemon go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// No daemon runs.
    pub fn resume(&self) -> Result<(), LabError> {
        self.running()?.signal(Signal::CONT)
    }

    /// Has the daemon's thread of this name stand still until the answer is dropped; all others go on.
    ///
    /// # Errors
    ///
    /// No daemon runs, or it has no such thread.
    pub fn halt(&self, thread: &str) -> Result<Halt, LabError> {
        Halt::of(self.running()?.id(), thread)
    }

    /// Has its next daemon run another program, as an upgrade does.
    pub fn install(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Asks the daemon to end with `signal` and waits for it.
    ///
    /// # Errors
    ///
    /// No daemon runs, or it did not end within 15 seconds.
    pub fn end_daemon(&mut self, signal: Signal) -> Result<ExitStatus, LabError> {
        self.running()?.signal(signal)?;
        let mut daemon = self.daemon.take().ok_or_else(|| self.no_daemon())?;
        daemon.wait(END_LIMIT)
    }

    /// Ends the daemon with SIGTERM and waits for it.
    ///
    /// # Errors
    ///
    /// No daemon runs, or it did not end within 15 seconds.
    pub fn terminate(&mut self) -> Result<ExitStatus, LabError> {
        self.end_daemon(Signal::TERM)
    }

    fn control<'a>(&'a self, socket: &'a Path) -> Control<'a> {
        Control { node: self.name(), socket, patience: ANSWER_TIMEOUT }
    }

    fn running(&self) -> Result<&Process, LabError> {
        self.daemon.as_ref().ok_or_else(|| self.no_daemon())
    }

    fn no_daemon(&self) -> LabError {
        LabError::NoDaemon { node: self.name().to_owned() }
    }

    fn check_alive(&mut self) -> Result<(), LabError> {
        let ended = match &mut self.daemon {
            Some(daemon) => daemon.ended()?,
            None => return Err(self.no_daemon()),
        };
        let Some(status) = ended else { return Ok(()) };
        self.daemon = None;
        let node = self.name().to_owned();
        Err(LabError::DaemonEnded {
            node,
            status: status.to_string(),
            log: self.log(),
            tail: self.log_tail(),
        })
    }
}

fn machine_of(lab: &Lab, number: u8, plan: &NodePlan) -> Result<Machine, LabError> {
    let machine = lab.node_machine(number, plan.mtu)?;
    if plan.plane.has_programs() {
        machine.finish_checksums()?;
    }
    if plan.plane == Plane::XdpNative {
        machine.send_from_driver()?;
    }
    Ok(machine)
}

fn address_in(machine: &Machine, version: IpVersion) -> Result<IpAddr, LabError> {
    let missing = || LabError::NoAddress { machine: machine.name().to_owned(), version: version.label() };
    machine.address_in(version).ok_or_else(missing)
}

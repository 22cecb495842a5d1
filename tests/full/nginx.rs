//! nginx on one machine, with its own root, log and temporary files below one directory.

use crate::programs;
use dpr_lab::{Machine, Process, wait_until};
use dpr_tests::stage::PATIENCE;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A running nginx that listens on 0.0.0.0:80; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Nginx {
    _process: Process,
    directory: PathBuf,
}

/// One line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The client, as nginx sees it.
    pub(crate) client: SocketAddr,
    /// nginx's number for the connection that carried it.
    pub(crate) connection: u64,
    pub(crate) status: u16,
    /// Method and path.
    pub(crate) what: String,
}

/// Path of a page that holds the name of the machine.
pub(crate) const NAME: &str = "/name";
/// Path of a file that takes about a second, and its length in bytes.
pub(crate) const SLOW: &str = "/slow";
const SLOW_LEN: usize = 64 * 1024;
/// Path of a file that takes about four seconds.
pub(crate) const LONG: &str = "/long";
const LONG_LEN: usize = 4 * SLOW_LEN;

impl Nginx {
    /// Starts nginx on `machine` with everything that it writes below `directory`; it listens when this returns.
    pub(crate) fn start(machine: &Machine, directory: &Path) -> Self {
        let root = directory.join("root");
        for needed in [root.clone(), directory.join("temporary")] {
            fs::create_dir_all(needed).unwrap();
        }
        fs::write(directory.join("nginx.conf"), include_str!("nginx.conf")).unwrap();
        fs::write(root.join(NAME.trim_start_matches('/')), machine.name()).unwrap();
        fs::write(root.join(SLOW.trim_start_matches('/')), vec![b's'; SLOW_LEN]).unwrap();
        fs::write(root.join(LONG.trim_start_matches('/')), vec![b'l'; LONG_LEN]).unwrap();
        let mut command = programs::command("nginx");
        // The error log is named here too: nginx opens it before it reads its configuration.
        command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "error.log"]);
        let nginx = Self { _process: machine.spawn(command).unwrap(), directory: directory.to_owned() };
        // It is written after the port was taken.
        let pid = directory.join("nginx.pid");
        let what = format!("nginx on {} to listen", machine.name());
        wait_until(&what, PATIENCE, || if pid.exists() { Ok(()) } else { Err(nginx.errors()) }).unwrap();
        nginx
    }

    /// A file below its root.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.directory.join("root").join(path.trim_start_matches('/'))
    }

    /// Everything that it served so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let log = fs::read_to_string(self.directory.join("access.log")).unwrap();
        log.lines().map(Request::of).collect()
    }

    /// Its error log.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.directory.join("error.log")).unwrap_or_default()
    }
}

impl Request {
    /// Reads a line as `nginx.conf` formats it.
    fn of(line: &str) -> Self {
        let [address, port, connection, status, what] = line
            .splitn(5, ' ')
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_else(|_| panic!("a log line of another format: {line}"));
        Self {
            client: SocketAddr::new(address.parse().unwrap(), port.parse().unwrap()),
            connection: connection.parse().unwrap(),
            status: status.parse().unwrap(),
            what: what.to_owned(),
        }
    }
}

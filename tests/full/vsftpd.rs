//! vsftpd on one machine, for everybody to read and to write, with everything that it needs below one directory.

use crate::programs;
use dpr_lab::{IpVersion, Machine, Process};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// First and last port of its data connections in passive mode.
pub(crate) const PASSIVE_PORTS: (u16, u16) = (50_000, 50_009);

/// A running vsftpd that listens on port 21 of every address; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Vsftpd {
    _process: Process,
    directory: PathBuf,
}

impl Vsftpd {
    /// Starts it on `machine` with everything that it writes below `directory`. It tells clients in passive mode to come to
    /// `announced`, or else to the address that it sees as its own.
    pub(crate) fn start(
        machine: &Machine,
        version: IpVersion,
        announced: Option<IpAddr>,
        directory: &Path,
    ) -> Self {
        let (root, empty) = (directory.join("root"), directory.join("empty"));
        for needed in [root.join("incoming"), empty.clone()] {
            fs::create_dir_all(needed).unwrap();
        }
        fs::write(root.join("name"), machine.name()).unwrap();
        // vsftpd takes no root that its users could write to.
        for read_only in [&root, &empty] {
            fs::set_permissions(read_only, fs::Permissions::from_mode(0o555)).unwrap();
        }
        let file = directory.join("vsftpd.conf");
        fs::write(&file, configuration(directory, version, announced)).unwrap();
        let mut command = programs::command("vsftpd");
        command.arg(&file);
        Self { _process: machine.spawn(command).unwrap(), directory: directory.to_owned() }
    }

    /// A file below its root.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.directory.join("root").join(path)
    }

    /// What it and its clients said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

/// One process of the user who starts it: in a user namespace there is nobody else.
fn configuration(directory: &Path, version: IpVersion, announced: Option<IpAddr>) -> String {
    let directory = directory.display();
    let listen = match version {
        IpVersion::V4 => "listen=YES",
        IpVersion::V6 => "listen_ipv6=YES\nlisten=NO",
    };
    let announced = announced.map(|address| format!("pasv_address={address}\n")).unwrap_or_default();
    let (first, last) = PASSIVE_PORTS;
    format!(
        "{listen}\nbackground=NO\nrun_as_launching_user=YES\nftp_username=root\nseccomp_sandbox=NO\nisolate=NO\n\
         isolate_network=NO\nanonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nwrite_enable=YES\n\
         anon_upload_enable=YES\nanon_umask=022\nanon_root={directory}/root\nsecure_chroot_dir={directory}/empty\n\
         vsftpd_log_file={directory}/log\nxferlog_enable=YES\nlog_ftp_protocol=YES\nconnect_from_port_20=YES\n\
         pasv_min_port={first}\npasv_max_port={last}\n{announced}"
    )
}

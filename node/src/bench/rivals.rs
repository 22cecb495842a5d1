//! What others forward with: the kernel's NAT by nftables, HAProxy, nginx. Each as its manual sets it up for this, and
//! nothing that slows it down, such as logs.

use anyhow::{Context as _, bail};
use dpr_host::{NetNamespace, Sysctl};
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which way replies take through NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    /// Their own; nobody looks at them here.
    OfTheirOwn,
    /// Back through NAT: servers see its address instead of the client's.
    ComeBack,
}

/// Has the kernel translate what comes to one socket into another one's.
///
/// `dpr_host::nft` has tables that drop, and none that translate: nothing but benchmarks needs them.
///
/// # Errors
/// There is no `nft`, or it refuses.
pub(super) fn translate(
    namespace: &NetNamespace,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    replies: Replies,
) -> anyhow::Result<()> {
    namespace.enter(|| Sysctl::ip_forward().write("1"))??;
    let back = match replies {
        Replies::OfTheirOwn => String::new(),
        Replies::ComeBack => format!(
            "  chain postrouting {{\n    type nat hook postrouting priority srcnat;\n    \
             ip daddr {} tcp dport {} masquerade\n  }}\n",
            to.0, to.1
        ),
    };
    let rules = format!(
        "table ip bench {{\n  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {} tcp dport {} dnat to {}:{}\n  }}\n{back}}}\n",
        from.0, from.1, to.0, to.1
    );
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut nft = namespace.spawn(&mut command).context("loading the rules for nftables")?;
    let mut input = nft.stdin.take().context("nft was started with a pipe")?;
    input.write_all(rules.as_bytes()).context("telling nft the rules")?;
    drop(input);
    let status = nft.wait()?;
    if !status.success() {
        bail!("nft refused the rules for NAT: {status}");
    }
    Ok(())
}

/// A program that takes connections and makes others to a server (layer 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    /// HAProxy in `mode tcp`.
    Haproxy,
    /// nginx's `stream` module.
    Nginx,
}

impl Proxy {
    /// How to start it in the foreground: from port 80 of all addresses to `server`. Its files are written to `directory`.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn command(self, directory: &Path, server: SocketAddrV4) -> anyhow::Result<Command> {
        let file = directory.join(self.program());
        fs::write(&file, self.configuration(server)).with_context(|| file.display().to_string())?;
        let mut command = Command::new(self.path().with_context(|| format!("no {}", self.program()))?);
        match self {
            // In the foreground, with warnings of limits kept to itself.
            Self::Haproxy => command.arg("-db").arg("-q").arg("-f").arg(&file),
            Self::Nginx => command.arg("-p").arg(directory).arg("-c").arg(&file).args(["-e", "nginx.log"]),
        };
        Ok(command)
    }

    /// Name of the executable.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Why it cannot be had here, if so.
    pub(super) fn missing(self) -> Option<String> {
        let hint = match self {
            Self::Haproxy if self.path().is_none() => "apt-get install haproxy",
            Self::Nginx if self.path().is_none() || stream_module().is_none() => {
                "apt-get install nginx-light libnginx-mod-stream"
            }
            _ => return None,
        };
        Some(format!("{} is left out: it is not installed ({hint})", self.program()))
    }

    /// Ordinary users' search path often lacks the directories of daemons.
    fn path(self) -> Option<PathBuf> {
        let directories = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"];
        directories
            .map(|directory| Path::new(directory).join(self.program()))
            .into_iter()
            .find(|path| path.exists())
    }

    fn configuration(self, server: SocketAddrV4) -> String {
        match self {
            Self::Haproxy => format!(
                "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
                 timeout server 60s\nfrontend clients\n  bind 0.0.0.0:80\n  default_backend servers\n\
                 backend servers\n  server one {server}\n"
            ),
            // One process: with a master, nginx would want another user, which a user namespace does not have.
            Self::Nginx => format!(
                "{}\ndaemon off;\nmaster_process off;\nuser root root;\npid nginx.pid;\nlock_file nginx.lock;\n\
                 events {{ worker_connections 4000; }}\n\
                 stream {{\n  server {{\n    listen 0.0.0.0:80 backlog=4096;\n    proxy_pass {server};\n  }}\n}}\n",
                stream_module().map(|module| format!("load_module {module};")).unwrap_or_default()
            ),
        }
    }
}

/// Where Debian puts the module.
fn stream_module() -> Option<&'static str> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    Path::new(MODULE).exists().then_some(MODULE)
}

/// Why NAT by nftables cannot be had here, if so.
pub(super) fn nft_is_missing() -> Option<String> {
    let found = Command::new("nft").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = matches!(found, Err(error) if error.kind() == ErrorKind::NotFound);
    missing
        .then(|| "nftables DNAT is left out: there is no program `nft` (apt-get install nftables)".to_owned())
}

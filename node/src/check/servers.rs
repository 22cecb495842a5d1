//! What listens on the service ports, and whether delivered packets would reach it.

use super::finding::Finding;
use crate::config::{Config, Server};
use dpr_host::sock_diag::{Listener, TcpSockets};
use std::net::IpAddr;

/// Looks at every service port.
pub(super) fn check(config: &Config, is_running: bool) -> Vec<Finding> {
    let ports = config.service_ports();
    let mut sockets = match TcpSockets::open() {
        Ok(sockets) => sockets,
        Err(error) => {
            let mend = "modprobe tcp_diag";
            return vec![Finding::error(
                "listening sockets",
                format!("they cannot be listed: {error}"),
                mend,
            )];
        }
    };
    let mut findings = Vec::new();
    for port in ports {
        match sockets.listeners(port) {
            Ok(listeners) if config.server == Server::External => {
                findings.extend(external(config, port, &listeners));
            }
            Ok(listeners) if !is_running => findings.extend(built_in(port, &listeners)),
            Ok(_) => {}
            Err(error) => {
                let subject = format!("port {port}");
                findings.push(Finding::warning(
                    subject,
                    format!("its listeners cannot be listed: {error}"),
                    "run the check as root",
                ));
            }
        }
    }
    findings
}

/// The built-in server needs the port for itself.
fn built_in(port: u16, listeners: &[Listener]) -> Option<Finding> {
    let taken = listeners.first()?;
    let problem = format!("the built-in server cannot have it: somebody listens on {}", taken.socket);
    let mend = format!(
        "set http.external = true to keep that server; or stop it: `ss -ltnp 'sport = :{port}'` names it"
    );
    Some(Finding::error(format!("port {port}"), problem, mend))
}

/// A server of the operator's has to listen where delivered packets arrive.
fn external(config: &Config, port: u16, listeners: &[Listener]) -> Option<Finding> {
    let subject = format!("port {port}");
    if listeners.is_empty() {
        let mend = format!("start the server, listening on 0.0.0.0:{port}");
        return Some(Finding::warning(
            subject,
            "no server listens; the node will say that its service is down",
            mend,
        ));
    }
    if listeners.iter().any(|listener| is_reached(config, listener)) {
        return None;
    }
    let bound: Vec<String> = listeners.iter().map(|listener| listener.socket.to_string()).collect();
    let problem = format!(
        "the server listens on {} only and would miss connections, which come to addresses of {}",
        bound.join(", "),
        config.delivery_range
    );
    let mend = format!(
        "listen on every address; nginx: `listen {port};`, Apache: `Listen {port}`, IPv6: not v6only"
    );
    Some(Finding::error(subject, problem, mend))
}

fn is_reached(config: &Config, listener: &Listener) -> bool {
    let within = matches!(listener.socket.ip().to_canonical(), IpAddr::V4(bound) if config.delivery_range.contains(bound));
    listener.link.is_none() && (within || listener.accepts(config.delivery_range.address.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Defaults;
    use std::path::Path;

    fn config() -> Config {
        let text = "[node]\naddress = \"192.0.2.11\"\n[[service]]\n[http]\nexternal = true\n";
        let defaults = Defaults { host_name: "a".to_owned(), processors: 1 };
        Config::parse(Path::new("a.toml"), text, &defaults).unwrap()
    }

    fn listener(text: &str) -> Listener {
        Listener { socket: text.parse().unwrap(), v6_only: false, link: None }
    }

    #[test]
    fn a_server_on_one_address_would_miss_its_connections() {
        let finding = external(&config(), 80, &[listener("192.0.2.11:80")]).unwrap();

        assert!(finding.problem.contains("listens on 192.0.2.11:80 only"), "{finding:?}");
        assert!(finding.mend.unwrap().contains("listen 80;"));
    }

    #[test]
    fn a_server_on_every_address_is_fine() {
        assert_eq!(external(&config(), 80, &[listener("192.0.2.11:80"), listener("0.0.0.0:80")]), None);
        assert_eq!(external(&config(), 80, &[listener("[::]:80")]), None);
    }

    #[test]
    fn the_built_in_server_does_not_share_its_port() {
        assert_eq!(built_in(80, &[]), None);
        assert!(built_in(80, &[listener("0.0.0.0:80")]).unwrap().mend.unwrap().contains("http.external"));
    }
}

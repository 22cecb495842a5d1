//! What listens on the service ports, and whether delivered packets would reach it.

use super::finding::Finding;
use crate::config::{Config, Server, Service};
use crate::load_sampler::{delivered_to, is_reached};
use dpr_host::sock_diag::{InetSockets, Listener};
use dpr_model::Protocol;

/// Looks where every service is delivered.
pub(super) fn check(config: &Config, is_running: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let services: Vec<&Service> =
            config.services.iter().filter(|service| service.protocol == protocol).collect();
        if services.is_empty() {
            continue;
        }
        match InetSockets::open(protocol) {
            Ok(mut sockets) => {
                findings.extend(check_services(config, &services, &mut sockets, is_running));
            }
            Err(error) => {
                let mend = format!("modprobe {}_diag", protocol.label());
                let problem = format!("they cannot be listed: {error}");
                findings.push(Finding::error("listening sockets", problem, mend));
            }
        }
    }
    findings
}

fn check_services(
    config: &Config,
    services: &[&Service],
    sockets: &mut InetSockets,
    is_running: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in services {
        // The built-in server serves TCP only.
        let is_external = config.server == Server::External || service.protocol == Protocol::Udp;
        match sockets.listeners(service.port) {
            Ok(listeners) if is_external => findings.extend(external(config, service, &listeners)),
            Ok(listeners) if !is_running => findings.extend(built_in(service.port, &listeners)),
            Ok(_) => {}
            Err(error) => {
                let subject = subject_of(service);
                let problem = format!("its listeners cannot be listed: {error}");
                findings.push(Finding::warning(subject, problem, "run the check as root"));
            }
        }
    }
    findings.dedup();
    findings
}

fn subject_of(service: &Service) -> String {
    format!("{} port {}", service.protocol.label(), service.port)
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
fn external(config: &Config, service: &Service, listeners: &[Listener]) -> Option<Finding> {
    let (subject, port) = (subject_of(service), service.port);
    let anywhere = if service.address.is_ipv4() { "0.0.0.0" } else { "[::]" };
    if listeners.is_empty() {
        let mend = format!("start the server, listening on {anywhere}:{port}");
        return Some(Finding::warning(
            subject,
            "no server listens; the node will say that its service is down",
            mend,
        ));
    }
    let address = delivered_to(service, config.delivery_ranges);
    if listeners.iter().any(|listener| is_reached(listener, address, config.delivery_ranges)) {
        return None;
    }
    let bound: Vec<String> = listeners.iter().map(|listener| listener.socket.to_string()).collect();
    let problem = format!(
        "the server listens on {} only and would miss connections, which come to addresses such as {address}",
        bound.join(", "),
    );
    let mend = match service.address.is_ipv4() {
        true => format!("listen on every address; nginx: `listen {port};`, Apache: `Listen {port}`"),
        false => {
            format!("listen on every address; nginx: `listen [::]:{port};`, Apache: `Listen [::]:{port}`")
        }
    };
    Some(Finding::error(subject, problem, mend))
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
        let finding = external(&config(), &config().services[0], &[listener("192.0.2.11:80")]).unwrap();

        assert!(finding.problem.contains("listens on 192.0.2.11:80 only"), "{finding:?}");
        assert!(finding.mend.unwrap().contains("listen 80;"));
    }

    #[test]
    fn a_server_on_every_address_is_fine() {
        assert_eq!(
            external(&config(), &config().services[0], &[listener("192.0.2.11:80"), listener("0.0.0.0:80")]),
            None
        );
        assert_eq!(external(&config(), &config().services[0], &[listener("[::]:80")]), None);
    }

    #[test]
    fn the_built_in_server_does_not_share_its_port() {
        assert_eq!(built_in(80, &[]), None);
        assert!(built_in(80, &[listener("0.0.0.0:80")]).unwrap().mend.unwrap().contains("http.external"));
    }
}

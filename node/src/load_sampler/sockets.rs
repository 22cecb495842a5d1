//! TCP sockets of the services, as the kernel lists them.

use crate::config::Ipv4Prefix;
use dpr_host::IpPrefix;
use dpr_host::sock_diag::{Listener, TcpSockets};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Looks for sockets of the service ports.
pub(super) struct Sockets {
    /// `None` where the kernel cannot list sockets.
    kernel: Option<TcpSockets>,
    ports: Vec<u16>,
    delivery_range: Ipv4Prefix,
    forwarded_in: Option<(Instant, u64)>,
}

/// How long a count of forwarded connections is good for: it takes more than one look at the kernel's table.
const FORWARDED_IN_AGE_MAX: Duration = Duration::from_secs(1);

impl Sockets {
    pub(super) fn new(ports: Vec<u16>, delivery_range: Ipv4Prefix) -> Self {
        let kernel = TcpSockets::open()
            .inspect_err(
                |error| tracing::warn!(%error, "connections are estimated by all TCP sockets in use"),
            )
            .ok();
        Self { kernel, ports, delivery_range, forwarded_in: None }
    }

    /// Established connections to the service ports.
    pub(super) fn established(&mut self) -> Option<u64> {
        self.kernel.as_mut()?.count_established(IpPrefix::ALL_IPV4, &self.ports).ok()
    }

    /// Established connections through delivery addresses other than `own`: their directors are other nodes.
    pub(super) fn forwarded_in(&mut self, own: &[IpAddr], now: Instant) -> u64 {
        match self.forwarded_in {
            Some((counted, count)) if now.duration_since(counted) < FORWARDED_IN_AGE_MAX => count,
            _ => {
                let count = self.count_forwarded_in(own).unwrap_or(0);
                self.forwarded_in = Some((now, count));
                count
            }
        }
    }

    fn count_forwarded_in(&mut self, own: &[IpAddr]) -> Option<u64> {
        let (kernel, ports) = (self.kernel.as_mut()?, &self.ports);
        let range = IpPrefix::new(self.delivery_range.address.into(), self.delivery_range.length).ok()?;
        let mut count = kernel.count_established(range, ports).ok()?;
        for address in own {
            count = count.saturating_sub(kernel.count_established(IpPrefix::host(*address), ports).ok()?);
        }
        Some(count)
    }

    /// For each service port, whether a server listens that delivered packets reach; `true` where nobody knows.
    pub(super) fn listening(&mut self) -> Vec<(u16, bool)> {
        let (kernel, range) = (&mut self.kernel, self.delivery_range);
        let mut is_listening = |port| match kernel.as_mut().map(|sockets| sockets.listeners(port)) {
            Some(Ok(listeners)) => listeners.iter().any(|listener| is_reached(listener, range)),
            Some(Err(_)) | None => true,
        };
        self.ports.iter().map(|&port| (port, is_listening(port))).collect()
    }
}

fn is_reached(listener: &Listener, range: Ipv4Prefix) -> bool {
    let bound_within = match listener.socket.ip().to_canonical() {
        IpAddr::V4(bound) => range.contains(bound),
        IpAddr::V6(_) => false,
    };
    listener.link.is_none() && (bound_within || listener.accepts(range.address.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    const RANGE: Ipv4Prefix = Ipv4Prefix { address: Ipv4Addr::new(169, 254, 64, 0), length: 20 };

    #[test]
    fn a_server_on_every_address_is_reached_and_one_on_a_single_address_is_not() {
        let listener = |text: &str| Listener { socket: text.parse().unwrap(), v6_only: false, link: None };

        assert!(is_reached(&listener("0.0.0.0:80"), RANGE));
        assert!(is_reached(&listener("[::]:80"), RANGE));
        assert!(is_reached(&listener("169.254.64.7:80"), RANGE));
        assert!(!is_reached(&listener("192.0.2.11:80"), RANGE));
        assert!(!is_reached(&Listener { v6_only: true, ..listener("[::]:80") }, RANGE));
    }

    #[test]
    fn a_port_listens_as_long_as_its_server_lives() {
        let server = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let mut sockets = Sockets::new(vec![port], RANGE);

        let before = sockets.listening();
        drop(server);
        let after = sockets.listening();

        assert_eq!((before, after), (vec![(port, true)], vec![(port, false)]));
    }
}

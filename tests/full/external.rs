//! nginx behind `dpr` (`http.external = true`): curl and nginx see a direct connection, whichever node serves it.

use crate::curl::{Fetched, Transfer, curl};
use crate::nginx::{NAME, Request};
use crate::web::Web;
use dpr_lab::wait_until;
use dpr_tests::stage::PATIENCE;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const IN_TURN: usize = 200;
const AT_ONCE: usize = 50;

pub(crate) fn overloaded() {
    let web = Web::start(3);
    web.set_loads(&[900, 100, 100]);

    let url = web.url(NAME);
    let client = &web.clients[0];
    let mut fetched: Vec<Fetched> = (0..IN_TURN).map(|_| web.curl(&[&url])).collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| curl(client, &[&url]))).collect();
        fetched.extend(running.into_iter().map(|curl| curl.join().unwrap()));
    });

    let mut served: BTreeMap<&str, Vec<SocketAddr>> = BTreeMap::new();
    for one in &fetched {
        let transfer = one.transfer();
        assert_eq!((transfer.exit_code, transfer.status), (0, 200), "{transfer:?}");
        assert_eq!(transfer.remote, Some(web.address()), "curl has to see the address that it asked for");
        served.entry(one.text()).or_default().push(own_end(&web, transfer));
    }
    let nodes: Vec<&str> = served.keys().copied().collect();
    assert_eq!(nodes, ["n2", "n3"], "both lighter nodes serve, and the overloaded one does not");
    assert!(web.nginxes[0].requests().is_empty(), "{:?}", web.nginxes[0].requests());
    for (position, node) in nodes.iter().enumerate() {
        let mut clients: Vec<SocketAddr> =
            logged(&web, position + 1, served[node].len()).iter().map(|request| request.client).collect();
        clients.sort_unstable();
        served.get_mut(node).unwrap().sort_unstable();
        assert_eq!(clients, served[node], "{node} has to log every client's own address and port");
    }
}

pub(crate) fn keep_alive() {
    const REQUESTS: usize = 80;
    let web = Web::start(3);
    // n2 is the only node lighter than n1; while the requests go on, n3 becomes the only one.
    web.set_loads(&[800, 100, 900]);

    let url = web.url(NAME);
    let mut arguments = vec!["--rate", "10/s"];
    arguments.extend(std::iter::repeat_n(url.as_str(), REQUESTS));
    let client = &web.clients[0];
    // Until the director knows the new loads, n2 may get another connection.
    let others_at_n2 = Cell::new(0);
    let fetched = std::thread::scope(|scope| {
        let running = scope.spawn(|| curl(client, &arguments));
        std::thread::sleep(Duration::from_secs(1));
        web.set_loads(&[800, 900, 100]);
        let goes_elsewhere = || match web.curl(&[&url]).text() {
            "n3" => Ok(()),
            other => {
                others_at_n2.set(others_at_n2.get() + usize::from(other == "n2"));
                Err(format!("{other} served it"))
            }
        };
        wait_until("a new connection to go elsewhere", PATIENCE, goes_elsewhere).unwrap();
        assert!(!running.is_finished(), "the requests ended before the loads changed");
        running.join().unwrap()
    });

    assert_eq!(fetched.text(), "n2".repeat(REQUESTS));
    let opened: u64 = fetched.transfers.iter().map(|transfer| transfer.connections).sum();
    assert_eq!((fetched.transfers.len(), opened), (REQUESTS, 1), "all on one connection");
    let requests = logged(&web, 1, REQUESTS + others_at_n2.get());
    let on_the_first = requests.iter().filter(|request| request.connection == requests[0].connection);
    assert_eq!(on_the_first.count(), REQUESTS, "{requests:?}");
}

/// The client's end of a transfer's connection.
fn own_end(web: &Web, transfer: &Transfer) -> SocketAddr {
    SocketAddr::new(web.clients[0].address(), u16::try_from(transfer.local_port).unwrap())
}

/// The requests that a nginx served, once there are `expected`: it logs a request after the client has its answer.
fn logged(web: &Web, node: usize, expected: usize) -> Vec<Request> {
    let nginx = &web.nginxes[node];
    let what = format!("{expected} lines in the access log of {}", web.nodes[node].name());
    let enough = || match nginx.requests() {
        requests if requests.len() >= expected => Ok(requests),
        requests => Err(format!("{} lines; errors: {}", requests.len(), nginx.errors())),
    };
    let requests = wait_until(&what, PATIENCE, enough).unwrap();
    assert_eq!(requests.len(), expected, "nobody else asked");
    let answered = |request: &Request| request.status == 200 && request.what == format!("GET {NAME}");
    assert!(requests.iter().all(answered), "{requests:?}");
    requests
}

//! A resolver's questions, asked from a machine.

use dpr_lab::{DnsPlan, IpVersion, Machine, Node};
use dpr_rrdns::parse_name;
use dpr_rrdns::stub::{self, RecordType, Reply};
use std::io;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long a name server of the lab may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends a question somewhere and waits for what comes back.
type Exchange = fn(&[u8], (IpAddr, u16)) -> io::Result<Vec<u8>>;

/// What `server` says to `machine` about the service's addresses, of the IP version that it serves; by TCP, if it says so.
///
/// # Panics
/// It does not answer, or answers something that cannot be read.
pub fn ask(machine: &Machine, server: &Node) -> Reply {
    let reply = ask_by(by_udp, machine, server);
    if reply.truncated { ask_by_tcp(machine, server) } else { reply }
}

/// The same by TCP at once, where no limit of rates counts.
///
/// # Panics
/// Those of [`ask`].
pub fn ask_by_tcp(machine: &Machine, server: &Node) -> Reply {
    ask_by(by_tcp, machine, server)
}

fn ask_by(exchange: Exchange, machine: &Machine, server: &Node) -> Reply {
    let name = parse_name(&DnsPlan::default().service_name(), None).expect("it is a name");
    let rtype = if server.service().is_ipv4() { RecordType::A } else { RecordType::AAAA };
    let question = stub::question(7, &name, rtype);
    let to = (server.address(), 53);
    let answer = machine.exec(|| exchange(&question, to)).expect("the machine can be entered");
    let answer = answer.unwrap_or_else(|error| panic!("{} does not answer: {error}", server.name()));
    assert!(stub::is_reply_to(&answer, &question));
    stub::read(&answer).expect("the answer is well-formed")
}

fn by_udp(question: &[u8], to: (IpAddr, u16)) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((IpVersion::of(to.0).unspecified(), 0))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.send_to(question, to)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

fn by_tcp(question: &[u8], to: (IpAddr, u16)) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stub::exchange(&mut stream, question)
}

/// The first addresses of `count` answers, sorted.
pub fn firsts(machine: &Machine, server: &Node, count: usize) -> Vec<IpAddr> {
    let first = |_| ask(machine, server).addresses.first().map(|(address, _)| *address);
    let mut firsts: Vec<IpAddr> = (0..count).filter_map(first).collect();
    firsts.sort_unstable();
    firsts
}

//! Small things that hosts answer: UDP echo, ping, and somebody else's IP-in-IP tunnel.

use dpr_lab::INTERFACE;
use dpr_lab::Machine;
use dpr_lab::forge::{FrameSender, ethernet_ipv4, ipv4};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Ipv4HeaderSlice};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long an answer may take; there is no loss in the lab.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How late the server may notice its end.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longer than any datagram.
const BUFFER_LEN: usize = 65_536;

/// Sends every datagram back; dropping it ends it.
#[derive(Debug)]
pub(crate) struct UdpEcho {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl UdpEcho {
    /// Listens on 0.0.0.0:`port` of `machine`.
    pub(crate) fn start(machine: &Machine, port: u16) -> Self {
        let socket = udp(machine, port);
        socket.set_read_timeout(Some(POLL_INTERVAL)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            let mut buffer = vec![0; BUFFER_LEN];
            while !stopped.load(Ordering::Acquire) {
                match socket.recv_from(&mut buffer) {
                    Ok((length, client)) => drop(socket.send_to(&buffer[..length], client)?),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        Self { stop, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("the thread is taken here only").expect("it has no reason to panic").unwrap();
        }
    }
}

/// Sends `datagram` from `machine` and takes the answer, which has to come from `server`.
pub(crate) fn ask_udp(machine: &Machine, server: SocketAddr, datagram: &[u8]) -> io::Result<Vec<u8>> {
    let socket = udp(machine, 0);
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    // A connected socket takes nothing from anybody else.
    socket.connect(server)?;
    socket.send(datagram)?;
    let mut buffer = vec![0; BUFFER_LEN];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

fn udp(machine: &Machine, port: u16) -> UdpSocket {
    machine.exec(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap().unwrap()
}

/// Pings `target` once with `payload` (RFC 792) and takes the answer's payload.
pub(crate) fn ping(machine: &Machine, target: Ipv4Addr, payload: &[u8]) -> io::Result<Vec<u8>> {
    const OURS: IcmpEchoHeader = IcmpEchoHeader { id: 0xd0d0, seq: 1 };
    let mut socket = raw(machine, Protocol::ICMPV4)?;
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(OURS), payload);
    let request = [&header.to_bytes()[..], payload].concat();
    socket.send_to(&request, &SocketAddrV4::new(target, 0).into())?;
    loop {
        let packet = receive(&mut socket)?;
        let ip = Ipv4HeaderSlice::from_slice(&packet).map_err(io::Error::other)?;
        let icmp = Icmpv4Slice::from_slice(&packet[ip.slice().len()..]).map_err(io::Error::other)?;
        if ip.source_addr() == target && icmp.icmp_type() == Icmpv4Type::EchoReply(OURS) {
            return Ok(icmp.payload().to_vec());
        }
    }
}

/// The end of a tunnel that is not `dpr`'s.
#[derive(Debug)]
pub(crate) struct ForeignTunnel(Socket);

impl ForeignTunnel {
    /// Begins to take what the kernel of `machine` has of IP in IP.
    pub(crate) fn open(machine: &Machine) -> Self {
        Self(raw(machine, Protocol::from(i32::from(PROTOCOL_IPIP))).unwrap())
    }

    /// Sends one packet of that tunnel from `from` to `to`, where this is open, and takes what arrives.
    pub(crate) fn carry(&mut self, from: &Machine, to: &Machine, id: u16) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let inner = ipv4(INNER_SOURCE, INNER_DESTINATION, PROTOCOL_UDP, 7, b"\x13\x88\x13\x89\0\x0c\0\0ours");
        let packet = ipv4(from.ipv4().unwrap(), to.ipv4().unwrap(), PROTOCOL_IPIP, id, &inner);
        let sender = FrameSender::open(from, INTERFACE).map_err(io::Error::other)?;
        sender.send(&ethernet_ipv4(from.mac(), to.mac(), &packet)).map_err(io::Error::other)?;
        Ok((packet, receive(&mut self.0)?))
    }
}

const PROTOCOL_IPIP: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
/// Networks behind the foreign tunnel (RFC 5737).
const INNER_SOURCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const INNER_DESTINATION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

fn raw(machine: &Machine, protocol: Protocol) -> io::Result<Socket> {
    let socket =
        machine.exec(|| Socket::new(Domain::IPV4, Type::RAW, Some(protocol))).map_err(io::Error::other)??;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(socket)
}

/// A packet with its IP header.
fn receive(socket: &mut Socket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; BUFFER_LEN];
    let length = socket.read(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

//! Requests and answers on a netlink socket, whatever the protocol (RFC 3549 section 2).
//!
//! A conversation is one or more requests with consecutive sequence numbers and everything the
//! kernel says to them; what belongs to an earlier, failed conversation is skipped. Nothing here
//! knows what the payloads mean.

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN,
    NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::time::Duration;

/// The kernel answers a request before `send` returns; an answer that takes this long never comes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Larger than any datagram of the kernel: dumps come in pieces of at most 32 KiB
/// (`NLMSG_GOODSIZE` and `max_recvmsg_len` in `net/netlink/af_netlink.c`).
const DATAGRAM_LEN_MAX: usize = 64 * 1024;

/// Length of `struct nlmsghdr`, bytes.
const HEADER_LEN: usize = 16;

/// `NLMSGERR_ATTR_MSG` of `linux/netlink.h`: what went wrong, in words.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Why the kernel did not do, or did not say, what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused the request.
    #[error("{operation}: {source}{}", explained(.explanation.as_deref()))]
    Refused {
        /// What was asked, with its arguments.
        operation: String,
        /// The kernel's error number.
        source: io::Error,
        /// The kernel's own words (extended acknowledgement), if it had any.
        explanation: Option<String>,
    },
    /// The socket could not be opened, written or read.
    #[error("{operation}: netlink socket: {source}")]
    Socket {
        /// What was asked, with its arguments.
        operation: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("{operation}: answer not understood: {detail}")]
    Malformed {
        /// What was asked, with its arguments.
        operation: String,
        /// What was wrong with the answer.
        detail: String,
    },
    /// What was listed changed so often meanwhile that no consistent list could be had.
    #[error("{operation}: the list changed during each of {attempts} attempts")]
    DumpInterrupted {
        /// What was asked, with its arguments.
        operation: String,
        /// How often it was tried.
        attempts: u32,
    },
}

fn explained(explanation: Option<&str>) -> String {
    explanation.map(|words| format!(" ({words})")).unwrap_or_default()
}

impl NetlinkError {
    /// The error number, if the kernel or a system call gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket { source, .. } => source.raw_os_error(),
            Self::Malformed { .. } | Self::DumpInterrupted { .. } => None,
        }
    }

    /// The caller lacks `CAP_NET_ADMIN` (or `CAP_NET_RAW`) in the network namespace.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// What the request is about does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }

    /// What the request would create exists already.
    pub fn already_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    pub(crate) fn malformed(operation: &str, detail: impl Into<String>) -> Self {
        Self::Malformed { operation: operation.to_owned(), detail: detail.into() }
    }

    pub(crate) fn socket(operation: &str, source: impl Into<io::Error>) -> Self {
        Self::Socket { operation: operation.to_owned(), source: source.into() }
    }
}

/// Says whether a deletion found something to delete: absence is success.
pub(crate) fn absent_is_false(result: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// How a conversation ends, unless with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the acknowledgement of the last request.
    Acknowledgement,
    /// With `NLMSG_DONE`.
    Dump,
    /// With the first message.
    FirstMessage,
}

/// What is sent to the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests<'a> {
    /// What is asked, with its arguments.
    pub(crate) operation: &'a str,
    /// What each request is to do, if there are several.
    pub(crate) steps: &'a [String],
    /// The messages. Their sequence numbers were reserved.
    pub(crate) bytes: &'a [u8],
    /// Sequence number of the first.
    pub(crate) first_sequence: u32,
    /// Sequence number of the last.
    pub(crate) last_sequence: u32,
    /// How the conversation ends.
    pub(crate) end: End,
}

impl<'a> Requests<'a> {
    /// A single request.
    pub(crate) fn one(operation: &'a str, bytes: &'a [u8], sequence: u32, end: End) -> Self {
        Self { operation, steps: &[], bytes, first_sequence: sequence, last_sequence: sequence, end }
    }

    /// What the request with this sequence number was to do.
    fn name(&self, sequence: u32) -> String {
        match self.steps.get(sequence.wrapping_sub(self.first_sequence) as usize) {
            Some(step) => format!("{}: {step}", self.operation),
            None => self.operation.to_owned(),
        }
    }
}

/// Whether all messages of an answer describe the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// They do.
    Consistent,
    /// The kernel said that they do not (`NLM_F_DUMP_INTR`).
    Interrupted,
}

/// A netlink socket that talks to the kernel, one conversation at a time.
pub(crate) struct Transport {
    socket: Socket,
    next_sequence: u32,
    buffer: Vec<u8>,
}

impl Transport {
    /// A close-on-exec socket of a netlink protocol, bound, with extended acknowledgements.
    pub(crate) fn open(protocol: isize, operation: &str) -> Result<Self, NetlinkError> {
        Self::try_open(protocol).map_err(|source| NetlinkError::socket(operation, source))
    }

    fn try_open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Best effort: without them errors have a number and no words, and dumps more than was asked for.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { socket, next_sequence: 1, buffer: Vec::with_capacity(DATAGRAM_LEN_MAX) })
    }

    /// The first of `count` consecutive sequence numbers; zero is never among them.
    pub(crate) fn reserve_sequences(&mut self, count: u32) -> u32 {
        let first = match self.next_sequence.checked_add(count) {
            Some(_) => self.next_sequence,
            None => 1,
        };
        self.next_sequence = first + count;
        first
    }

    /// Sends requests and hands every message of the answer to `on_message` as its type and payload.
    pub(crate) fn converse(
        &mut self,
        requests: Requests<'_>,
        mut on_message: impl FnMut(u16, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<Consistency, NetlinkError> {
        let operation = requests.operation;
        self.socket
            .send_to(requests.bytes, &SocketAddr::new(0, 0), 0)
            .map_err(|error| NetlinkError::socket(operation, error))?;

        let mut consistency = Consistency::Consistent;
        loop {
            self.receive(operation)?;
            if read_datagram(&self.buffer, &requests, &mut consistency, &mut on_message)? {
                return Ok(consistency);
            }
        }
    }

    /// Fills the buffer with the next datagram.
    fn receive(&mut self, operation: &str) -> Result<(), NetlinkError> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, libc::MSG_TRUNC) {
                // Processes may write to each other; only the kernel's port number is zero.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((length, _)) if length > self.buffer.len() => {
                    return Err(NetlinkError::malformed(operation, format!("datagram of {length} bytes")));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let silence = format!("no answer within {ANSWER_TIMEOUT:?}");
                    return Err(NetlinkError::socket(
                        operation,
                        io::Error::new(io::ErrorKind::TimedOut, silence),
                    ));
                }
                Err(error) => return Err(NetlinkError::socket(operation, error)),
            }
        }
    }
}

/// Goes through the messages of a datagram. Says whether the conversation is over.
fn read_datagram(
    datagram: &[u8],
    requests: &Requests<'_>,
    consistency: &mut Consistency,
    on_message: &mut impl FnMut(u16, &[u8]) -> Result<(), NetlinkError>,
) -> Result<bool, NetlinkError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)
            .map_err(|error| NetlinkError::malformed(requests.operation, error.to_string()))?;
        rest = rest.get(aligned(message.length() as usize)..).unwrap_or_default();
        let sequence = message.sequence_number();
        if !(requests.first_sequence..=requests.last_sequence).contains(&sequence) {
            continue;
        }
        if message.flags() & NLM_F_DUMP_INTR != 0 {
            *consistency = Consistency::Interrupted;
        }
        let over = match message.message_type() {
            NLMSG_NOOP => false,
            NLMSG_OVERRUN => return Err(NetlinkError::malformed(requests.operation, "data lost")),
            NLMSG_ERROR => {
                check(&message, || requests.name(sequence))?;
                requests.end == End::Acknowledgement && sequence == requests.last_sequence
            }
            NLMSG_DONE => {
                check(&message, || requests.name(sequence))?;
                true
            }
            kind => {
                on_message(kind, message.payload())?;
                requests.end == End::FirstMessage
            }
        };
        if over {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Netlink messages start at multiples of four bytes (`NLMSG_ALIGN`).
pub(crate) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Turns the error number that `NLMSG_ERROR` and `NLMSG_DONE` start with into a result.
fn check(message: &NetlinkBuffer<&[u8]>, operation: impl Fn() -> String) -> Result<(), NetlinkError> {
    // An empty NLMSG_DONE is legal and means success.
    let Some((code, rest)) = message.payload().split_first_chunk() else { return Ok(()) };
    match i32::from_ne_bytes(*code) {
        0.. => Ok(()),
        negative => Err(NetlinkError::Refused {
            operation: operation(),
            source: io::Error::from_raw_os_error(negative.saturating_neg()),
            explanation: explanation(message, rest),
        }),
    }
}

/// The words in an extended acknowledgement. `rest` follows the error number.
fn explanation(message: &NetlinkBuffer<&[u8]>, rest: &[u8]) -> Option<String> {
    if message.flags() & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let attributes = if message.message_type() == NLMSG_DONE {
        rest
    } else {
        // The request is repeated first: all of it, or only its header.
        let request_len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let repeated = if message.flags() & NLM_F_CAPPED == 0 { aligned(request_len) } else { HEADER_LEN };
        rest.get(repeated..)?
    };
    let words = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    Some(String::from_utf8_lossy(words.value()).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An NLMSG_ERROR as the kernel sends it for `ip link add` of an existing name, capped.
    fn refusal(flags: u16, code: i32, words: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(code.to_ne_bytes());
        bytes.extend(32_u32.to_ne_bytes());
        bytes.extend([0; HEADER_LEN - 4]);
        bytes.extend(u16::try_from(4 + words.len()).unwrap().to_ne_bytes());
        bytes.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        bytes.extend(words);
        bytes.resize(aligned(bytes.len()), 0);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    fn checked(bytes: &[u8]) -> Result<(), NetlinkError> {
        check(&NetlinkBuffer::new_checked(bytes).unwrap(), || "add link x".to_owned())
    }

    #[test]
    fn an_error_tells_what_was_asked_and_why_it_was_refused() {
        let bytes = refusal(NLM_F_CAPPED | NLM_F_ACK_TLVS, -libc::EEXIST, b"no such luck\0");

        let error = checked(&bytes).unwrap_err();

        assert!(error.already_exists());
        assert_eq!(error.to_string(), "add link x: File exists (os error 17) (no such luck)");
    }

    #[test]
    fn an_error_without_words_has_its_number() {
        let error = checked(&refusal(NLM_F_CAPPED, -libc::EPERM, b"")).unwrap_err();

        assert!(error.is_permission_denied());
        assert_eq!(error.to_string(), "add link x: Operation not permitted (os error 1)");
    }

    #[test]
    fn an_acknowledgement_is_success() {
        assert!(checked(&refusal(NLM_F_CAPPED, 0, b"")).is_ok());
    }

    #[test]
    fn a_lying_request_length_costs_the_words_and_nothing_else() {
        let error = checked(&refusal(NLM_F_ACK_TLVS, i32::MIN, b"x\0")).unwrap_err();

        assert!(matches!(error, NetlinkError::Refused { explanation: None, .. }));
    }

    #[test]
    fn sequence_numbers_never_repeat_within_a_conversation_when_they_wrap() {
        let mut transport = Transport::open(netlink_sys::protocols::NETLINK_ROUTE, "test").unwrap();
        transport.next_sequence = u32::MAX - 2;

        assert_eq!(transport.reserve_sequences(2), u32::MAX - 2);
        assert_eq!(transport.reserve_sequences(2), 1);
    }
}

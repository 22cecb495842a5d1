//! What a network device does instead of the kernel: checksums, segmentation, coalescing
//! (the `SIOCETHTOOL` requests of `linux/ethtool.h`).

use std::ffi::c_char;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `ETHTOOL_GFLAGS` and `ETHTOOL_SFLAGS`: features that share a word.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;

/// `ETH_FLAG_LRO`: the bit of large receive offload in that word.
const ETH_FLAG_LRO: u32 = 1 << 15;

/// Something that the device does instead of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of packets sent. On a veth pair "the device" is nobody, and packets arrive with
    /// checksums that were never completed.
    TxChecksum,
    /// Segmentation of large TCP sends; needs `TxChecksum`.
    Tso,
    /// Segmentation of large sends by the kernel, just before the driver.
    Gso,
    /// Coalescing of received packets by the kernel, undone exactly when they are forwarded.
    Gro,
    /// Coalescing of received packets by the device; not undone exactly, so it has to be off on
    /// whatever forwards packets.
    Lro,
}

/// Which of them are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// [`Offload::TxChecksum`].
    pub tx_checksum: bool,
    /// [`Offload::Tso`].
    pub tso: bool,
    /// [`Offload::Gso`].
    pub gso: bool,
    /// [`Offload::Gro`].
    pub gro: bool,
    /// [`Offload::Lro`].
    pub lro: bool,
}

/// Why a device's offloads could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum OffloadError {
    /// The name is empty or longer than an interface's can be (15 bytes).
    #[error("{0:?} is no interface name")]
    InterfaceName(String),
    /// The kernel or the driver refused.
    #[error("cannot {action} {offload:?} of {link}: {source}")]
    Refused {
        /// `read` or `set`.
        action: &'static str,
        /// The offload.
        offload: Offload,
        /// The link's name.
        link: String,
        /// `EOPNOTSUPP` if the driver cannot change it.
        source: io::Error,
    },
}

impl Offload {
    /// The request that reads and the one that sets it.
    const fn requests(self) -> (u32, u32) {
        match self {
            // ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM
            Self::TxChecksum => (0x16, 0x17),
            // ETHTOOL_GTSO, ETHTOOL_STSO
            Self::Tso => (0x1e, 0x1f),
            // ETHTOOL_GGSO, ETHTOOL_SGSO
            Self::Gso => (0x23, 0x24),
            // ETHTOOL_GGRO, ETHTOOL_SGRO
            Self::Gro => (0x2b, 0x2c),
            Self::Lro => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS),
        }
    }
}

impl Offloads {
    /// Those of a link of the calling thread's namespace.
    pub fn of(link: &str) -> Result<Self, OffloadError> {
        Ok(Self {
            tx_checksum: is_on(link, Offload::TxChecksum)?,
            tso: is_on(link, Offload::Tso)?,
            gso: is_on(link, Offload::Gso)?,
            gro: is_on(link, Offload::Gro)?,
            lro: is_on(link, Offload::Lro)?,
        })
    }

    /// Turns one on or off on a link of the calling thread's namespace. Needs `CAP_NET_ADMIN`.
    pub fn set(link: &str, offload: Offload, on: bool) -> Result<(), OffloadError> {
        let (get, set) = offload.requests();
        let value = match offload {
            Offload::Lro => {
                let others = request(link, offload, "read", get, 0)? & !ETH_FLAG_LRO;
                if on { others | ETH_FLAG_LRO } else { others }
            }
            _ => u32::from(on),
        };
        request(link, offload, "set", set, value).map(drop)
    }
}

fn is_on(link: &str, offload: Offload) -> Result<bool, OffloadError> {
    let value = request(link, offload, "read", offload.requests().0, 0)?;
    Ok(if offload == Offload::Lro { value & ETH_FLAG_LRO != 0 } else { value != 0 })
}

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct EthtoolValue {
    request: u32,
    data: u32,
}

fn request(
    link: &str,
    offload: Offload,
    action: &'static str,
    request: u32,
    data: u32,
) -> Result<u32, OffloadError> {
    let refused = |source| OffloadError::Refused { action, offload, link: link.to_owned(), source };
    let mut value = EthtoolValue { request, data };
    let mut argument = libc::ifreq {
        ifr_name: interface_name(link)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast::<c_char>() },
    };
    // Any socket will do: it only says which network namespace is meant.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(refused)?;
    // SAFETY: the request reads and writes an ifreq, whose pointer leads to an ethtool_value for
    // the requests used here; both outlive the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut argument) } {
        0 => Ok(value.data),
        _ => Err(refused(io::Error::last_os_error())),
    }
}

/// A name as `ifreq` holds it, with zeros to its end.
fn interface_name(link: &str) -> Result<[c_char; libc::IFNAMSIZ], OffloadError> {
    if link.is_empty() || link.len() >= libc::IFNAMSIZ || link.contains('\0') {
        return Err(OffloadError::InterfaceName(link.to_owned()));
    }
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(link.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(name)
}

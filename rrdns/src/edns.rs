//! EDNS(0): what a query's OPT record says, and what the reply's does (RFC 6891).

use domain::base::iana::{OptRcode, OptionCode};
use domain::base::message_builder::{AdditionalBuilder, PushError};
use domain::base::opt::keepalive::IdleTimeout;
use domain::base::opt::{
    ClientSubnet, ComposeOptData, Cookie, Nsid, OptRecord, TcpKeepalive, UnknownOptData,
};
use domain::base::wire::{Composer, ParseError};
use domain::dep::octseq::Parser;

/// Bytes of an OPT record without options, with its owner, the root.
const OPT_LENGTH: usize = 11;

/// Bytes before an option's data.
const OPTION_HEADER_LENGTH: usize = 4;

/// What a client said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edns {
    pub(crate) version: u8,
    pub(crate) udp_payload: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) cookie: Option<Cookie>,
    pub(crate) subnet: Option<ClientSubnet>,
    pub(crate) wants_nsid: bool,
    pub(crate) wants_keepalive: bool,
}

impl Edns {
    /// Reads an OPT record; options that are not known are skipped.
    pub(crate) fn read(record: &OptRecord<&[u8]>) -> Result<Self, ParseError> {
        let mut edns = Self {
            version: record.version(),
            udp_payload: record.udp_payload_size(),
            dnssec_ok: record.dnssec_ok(),
            ..Self::default()
        };
        for option in record.opt().iter::<UnknownOptData<_>>() {
            let option = option?;
            let data: &[u8] = option.data();
            let mut parser = Parser::from_ref(&data);
            match option.code() {
                OptionCode::NSID => edns.wants_nsid = true,
                OptionCode::TCP_KEEPALIVE => edns.wants_keepalive = true,
                OptionCode::COOKIE => {
                    // RFC 7873 section 5.2.2: any other length is a format error.
                    if !matches!(data.len(), 8 | 16..=40) {
                        return Err(ParseError::form_error("length of the cookie"));
                    }
                    edns.cookie = Some(Cookie::parse(&mut parser)?);
                }
                OptionCode::CLIENT_SUBNET => {
                    let subnet = ClientSubnet::parse(&mut parser)?;
                    // RFC 7871 section 6: it is for replies.
                    if subnet.scope_prefix_len() != 0 {
                        return Err(ParseError::form_error("scope of the client subnet"));
                    }
                    edns.subnet = Some(subnet);
                }
                _ => {}
            }
        }
        Ok(edns)
    }
}

/// What the reply's OPT record says.
#[derive(Clone, Debug)]
pub(crate) struct EdnsReply<'a> {
    pub(crate) dnssec_ok: bool,
    pub(crate) cookie: Option<Cookie>,
    pub(crate) subnet: Option<ClientSubnet>,
    /// Name of the server (RFC 5001).
    pub(crate) nsid: Option<&'a [u8]>,
    /// How long the connection may be idle, in units of 100 ms (RFC 7828).
    pub(crate) keepalive: Option<u16>,
}

impl EdnsReply<'_> {
    /// Bytes of the record.
    pub(crate) fn length(&self) -> usize {
        let option = |length: usize| OPTION_HEADER_LENGTH + length;
        OPT_LENGTH
            + self.cookie.as_ref().map_or(0, |cookie| option(cookie.compose_len().into()))
            + self.subnet.as_ref().map_or(0, |subnet| option(subnet.compose_len().into()))
            + self.nsid.map_or(0, |nsid| option(nsid.len()))
            + self.keepalive.map_or(0, |_| option(size_of::<u16>()))
    }

    pub(crate) fn write<Target: Composer>(
        &self,
        additional: &mut AdditionalBuilder<Target>,
        rcode: OptRcode,
    ) -> Result<(), PushError> {
        additional.opt(|opt| {
            opt.set_udp_payload_size(crate::UDP_PAYLOAD_MAX);
            opt.set_rcode(rcode);
            opt.set_dnssec_ok(self.dnssec_ok);
            if let Some(cookie) = &self.cookie {
                opt.push(cookie)?;
            }
            if let Some(subnet) = &self.subnet {
                opt.push(subnet)?;
            }
            if let Some(nsid) = self.nsid.and_then(|nsid| Nsid::from_octets(nsid).ok()) {
                opt.push(&nsid)?;
            }
            if let Some(timeout) = self.keepalive {
                opt.push(&TcpKeepalive::new(Some(IdleTimeout::from(timeout))))?;
            }
            Ok(())
        })
    }
}

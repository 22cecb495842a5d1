//! What RFCs want of an authoritative server, one module for each RFC and one within it for each section.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;
mod rfc1034;
mod rfc1035;
mod rfc2181;
mod rfc2308;
mod rfc3597;
mod rfc4343;
mod rfc4592;
mod rfc5001;
mod rfc6891;
mod rfc7828;
mod rfc7871;
mod rfc7873;
mod rfc8020;
mod rfc8482;
mod two_tier_ttl;

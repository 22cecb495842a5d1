//! What has to hold whatever bytes come: one function for each target of `fuzz/`, which panics when its rule is broken.
//!
//! Fuzzing calls them with bytes of its own, `tests/corpus.rs` with all inputs that are committed, so that what was
//! found once stays mended without anybody having a fuzzer. Where a rule needs a second opinion, it is a naive one of
//! its own, not the code under test asked again.
//!
//! This crate refuses to know libFuzzer, and to look for inputs. The rules for DNS queries and for configuration files
//! stand with what they are about: `rrdns/tests/wire/rules.rs`, `node/src/config/rules.rs`.

mod frame;
mod gossip;
mod input;
mod ownership;
mod pipeline;
mod soundness;
mod sync;
mod tunnel;

pub use frame::frame;
pub use gossip::gossip;
pub use ownership::ownership;
pub use pipeline::pipeline;
pub use sync::sync;
pub use tunnel::tunnel;

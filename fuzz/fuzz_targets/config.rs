//! A node's configuration file of any text.

#![no_main]

#[path = "../../node/src"]
mod node {
    #[allow(dead_code, unused_imports, reason = "what a configuration says is for the daemon")]
    pub(crate) mod config;
}

// A macro of the module looks for it here.
use node::config;

libfuzzer_sys::fuzz_target!(|text: &str| config::rules::check(text));

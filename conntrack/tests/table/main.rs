//! The table from outside: promises one by one, and against a naive model.

mod conversations;
mod expiry;
mod fixtures;
mod flood;
mod memory;
mod model;
mod real_servers;
mod reference;

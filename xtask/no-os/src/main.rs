//! A program without standard library, C library and start-up code that takes packets through every entry point of
//! `rewrite`, and ends with status 0 if they come out right.
//!
//! That it links is the proof: what follows in `environment` is all that it gets.

#![no_std]
#![no_main]

mod environment;
mod journey;
mod repertoire;

use environment::exit;

/// What `_start` calls; the stack is aligned as the ABI wants it.
extern "C" fn start() -> ! {
    match journey::all().and_then(|()| repertoire::all()) {
        Ok(()) => exit(0),
        Err(step) => exit(step as i32),
    }
}

//! Waiting for something to become true.

use crate::error::LabError;
use std::time::{Duration, Instant};

/// How often the condition is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(10);

/// Asks `condition` again and again until it is `Ok`, and returns what it holds.
///
/// # Errors
///
/// The limit passed; the error tells what the condition said last.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> Result<T, LabError> {
    let began = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(last) if began.elapsed() >= limit => {
                return Err(LabError::Waited { what: what.to_owned(), waited: limit, last });
            }
            Err(_) => std::thread::sleep(ASK_INTERVAL),
        }
    }
}

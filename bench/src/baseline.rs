//! The committed figures: instructions by case, in `bench/baseline.json`.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Where they are, whatever directory the program is run in.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");

/// Instructions by case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Baseline {
    instructions_by_case: BTreeMap<String, u64>,
}

impl Baseline {
    /// Reads the committed figures; without a file there are none.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let text = match fs::read_to_string(FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).context(FILE),
        };
        Ok(Self { instructions_by_case: serde_json::from_str(&text).context(FILE)? })
    }

    pub(crate) fn of(&self, case: &str) -> Option<u64> {
        self.instructions_by_case.get(case).copied()
    }

    pub(crate) fn set(&mut self, case: &str, instructions: u64) {
        self.instructions_by_case.insert(case.to_owned(), instructions);
    }

    /// Writes the figures in order of case, so that differences are short.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.instructions_by_case)?;
        fs::write(FILE, text + "\n").context(FILE)?;
        let file = Path::new(FILE).file_name().unwrap_or_default();
        println!("wrote {}", file.display());
        Ok(())
    }
}

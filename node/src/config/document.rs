//! `docs/configuration.md`, made from the definitions of the keys.

use super::keys::TABLES;
use super::schema::{KeyDoc, Presence, TableDoc, TakesEffect};
use std::fmt::Write as _;

/// The configuration's documentation as Markdown.
pub(crate) fn markdown() -> String {
    let mut text = String::from(INTRODUCTION);
    for table in TABLES {
        write_table(&mut text, &table);
    }
    text
}

const INTRODUCTION: &str = "\
<!-- Made by `dpr config-doc > docs/configuration.md`; a test fails when it is stale. -->

# Configuration

`dpr run --config /etc/dpr/dpr.toml` reads a TOML file. Everything but the node address and the services has a default;
this is a whole file:

```toml
[node]
address = \"192.0.2.11\"

[[service]]
```

Unknown keys, bad values and impossible combinations are errors that show their line and what to write instead.
`dpr check --config …` also holds the file against the host. On SIGHUP the file is read again: keys marked
\"on reload\" change at once, the log names changed keys that need a restart, and a file with mistakes changes nothing.
Relative paths start at the directory of the file.
";

fn write_table(text: &mut String, table: &TableDoc) {
    let _ = write!(text, "\n## `{}`\n\n{}\n", table.header, joined(table.doc));
    for key in table.keys {
        write_key(text, key);
    }
}

fn write_key(text: &mut String, key: &KeyDoc) {
    let default = match key.presence {
        Presence::Required => "required".to_owned(),
        Presence::Default(value) => format!("default `{value}`"),
        Presence::Otherwise(words) => format!("default: {words}"),
    };
    let takes_effect = match key.takes_effect {
        TakesEffect::OnReload => "on reload",
        TakesEffect::OnRestart => "on restart",
    };
    let _ = write!(text, "\n### `{}`\n\n{}\n", key.key, joined(key.doc));
    let _ = write!(text, "\n- value: {}\n- {default}\n- takes effect {takes_effect}\n", (key.expected)());
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_documentation_is_what_the_keys_say() {
        let committed =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));

        let current = committed.is_ok_and(|committed| committed == markdown());
        assert!(current, "run: cargo run -p dpr -- config-doc > docs/configuration.md");
    }
}
